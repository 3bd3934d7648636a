"""A researcher's loop in Python is a run: the same rollouts, updates, experts and counts, to the bit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_fixtures import TASK, random_model, weak_model
from safetensors.torch import load_file

import reasonloop
from reasonloop.cli import main
from reasonloop.config import Sampling

TASK_OPTIONS = {key: value for key, value in TASK.items() if key != "name"}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def task() -> reasonloop.Task:
    return reasonloop.load_task("countdown", **TASK_OPTIONS)


@pytest.fixture
def policy() -> reasonloop.Policy:
    return reasonloop.Policy.load(weak_model(), "cpu")


def sampled(policy: reasonloop.Policy, task: reasonloop.Task, n: int = 4, **options: Any) -> list[reasonloop.Group]:
    chosen: Any = {"group_size": 4, "max_tokens": 14, **options}
    return reasonloop.sample(policy, task, task.train[:n], **chosen)


def tokens(groups: list[reasonloop.Group]) -> list[list[int]]:
    return [rollout.response_tokens.tolist() for group in groups for rollout in group.rollouts]


def weights(policy: reasonloop.Policy) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in policy.model.state_dict().items()}


def test_the_loop_is_rloop_to_the_bit(task: reasonloop.Task, policy: reasonloop.Policy, tmp_path: Path) -> None:
    """Every rollout with its log-probs and reward, the experts, both policies and their evaluations."""
    recipe = {
        "method": "rloop",
        "threads": 1,
        "model": {"path": str(weak_model())},
        "task": TASK,
        "sampling.max_tokens": 14,
        "rl": {"steps": 3, "problems_per_step": 4, "group_size": 4, "learning_rate": 1e-3, "refill_rounds": 0},
        "rloop": {"iterations": 1, "hard_threshold": 1.0, "cap": 3},
        "rft": {"batch_size": 8, "learning_rate": 1e-3},
    }
    run = reasonloop.run(recipe, out=tmp_path / "run", eval={"samples": 4}, progress=False)

    explorer, seen, measured = policy.copy(), [], []
    base = reasonloop.evaluate(policy, task, samples=4, max_tokens=14)
    learner = reasonloop.Learner(explorer, learning_rate=1e-3)
    for step in range(3):
        problems = task.batch(step, 4)
        groups = reasonloop.sample(explorer, task, problems, group_size=4, max_tokens=14, step=step)
        measured.append(learner.rl_step(groups))
        seen += groups
    found = reasonloop.experts(seen, hard_threshold=1.0, cap=3)
    explored = reasonloop.evaluate(explorer, task, samples=4, max_tokens=14)
    losses = reasonloop.Learner(policy, learning_rate=1e-3).finetune(found, batch_size=8)
    tuned = reasonloop.evaluate(policy, task, samples=4, max_tokens=14)
    policy.save(tmp_path / "saved")

    def key(rollout: reasonloop.Rollout) -> tuple[int, str, int]:
        return rollout.step, rollout.problem_id, rollout.sample

    stored = sorted(run.rollouts(), key=key)
    made = sorted((r for group in seen for r in group.rollouts), key=key)
    for theirs, ours in zip(stored, made, strict=True):
        assert key(theirs) == key(ours)
        assert theirs.response_tokens.tobytes() == ours.response_tokens.tobytes()
        assert theirs.logprobs.tobytes() == ours.logprobs.tobytes()
        assert (theirs.verdict, theirs.reward, theirs.text) == (ours.verdict, ours.reward, ours.text)
        assert theirs.version == ours.version
    assert run.evals[0].record["problems"] == base.record["problems"]
    assert [one.record["metrics"] for one in run.evals] == [e.record["metrics"] for e in (base, explored, tuned)]
    lines = [line for line in run.metrics if line["stage"] == "explore"]
    for name in ("reward", "grad_norm", "entropy", "k1", "groups_used"):
        assert [line[name] for line in lines] == [one[name] for one in measured], name
    assert [line["loss"] for line in run.metrics if line["stage"] == "rft"] == [one["loss"] for one in losses]
    (selected,) = (line for line in run.metrics if line["stage"] == "select")
    assert selected["selected"] == found.selected > 0
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "saved", run.model))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_an_evaluation_is_that_of_the_command_line(
    task: reasonloop.Task, policy: reasonloop.Policy, tmp_path: Path
) -> None:
    spec = "countdown?" + "&".join(f"{key}={json.dumps(value)}" for key, value in TASK_OPTIONS.items())
    argv = ["eval", str(weak_model()), "--task", spec, "--samples", "4", "--json", str(tmp_path / "eval.json")]
    assert main([*argv, "sampling.max_tokens=14", "threads=1"]) == 0
    told = json.loads((tmp_path / "eval.json").read_text())
    found = reasonloop.evaluate(policy, task, samples=4, max_tokens=14)
    for name in ("task", "split", "samples", "sampling", "verdicts", "problems", "mean_tokens", "cut_off"):
        assert found.record[name] == told[name], name
    assert found.metrics.keys() == told["metrics"].keys() > {"maj@4"}
    assert all(told["metrics"][name]["value"] == value for name, value in found.metrics.items())
    assert found.average == found["avg@4"] == found.pass_at[1]
    assert found.average.low <= found.average <= found.average.high
    assert list(found.counts.values()) == [sum(r.right for r in group.rollouts) for group in found.groups]
    with pytest.raises(KeyError, match=r"pass@3; there are avg@4"):
        found["pass@3"]


def test_greedy_evaluation(task: reasonloop.Task, policy: reasonloop.Policy) -> None:
    greedy = reasonloop.evaluate(policy, task, temperature=0, max_tokens=14)
    assert greedy.record["samples"] == 1
    assert tokens(list(greedy.groups)) == tokens(
        list(reasonloop.evaluate(policy, task, samples=1, top_k=1, seed=3, max_tokens=14).groups)
    )
    with pytest.raises(reasonloop.InputError, match="samples = 4: with temperature = 0 all are one"):
        reasonloop.evaluate(policy, task, temperature=0, samples=4)


def test_evaluations_are_compared_problem_by_problem(task: reasonloop.Task, policy: reasonloop.Policy) -> None:
    before = reasonloop.evaluate(policy, task, samples=4, max_tokens=14)
    other = reasonloop.evaluate(policy, task, samples=4, max_tokens=3)
    gained = before.compared_with(other)
    assert gained["avg@4"] == pytest.approx(before.average - other.average)
    assert gained["avg@4"].low <= gained["avg@4"] <= gained["avg@4"].high
    assert gained.keys() == before.metrics.keys() > {"maj@4"}
    for name, value in gained.items():
        assert value == pytest.approx(before[name] - other[name]), name
    assert set(before.compared_with(before).values()) == {0.0}
    with pytest.raises(reasonloop.InputError, match="same problems"):
        before.compared_with(reasonloop.evaluate(policy, task, samples=2, max_tokens=3))


def test_a_response_depends_on_its_address_alone(task: reasonloop.Task, policy: reasonloop.Policy) -> None:
    groups = sampled(policy, task, 6)
    assert tokens(sampled(policy, task, 6)) == tokens(groups)
    assert tokens(sampled(policy, task, 2, slots=3)) == tokens(groups[:2])
    for other in ({"seed": 1}, {"step": 1}, {"iteration": 1}):
        assert tokens(sampled(policy, task, 6, **other)) != tokens(groups)
    assert all(group.sampling == Sampling(max_tokens=14) for group in groups)
    assert {rollout.step for group in groups for rollout in group.rollouts} == {0}


def test_the_sampler_sees_weights_however_they_were_changed(task: reasonloop.Task, policy: reasonloop.Policy) -> None:
    """Stored log-probs are those of the weights at that moment; unset, the step moves on with them."""

    def gap(groups: list[reasonloop.Group]) -> float:
        rollouts = [r for group in groups for r in group.rollouts]
        scored = policy.score(
            [r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], Sampling(max_tokens=14)
        )
        return max(float(np.abs(own - r.logprobs).max()) for own, r in zip(scored, rollouts, strict=True))

    learner, before = reasonloop.Learner(policy, learning_rate=1e-2), sampled(policy, task)
    assert gap(before) < 1e-3
    learner.rl_step(before)
    after = sampled(policy, task)
    assert gap(after) < 1e-3 < gap(before)
    assert {r.step for group in after for r in group.rollouts} == {1} == {policy.version}
    for parameter in policy.model.parameters():
        parameter.data.mul_(1.05)  # behind torch's back
    assert gap(sampled(policy, task)) < 1e-3


def test_groups_of_older_weights_keep_their_ratios_and_foreign_ones_are_refused(
    task: reasonloop.Task, policy: reasonloop.Policy
) -> None:
    learner, groups = reasonloop.Learner(policy, learning_rate=1e-2), sampled(policy, task)
    assert learner.rl_step(groups)["k1"] == pytest.approx(0, abs=1e-5)
    useful = [r for group in groups if len(set(group.rewards)) > 1 for r in group.rollouts]
    scored = policy.score([r.prompt_tokens for r in useful], [r.response_tokens for r in useful], Sampling())
    differences = np.concatenate([r.logprobs - own for own, r in zip(scored, useful, strict=True)])
    assert learner.rl_step(groups)["k1"] == pytest.approx(float(differences.mean()), rel=1e-3)
    assert abs(differences).max() > 1e-2

    other = reasonloop.Policy.load(random_model(), "cpu")
    kept = weights(other)
    with pytest.raises(reasonloop.InputError, match=r"differ by .* nats a token"):
        reasonloop.Learner(other).rl_step(groups)
    assert all(torch.equal(kept[name], value) for name, value in other.model.state_dict().items())
    assert math.isfinite(reasonloop.Learner(other).rl_step(groups, off_policy=True)["grad_norm"])
    with pytest.raises(reasonloop.InputError, match="unknown key 'lr'; did you mean 'learning_rate'"):
        reasonloop.Learner(other, lr=1e-3)  # type: ignore[call-arg]


def test_a_step_knows_the_distribution_that_its_groups_are_of(task: reasonloop.Task, policy: reasonloop.Policy) -> None:
    cool = sampled(policy, task, temperature=0.7, top_p=0.9)
    assert reasonloop.Learner(policy).rl_step(cool, learning_rate=1e-9)["k1"] == pytest.approx(0, abs=1e-5)
    with pytest.raises(reasonloop.InputError, match="two distributions"):
        reasonloop.Learner(policy).rl_step([*cool, *sampled(policy, task)])
    untold = [replace(group, sampling=None) for group in sampled(policy, task, temperature=0.5)]
    with pytest.raises(reasonloop.InputError, match="differ by"):
        reasonloop.Learner(policy).rl_step(untold)


def test_nothing_is_learned_from_groups_without_a_gradient(task: reasonloop.Task, policy: reasonloop.Policy) -> None:
    groups = sampled(policy, task, reward=lambda problem, rollout: 1.0)
    kept = weights(policy)
    measured = reasonloop.Learner(policy).rl_step(groups)
    assert (measured["groups_used"], measured["reward"]) == (0.0, 1.0)
    assert math.isnan(measured["loss"])
    assert policy.version == 0
    assert all(torch.equal(kept[name], value) for name, value in policy.model.state_dict().items())


def test_two_learners_of_one_policy_dont_undo_one_another(task: reasonloop.Task) -> None:
    """A policy in bfloat16 has float32 copies of its weights in each learner."""
    policy = reasonloop.Policy.load(weak_model(), "cpu", "bfloat16")
    groups = sampled(policy, task)
    first, second = (reasonloop.Learner(policy, learning_rate=1e-2) for _ in range(2))
    assert math.isfinite(first.rl_step(groups)["loss"])
    found = [(task.train[0], "1 + 1 = 2 ; yes answer 1 + 1")]
    tuned = second.finetune(found, epochs=20)[-1]["loss"]
    again = first.sft_step(found, learning_rate=1e-9)["loss"]
    assert again == pytest.approx(tuned, rel=0.2)
    assert policy.version == 22


def test_objectives_advantages_and_rewards_of_ones_own(task: reasonloop.Task, policy: reasonloop.Policy) -> None:
    def brief(problem: reasonloop.Problem, rollout: reasonloop.Rollout) -> float:
        return float(rollout.right) / rollout.length

    groups = sampled(policy, task, reward=brief)
    assert {r.reward for group in groups for r in group.rollouts} > {0.0}
    assert all(r.reward == float(r.right) / r.length for group in groups for r in group.rollouts)

    def plain(logprobs: Any, log_ratios: Any, targets: Any) -> Any:
        return -logprobs * targets.advantage

    def norm(objective: Any, **options: Any) -> Any:
        measured = reasonloop.Learner(policy.copy()).rl_step(groups, objective, **options)
        return pytest.approx(measured["grad_norm"], rel=1e-4)

    dapo = norm("dapo").expected
    assert dapo == norm(reasonloop.objectives["dapo"])
    assert dapo == norm(reasonloop.Objective(clip_high=0.28))
    assert dapo == norm(plain)  # on policy its gradient is that of the ratio
    assert dapo != norm("dr_grpo")
    assert norm("dapo", advantage=lambda r: r - r.mean()).expected == norm("dapo", advantage="centered") != dapo
    critics = reasonloop.Learner(policy.copy()).rl_step(groups, "ppo")
    assert critics["value_loss"] > 0
    reference = policy.copy()
    learner = reasonloop.Learner(policy, learning_rate=1e-2)
    learner.rl_step(groups)
    assert learner.rl_step(groups, kl_coef=0.1, reference=reference)["kl"] > 0


def test_demonstrations_are_learned(task: reasonloop.Task) -> None:
    policy = reasonloop.Policy.load(random_model(), "cpu")
    pairs = task.demonstrations(32, seed=3, skill=1.0, max_words=20)
    results = reasonloop.Learner(policy, learning_rate=1e-2).finetune(pairs, epochs=4, batch_size=16)
    assert len(results) == 8
    assert results[-1]["loss"] < results[0]["loss"]
    assert reasonloop.Learner(policy).sft_step([("2 from 1 1 :", "1 + 1 = 2")])["tokens"] == 6
    assert reasonloop.Learner(policy).finetune([]) == []


def test_what_is_wrong_is_refused_by_name(task: reasonloop.Task, policy: reasonloop.Policy, tmp_path: Path) -> None:
    groups, learner = sampled(policy, task), reasonloop.Learner(policy)
    wrong: Any = {
        "did you mean 'temperature'": lambda: sampled(policy, task, temprature=0.5),
        "max_tokens = 0": lambda: sampled(policy, task, max_tokens=0),
        "is given twice": lambda: reasonloop.sample(policy, task, [task.train[0]] * 2),
        "got a dict": lambda: reasonloop.sample(policy, task, [{"prompt": "x"}]),  # type: ignore[list-item]
        "expected some": lambda: reasonloop.sample(policy, None),
        "did you mean 'dapo'": lambda: learner.rl_step(groups, "dappo"),
        "kl_coef = 0.1: expected reference=": lambda: learner.rl_step(groups, kl_coef=0.1),
        "did you mean 'epochs'": lambda: learner.rl_step(groups, epoch=2),
        "no rollouts": lambda: learner.rl_step([]),
        "expected groups": lambda: learner.rl_step(groups[0].rollouts),  # type: ignore[arg-type]
        "did you mean 'learning_rate'": lambda: reasonloop.Learner(policy, learningrate=1.0),
        "got groups; expected experts": lambda: learner.finetune(groups),  # type: ignore[arg-type]
        "hard_threshold = 0": lambda: reasonloop.experts(groups, hard_threshold=0),
        "a step of its own": lambda: reasonloop.experts([*groups, *groups]),
        "split 'validation'": lambda: reasonloop.evaluate(policy, task, "validation"),
        "a batch of 21: it has 20": lambda: task.batch(0, 21),
        "did you mean 'countdown'": lambda: reasonloop.load_task("countdwn"),
        "task 'countdown'|task countdown": lambda: reasonloop.load_task("countdown", nmbers=3),
        "'test' is given twice": lambda: reasonloop.load_task("countdown?test=5", test=6),
        "model.dtype = 'half'": lambda: reasonloop.Policy.load(weak_model(), dtype="half"),
        "model.device = 'gpu'": lambda: reasonloop.Policy.load(weak_model(), "gpu"),
        r"expected reasonloop.Policy.load\('x'\)": lambda: reasonloop.Learner("x"),  # type: ignore[arg-type]
        r"expected reasonloop.Policy\(model, tokenizer\)": lambda: reasonloop.evaluate(policy.model, task),
        r"expected reasonloop.load_task\('countdown'\)": lambda: reasonloop.evaluate(policy, "countdown"),  # type: ignore[arg-type]
        "got a Problem; expected a list": lambda: reasonloop.sample(policy, task, task.train[0]),  # type: ignore[arg-type]
        "no run folder": lambda: reasonloop.Run(tmp_path),
        "expected out=": lambda: reasonloop.run({"method": "rl"}),
        "did you mean 'rl.steps'": lambda: reasonloop.run({"rl": {"step": 3}}, out=tmp_path / "r"),
    }
    for message, call in wrong.items():
        with pytest.raises(reasonloop.InputError, match=message):
            call()
    assert policy.version == 0
    assert not (tmp_path / "r").exists()


def test_a_group_is_shown_whole_and_harmless(task: reasonloop.Task, policy: reasonloop.Policy) -> None:
    (group,) = sampled(policy, task, 1)
    assert str(group).splitlines()[0] == f"prompt  {group.problem.prompt}"
    assert str(group).splitlines()[1] == f"gold    {group.problem.answer}"
    assert [line.split()[0] for line in str(group).splitlines()[2:]] == [r.verdict for r in group.rollouts]
    assert repr(group) == f"Group({group.problem.prompt!r}: {sum(r.right for r in group.rollouts)} of 4 right)"
    hostile = replace(group.rollouts[0], text="<script>\x1b[2J</script>\nnext")
    shown = replace(group, rollouts=(hostile,))
    assert "<script>" not in shown._repr_html_()
    assert "\x1b" not in f"{shown}{shown._repr_html_()}{hostile!r}"
    assert "countdown" not in repr(policy)
    assert "float32, cpu" in repr(policy)


def test_what_would_be_silently_wrong_is_refused(task: reasonloop.Task, policy: reasonloop.Policy) -> None:
    groups, learner = sampled(policy, task), reasonloop.Learner(policy)
    before = weights(policy)
    with pytest.raises(reasonloop.InputError, match="its KL would always be 0"):
        learner.rl_step(groups, kl_coef=0.1, reference=policy)
    with pytest.raises(reasonloop.InputError, match="the policy is a str"):
        learner.rl_step(groups, kl_coef=0.1, reference="countdown")
    for rate in (math.nan, -1.0, math.inf):
        with pytest.raises(reasonloop.InputError, match="expected a finite number above 0"):
            learner.sft_step([("5 from 2 3 :", "answer 2 + 3")], learning_rate=rate)
    with pytest.raises(reasonloop.InputError, match="no examples"):
        learner.sft_step([])
    pair: Any = ([{"role": "user", "content": "5 from 2 3 :"}], "answer 2 + 3")
    with pytest.raises(reasonloop.InputError, match="the prompt is a list"):
        learner.finetune([pair])
    assert all(torch.equal(value, before[name]) for name, value in weights(policy).items())
    learner.rl_step([replace(groups[0], rollouts=()), *groups])


def test_more_that_is_refused_in_words(task: reasonloop.Task, policy: reasonloop.Policy) -> None:
    groups, learner = sampled(policy, task), reasonloop.Learner(policy)
    spoilt = replace(groups[0], rollouts=(replace(groups[0].rollouts[0], reward=math.nan), *groups[0].rollouts[1:]))
    other = replace(groups[1], problem=replace(groups[1].problem, id=groups[0].problem.id))
    found = reasonloop.evaluate(policy, task, samples=1, max_tokens=14)
    wrong: dict[str, Any] = {
        "a reward that is no finite number": lambda: learner.rl_step([spoilt]),
        "got a Group; expected a list of groups": lambda: learner.rl_step(groups[0]),
        "got a NoneType; expected a list of groups": lambda: learner.rl_step(None),
        "expected each token's loss": lambda: learner.rl_step(groups, objective=lambda a, b, c: a.sum()),
        "an example has 9": lambda: learner.finetune([("5 from 2 3 :", "2 + " * 45)]),
        "two problems are called": lambda: reasonloop.experts([*groups, other]),
        "got a int; expected groups": lambda: reasonloop.experts(3),
        "got a int; expected an Evaluation": lambda: found.compared_with(3),
        "batch: step = -1": lambda: task.batch(-1, 4),
        "batch: size = 1.5": lambda: task.batch(0, 1.5),
        "an empty recipe": lambda: reasonloop.run({}, out="nowhere"),
    }
    for said, call in wrong.items():
        with pytest.raises(reasonloop.InputError, match=said):
            call()
    with pytest.raises(reasonloop.InputError, match="learning_rate = 'x'"):
        learner.learning_rate = "x"
    with pytest.raises(reasonloop.InputError, match="test' and 'train"):
        found.compared_with(reasonloop.evaluate(policy, task, "train", samples=1, max_tokens=14, problems=5))
