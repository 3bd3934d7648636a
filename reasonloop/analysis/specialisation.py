"""Over-specialisation: the gap between training and held-out accuracy, pass@k minus pass@1 (RLoop, arXiv 2511.04285)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reasonloop.analysis.arms import EvaluatedPolicy
from reasonloop.evaluation.metrics import bootstrap_ci

WINDOW = 5
"""RL steps whose mean share of right rollouts is the training accuracy beside an evaluation"""


@dataclass(frozen=True, slots=True)
class Specialisation:
    """How special one policy is to its training problems. Intervals are by bootstrap over the held-out problems."""

    policy: EvaluatedPolicy
    gap: float | None
    """Training accuracy minus held-out accuracy; None where the run has no training accuracy"""
    gap_ci95: tuple[float, float] | None
    spread: float
    """pass@k - pass@1: what sampling more than once is worth; a policy that always says the same has 0"""
    spread_ci95: tuple[float, float]


def specialisation(lines: Sequence[Mapping[str, Any]], own: Sequence[EvaluatedPolicy], k: int) -> list[Specialisation]:
    """For each of an arm's policies. `lines`: the arm's RL steps in order, as `RunData.rl_steps` has them."""
    found = []
    for e in own:
        train, held_out = training_accuracy(lines, e), e.mean("avg")
        gap, gap_ci95 = None, None
        if train is not None:
            low, high = bootstrap_ci(e.values("avg"))
            gap, gap_ci95 = train - held_out, (train - high, train - low)
        spread = e.mean(f"pass@{k}") - e.mean("pass@1")
        spread_ci95 = bootstrap_ci(e.values(f"pass@{k}") - e.values("pass@1"))
        found.append(Specialisation(e, gap, gap_ci95, spread, spread_ci95))
    return found


def training_accuracy(lines: Sequence[Mapping[str, Any]], e: EvaluatedPolicy) -> float | None:
    """The share of right training rollouts that belongs to an evaluated policy.

    Over WINDOW RL steps: the last ones before, for a policy that RL made; the first ones after, for a policy that RL goes
    on from (base, SFT, RFT). None where the run has none.
    """
    if e.stage == "explore":
        before = [line for line in lines if line["iteration"] == e.iteration and line["rollouts"] <= e.rollouts]
        near = before[-WINDOW:]
    else:
        after = [line for line in lines if line["rollouts"] > e.rollouts]
        near = [line for line in after if line["iteration"] == after[0]["iteration"]][:WINDOW]
    known = [line["right"] for line in near if line.get("right") is not None]
    return float(np.mean(known)) if known else None
