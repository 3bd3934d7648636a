"""Stability of RL training: gradient norms and their spikes, reward collapses, skipped updates (RLoop, arXiv 2511.04285)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Line = Mapping[str, Any]
"""Of metrics.jsonl: an RL step"""

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
class Stability:
    """Of one arm."""

    grad_norm_median: float | None
    grad_norm_p99: float | None
    spikes: list[Line]
    """The steps that are one"""
    collapses: list[Line]
    """The steps at which one is first seen"""
    skipped_updates: int
    """Updates left out because their gradient was not finite"""


def stability(lines: Sequence[Line]) -> Stability:
    """`lines`: the arm's RL steps in order, as `RunData.rl_steps` has them."""
    norms = [float(line["grad_norm"]) for line in lines if line.get("grad_norm") is not None]
    each = explorations(lines)
    # a running count, that a learner keeps over checkpoints and a new exploration starts from zero
    skipped = [max(int(line.get("skipped_updates") or 0) for line in own) for own in each]
    return Stability(
        grad_norm_median=float(np.median(norms)) if norms else None,
        grad_norm_p99=float(np.quantile(norms, 0.99)) if norms else None,
        spikes=[line for own in each for line in spikes(own)],
        collapses=[line for own in each for line in collapses(own)],
        skipped_updates=sum(skipped),
    )


def explorations(lines: Sequence[Line]) -> list[list[Line]]:
    """An arm's RL steps by the exploration that they are of: an iteration's, or one of several side by side in it."""
    found: dict[tuple[int, Any], list[Line]] = {}
    for line in lines:
        found.setdefault((line.get("iteration") or 0, line.get("branch")), []).append(line)
    return list(found.values())


def spikes(lines: Sequence[Line]) -> list[Line]:
    """Steps of one exploration whose gradient norm is above SPIKE times the median of up to WINDOW norms before."""
    known = [line for line in lines if line.get("grad_norm") is not None]
    norms = [float(line["grad_norm"]) for line in known]
    medians = {i: float(np.median(norms[max(0, i - WINDOW) : i])) for i in range(LEAST, len(norms))}
    return [known[i] for i, median in medians.items() if norms[i] > SPIKE * median]


def collapses(lines: Sequence[Line]) -> list[Line]:
    """Where, in one exploration, the mean share of right rollouts over MEAN steps falls below COLLAPSE of its best so far.

    One that goes on is one collapse; the next can come once the mean is back above. The reward itself may be negative
    (penalties), so that half of it would mean nothing.
    """
    known = [line for line in lines if line.get("right") is not None]
    right = np.array([float(line["right"]) for line in known])
    found: list[Line] = []
    best, collapsed = 0.0, False
    for i in range(MEAN - 1, len(right)):
        mean = float(right[i - MEAN + 1 : i + 1].mean())
        below = mean < COLLAPSE * best
        if below and not collapsed:
            found.append(known[i])
        collapsed, best = below, max(best, mean)
    return found
