"""Stability of RL training: gradient norms and their spikes, reward collapses, skipped updates (RLoop, arXiv 2511.04285)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reasonloop.analysis.arms import rl_steps

if TYPE_CHECKING:
    import duckdb

SPIKE = 5.0
"""A gradient norm above so many running medians is a spike"""

WINDOW = 20
"""The running median is over the norms of so many steps before, of the same exploration"""

LEAST = 5
"""With fewer norms before it, a step is no spike"""

MEAN = 10
"""A collapse is seen in the mean share of right rollouts over so many steps"""

COLLAPSE = 0.5
"""A mean below this share of the exploration's best mean so far is a collapse"""


@dataclass(frozen=True, slots=True)
class Event:
    """A spike, or the step at which a collapse is first seen."""

    iteration: int
    step: int
    rollouts: int
    value: float
    """The gradient norm, or the mean share of right rollouts"""
    reference: float
    """The running median, or the best mean so far"""


@dataclass(frozen=True, slots=True)
class Stability:
    """One arm."""

    arm: str
    steps: int
    grad_norm_median: float | None
    grad_norm_p99: float | None
    spikes: list[Event]
    collapses: list[Event]
    skipped_updates: int
    """Updates left out because their gradient was not finite"""


def stability(source: str | Path | duckdb.DuckDBPyConnection) -> list[Stability]:
    """The arms of the run in a folder (or behind a connection of `reasonloop.store.connect`)."""
    return [arm_stability(arm, lines) for arm, lines in rl_steps(source).items()]


def rows(result: Sequence[Stability]) -> list[dict[str, Any]]:
    """A dict per arm, with the numbers of spikes and collapses in place of the events."""
    return [asdict(arm) | {"spikes": len(arm.spikes), "collapses": len(arm.collapses)} for arm in result]


def arm_stability(arm: str, lines: Sequence[dict[str, Any]]) -> Stability:
    """`lines`: the arm's RL steps in order, as `arms.rl_steps` gives them. Each iteration is an exploration of its own."""
    norms = [float(line["grad_norm"]) for line in lines if line.get("grad_norm") is not None]
    found_spikes: list[Event] = []
    found_collapses: list[Event] = []
    skipped = 0
    for _, group in groupby(lines, key=lambda line: line["iteration"]):
        own = list(group)
        found_spikes += spikes(own)
        found_collapses += collapses(own)
        # a running count, that a learner keeps over checkpoints and a new exploration starts from zero
        skipped += max((int(line.get("skipped_updates") or 0) for line in own), default=0)
    return Stability(
        arm=arm,
        steps=len(lines),
        grad_norm_median=float(np.median(norms)) if norms else None,
        grad_norm_p99=float(np.quantile(norms, 0.99)) if norms else None,
        spikes=found_spikes,
        collapses=found_collapses,
        skipped_updates=skipped,
    )


def spikes(lines: Sequence[dict[str, Any]]) -> list[Event]:
    """Steps of one exploration whose gradient norm is above SPIKE times the median of up to WINDOW norms before."""
    known = [line for line in lines if line.get("grad_norm") is not None]
    norms = [float(line["grad_norm"]) for line in known]
    found = []
    for i in range(LEAST, len(norms)):
        median = float(np.median(norms[max(0, i - WINDOW) : i]))
        if norms[i] > SPIKE * median:
            found.append(_event(known[i], norms[i], median))
    return found


def collapses(lines: Sequence[dict[str, Any]]) -> list[Event]:
    """Where, in one exploration, the mean share of right rollouts over MEAN steps falls below COLLAPSE of its best so far.

    One that goes on is one collapse; the next can come once the mean is back above. The reward itself may be negative
    (penalties), so that half of it would mean nothing.
    """
    known = [line for line in lines if line.get("right") is not None]
    right = np.array([float(line["right"]) for line in known])
    found: list[Event] = []
    best, collapsed = 0.0, False
    for i in range(MEAN - 1, len(right)):
        mean = float(right[i - MEAN + 1 : i + 1].mean())
        below = mean < COLLAPSE * best
        if below and not collapsed:
            found.append(_event(known[i], mean, best))
        collapsed, best = below, max(best, mean)
    return found


def _event(line: dict[str, Any], value: float, reference: float) -> Event:
    return Event(line["iteration"], line["step"], int(line["rollouts"] or 0), value, reference)
