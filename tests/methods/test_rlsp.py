"""RLSP as a whole, in small real runs: rewards in the store, the baseline beside it, the critic, and its combinations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from run_fixtures import metrics
from test_methods import evaluation, recipe_file, rollouts, run, same

from reasonloop import config
from reasonloop.cli import main
from reasonloop.config import load
from reasonloop.errors import InputError
from reasonloop.methods import checked_method, plan
from reasonloop.policy.policy import Policy
from reasonloop.rewards.effort import answer_end_of, effort_of
from reasonloop.stages.experts import experts_of
from reasonloop.store.experts import chosen_experts
from reasonloop.tasks import load_task

RLSP = (
    *("method=rlsp", "rlsp.vanilla=true", "rl.objective=ppo", "rl.kl_coef=0.1", "rl.kl_in=reward", "rl.steps=2"),
    *("exploration.form=length", "exploration.alpha=0.8", "exploration.length_scale=4", "eval.samples=2"),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("rlsp"), *RLSP, "ppo.warmup_steps=1")


def test_every_part_of_the_reward_is_stored_and_is_what_it_should_be(whole: Path) -> None:
    recipe = load(recipe_file(), list(RLSP))
    task = load_task(recipe.task.name, recipe.task.options)
    decode, end = Policy.load(recipe.model.path).codec.decode, answer_end_of(task)
    problems = {problem.id: problem for problem in task.problems()}
    assert rollouts(whole)
    for r in rollouts(whole):
        effort = effort_of(r, 4, decode, lambda text, p=problems[r.problem_id]: end(p, text))
        assert r.reward_parts["exploration"] == max(-1.0, -4 / max(1, effort.tokens))
        assert r.reward_parts["outcome"] == float(r.right)
        expected = 0.8 * r.reward_parts["outcome"] + 0.2 * r.reward_parts["exploration"] + r.reward_parts["kl"]
        assert r.reward == pytest.approx(expected)
    assert min(r.reward for r in rollouts(whole) if r.right) > max(r.reward for r in rollouts(whole) if not r.right)


def test_vanilla_beside_it_is_paid_for_the_outcome_alone(whole: Path) -> None:
    ours, plain = rollouts(whole), rollouts(whole, "vanilla")
    assert len(ours) == len(plain) == 2 * 4 * 4
    assert all("exploration" not in r.reward_parts for r in plain)
    assert {path.stem for path in (whole / "evals").glob("*.json")} == {"base", "sft", "trained", "vanilla"}
    # both start from the policy that SFT made: the same first rollouts
    for one, other in zip(ours[:16], plain[:16], strict=True):
        np.testing.assert_array_equal(one.response_tokens, other.response_tokens)


def test_the_policy_is_frozen_while_the_critic_warms_up(tmp_path: Path) -> None:
    out = run(tmp_path, *RLSP, "rlsp.vanilla=false", "ppo.warmup_steps=2", "keep_checkpoints=true")
    assert same(out / "model", out / "checkpoints" / "main-sft-0")
    lines = metrics(out, stage="explore")
    assert [line["learning_rate"] for line in lines] == [0, 0]
    assert all(line["value_loss"] > 0 for line in lines)


def test_steps_count_while_the_critic_warms_up(tmp_path: Path) -> None:
    """However many updates they have."""
    out = run(tmp_path, *RLSP, "rlsp.vanilla=false", "rl.updates_per_step=2", "ppo.warmup_steps=1")
    assert [line["grad_norm"] > 0 for line in metrics(out, stage="explore")] == [False, True]


def test_a_critics_own_passes_leave_the_policy_as_it_is(tmp_path: Path) -> None:
    """In one step: what the policy learns is estimated before. In the next step the critic says otherwise."""
    options = (*RLSP, "rlsp.vanilla=false", "ppo.warmup_steps=0")
    one, three = (
        run(tmp_path / str(passes), *options, f"ppo.critic_epochs={passes}", "keep_checkpoints=true")
        for passes in (1, 3)
    )
    first, second = (metrics(out, stage="explore") for out in (one, three))
    same_first = {"reward", "grad_norm", "explained_variance", "value_loss", "learning_rate"}
    assert {name: first[0][name] for name in same_first} == {name: second[0][name] for name in same_first}
    assert first[1]["reward"] == second[1]["reward"]  # the same policy has sampled them
    assert first[1]["explained_variance"] != second[1]["explained_variance"]
    assert not same(one / "model", three / "model")


def test_rloops_first_steps_are_not_vanillas_where_the_outcomes_weight_has_a_schedule(tmp_path: Path) -> None:
    weight = ("exploration.form=length", "exploration.alpha=0.6", "exploration.alpha_end=1")
    options = (*weight, "exploration.length_scale=4", "eval.samples=2", "rl.steps=2")
    beside = run(tmp_path / "beside", *options, "keep_checkpoints=true")
    alone = run(tmp_path / "alone", "method=rl", *options, "rl.steps=4", "rloop.vanilla=false")
    assert same(beside / "checkpoints" / "vanilla-explore-0", alone / "model")
    alphas = [line["alpha"] for line in metrics(beside, stage="explore", branch="vanilla") if "alpha" in line]
    assert alphas == pytest.approx([0.6, 0.6 + 0.4 / 3, 0.6 + 0.8 / 3])  # at 1 no exploration is measured


def test_measurements_of_a_step(whole: Path) -> None:
    first, second = metrics(whole, stage="explore", branch="main")
    assert first["learning_rate"] == 0 < second["learning_rate"]
    assert first["alpha"] == 0.8
    assert first["groups_used"] == 4  # a critic needs no group with unequal rewards
    assert set(first["reward_parts"]) == {"outcome", "exploration", "kl"}
    assert {"effort_tokens", "value_loss", "critic_grad_norm"} <= first.keys()


def test_the_kl_that_is_told_is_the_one_that_was_charged(whole: Path) -> None:
    lines = metrics(whole, stage="explore", branch="main")
    for line in lines:
        step = [r for r in rollouts(whole) if r.step == line["step"]]
        tokens = sum(len(r.response_tokens) for r in step)
        charged = -sum(r.reward_parts["kl"] for r in step) / 0.1
        assert line["kl"] == pytest.approx(charged / tokens, abs=1e-6)
    assert abs(lines[0]["kl"]) < 1e-5  # the policy is still the reference


def test_problems_that_are_solved_already_are_left_out(tmp_path: Path) -> None:
    options = ["method=rl", "rl.skip_solved=true", "rl.problems_per_step=2", "rl.steps=8"]
    out = run(tmp_path, *options, "eval.samples=2")
    greedy = rollouts(out, "greedy")
    left = {r.problem_id for r in greedy if not r.right}
    assert 2 <= len(left) < len(greedy) == 20
    explored = rollouts(out, "main")
    assert {r.problem_id for r in explored} <= left
    # asking counts: the exploration is shorter by it
    recipe = load(recipe_file(), options)
    assert metrics(out, stage="greedy")[0]["solved"] == 20 - len(left)
    assert metrics(out, stage="explore")[-1]["rollouts"] == len(greedy) + len(explored)
    assert 0 <= len(greedy) + len(explored) - recipe.rl.rollouts < recipe.rl.group_size


def test_too_few_unsolved_problems_stop_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["run", str(recipe_file()), "method=rl", "rl.skip_solved=true", "rl.problems_per_step=20"]
    assert main([*argv, "rl.steps=3", "--out", str(tmp_path / "run")]) == 1
    assert "rl.skip_solved leaves" in capsys.readouterr().err
    assert main([*argv, "rl.steps=1", "--out", str(tmp_path / "short")]) == 2
    assert "it asks all 20 training problems once, an exploration has 80 rollouts" in capsys.readouterr().err
    assert not (tmp_path / "short").exists()


@pytest.mark.parametrize(("threshold", "group"), [(1.0, 4), (0.9, 3)])  # 20 problems are no whole number of groups of 3
def test_rloop_trains_on_what_was_solved_greedily_too(tmp_path: Path, threshold: float, group: int) -> None:
    options = ["rl.skip_solved=true", "rl.problems_per_step=2", "rl.steps=8", "eval.samples=2", "rloop.vanilla=true"]
    options += [f"rloop.hard_threshold={threshold}", "rloop.accumulate=true", f"rl.group_size={group}"]
    out = run(tmp_path, *options)
    recipe = load(recipe_file(), options)
    greedy = [[r for r in rollouts(out, "greedy", i) if r.right] for i in range(recipe.rloop.iterations)]
    assert all(len(rollouts(out, "greedy", i)) == 20 for i in range(recipe.rloop.iterations))
    assert all(np.all(r.logprobs == 0) for found in greedy for r in found)  # greedy: there was no other choice
    kept: set[tuple[str, bytes]] = set()
    for i, line in enumerate(metrics(out, stage="select")):
        solved = greedy[i] if threshold == 1 else []
        found = [*chosen_experts(recipe, out, i).rollouts, *solved]
        kept |= {(r.problem_id, r.response_tokens.tobytes()) for r in found}
        assert line["solved"] == len(solved)
        assert line["trained_on"] == len(kept)
        # explored is what was not solved, unless that can't fill a step
        ids = {r.problem_id for r in greedy[i]}
        if 20 - len(ids) >= recipe.rl.problems_per_step:
            assert not ids & {r.problem_id for r in rollouts(out, "main", i)}
    spent = {name: evaluation(out, name)["rollouts"] for name in ("iteration-1-rft", "vanilla")}
    assert spent["vanilla"] == spent["iteration-1-rft"] == recipe.rl.rollouts * recipe.rloop.iterations


def test_experts_of_a_run_are_demonstrations(tmp_path: Path) -> None:
    source = run(tmp_path / "source", "rloop.vanilla=false", "eval.samples=2")
    right = {(r.problem_id, r.text) for r in rollouts(source) if r.right}
    options = ["method=sft", "sft.demonstrations=0", f"sft.experts_of={source}", "sft.epochs=1", "eval.samples=2"]
    recipe = load(recipe_file(), options)
    training = [p for p in load_task(recipe.task.name, recipe.task.options).problems() if p.split == "train"]
    experts = [(problem.id, text) for problem, text in experts_of(recipe, training)]
    assert len(experts) == len(set(experts)) > 0
    assert set(experts) <= right
    out = run(tmp_path / "sft", *options)
    assert len(metrics(out, stage="sft")) == max(1, round(len(experts) / min(16, len(experts))))


def test_experts_of_something_else_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["method=sft", "sft.demonstrations=0", f"sft.experts_of={tmp_path}"]
    assert main(["run", str(recipe_file()), *options, "--out", str(tmp_path / "none")]) == 2
    assert "no rollouts there; expected a finished run's folder" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("options", [("rl.advantage=maxrl",), ("rl.advantage=pass@2",), ("rl.epochs=2",)])
def test_other_advantages_and_epochs_train(options: tuple[str, ...], tmp_path: Path) -> None:
    out = run(tmp_path, "method=rl", "eval.samples=2", *options)
    assert any(line["groups_used"] for line in metrics(out, stage="explore"))
    assert not same(out / "model", Path(load(recipe_file()).model.path))


def test_the_exploration_reward_works_inside_rloop(tmp_path: Path) -> None:
    options = ("exploration.form=novelty", "exploration.alpha=0.7")
    out = run(tmp_path, "rloop.vanilla=false", "eval.samples=2", "rl.steps=1", *options)
    for r in rollouts(out):
        assert r.reward == pytest.approx(0.7 * r.reward_parts["outcome"] + 0.3 * r.reward_parts["exploration"])


def test_a_rule_of_ones_own_judges_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tries.py").write_text(
        "def share(problem, response):\n    return min(1.0, len(response.split()) / 20)\n"
    )
    monkeypatch.chdir(tmp_path)
    options = ("exploration.form=judge", "exploration.judge.model=tries:share", "exploration.alpha=0.7")
    out = run(tmp_path, "method=rl", "rl.steps=1", "eval.samples=2", *options)
    for r in rollouts(out):
        assert 0 <= r.reward_parts["exploration"] <= 1
        assert r.reward == pytest.approx(0.7 * r.reward_parts["outcome"] + 0.3 * r.reward_parts["exploration"])
    (line,) = metrics(out, stage="explore")
    assert line["judge_failures"] == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rl.objective=ppo", "rl.advantage=rloo"], "ppo has its critic's advantages"),
        (["rl.advantage=pass@9"], "must not exceed rl.group_size"),
        (["rl.advantage=maxrl", "rl.overlong_buffer=3"], "outcomes alone"),
        (["rl.advantage=maxrl", "exploration.form=novelty", "exploration.alpha=0.8"], "outcomes alone"),
        (["method=sft", "sft.before=true"], "that stage alone"),
        (["sft.experts_of=x", "sft.demonstrations=3"], "must be 0"),
        (["rlsp.vanilla=true"], "needs method = 'rlsp'"),
        (["rl.group_size=1"], "at least 2"),
    ],
)
def test_recipes_that_contradict_themselves(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked_method(config.parse({}, overrides, "recipe"), "recipe")
    config.parse({}, ["rl.group_size=1", "rl.objective=ppo"], "recipe")


def test_sft_comes_first_in_rlsp_unless_it_is_switched_off() -> None:
    def comes_first(*overrides: str) -> bool:
        return "demonstrations" in plan(config.parse({}, list(overrides), "r")).asked

    assert comes_first("method=rlsp")
    assert not comes_first("method=rlsp", "sft.before=false")
    assert not comes_first("method=rl")
    assert comes_first("method=rl", "sft.before=true")
