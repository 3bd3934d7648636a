"""What all stages share: the order of items, and what an arm has spent."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np

from reasonloop.errors import Diverged
from reasonloop.evaluation.table import trunk_of
from reasonloop.learner.protocol import Learner
from reasonloop.records import Place
from reasonloop.runs.session import Session

Item = TypeVar("Item")
IN_A_ROW = 4
"""Updates whose gradients are not finite, and with which no run goes on"""
TRAINING = ("greedy", "explore", "rft")
"""Stages whose seconds an arm's training is made of; SFT came before all arms"""


def tell_skipped(run: Session, learner: Learner, before: int, place: str) -> None:
    """Says it where updates were left out since the learner had skipped `before` of them. Diverged after `IN_A_ROW`."""
    run.skipped = run.skipped + learner.skipped - before if learner.skipped > before else 0
    if run.skipped >= IN_A_ROW:
        raise Diverged(f"the gradients of its last {run.skipped} updates are not finite")
    if run.skipped:
        run.progress.say(f"{place}: update skipped, its gradient is not finite ({learner.skipped} so far)")


def leave_as_it_was(run: Session, place: Place) -> None:
    """A fine-tuning without examples is done."""
    run.progress.skip(run.planned.get(place.name, 0.0))
    run.progress.say(f"{place.stage}: no examples; the policy stays as it was")
    run.folder.checkpoint(place).skip({"done": True, "empty": True})


def shuffled(position: int, count: int, seed: int, place: Place) -> int:
    """The item at a position in the endless order of shuffled passes over `count` items."""
    turn, within = divmod(position, count)
    return int(_pass(turn, count, (seed, place.iteration), place.twin)[within])


@lru_cache(maxsize=4)
def _pass(turn: int, count: int, seeds: tuple[int, ...], twin: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng([*seeds, turn, *twin]).permutation(count)


def turn_of(items: Sequence[Item], size: int, seed: int, turn: int) -> list[Item]:
    """The items whose turn it is: `size` of them, in a shuffled order the next ones each time; all where there are fewer."""
    order = np.random.default_rng([seed, len(items)]).permutation(len(items))
    first = turn * size
    return [items[order[place % len(items)]] for place in range(first, first + min(size, len(items)))]


def spent_before(run: Session, place: Place) -> int:
    """Rollouts that the branch spent in the iterations before this one."""
    earlier = (run.folder.checkpoint(Place(place.branch, "explore", i)).state() for i in range(place.iteration))
    return sum(int((state or {}).get("rollouts", 0)) for state in earlier)


def training_seconds(run: Session, arm: str, iteration: int) -> float:
    """Seconds of sampling and training that the arm has spent by the end of the iteration; evaluations don't count. For
    "early" it is the whole run that its policy was kept from: where to stop is known at the end only."""
    arm = {"early": "vanilla", "explored": "main"}.get(arm, trunk_of(arm))
    total = 0.0
    for line in run.folder.metrics():
        own = arm in (line.get("arm"), line.get("shared_with")) and line.get("iteration", 0) <= iteration
        if line.get("stage") == "sft" or (own and line.get("stage") in TRAINING):
            total += line.get("seconds", 0.0)
    return total
