"""Estimators: what each response of a step was worth beyond what could be expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from reasonloop.errors import RunError
from reasonloop.learner.advantages import group_advantages
from reasonloop.learner.losses import Objective
from reasonloop.records import Group


@dataclass(frozen=True)
class Estimate:
    """Of one rollout."""

    advantage: float | np.ndarray
    """One for all of its tokens, or float64 [T]"""
    returns: np.ndarray | None = None
    """float64 [T]: what the critic should have said, where there is one"""
    values: np.ndarray | None = None
    """float32 [T]: what it said"""


@dataclass(frozen=True)
class Estimates:
    rollouts: list[list[Estimate]]
    """By group and rollout"""
    measured: dict[str, float] = field(default_factory=dict)
    """For the step's line in metrics.jsonl"""


class Estimator(Protocol):
    def estimate(self, groups: Sequence[Group]) -> Estimates:
        """Of all groups of a step that are learned from."""
        ...


class GroupAdvantages:
    """One advantage a response, from the rewards of its group alone."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def estimate(self, groups: Sequence[Group]) -> Estimates:
        return Estimates([[Estimate(a) for a in advantages_of(group, self.objective).tolist()] for group in groups])


def advantages_of(group: Group, objective: Objective) -> np.ndarray:
    """float64 [rollouts]. Raises RunError where the rewards (scores, say) are none that the advantage is for."""
    try:
        return group_advantages(group.rewards, objective.advantage)
    except ValueError as error:
        where = f"rl.advantage = {objective.advantage!r}, problem {group.problem.id}"
        raise RunError(f"{where}: {error}; another advantage takes any reward, in a new run") from error
