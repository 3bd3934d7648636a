"""The methods as a whole, on small real runs: who starts from whom, what is spent, what is stored, what comes out."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_fixtures import metrics, small_recipe, temporary, weak_model
from sampler import Sampler, at, prompt

import reasonloop.stages.exploration as exploration_module
import reasonloop.stages.explorers as explorers
import reasonloop.stages.learning as learning
import reasonloop.stages.live as live
from reasonloop import config
from reasonloop.cli import main
from reasonloop.learner.batch import Example
from reasonloop.learner.local import LocalLearner
from reasonloop.methods import Method
from reasonloop.policy.policy import Policy, Weights
from reasonloop.records import Place, Rollout
from reasonloop.runs.stages import Arm, Budget, Stages
from reasonloop.store.experts import Experts, select_experts
from reasonloop.store.segments import TrajectoryStore
from reasonloop.tasks import load_task

BUDGET = 3 * 4 * 4  # rl.steps x rl.problems_per_step x rl.group_size of the small recipe


@functools.cache
def recipe_file() -> Path:
    return small_recipe(temporary())


def run(folder: Path, *overrides: str) -> Path:
    """A finished run, worked on in this process."""
    out = folder / "run"
    assert main(["run", str(recipe_file()), *overrides, "--out", str(out)]) == 0
    return out


def weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def same(a: Path, b: Path, within: float = 0.0) -> bool:
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    return all(np.allclose(left[name], right[name], rtol=0, atol=within) for name in left)


def rollouts(out: Path, branch: str = "main", iteration: int | None = None) -> list[Rollout]:
    return TrajectoryStore(out / "trajectories", "run").read(branch, iteration)


def evaluation(out: Path, name: str) -> dict[str, Any]:
    return json.loads((out / "evals" / f"{name}.json").read_text())


KEPT = "keep_checkpoints=true"
"""The policies of all stages stay"""


class Spy:
    """Calls a function through and keeps the arguments of each call, and what came of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.results: list[Any] = []
        original = getattr(module, name)

        def spy(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((args, kwargs))
            self.results.append(original(*args, **kwargs))
            return self.results[-1]

        monkeypatch.setattr(module, name, spy)


# one run of RLoop with everything beside it


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def refilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("refilled"), "rl.refill_rounds=2", "rl.updates_per_step=2")


def test_the_product_is_the_last_fine_tuned_policy_and_generates(whole: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(whole / "model")
    tokenizer = AutoTokenizer.from_pretrained(whole / "model")
    prompt = tokenizer("7 from 3 4 :", return_tensors="pt").input_ids
    text = tokenizer.decode(model.generate(prompt, max_new_tokens=12, do_sample=False)[0, prompt.shape[1] :])
    assert "=" in text.split()
    assert not same(whole / "model", weak_model(), within=1e-5)
    assert json.loads((whole / "state.json").read_text())["stage"] == "done"
    assert (whole / "report.html").stat().st_size > 10_000


def test_both_end_products_and_the_baseline_are_evaluated(whole: Path) -> None:
    made = {path.stem: json.loads(path.read_text()) for path in (whole / "evals").glob("*.json")}
    assert sorted(made, key=lambda name: made[name]["order"]) == [
        "base",
        "iteration-0-explored",
        "iteration-0-rft",
        "iteration-1-explored",
        "iteration-1-rft",
        "vanilla-1",
        "vanilla",
    ]
    spent = {name: result["rollouts"] for name, result in made.items()}
    assert spent == {
        "base": 0,
        "iteration-0-explored": BUDGET,
        "iteration-0-rft": BUDGET,
        "iteration-1-explored": 2 * BUDGET,
        "iteration-1-rft": 2 * BUDGET,
        "vanilla-1": BUDGET,
        "vanilla": 2 * BUDGET,
    }
    test = [problem.id for problem in problems("test")]
    for result in made.values():
        assert [problem["id"] for problem in result["problems"]] == test
        assert set(result["metrics"]) == {"avg@4", "pass@1", "pass@2", "pass@4", "maj@4"}


def problems(split: str) -> list[Any]:
    recipe = config.load(recipe_file())
    return [
        problem for problem in load_task(recipe.task.name, recipe.task.options).problems() if problem.split == split
    ]


@pytest.mark.parametrize("name", ["whole", "refilled"])
def test_the_arms_spend_equally_many_rollouts_and_the_store_holds_them_all(
    name: str, request: pytest.FixtureRequest
) -> None:
    out = request.getfixturevalue(name)
    main_arm, vanilla = rollouts(out), rollouts(out, "vanilla")
    first = min(rollout.step for rollout in vanilla)
    shared = [rollout for rollout in main_arm if rollout.iteration == 0 and rollout.step < first]
    assert Counter(rollout.iteration for rollout in main_arm) == {0: BUDGET, 1: BUDGET}
    assert len(shared) + len(vanilla) == 2 * BUDGET == evaluation(out, "vanilla")["rollouts"]
    assert shared


@pytest.mark.parametrize("name", ["whole", "refilled"])
def test_every_rollout_is_stored_at_its_address_as_it_was_judged(name: str, request: pytest.FixtureRequest) -> None:
    out = request.getfixturevalue(name)
    train = {problem.id: problem for problem in problems("train")}
    task = load_task("countdown", config.load(recipe_file()).task.options)
    stored = rollouts(out) + rollouts(out, "vanilla")
    addresses = Counter((r.branch, r.iteration, r.step, r.problem_id) for r in stored)
    assert set(addresses.values()) == {4}
    assert len({(r.branch, r.iteration, r.step, r.problem_id, r.sample) for r in stored}) == len(stored)
    assert {r.sample for r in stored} == {0, 1, 2, 3}
    for r in stored:
        assert r.verdict is task.verify(train[r.problem_id], r.text).verdict
        assert r.reward == float(r.right)
    for line in metrics(out, stage="explore"):
        step = [
            r for r in stored if (r.branch, r.iteration, r.step) == (line["branch"], line["iteration"], line["step"])
        ]
        assert line["right"] == np.mean([r.right for r in step])
        assert line["groups_sampled"] * 4 == len(step)


def test_the_first_step_is_drawn_from_the_policy_that_it_should_be(whole: Path) -> None:
    """Stored log-probs are those of the weak model in step 0, and no longer so after the first update."""
    policy = Policy.load(weak_model())
    sampling = config.load(recipe_file()).sampling

    def gap(step: int) -> float:
        found = [r for r in rollouts(whole, iteration=0) if r.step == step]
        scored = policy.score([r.prompt_tokens for r in found], [r.response_tokens for r in found], sampling)
        return max(float(np.abs(a - r.logprobs).max()) for a, r in zip(scored, found, strict=True))

    assert gap(0) < 1e-4
    assert gap(2) > 1e-3


def test_a_run_can_be_sampled_again_from_its_addresses(whole: Path) -> None:
    """Step 0 drawn once more, in one batch with every other problem and sample: the same tokens."""
    recipe = config.load(recipe_file())
    policy = Policy.load(weak_model())
    prompts = [prompt(problem.id, policy.codec.encode_prompt(problem)) for problem in problems("train")]
    again = {(r.problem_id, r.sample): r for r in Sampler(policy).sample(prompts, 6, recipe.sampling, at(0, "explore"))}
    for r in rollouts(whole, iteration=0):
        if r.step == 0:
            assert again[r.problem_id, r.sample].response_tokens.tolist() == r.response_tokens.tolist()


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_vanilla_beside_rloop_is_vanilla_rl_alone(schedule: str, tmp_path: Path) -> None:
    """Shared first steps or not: the same rollouts, the same weights."""
    options = (f"rl.schedule={schedule}", "rl.warmup_steps=2", "rl.probe_every=2")
    beside = run(tmp_path / "beside", *options, KEPT)
    alone = run(tmp_path / "alone", "method=rl", *options, "rl.steps=6", "rloop.vanilla=false")
    assert same(beside / "checkpoints" / "vanilla-explore-0", alone / "model")
    vanilla = rollouts(beside, "vanilla")
    first = min(r.step for r in vanilla)
    assert (first > 0) == (schedule == "constant")
    together = [r for r in rollouts(beside, iteration=0) if r.step < first] + vanilla
    expected = rollouts(alone)
    assert len(together) == len(expected)
    for ours, theirs in zip(together, expected, strict=True):
        assert (ours.step, ours.problem_id, ours.sample) == (theirs.step, theirs.problem_id, theirs.sample)
        assert ours.response_tokens.tolist() == theirs.response_tokens.tolist()
    ours, theirs = evaluation(beside, "vanilla"), evaluation(alone, "trained")
    assert ours["metrics"] == theirs["metrics"]
    assert ours["rollouts"] == theirs["rollouts"] == 2 * BUDGET


@pytest.mark.parametrize("explored", [True, False])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])  # shared with RLoop's first exploration, and apart
def test_vanilla_is_evaluated_where_rloops_iterations_end(schedule: str, explored: bool, tmp_path: Path) -> None:
    options = (f"rl.schedule={schedule}", "rloop.iterations=3", f"eval.explored={str(explored).lower()}")
    out = run(tmp_path, *options, KEPT)
    way = [evaluation(out, name) for name in ("vanilla-1", "vanilla-2", "vanilla")]
    assert [e["rollouts"] for e in way] == [BUDGET, 2 * BUDGET, 3 * BUDGET]
    assert 0 < way[0]["seconds"] <= way[1]["seconds"] <= way[2]["seconds"]
    assert len({e["order"] for e in way}) == 3
    alone = run(tmp_path / "alone", "method=rl", *options[:1], "rl.steps=9", "rloop.vanilla=false")
    assert same(out / "checkpoints" / "vanilla-explore-0", alone / "model")  # its course is not disturbed
    stopping = run(tmp_path / "stops", "method=rl", *options[:1], "rl.steps=9", "rloop.vanilla=false", "eval.stops=3")
    assert same(stopping / "model", alone / "model")
    stops = [evaluation(stopping, name) for name in ("trained-1", "trained-2", "trained")]
    for ours, theirs in zip(stops, way, strict=True):
        assert (ours["rollouts"], ours["problems"]) == (theirs["rollouts"], theirs["problems"])
    if schedule == "constant":
        for many in (1, 2):
            short = run(tmp_path / f"{many}", "method=rl", f"rl.steps={3 * many}", "rloop.vanilla=false")
            assert evaluation(short, "trained")["problems"] == way[many - 1]["problems"]
        if explored:  # the same policy: sampled once
            assert evaluation(out, "iteration-0-explored")["problems"] == way[0]["problems"]


@pytest.mark.parametrize("also", [("rl.refill_rounds=2",), ("rl.skip_solved=true",)])
def test_to_stop_on_the_way_changes_nothing(also: tuple[str, ...], tmp_path: Path) -> None:
    """Nor where steps are of unequal length, or problems are left out."""
    options = ("method=rl", "rl.steps=6", "rloop.vanilla=false", *also)
    plain, stopping = run(tmp_path / "a", *options), run(tmp_path / "b", *options, "eval.stops=3")
    assert same(plain / "model", stopping / "model")
    ours, theirs = rollouts(stopping), rollouts(plain)
    assert [(r.step, r.problem_id, r.text) for r in ours] == [(r.step, r.problem_id, r.text) for r in theirs]
    stops = [evaluation(stopping, name)["rollouts"] for name in ("trained-1", "trained-2", "trained")]
    assert stops == sorted(set(stops))
    assert stops[-1] == evaluation(plain, "trained")["rollouts"]


def test_a_refilled_vanilla_is_cut_where_rloops_iterations_are(refilled: Path) -> None:
    """Where refills make steps uneven, the last one before an iteration's end takes what is left, in both arms alike."""
    assert [evaluation(refilled, name)["rollouts"] for name in ("vanilla-1", "vanilla")] == [BUDGET, 2 * BUDGET]
    first = [line for line in metrics(refilled, stage="explore", branch="main") if line["iteration"] == 0]
    assert first[-1]["rollouts"] == BUDGET
    assert {line["shared_with"] for line in first} == {"vanilla"}
    steps = metrics(refilled, stage="explore", branch="vanilla")
    assert steps[0]["step"] == len(first)
    assert steps[-1]["rollouts"] == 2 * BUDGET
    assert sum(line["groups_sampled"] for line in steps) * 4 == BUDGET


def test_vanilla_beside_a_single_iteration_is_its_exploration(tmp_path: Path) -> None:
    out = run(tmp_path, "rloop.iterations=1", "rl.keep_best=true", "rl.probe_every=1")
    assert evaluation(out, "vanilla")["metrics"] == evaluation(out, "iteration-0-explored")["metrics"]
    assert evaluation(out, "vanilla")["rollouts"] == BUDGET
    assert rollouts(out, "vanilla") == []
    early = evaluation(out, "vanilla-early-stopped")
    assert early["rollouts"] == BUDGET
    assert early["seconds"] == evaluation(out, "vanilla")["seconds"] > 0


def test_schedules_end_with_the_rollouts_where_refills_make_the_steps_fewer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("method=rl", "rl.refill_rounds=2", "rl.steps=12", "rl.schedule=linear", "rl.warmup_steps=1")
    lines = metrics(run(tmp_path, *options), stage="explore")
    assert len(lines) < 12  # else there was nothing to refill
    refilled = 12 * 16 - len(lines) * 16
    why = f"vanilla RL: its 192 rollouts are spent after {len(lines)} of 12 steps: {refilled} went into refills"
    assert capsys.readouterr().err.count(f"{why} (rl.refill_rounds = 2)") == 1
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert rates[0] == pytest.approx(1e-3)
    assert rates == sorted(rates, reverse=True)
    if "learning_rate" in lines[-1]:
        assert rates[-1] == pytest.approx(1e-4)


# exploration


@pytest.mark.parametrize("options", [(), ("rl.objective=grpo", "rl.updates_per_step=4"), ("rl.overlong_buffer=6",)])
def test_groups_with_equal_rewards_never_reach_the_learner(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch, learning, "estimated")
    out = run(tmp_path, "method=rl", "rl.refill_rounds=1", *options)
    used = Counter()
    for (groups, *_), _ in spy.calls:
        for group in groups:
            assert len(group.rollouts) == 4
            assert len({(r.problem_id, r.step) for r in group.rollouts}) == 1
            assert len({r.reward for r in group.rollouts}) > 1
            used[group.rollouts[0].step] += 1
    assert used
    for line in metrics(out, stage="explore"):
        assert used[line["step"]] == line["groups_used"] <= 4


def test_refills_take_their_place_in_the_budget(refilled: Path, whole: Path) -> None:
    """Groups without a gradient are made up for by others, and the exploration is shorter in steps, not longer."""
    lines = metrics(refilled, stage="explore", iteration=0, branch="main")
    assert sum(line["groups_sampled"] for line in lines) == BUDGET // 4
    assert max(line["groups_sampled"] for line in lines) > 4
    assert len(lines) <= 3
    for branch in ("main", "vanilla"):
        for iteration in (0, 1):
            found = metrics(refilled, stage="explore", iteration=iteration, branch=branch)
            assert [line["step"] for line in found] == sorted(line["step"] for line in found)
    assert all(line["groups_sampled"] == 4 for line in metrics(whole, stage="explore"))


def test_no_problem_comes_again_before_all_have_been_seen(tmp_path: Path) -> None:
    out = run(tmp_path, "method=rl", "rl.steps=4", "rl.problems_per_step=10", "rl.group_size=2")
    order = list({(r.step, r.problem_id): None for r in rollouts(out)})
    passes = [[problem for step, problem in order if step // 2 == i] for i in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(problem.id for problem in problems("train"))
    by_step = [{problem for step, problem in order if step == i} for i in range(4)]
    assert by_step[0] not in by_step[2:]


def test_no_problem_is_twice_in_a_step(tmp_path: Path) -> None:
    """Steps of 14 out of 20 problems cross the end of a pass: the second takes the 6 that are left and 8 of the next."""
    out = run(tmp_path, "method=rl", "rl.steps=4", "rl.problems_per_step=14", "rl.group_size=2", "rl.refill_rounds=0")
    groups = Counter((r.step, r.problem_id) for r in rollouts(out))
    assert set(groups.values()) == {2}
    assert Counter(step for step, _ in groups) == {0: 14, 1: 14, 2: 14, 3: 14}
    crossing = {problem for step, problem in groups if step == 1}
    before = {problem for step, problem in groups if step == 0}
    assert crossing & before  # else no step crosses the end of a pass, and this test cannot fail
    assert {problem.id for problem in problems("train")} - before <= crossing


def test_adaptive_exploration_ends_when_the_probe_falls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Iteration 0 falls to nothing at its third probe (the first is before any step); later ones never fall. What it has
    left goes to a third iteration, and vanilla RL beside it goes on from where it stopped, to as many rollouts."""
    original, probes = exploration_module.evaluate_policy, []

    def scripted(run: Any, weights: Weights, split: str, samples: int) -> dict[str, Any]:
        result = original(run, weights, split, samples)
        if split == "probe":
            probes.append(split)
            for problem in result["problems"]:
                problem["correct"] = 0 if len(probes) == 3 else samples
        return result

    monkeypatch.setattr(exploration_module, "evaluate_policy", scripted)
    out = run(tmp_path, "rloop.adaptive=true", "rl.probe_every=1", "rl.steps=5", KEPT)
    steps = [(line["iteration"], line["step"]) for line in metrics(out, stage="explore", branch="main")]
    assert steps == [(0, 0), (0, 1), *((1, step) for step in range(5)), *((2, step) for step in range(3))]
    assert len(rollouts(out, iteration=0)) == 2 * 16 == evaluation(out, "iteration-0-rft")["rollouts"]
    assert evaluation(out, "iteration-1-rft")["rollouts"] == 7 * 16
    assert evaluation(out, "iteration-2-rft")["rollouts"] == 10 * 16 == evaluation(out, "vanilla")["rollouts"]
    assert [line["step"] for line in metrics(out, stage="explore", branch="vanilla")] == list(range(2, 10))
    assert same(out / "model", out / "checkpoints" / "main-rft-2")
    kept = {path.parent.name for path in (out / "checkpoints").glob("*/model.safetensors")}
    assert kept == {f"main-{stage}-{i}" for stage in ("explore", "rft") for i in range(3)} | {"vanilla-explore-0"}
    assert not list((out / "checkpoints").glob("*/trainer.pt"))


# selection and fine-tuning


@pytest.mark.parametrize("choice", ["iteration_start", "base", "explored"])
def test_where_fine_tuning_starts(choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch, live, "finetune")
    explorations = Spy(monkeypatch, explorers, "explore")
    out = run(tmp_path, f"rloop.reinitialise_from={choice}", "rloop.iterations=3", "rloop.vanilla=false", "rl.steps=1")
    made = out / "checkpoints"
    base = str(weak_model())
    started = [str(made / f"main-rft-{i}") for i in range(2)]
    expected = {
        "iteration_start": [base, *started],
        "base": [base] * 3,
        "explored": [str(made / f"main-explore-{i}") for i in range(3)],
    }
    assert [str(args[1]) for args, _ in spy.calls] == expected[choice]
    assert [str(args[1]) for args, _ in explorations.calls] == [base, *started]


@pytest.mark.parametrize("choice", ["iteration_start", "base", "explored"])
def test_fine_tuning_without_a_learning_rate_gives_its_start_back(choice: str, tmp_path: Path) -> None:
    out = run(tmp_path, f"rloop.reinitialise_from={choice}", "rft.learning_rate=1e-12", "rloop.vanilla=false", KEPT)
    made = out / "checkpoints"
    for i in range(2):
        start = made / f"main-explore-{i}" if choice == "explored" else weak_model()
        assert same(made / f"main-rft-{i}", start, within=1e-7)
        assert not same(made / f"main-explore-{i}", weak_model(), within=1e-5)


@pytest.mark.parametrize(
    ("options", "threshold", "source"),
    [
        (["rloop.hard_threshold=1.0"], 1.0, "all"),
        (["rloop.hard_threshold=0.4", "rloop.cap=2"], 0.4, "all"),
        (["rloop.experts=last_step"], 1.0, "last"),
        (["rloop.experts=base_policy"], 1.0, "all"),
        (["rloop.weighted=true"], 1.0, "all"),
    ],
)
def test_experts_and_controls(
    options: list[str], threshold: float, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe_file()  # makes the weak model, whose training is not to be looked at
    spy, updates = Spy(monkeypatch, live, "experts"), Spy(monkeypatch, LocalLearner, "update")
    out = run(tmp_path, "rloop.vanilla=false", "rl.steps=4", *options)
    assert len(spy.results) == 2
    cap = 2 if "rloop.cap=2" in options else 8
    weighted = {}
    for iteration, found in enumerate(spy.results):
        pairs = [as_tuples(*pair) for pair in found.pairs]
        seen = rollouts(out, iteration=iteration)
        allowed = right_and_hard(seen, threshold, max(r.step for r in seen) if source == "last" else None)
        assert set(pairs) <= allowed
        assert len(set(pairs)) == len(pairs) > 0
        available, taken = Counter(prompt for prompt, _ in allowed), Counter(prompt for prompt, _ in pairs)
        assert taken == {prompt: min(cap, count) for prompt, count in available.items()}
        line = metrics(out, stage="select", iteration=iteration)[0]
        assert line["selected"] == len(pairs)
        assert line["seen"] == len(seen) == 4 * 16
        given = found.weights
        assert (given is not None) == ("rloop.weighted=true" in options)
        if given is not None:
            for prompt in taken:
                own = [weight for weight, pair in zip(given, pairs, strict=True) if pair[0] == prompt]
                assert np.mean(own) == pytest.approx(1)
            assert np.std(given) > 0
        weighted |= {(iteration, pair): 1.0 if given is None else given[i] for i, pair in enumerate(pairs)}
    assert_weights_reach_the_loss([args[1] for args, _ in updates.calls], weighted)


def assert_weights_reach_the_loss(updates: Sequence[Sequence[Example]], weights: dict[Any, float]) -> None:
    """In every fine-tuning update each token of an example weighs (example's weight) / (tokens of the update).

    `weights`: by (iteration, (prompt, response)).
    """
    tuning = [examples for examples in updates if examples[0].ce_weight is not None]
    assert tuning
    seen = set()
    for examples in tuning:
        total = sum(len(example.response) for example in examples)
        keys = [as_tuples(example.prompt, example.response) for example in examples]
        fits = []
        for iteration in (0, 1):
            expected = [weights.get((iteration, key)) for key in keys]
            fits.append(
                all(
                    weight is not None and np.allclose(example.ce_weight, weight / total, rtol=1e-9)
                    for example, weight in zip(examples, expected, strict=True)
                )
            )
        assert any(fits)
        seen.add(fits.index(True))
    assert seen == {0, 1} or len(tuning) == 1


def as_tuples(prompt: np.ndarray, response: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(prompt.tolist()), tuple(response.tolist())


def test_each_iteration_has_its_own_epochs(tmp_path: Path) -> None:
    out = run(tmp_path, "rloop.vanilla=false", "rft.epochs=[3, 1]", "rft.batch_size=1")
    for iteration, epochs in enumerate((3, 1)):
        trained = metrics(out, stage="select", iteration=iteration)[0]["trained_on"]
        assert len(metrics(out, stage="rft", iteration=iteration)) == epochs * trained > 0


def test_experts_accumulate_over_iterations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch, live, "experts")
    options = ("rloop.vanilla=false", "rl.steps=4", "rloop.cap=3", "rloop.hard_threshold=0.7")
    out = run(tmp_path, "rloop.accumulate=true", *options)
    trained = [[as_tuples(*pair) for pair in found.pairs] for found in spy.results]
    both = [right_and_hard(rollouts(out, iteration=iteration), 0.7, None) for iteration in (0, 1)]
    assert set(trained[0]) <= both[0]
    assert set(trained[0]) < set(trained[1]) <= both[0] | both[1]
    assert len(set(trained[1])) == len(trained[1])
    lines = metrics(out, stage="select")
    assert [line["trained_on"] for line in lines] == [len(pairs) for pairs in trained]
    again = set(trained[1]) - set(trained[0])
    assert len(again) <= lines[1]["selected"]  # those that iteration 0 had found already are in it once


def test_a_sweep_evaluates_on_the_probe_problems_alone(tmp_path: Path) -> None:
    out = run(tmp_path, "eval.split=probe", "task.test=0", "rl.steps=1", "rloop.iterations=1", "rloop.vanilla=false")
    held_out = {problem.id for problem in problems("probe")}
    for path in (out / "evals").glob("*.json"):
        found = json.loads(path.read_text())
        assert found["split"] == "probe"
        assert {problem["id"] for problem in found["problems"]} == held_out
    assert "avg@4" in (out / "report.html").read_text()


def test_evaluations_have_their_own_distribution(tmp_path: Path) -> None:
    options = (
        "rl.steps=1",
        "rloop.iterations=1",
        "rloop.vanilla=false",
        "rl.probe_every=1",
        "sampling.temperature=1.5",
        "sampling.min_p=0.001",
    )
    out = run(tmp_path, "eval.temperature=0.01", *options)
    base = evaluation(out, "base")
    assert (base["sampling"]["temperature"], base["sampling"]["min_p"]) == (0.01, 0.0)
    assert {problem["correct"] for problem in base["problems"]} <= {0, 4}  # as good as greedy: all four are the same
    seen = rollouts(out)
    texts = {problem: {r.text for r in seen if r.problem_id == problem} for problem in {r.problem_id for r in seen}}
    assert max(map(len, texts.values())) > 1  # exploration is not
    policy = Policy.load(weak_model())
    scored = policy.score(
        [r.prompt_tokens for r in seen],
        [r.response_tokens for r in seen],
        config.load(recipe_file(), list(options[-2:])).sampling,
    )
    assert max(float(np.abs(a - r.logprobs).max()) for a, r in zip(scored, seen, strict=True)) < 1e-4


def right_and_hard(
    seen: Sequence[Rollout], threshold: float, step: int | None
) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The definition, in Python: { (x, y) : R = 1, 0 < rate(x) <= threshold }, y of the step if one is given."""
    rate = {x: np.mean([r.right for r in seen if r.problem_id == x]) for x in {r.problem_id for r in seen}}
    return {
        (tuple(r.prompt_tokens.tolist()), tuple(r.response_tokens.tolist()))
        for r in seen
        if r.right and rate[r.problem_id] <= threshold and step in (None, r.step)
    }


def test_base_policy_rollouts_come_from_the_iterations_start(tmp_path: Path) -> None:
    out = run(tmp_path, "rloop.experts=base_policy", "rl.refill_rounds=1", KEPT)
    made = out / "checkpoints"
    sampling = config.load(recipe_file()).sampling
    for iteration, start in enumerate([weak_model(), made / "main-rft-0"]):
        assert same(made / f"main-explore-{iteration}", start)
        seen = rollouts(out, iteration=iteration)
        assert len(seen) == BUDGET
        scored = Policy.load(start).score([r.prompt_tokens for r in seen], [r.response_tokens for r in seen], sampling)
        assert max(float(np.abs(a - r.logprobs).max()) for a, r in zip(scored, seen, strict=True)) < 1e-4
    assert len(rollouts(out, "vanilla")) == 2 * BUDGET  # nothing to share: the iterations did not learn
    assert not same(made / "vanilla-explore-0", weak_model(), within=1e-5)


@pytest.mark.parametrize("choice", ["iteration_start", "base", "explored"])
def test_iterations_without_experts(choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only iteration 0 finds experts. The policy that then stays on must not be among the weights that are dropped."""

    def first_only(folder: Path, *, iteration: int, **options: Any) -> Experts:
        found = select_experts(folder, iteration=iteration, **options)
        return found if iteration == 0 else Experts([], found.rates, found.seen, 0, found.problems, 0, 0, 0)

    monkeypatch.setattr("reasonloop.store.experts.select_experts", first_only)
    options = (f"rloop.reinitialise_from={choice}", "rloop.iterations=3", "rl.steps=1", "eval.samples=2", KEPT)
    out = run(tmp_path, *options)
    last = {"iteration_start": "main-rft-0", "explored": "main-explore-2"}
    expected = out / "checkpoints" / last[choice] if choice in last else weak_model()
    assert same(out / "model", expected)
    assert evaluation(out, "iteration-2-rft")["rollouts"] == 3 * 16
    again = json.loads((out / "state.json").read_text())
    assert main(["run", str(recipe_file()), *options, "--out", str(out)]) == 0
    assert json.loads((out / "state.json").read_text()) == again


def test_a_run_in_a_pipe_tells_the_last_step_and_how_little_there_is_to_learn_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refills spend the rollouts of later steps, so that there are fewer steps than planned."""
    options = ("rloop.iterations=1", "rloop.cap=1", "rl.problems_per_step=2", "rl.refill_rounds=2", "rl.probe_every=1")
    out = run(tmp_path, *options, "eval.samples=2")
    said = capsys.readouterr().err.splitlines()
    steps = [re.search(r"^RLoop 1  step (\d+)/(\d+)", line) for line in said]
    assert [found[1] == found[2] for found in steps if found][-1]
    (select,) = metrics(out, stage="select")
    assert 1 < select["trained_on"] < 8
    assert any(f"rft: only {select['trained_on']} examples for" in line for line in said)
    assert any("test avg@2 " in line and "  probe avg@" in line for line in said)
    state = json.loads((out / "state.json").read_text())
    assert state.keys() == {"stage", "seconds"}  # it is in no iteration any more
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in (out / "model").iterdir())


def test_the_product_alone_is_left_of_a_finished_run(whole: Path) -> None:
    left = {
        str(path.relative_to(whole / "checkpoints")) for path in (whole / "checkpoints").rglob("*") if path.is_file()
    }
    stages = ("main-explore-0", "main-explore-1", "main-rft-0", "main-rft-1", "vanilla-explore-0")
    assert left == {f"{stage}/stage.json" for stage in stages}
    assert (whole / "model" / "model.safetensors").stat().st_nlink == 1


def test_weights_are_dropped_when_nothing_needs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What each evaluation finds on the disk: weights, and the trainer's state where something goes on from there."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    evaluate = live.evaluate

    def looked(run: Any, policy: Any, told: dict[str, Any], *args: Any) -> dict[str, float]:
        made = run.folder.path / "checkpoints"
        found[told["name"]] = tuple(
            {path.parent.name for path in made.glob(f"*/{file}")} for file in ("model.safetensors", "trainer.pt")
        )
        return evaluate(run, policy, told, *args)

    monkeypatch.setattr(live, "evaluate", looked)
    run(tmp_path)
    assert found == {
        "base": (set(), set()),
        "iteration-0-explored": ({"main-explore-0", "vanilla-explore-0"}, {"main-explore-0", "vanilla-explore-0"}),
        "iteration-0-rft": (
            {"main-explore-0", "vanilla-explore-0", "main-rft-0"},
            {"main-explore-0", "vanilla-explore-0"},
        ),
        "iteration-1-explored": ({"vanilla-explore-0", "main-rft-0", "main-explore-1"}, {"vanilla-explore-0"}),
        "iteration-1-rft": ({"vanilla-explore-0", "main-rft-0", "main-explore-1", "main-rft-1"}, {"vanilla-explore-0"}),
        "vanilla-1": ({"vanilla-explore-0", "main-rft-1"}, {"vanilla-explore-0"}),
        "vanilla": ({"vanilla-explore-0", "main-rft-1"}, set()),
    }


def test_a_product_that_was_deleted_is_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(tmp_path, "method=sft")
    (out / "model" / "config.json").unlink()
    assert main(["run", str(recipe_file()), "method=sft", "--out", str(out)]) == 1
    assert (
        "config.json: lost: not what the run has written. Restore it from a copy; a finished run keeps"
        in capsys.readouterr().err
    )


def test_an_exploration_goes_on_where_its_budget_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{__name__}:SHORT_SIGHTED"
    options = (f"method={name}", "rl.steps=1", "rloop.vanilla=false")
    assert main(["run", str(recipe_file()), *options, "--out", str(tmp_path / "run")]) == 1
    assert "main-explore-0 ended with 16 rollouts and can't go on to 32" in capsys.readouterr().err


def short_sighted(run: Stages) -> None:
    arm = Arm("main", "short-sighted")
    for until in (16, 32):
        run.explore(run.recipe.model.path, Place(), arm, Budget(until))


SHORT_SIGHTED = Method("short-sighted", short_sighted)


# supervised


def test_sft_learns_its_demonstrations(tmp_path: Path) -> None:
    options = ("sft.demonstrations=400", "sft.epochs=2", "sft.learning_rate=3e-3", "eval.samples=8")
    out = run(tmp_path, "method=sft", *options, KEPT)
    losses = [line["loss"] for line in metrics(out, stage="sft")]
    assert len(losses) == 50
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert {path.stem for path in (out / "evals").glob("*.json")} == {"base", "sft"}
    assert same(out / "model", out / "checkpoints" / "main-sft-0")
    assert not (out / "trajectories").exists()


def test_rl_after_sft_starts_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch, explorers, "explore")
    out = run(tmp_path, "method=rl", "sft.before=true")
    assert [args[1] for args, _ in spy.calls] == [out / "checkpoints" / "main-sft-0"]
    assert {path.stem for path in (out / "evals").glob("*.json")} == {"base", "sft", "trained"}


def test_seeds_differ_and_repeat(tmp_path: Path) -> None:
    first, second, other = (
        run(tmp_path / name, "method=rl", "rl.steps=1", f"seed={seed}") for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert same(first / "model", second / "model")
    assert not same(first / "model", other / "model", within=1e-6)


@pytest.mark.parametrize("beside", [False, True])
def test_early_stopping_keeps_the_best_policy_on_the_probe(beside: bool, tmp_path: Path) -> None:
    probe = ("rl.keep_best=true", "rl.probe_every=1", "eval.probe_samples=8", "eval.samples=2", "rl.learning_rate=1e-2")
    options = ("rloop.iterations=2", "rl.steps=2") if beside else ("method=rl", "rl.steps=4")
    out = run(tmp_path, KEPT, *probe, *options)
    branches = {("main", 0), ("vanilla", 0)} if beside else {("main", 0)}
    lines = [m for m in metrics(out, stage="probe") if (m["branch"], m["iteration"]) in branches]
    lines = sorted(lines, key=lambda line: line["step"])
    best = max(lines, key=lambda line: line["avg@8"])  # the first of equal ones
    name = "vanilla-early-stopped" if beside else "early-stopped"
    assert evaluation(out, name)["rollouts"] == 4 * 4 * 4
    kept = json.loads((out / "checkpoints" / f"{best['branch']}-best-0" / "stage.json").read_text())
    assert kept["step"] == best["step"] + 1
    if not beside:
        assert same(out / "model", out / "checkpoints" / "main-best-0")


def test_a_whole_run_in_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on with its float32 copies of the weights where vanilla RL takes over from RLoop's first exploration."""
    stored: list[Any] = []

    def kept(self: LocalLearner, folder: Path, load: Any = LocalLearner.load) -> None:
        stored.append(torch.load(folder / "trainer.pt", weights_only=True))
        load(self, folder)

    monkeypatch.setattr(LocalLearner, "load", kept)
    out = run(tmp_path, "model.dtype=bfloat16", "rl.steps=2", "rl.learning_rate=1e-3")
    assert {copy.dtype for state in stored for copy in state["copies"]} == {torch.float32}
    product = Policy.load(out / "model", dtype="bfloat16").model
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(out / "model")
    assert loaded.dtype == torch.bfloat16
    for ours, theirs in zip(product.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(ours, theirs)
