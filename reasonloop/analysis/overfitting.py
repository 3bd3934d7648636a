"""RL overfitting: how far an arm's last policy has fallen from its best one, on held-out problems (arXiv 2511.04285)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reasonloop.analysis.arms import EvaluatedPolicy, on_shared_problems
from reasonloop.evaluation.metrics import paired_bootstrap

_SPLITS = 100  # random halvings of the problems behind `cross_fitted`


@dataclass(frozen=True, slots=True)
class Fall:
    """From an arm's best held-out value to its last one."""

    best: EvaluatedPolicy
    peak: float
    """Its value"""
    fall: float
    """peak - the last policy's value, 0 or more"""
    ci95: tuple[float, float]
    """Paired bootstrap over problems, the peak's place taken as given: since the best of several noisy values is too high,
    so is this interval; `cross_fitted` isn't"""
    cross_fitted: float | None
    """The fall measured on one half of the problems from the peak that the other half chooses, mean over random halvings:
    negative where there is no fall. None for a single problem"""


def fall_from_peak(own: Sequence[EvaluatedPolicy], metric: str) -> Fall | None:
    """The fall from the best of an arm's policies (the earliest of equal ones) to its last; None for fewer than two."""
    if len(own) < 2:
        return None
    means = [e.mean(metric) for e in own]
    best = own[int(np.argmax(means))]
    fall, low, high, _ = paired_bootstrap(*on_shared_problems([best, own[-1]], metric))
    return Fall(best, max(means), fall, (low, high), _cross_fitted(own, metric))


def _cross_fitted(own: Sequence[EvaluatedPolicy], metric: str) -> float | None:
    values_TP = on_shared_problems(own, metric)
    problems = values_TP.shape[1]
    if problems < 2:
        return None
    rng = np.random.default_rng(0)
    falls = []
    for _ in range(_SPLITS):
        order = rng.permutation(problems)
        half, other = order[: problems // 2], order[problems // 2 :]
        for choosing, measuring in ((half, other), (other, half)):
            best = int(np.argmax(values_TP[:, choosing].mean(axis=1)))
            falls.append(float((values_TP[best, measuring] - values_TP[-1, measuring]).mean()))
    return float(np.mean(falls))
