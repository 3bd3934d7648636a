"""Paired bootstrap over seeds and problems: how sure a difference between two arms is.

Both what training happened to do (the seed) and which problems were held out are samples of something larger, and a
claim is about the larger thing. All seeds meet the same problems, so seeds and problems are *crossed*: a draw resamples
the seeds, and resamples the problems once for all of them (the pigeonhole bootstrap, Owen 2007, arXiv 0712.1111). Drawing
problems anew within each seed would let the problems' own differences average out over seeds, as if every seed had met
other problems, and the intervals would be too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DRAWS = 10_000
FEWEST = 6
"""Problems without which no difference shows at 95 %: five of five the same way are no rarer than 1 in 16 (sign test)"""
# Resampled problem counts held in memory at once; results don't depend on it.
_CELLS = 4_000_000
_KEPT = 16_000_000
"""Of the counts those that are kept for the next call, at two bytes each"""


@dataclass(frozen=True, slots=True)
class Difference:
    """A against B, with 95 % percentile intervals."""

    relative: float | None
    """mean of A / mean of B - 1; None where B's mean is 0"""
    ci95: tuple[float | None, float | None]
    """Of `relative`; None for a bound that has no finite value"""
    probability: float
    """Share of draws in which A leads, ties counting half"""
    absolute: float
    """mean of A - mean of B"""
    ci95_absolute: tuple[float, float]

    @property
    def sign(self) -> int:
        """1: A is ahead, -1: behind, by an interval that leaves out zero; 0: neither"""
        return (self.ci95_absolute[0] > 0) - (self.ci95_absolute[1] < 0)


def resampled_means(values_RP: Floats, draws: int = DRAWS, seed: int = 0) -> Floats:
    """Each row's mean over resampled problems, [rows, draws]; every row sees the same resamples.

    `values_RP` [rows, problems]: a row is an arm's metric at one seed, a value per problem.
    """
    problems = values_RP.shape[1]
    drawn = _kept(problems, draws, seed) if problems * draws <= _KEPT else _drawn(problems, draws, seed)
    # How often a draw holds each problem: one matrix product then serves all rows.
    return np.concatenate([values_RP @ counts_DP.T.astype(np.float64) / problems for counts_DP in drawn], axis=1)


def _drawn(problems: int, draws: int, seed: int) -> Iterator[NDArray[np.uint16]]:
    """How often each draw holds each problem, [some of the draws, problems]."""
    rng = np.random.default_rng([seed, problems])
    chunk = max(1, _CELLS // problems)
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        cell_DP = rng.integers(0, problems, size=(size, problems)) + problems * np.arange(size)[:, None]
        counts_DP = np.bincount(cell_DP.ravel(), minlength=size * problems).reshape(size, problems)
        yield counts_DP.astype(np.uint16)


@lru_cache(maxsize=2)
def _kept(problems: int, draws: int, seed: int) -> tuple[NDArray[np.uint16], ...]:
    """A report asks for the same draws once a pair and metric."""
    return tuple(_drawn(problems, draws, seed))


def over_seeds(means_SD: Floats, seed: int = 0) -> Floats:
    """Means over resampled seeds, [draws], of `means_SD` [seeds, draws]; arms with as many seeds get the same resamples.

    A resample of S values has only (S-1)/S of their variance: the spread is scaled by sqrt(S/(S-1)), which matters at the
    handful of seeds that studies have. One seed is itself in every draw: such an interval is about problems only.
    """
    seeds, draws = means_SD.shape
    if seeds == 1:
        return np.asarray(means_SD[0], dtype=np.float64)
    counts_DS = np.random.default_rng([seed, seeds, 1]).multinomial(seeds, np.full(seeds, 1 / seeds), size=draws)
    centre_D = means_SD.mean(axis=0)
    drawn_D = (counts_DS.T * means_SD).sum(axis=0) / seeds
    return np.asarray(centre_D + (drawn_D - centre_D) * np.sqrt(seeds / (seeds - 1)), dtype=np.float64)


def interval(means_D: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap draws."""
    lo, hi = np.quantile(means_D, [0.025, 0.975])
    return float(lo), float(hi)


def difference(a_SP: Floats, b_SP: Floats, draws: int = DRAWS, seed: int = 0) -> Difference:
    """A against B on their common seeds and problems: `a_SP`, `b_SP` [seeds, problems], in the same order.

    ValueError for shapes that differ or are empty.
    """
    if a_SP.shape != b_SP.shape or a_SP.ndim != 2 or not a_SP.size:
        raise ValueError(f"a paired comparison needs the same seeds and problems, got {a_SP.shape} and {b_SP.shape}")
    means_RD = resampled_means(np.concatenate([a_SP, b_SP]), draws, seed)
    seeds, problems = a_SP.shape
    return paired(means_RD[:seeds], means_RD[seeds:], (float(a_SP.mean()), float(b_SP.mean())), problems, seed)


def paired(a_SD: Floats, b_SD: Floats, means: tuple[float, float], problems: int, seed: int = 0) -> Difference:
    """A against B from their `resampled_means` [common seeds, draws] and their means over seeds and problems. With fewer
    than `FEWEST` problems the intervals are everything there is."""
    a, b = means
    # One resampling for both: the seeds of a pair stay together.
    a_D, b_D = over_seeds(a_SD, seed), over_seeds(b_SD, seed)
    delta_D = a_D - b_D
    tie = 1e-12  # sums in another order differ in the last bits
    probability = float((delta_D > tie).mean() + 0.5 * (np.abs(delta_D) <= tie).mean())
    relative = a / b - 1 if b > 0 else None
    if problems < FEWEST:
        return Difference(relative, (None, None), probability, a - b, (-1.0, 1.0))
    bounds = _relative_interval(a_D, b_D) if b > 0 else (None, None)
    return Difference(relative, bounds, probability, a - b, interval(delta_D))


def _relative_interval(a_D: Floats, b_D: Floats) -> tuple[float | None, float | None]:
    """Of a/b - 1; draws in which B solves nothing count as infinitely better, and a bound that falls on one is None.

    Scaled to the variance of a mean (`over_seeds`), a draw's mean can be below 0: it is 0, so that no bound is below -1.
    """
    ratio_D = np.full(a_D.shape, np.inf)
    np.divide(np.maximum(a_D, 0.0), b_D, out=ratio_D, where=b_D > 0)
    # no interpolation: between a number and an infinity there is nothing
    lo, hi = np.quantile(ratio_D, [0.025, 0.975], method="linear" if np.isfinite(ratio_D).all() else "nearest") - 1
    return (float(lo) if np.isfinite(lo) else None), (float(hi) if np.isfinite(hi) else None)
