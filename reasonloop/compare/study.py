"""Every arm against every other, and the result file of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonloop.compare.arms import Arms, ComparedArm
from reasonloop.compare.bootstrap import DRAWS, Difference, interval, over_seeds, paired, resampled_means
from reasonloop.errors import InputError
from reasonloop.evaluation.metrics import DEFAULT_KS, pass_at_k
from reasonloop.evaluation.table import TABLE_KS

Floats = NDArray[np.float64]
# More pairs than this fill screens: then tables and plots show each arm against the reference only.
MAX_PAIRS = 6


@dataclass(frozen=True)
class Comparison:
    """Arm `a` against arm `b` in one metric, over the seeds that both have."""

    a: ComparedArm
    b: ComparedArm
    metric: str
    seeds: tuple[int, ...]
    means: tuple[tuple[float, float], ...]
    """(a, b) at each of the seeds"""
    difference: Difference


def metrics_of(samples: int) -> list[str]:
    """What is compared: "avg@n", and pass@1, 8 and 32, or the highest k measured where 32 wasn't."""
    ks = [k for k in TABLE_KS if k <= samples]
    if samples < TABLE_KS[-1]:
        ks = sorted({*ks, max(k for k in DEFAULT_KS if k <= samples)})
    return [f"avg@{samples}", *(f"pass@{k}" for k in ks)]


def per_problem(arm: ComparedArm, metric: str) -> Floats:
    """Each problem's own estimate of the metric, [seeds, problems]: pass@k of a set is their mean."""
    name, _, k = metric.partition("@")
    n, correct_SP = arm.samples, arm.correct_SP
    if name == "avg":
        return np.asarray(correct_SP / n, dtype=np.float64)
    by_count = pass_at_k(n, np.arange(n + 1), int(k))
    return np.asarray(by_count[correct_SP], dtype=np.float64)


class Resampled:
    """One set of resampled problems for all arms and metrics, so that every comparison is of the same draws."""

    def __init__(self, arms: Sequence[ComparedArm], metrics: Sequence[str], draws: int = DRAWS) -> None:
        cells = {(arm.name, metric): per_problem(arm, metric) for arm in arms for metric in metrics}
        means_RD = resampled_means(np.concatenate([*cells.values()]), draws)
        draws_SD = np.split(means_RD, np.cumsum([len(values_SP) for values_SP in cells.values()])[:-1])
        self._means = {cell: (cells[cell].mean(axis=1), own_SD) for cell, own_SD in zip(cells, draws_SD, strict=True)}

    def estimate(self, arm: ComparedArm, metric: str) -> dict[str, Any]:
        """An arm's own result: "value", its mean over seeds and problems; "ci95" over both; "seeds", the mean at each."""
        means_S, means_SD = self._means[arm.name, metric]
        ci95 = np.clip(interval(over_seeds(means_SD)), 0.0, 1.0)
        return {"value": float(means_S.mean()), "ci95": ci95.tolist(), "seeds": means_S.tolist()}

    def compare(self, a: ComparedArm, b: ComparedArm, metric: str) -> Comparison:
        seeds = sorted(set(a.seeds) & set(b.seeds))
        if not seeds:
            raise InputError(
                f"arms {a.name!r} (seeds {_list(a.seeds)}) and {b.name!r} (seeds {_list(b.seeds)}) have no seed in "
                "common; expected at least one to pair them by"
            )
        rows_a, rows_b = [a.seeds.index(s) for s in seeds], [b.seeds.index(s) for s in seeds]
        (means_a, draws_a), (means_b, draws_b) = self._means[a.name, metric], self._means[b.name, metric]
        own_a, own_b = means_a[rows_a], means_b[rows_b]
        result = paired(draws_a[rows_a], draws_b[rows_b], float(own_a.mean()), float(own_b.mean()))
        means = tuple(zip(own_a.tolist(), own_b.tolist(), strict=True))
        return Comparison(a, b, metric, tuple(seeds), means, result)


def compare_arms(arms: Sequence[ComparedArm], draws: int = DRAWS) -> list[Comparison]:
    """Every pair of arms in every metric, in the arms' order (products, vanilla RL, SFT, base).

    InputError for a pair without a common seed.
    """
    metrics = metrics_of(arms[0].samples)
    resampled = Resampled(arms, metrics, draws)
    return [resampled.compare(a, b, metric) for a, b in combinations(arms, 2) for metric in metrics]


def difference_pairs(arms: Sequence[ComparedArm], comparisons: Sequence[Comparison]) -> list[Comparison]:
    """What has room where all pairs haven't: every pair of a few arms, of many each one's with the reference, which is
    vanilla RL, or else the base, or else the last arm."""
    if len(arms) * (len(arms) - 1) // 2 <= MAX_PAIRS:
        return list(comparisons)
    reference = [*(arm for kind in ("vanilla", "base") for arm in arms if arm.arm == kind), arms[-1]][0]
    return [c for c in comparisons if reference.name in (c.a.name, c.b.name)]


def results(found: Arms, comparisons: Sequence[Comparison], draws: int = DRAWS) -> dict[str, Any]:
    """A study's result file: machine, versions, arms (a value per seed, and the mean's interval) and comparisons."""
    samples = found.arms[0].samples
    average, ks = f"avg@{samples}", [k for k in DEFAULT_KS if k <= samples]
    resampled = Resampled(found.arms, [average, *(f"pass@{k}" for k in ks)], draws)
    arms: dict[str, Any] = {}
    for arm in found.arms:
        own = resampled.estimate(arm, average)
        passes = {str(k): resampled.estimate(arm, f"pass@{k}") for k in ks}
        arms[arm.name] = {
            "rollouts": arm.rollouts,
            "seeds": arm.seeds,
            average: own["seeds"],
            "pass@k": {k: estimate["seeds"] for k, estimate in passes.items()},
            "ci95": {average: own["ci95"], "pass@k": {k: estimate["ci95"] for k, estimate in passes.items()}},
        }
    rows = [
        {
            "a": c.a.name,
            "b": c.b.name,
            "metric": c.metric,
            **asdict(c.difference),
            "pairs": [{"seed": s, "a": a, "b": b} for s, (a, b) in zip(c.seeds, c.means, strict=True)],
        }
        for c in comparisons
    ]
    return {"machine": found.machine, "versions": found.versions, "arms": arms, "comparisons": rows}


def notes(found: Arms) -> list[str]:
    """What a reader must know to read the intervals right."""
    arms = found.arms
    problems, seeds = len(arms[0].entries[0].ids), {tuple(arm.seeds) for arm in arms}
    counts = [len(set(a.seeds) & set(b.seeds)) for a, b in combinations(arms, 2)] or [len(arms[0].seeds)]
    lines = [
        f"{problems} problems x {arms[0].samples} samples. 95 % intervals: bootstrap over seeds and problems, paired by "
        "both. P is the share of resamples in which the first arm leads."
    ]
    if min(counts) == 1:
        lines.append(
            "Of pairs with one seed in common the intervals are over problems only: they say nothing of how another "
            "seed would come out."
        )
    if max(counts) > 1 and min(counts) < 5:
        lines.append("With fewer than 5 seeds the intervals are too narrow where seeds differ more than problems do.")
    if len(seeds) > 1:
        every = sorted({seed for arm in arms for seed in arm.seeds})
        short = [f"{arm.name} lacks {_list(sorted(set(every) - set(arm.seeds)))}" for arm in arms if arm.seeds != every]
        lines.append(f"Not every arm has every seed ({'; '.join(short)}): pairs are over the seeds that both have.")
    return [*lines, *found.notes]


def _list(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
