"""What all stages share: where their checkpoints are, the order of items, and what an arm has spent."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from reasonloop.learner.learner import Learner
from reasonloop.policy.policy import Policy, resolve_device
from reasonloop.run.checkpoints import Checkpoint
from reasonloop.run.folder import Run

# planned work in units of one evaluation rollout: training on a rollout costs about as much again, and a bit
RL_ROLLOUT, TRAINED_EXAMPLE = 2.5, 1.5

Source = str | Path


def checkpoint(run: Run, stage: str) -> Checkpoint:
    return Checkpoint(run.folder / "checkpoints" / stage)


def load_policy(run: Run, source: Source) -> Policy:
    """The policy at `source`, on the device and in the dtype that the recipe asks for."""
    options = run.recipe.model
    return Policy.load(source, resolve_device(options.device), options.dtype)


def tell_skipped(run: Run, learner: Learner, before: int, place: str) -> None:
    """Says it where updates were left out since the learner had skipped `before` of them."""
    if learner.skipped > before:
        run.progress.say(f"{place}: update skipped, its gradient is not finite ({learner.skipped} so far)")


def shuffled(position: int, count: int, seed: int, iteration: int) -> int:
    """The item at a place in the endless order of shuffled passes over `count` items."""
    turn, place = divmod(position, count)
    return int(_pass(turn, count, seed, iteration)[place])


@lru_cache(maxsize=4)
def _pass(turn: int, count: int, seed: int, iteration: int) -> np.ndarray:
    return np.random.default_rng([seed, iteration, turn]).permutation(count)


def expected_experts(run: Run) -> int:
    """A guess at how many experts an iteration finds, for the time left until they are known: one for every second
    problem that it visits."""
    visited = run.recipe.rl.steps * run.recipe.rl.problems_per_step
    return min(len(run.problems["train"]), visited) // 2


def rollouts_before(run: Run, branch: str, iteration: int) -> int:
    """Rollouts that the arm spent in the iterations before this one."""
    if branch != "main":
        return 0
    cursors = [checkpoint(run, f"{branch}-explore-{i}").cursor() or {} for i in range(iteration)]
    return sum(cursor.get("rollouts", 0) for cursor in cursors)


def rollouts_spent(run: Run, branch: str, iteration: int) -> int:
    """Rollouts that the arm has spent by the end of the iteration's exploration."""
    cursor = checkpoint(run, f"{branch}-explore-{iteration}").cursor() or {}
    return rollouts_before(run, branch, iteration) + int(cursor.get("rollouts", 0))


def training_seconds(run: Run, branch: str, iteration: int) -> float:
    """Seconds of sampling and training that the arm has spent by the end of the iteration; evaluations don't count.

    SFT came before all arms. "early" is the run that its policy was kept from: where to stop is known at the end only.
    """
    if branch == "early":
        branch = "vanilla" if checkpoint(run, "vanilla-explore-0").cursor() else "main"
    continued_at = (checkpoint(run, f"{branch}-explore-{iteration}").cursor() or {}).get("continued_at", 0)
    total = 0.0
    for line in run.metrics():
        own = line.get("branch") == branch and line.get("iteration", 0) <= iteration
        first = (line.get("branch"), line.get("iteration")) == ("main", 0)
        shared = first and line.get("stage") in ("greedy", "explore") and line["step"] < continued_at
        if line.get("stage") == "sft" or (line.get("stage") in ("greedy", "explore", "rft") and (own or shared)):
            total += line.get("seconds", 0.0)
    return total
