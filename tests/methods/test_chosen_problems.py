"""Which of the training problems RLoop's explorations meet: `rloop.problems`, `rloop.until_right`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_fixtures import small_recipe, stopping_at, temporary
from test_methods import BUDGET, rollouts, same

from reasonloop.cli import main
from reasonloop.records import Rollout
from reasonloop.stages.common import turn_of

GROUP, STEP = 4, 4


def run(out: Path, *overrides: str, code: int = 0) -> Path:
    assert main(["run", str(small_recipe(temporary())), *overrides, "--out", str(out)]) == code
    return out


def steps(found: list[Rollout]) -> Iterator[list[Rollout]]:
    for step in sorted({one.step for one in found}):
        yield [one for one in found if one.step == step]


def test_turns_cover_all_before_any_comes_again():
    items = list(range(10))
    turns = [turn_of(items, 4, seed=3, turn=turn) for turn in range(5)]
    assert [len(set(turn)) for turn in turns] == [4] * 5
    assert Counter(item for turn in turns for item in turn) == dict.fromkeys(items, 2)
    assert turn_of(items, 20, seed=3, turn=1) != items
    assert sorted(turn_of(items, 20, seed=3, turn=1)) == items
    assert turn_of(items, 4, seed=4, turn=0) != turns[0]


def test_an_iteration_meets_its_problems_several_times_and_the_next_one_others(tmp_path):
    out = run(tmp_path / "run", "rloop.problems=5", "rloop.iterations=2")
    first, second = ([one.problem_id for one in rollouts(out, iteration=i)] for i in (0, 1))
    assert len(set(first)) == len(set(second)) == 5
    assert not set(first) & set(second)
    assert max(Counter(first).values()) > GROUP
    assert len(first) == len(second) == BUDGET
    assert len({one.problem_id for one in rollouts(out, "vanilla")}) > 5  # the baseline has them all


def expect_left_out(found: list[Rollout], most: int) -> None:
    """No problem is met that was right so often before, but where a step could not be filled without."""
    right: Counter[str] = Counter()
    problems = {one.problem_id for one in found}
    left_out = 0
    for step in steps(found):
        done = {name for name in problems if right[name] >= most}
        if len(problems) - len(done) >= STEP:
            assert not done & {one.problem_id for one in step}
            left_out += bool(done)
        right.update(one.problem_id for one in step if one.right)
    assert left_out


OPTIONS = ("rloop.until_right=1", "rloop.problems=8", "rl.steps=6", "rloop.vanilla=false", "rloop.iterations=1")


@pytest.mark.parametrize("also", [(), ("rloop.experts=base_policy",), ("rl.refill_rounds=2",)])
def test_a_solved_problem_is_left_out(tmp_path, also):
    out = run(tmp_path / "run", *OPTIONS, *also)
    found = rollouts(out)
    assert len(found) == 2 * BUDGET
    expect_left_out(found, 1)


def test_one_that_was_stopped_meets_the_same_problems(tmp_path):
    whole = run(tmp_path / "whole", *OPTIONS)
    with stopping_at(3):
        run(tmp_path / "again", *OPTIONS, "checkpoint_seconds=0", code=1)
    again = run(tmp_path / "again", *OPTIONS, "checkpoint_seconds=0")
    ours, theirs = rollouts(again), rollouts(whole)
    assert [(one.step, one.problem_id, one.text) for one in ours] == [
        (one.step, one.problem_id, one.text) for one in theirs
    ]
    assert same(again / "model", whole / "model")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["rloop.problems=2"], "expected at least as many"),
        (["rloop.problems=8", "rl.skip_solved=true"], "each leaves out other problems"),
    ],
)
def test_what_does_not_go(tmp_path, options, told, capsys):
    run(tmp_path / "run", *options, code=2)
    assert told in " ".join(capsys.readouterr().err.split())
