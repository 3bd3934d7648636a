"""Scaling: what each policy of an arm has gained since RL began (RLoop, arXiv 2511.04285)."""

from __future__ import annotations

from collections.abc import Sequence

from reasonloop.analysis.arms import EvaluatedPolicy, on_shared_problems
from reasonloop.evaluation.metrics import paired_bootstrap
from reasonloop.evaluation.table import STARTS


def gains(own: Sequence[EvaluatedPolicy], metric: str) -> list[tuple[EvaluatedPolicy, float, tuple[float, float]]]:
    """For each of an arm's policies: itself, its gain in `metric` over the start, and the gain's 95 % interval by paired
    bootstrap over problems.

    The start is the policy that the arm's RL began from: SFT where there was one, else base; else the arm's first one.
    """
    starts = [e for e in own if e.arm in STARTS] or own[:1]
    found = []
    for e in own:
        gain, low, high, _ = paired_bootstrap(*on_shared_problems([e, starts[-1]], metric))
        found.append((e, gain, (low, high)))
    return found
