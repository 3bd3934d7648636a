"""What a set of sampled answers says of a policy: avg@k, unbiased pass@k, and intervals over problems.

Every function takes counts per problem (n samples, c of them right), because problems, not samples, are the unit
that a held-out result generalises over: samples of one problem are no independent evidence about other problems.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

DEFAULT_KS = (1, 2, 4, 8, 16, 32)
# Squared deviations that are taken as seen before any were: near 0 and 1 a handful of problems alone would say how much
# problems differ, and mostly too little. Coverage by simulation: tests/evaluation/test_metrics.py.
_PRIOR = 0.1
# Resampled problem indices held in memory at once; results don't depend on it.
_CELLS = 4_000_000


def largest_k(samples: int) -> int:
    """The largest k that pass@k of so many samples is told for."""
    return max(k for k in DEFAULT_KS if k <= samples)


def avg_at_k(correct: ArrayLike, n: ArrayLike) -> Floats:
    """Share of right samples for each problem, float64 [problems]; its mean over problems is avg@n.

    `correct` [problems] right samples of `n` (a number, or [problems]). ValueError unless 0 <= correct <= n, n >= 1.
    """
    n_P, c_P = _counts(n, correct)
    return c_P / n_P


def pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> Floats:
    """Unbiased estimate of pass@k for each problem, float64 [problems]: 1 - C(n-c, k) / C(n, k).

    The chance that k samples drawn without replacement from the n hold at least one right one (Chen et al. 2021,
    arXiv 2107.03374, equation 1), as the product over i < k of (n-c-i)/(n-i): no factorial, so no overflow at any n.
    ValueError unless 1 <= k <= n and 0 <= c <= n.
    """
    n_P, c_P = _counts(n, c)
    if k < 1 or k > n_P.min():
        raise ValueError(f"pass@{k} needs 1 <= k <= samples per problem, which is {int(n_P.min())}")
    i_k = np.arange(k, dtype=np.float64)
    # A factor that is zero or below means fewer than k wrong samples: no draw of k misses, and the product is 0.
    factors_Pk = np.maximum(n_P[..., None] - c_P[..., None] - i_k, 0.0) / (n_P[..., None] - i_k)
    return np.asarray(1.0 - factors_Pk.prod(axis=-1), dtype=np.float64)


def spread_pass_at_k(right: ArrayLike, k: int, draws: int = 200, seed: int = 0) -> Floats:
    """pass@k of k samples that are spread evenly over several policies (temporal sampling, arXiv 2505.20196): [problems].

    `right` [policies, problems, n]: which of n samples of each policy are right. A draw takes k sample numbers and deals
    them to the policies; what doesn't divide evenly goes to the last ones. No number is dealt twice, since an evaluation
    draws the same randomness for the same sample of all policies: two of one number say less than two of two. Unbiased, and
    the mean over so many draws. ValueError unless policies <= k <= n.
    """
    right_WPN = np.asarray(right, dtype=bool)
    policies, problems, n = right_WPN.shape
    if not policies <= k <= n:
        raise ValueError(f"pass@{k} spread over {policies} policies needs {policies} <= k <= {n} samples")
    dealt = policies - 1 - np.arange(k) % policies
    rng = np.random.default_rng([seed, policies, k])
    solved_P = np.zeros(problems)
    for _ in range(draws):
        taken = rng.permutation(n)[:k]
        solved_P += right_WPN[dealt, :, taken].any(axis=0)
    return solved_P / draws


def as_mask(right: Sequence[bool]) -> str:
    """Which samples are right, as a hexadecimal number: the first sample is its lowest bit."""
    return f"{sum(1 << sample for sample, one in enumerate(right) if one):x}"


def from_mask(mask: str, samples: int) -> list[bool]:
    """`as_mask`, read. ValueError for what is no such number of so many samples."""
    number = int(mask, 16)
    if number >> samples:
        raise ValueError(f"{mask!r} has more than {samples} samples")
    return [bool(number >> sample & 1) for sample in range(samples)]


def bootstrap_ci(
    values_per_problem: ArrayLike, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval (lo, hi) of the mean over problems.

    Problems are drawn with replacement `draws` times. The same seed draws the same problems for every metric and every
    arm of the same size. All-equal values give an interval of width zero: it says nothing of problems unlike these.
    ValueError for no values or values that are not finite.
    """
    values_P = _values(values_per_problem, "values_per_problem")
    lo, hi = _percentiles(_resampled_means(values_P[None], draws, seed)[0], level)
    return lo, hi


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float, float]:
    """(difference, lo, hi, probability that a > b) for the mean of a - b over problems that both arms answered.

    `a` and `b` [problems] hold one value per problem, in the same order. Pairing takes the difficulty of the problems
    out of the interval. The probability is the share of resamples in which a leads, ties counting half.
    """
    a_P, b_P = _values(a, "a"), _values(b, "b")
    if a_P.shape != b_P.shape:
        raise ValueError(f"a paired comparison needs the same problems on both sides, got {a_P.size} and {b_P.size}")
    delta_P = a_P - b_P
    means_D = _resampled_means(delta_P[None], draws, seed)[0]
    lo, hi = _percentiles(means_D, level)
    # Sums of a - b in another order differ in the last bits: nearer to zero than this is a tie.
    tie = 1e-12 * max(1.0, float(np.abs(delta_P).max()))
    probability = float((means_D > tie).mean() + 0.5 * (np.abs(means_D) <= tie).mean())
    return float(delta_P.mean()), lo, hi, probability


def mean_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Interval (lo, hi) for the mean over problems of an arm's own metric, whose values lie in [0, 1].

    `values` [problems], or [seeds, problems] of several runs on the same problems. Wilson's score interval (1927) at the
    effective number of problems: as many independent right-or-wrong problems as would leave the mean as uncertain as the
    spread over problems (and over seeds) does. Where every sample of every problem is wrong it reaches from 0 to
    1 - (1 - level)^(1/problems), about 3/problems: problems are the independent units, however many samples each has.

    A prior of 0.1 squared deviations keeps few problems near 0 and 1 from looking alike. The bound at exactly 0 is
    one-sided, and may lie above that of one right sample. Seeds enter by their variance without Student's correction: with
    two it covers less where they differ much.
    ValueError for no values, or values outside [0, 1].
    """
    values_SP = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if values_SP.ndim != 2 or not values_SP.size or not ((values_SP >= 0) & (values_SP <= 1)).all():
        raise ValueError("an interval needs a value from 0 to 1 for each problem")
    seeds, problems = values_SP.shape
    mean, end = float(values_SP.mean()), 1 - (1 - _checked(level)) ** (1 / problems)
    if values_SP.max() == 0 or values_SP.min() == 1:
        return (0.0, end) if mean == 0 else (1 - end, 1.0)
    most = mean * (1 - mean)  # the variance of problems that are always right or always wrong
    variance = float(values_SP.mean(axis=0).var(ddof=1)) / problems if problems > 1 else most
    variance += float(values_SP.mean(axis=1).var(ddof=1)) / seeds if seeds > 1 else 0.0
    n = problems * (problems * most + _PRIOR) / (problems**2 * variance + _PRIOR)
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre, half = mean + z * z / (2 * n), z * sqrt(most / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


def summarise(
    problems: Sequence[Mapping[str, Any]], ks: Iterable[int] = DEFAULT_KS, level: float = 0.95
) -> dict[str, dict[str, Any]]:
    """The `metrics` of an evaluation file: {"avg@n": {"value", "ci95": [lo, hi]}, "pass@1": ..., ...}; see `mean_interval`.

    `problems` are {"id", "n", "correct"}, and with partial credit "score", its sum over the samples: then there is also
    "score", the mean. All must have the same n, since avg@n and pass@k of mixed n would average estimates of different
    precision under one name. The k above n are left out. ValueError for no problems or mixed n.
    """
    if not problems:
        raise ValueError("an evaluation needs at least one problem")
    n_P = np.array([p["n"] for p in problems], dtype=np.int64)
    c_P = np.array([p["correct"] for p in problems], dtype=np.int64)
    n = int(n_P[0])
    if (n_P != n).any():
        odd = problems[int(np.flatnonzero(n_P != n)[0])]
        raise ValueError(f"problem {odd['id']!r} has {odd['n']} samples, the first one has {n}: they must be equal")
    rows = {f"avg@{n}": avg_at_k(c_P, n_P)}
    rows |= {f"pass@{k}": pass_at_k(n_P, c_P, k) for k in sorted(set(ks)) if k <= n}
    if "score" in problems[0]:
        scores_P = np.array([p["score"] for p in problems], dtype=np.float64) / n_P
        rows["score"] = np.clip(scores_P, 0.0, 1.0)  # sums of many floats end a last bit above 1
    return {
        key: {"value": float(values_P.mean()), "ci95": list(mean_interval(values_P, level))}
        for key, values_P in rows.items()
    }


def _counts(n: ArrayLike, c: ArrayLike) -> tuple[Floats, Floats]:
    n_P, c_P = np.broadcast_arrays(np.asarray(n, dtype=np.float64), np.asarray(c, dtype=np.float64))
    if n_P.size == 0:
        raise ValueError("no problems")
    if not ((n_P >= 1).all() and (c_P >= 0).all() and (c_P <= n_P).all()):
        raise ValueError("counts must satisfy 0 <= correct <= n and n >= 1")
    return n_P, c_P


def _values(values: ArrayLike, name: str) -> Floats:
    values_P = np.asarray(values, dtype=np.float64)
    if values_P.ndim != 1 or values_P.size == 0 or not np.isfinite(values_P).all():
        raise ValueError(f"{name} must be a non-empty list of finite numbers, one per problem")
    return values_P


def _resampled_means(values_MP: Floats, draws: int, seed: int) -> Floats:
    """Means over `draws` resamples of the problems, [metrics, draws]; every metric sees the same resamples."""
    rng = np.random.default_rng(seed)
    problems = values_MP.shape[1]
    means_MD = np.empty((values_MP.shape[0], draws))
    chunk = max(1, _CELLS // problems)
    for start in range(0, draws, chunk):
        stop = min(draws, start + chunk)
        index_DP = rng.integers(0, problems, size=(stop - start, problems))
        for m, values_P in enumerate(values_MP):
            means_MD[m, start:stop] = values_P[index_DP].mean(axis=1)
    return means_MD


def _percentiles(means_D: Floats, level: float) -> tuple[float, float]:
    level = _checked(level)
    lo, hi = np.quantile(means_D, [(1 - level) / 2, (1 + level) / 2])
    return float(lo), float(hi)


def _checked(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    return level
