"""Stored experts that join fresh groups (`rloop.replay`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from run_fixtures import metrics, small_recipe, stopping_at, temporary
from test_methods import BUDGET, Spy, rollouts, same

import reasonloop.stages.learning as learning
from reasonloop.cli import main
from reasonloop.learner.batch import useful_groups
from reasonloop.records import Group
from reasonloop.stages.replay import Replay

GROUP = 4
OPTIONS = ("rloop.replay=2", "rloop.iterations=2", "rl.steps=5", "rloop.hard_threshold=1", "rloop.vanilla=false")


def run(out: Path, *overrides: str, code: int = 0) -> Path:
    assert main(["run", str(small_recipe(temporary())), *overrides, "--out", str(out)]) == code
    return out


def test_experts_of_the_iteration_before_join_its_groups(tmp_path, monkeypatch):
    """They are learned from at a ratio of 1, and neither stored nor counted as rollouts; groups without a right response
    have a gradient by them."""
    spy = Spy(monkeypatch, learning.StepLearner, "learn")
    out = run(tmp_path / "run", *OPTIONS)
    steps = [args[1] for args, _ in spy.calls]
    first, second = ([step for step in steps if step.place.iteration == i] for i in (0, 1))
    assert first
    assert {len(group.rollouts) for step in first for group in step.useful} == {GROUP}
    joined = [group for step in second for group in step.useful if len(group.rollouts) > GROUP]
    assert joined
    known = {(one.problem_id, one.text) for one in rollouts(out, iteration=0) if one.right}
    for group in joined:
        old = group.rollouts[GROUP:]
        assert len(old) <= 2
        assert all((one.problem_id, one.text) in known and one.problem_id == group.problem.id for one in old)
    assert any(not any(one.right for one in group.rollouts[:GROUP]) for group in joined)
    assert len(rollouts(out, iteration=1)) == len(rollouts(out, iteration=0)) == 5 * BUDGET // 3
    lines = [line for line in metrics(out) if line["stage"] == "explore" and line["iteration"] == 1]
    assert max(line["engine_mismatch"] or 0 for line in lines) < 1e-3  # as fresh ones' are


def test_without_earlier_iterations_there_is_none(tmp_path):
    plain = run(tmp_path / "plain", *OPTIONS[1:], "rloop.iterations=1")
    replayed = run(tmp_path / "replayed", *OPTIONS, "rloop.iterations=1")
    assert same(plain / "model", replayed / "model")


def test_other_experts_the_next_step():
    replay = Replay.__new__(Replay)
    replay.each, replay.stored = 2, {"p": ["a", "b", "c"], "q": ["d"]}
    assert [replay._of("p", step) for step in range(3)] == [["a", "b"], ["c", "a"], ["b", "c"]]
    assert replay._of("q", 7) == ["d"]
    assert replay._of("r", 0) == []


def test_one_that_goes_on_learns_the_same(tmp_path):
    whole = run(tmp_path / "whole", *OPTIONS)
    with stopping_at(9):
        run(tmp_path / "again", *OPTIONS, "checkpoint_seconds=0", code=1)
    again = run(tmp_path / "again", *OPTIONS, "checkpoint_seconds=0")
    assert same(again / "model", whole / "model")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["rl.objective=ppo"], "no groups that experts could join"),
        (["rl.kl_coef=0.1"], "rl.kl_coef charges fresh rollouts"),
        (["exploration.form=length"], "expected the outcome alone"),
        (["rloop.experts=base_policy"], "nothing is learned from groups"),
        (["scale.branches=2"], "needs an exploration here"),
    ],
)
def test_what_does_not_go(tmp_path, options, told, capsys):
    run(tmp_path / "run", "rloop.replay=2", *options, code=2)
    assert told in " ".join(capsys.readouterr().err.split())


def test_a_joined_group_of_equals_is_useless():
    """Where all fresh responses are right, experts change nothing."""
    from sampler import prompt

    group = prompt("p", [1, 2])
    assert isinstance(group, Group)
    assert useful_groups([group]) == []
    assert np.array_equal(group.rewards, np.zeros(0))
