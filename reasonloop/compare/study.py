"""Every arm against every other, and the result file of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonloop.compare.arms import Arms, ComparedArm
from reasonloop.compare.tradeoff import Tradeoff, as_json
from reasonloop.errors import InputError
from reasonloop.evaluation.bootstrap import DRAWS, Difference, paired, resampled_means
from reasonloop.evaluation.metrics import DEFAULT_KS, largest_k, mean_interval, pass_at_k
from reasonloop.evaluation.table import TABLE_KS

Floats = NDArray[np.float64]
# More pairs than this fill screens: of many, tables and plots show those that were asked for only.
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
        ks = sorted({*ks, largest_k(samples)})
    return [f"avg@{samples}", *(f"pass@{k}" for k in ks)]


def per_problem(arm: ComparedArm, metric: str) -> Floats:
    """Each problem's own estimate of the metric, [seeds, problems]: pass@k of a set is their mean."""
    name, _, k = metric.partition("@")
    n, correct_SP = arm.samples, arm.correct_SP
    if name == "avg":
        return np.asarray(correct_SP / n, dtype=np.float64)
    by_count = pass_at_k(n, np.arange(n + 1), int(k))
    return np.asarray(by_count[correct_SP], dtype=np.float64)


def estimate(arm: ComparedArm, metric: str) -> dict[str, Any]:
    """An arm's own result: "value", its mean over seeds and problems; "ci95" over both; "seeds", the mean at each."""
    values_SP = per_problem(arm, metric)
    means_S = values_SP.mean(axis=1)
    return {"value": float(means_S.mean()), "ci95": list(mean_interval(values_SP)), "seeds": means_S.tolist()}


class Resampled:
    """One set of resampled problems for all arms and metrics, so that every comparison is of the same draws."""

    def __init__(self, arms: Sequence[ComparedArm], metrics: Sequence[str], draws: int = DRAWS) -> None:
        cells = {(arm.name, metric): per_problem(arm, metric) for arm in arms for metric in metrics}
        means_RD = resampled_means(np.concatenate([*cells.values()]), draws)
        draws_SD = np.split(means_RD, np.cumsum([len(values_SP) for values_SP in cells.values()])[:-1])
        self._means = {cell: (cells[cell].mean(axis=1), own_SD) for cell, own_SD in zip(cells, draws_SD, strict=True)}

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
        overall = (float(own_a.mean()), float(own_b.mean()))
        result = paired(draws_a[rows_a], draws_b[rows_b], overall, a.correct_SP.shape[1])
        means = tuple(zip(own_a.tolist(), own_b.tolist(), strict=True))
        return Comparison(a, b, metric, tuple(seeds), means, result)


def compare_arms(arms: Sequence[ComparedArm], draws: int = DRAWS, baseline: str | None = None) -> list[Comparison]:
    """Every pair of arms in every metric. The first arm against each of the others comes first, with `baseline` each of
    the others against the arm of that name; then the rest, in the arms' order.

    InputError for a baseline that there isn't, and for a pair without a common seed.
    """
    metrics = metrics_of(arms[0].samples)
    pairs = _pairs(arms, baseline)
    resampled = Resampled(arms, metrics, draws)
    return [resampled.compare(a, b, metric) for a, b in pairs for metric in metrics]


def _pairs(arms: Sequence[ComparedArm], baseline: str | None) -> list[tuple[ComparedArm, ComparedArm]]:
    if baseline is None:
        return list(combinations(arms, 2))
    others = [arm for arm in arms if arm.name != baseline]
    if len(others) == len(arms):
        raise InputError(f"--baseline {baseline!r}: no such arm; expected one of {', '.join(arm.name for arm in arms)}")
    reference = next(arm for arm in arms if arm.name == baseline)
    return [*((arm, reference) for arm in others), *combinations(others, 2)]


def asked_pairs(arms: Sequence[ComparedArm], comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Those of the first arm, or with the baseline: as many pairs as there are other arms."""
    return list(comparisons[: (len(arms) - 1) * len(metrics_of(arms[0].samples))])


def difference_pairs(arms: Sequence[ComparedArm], comparisons: Sequence[Comparison]) -> list[Comparison]:
    """What has room where all pairs haven't: those that were asked for, and more up to `MAX_PAIRS`."""
    return list(comparisons[: max(len(arms) - 1, MAX_PAIRS) * len(metrics_of(arms[0].samples))])


def results(found: Arms, comparisons: Sequence[Comparison], traded: Tradeoff | None = None) -> dict[str, Any]:
    """A study's result file: machine, versions, arms (a value per seed, and the mean's interval), comparisons, and where the
    arms were evaluated on the way their curves."""
    samples = found.arms[0].samples
    average, ks = f"avg@{samples}", [k for k in DEFAULT_KS if k <= samples]
    arms: dict[str, Any] = {}
    for arm in found.arms:
        own = estimate(arm, average)
        passes = {str(k): estimate(arm, f"pass@{k}") for k in ks}
        arms[arm.name] = {
            "rollouts": arm.rollouts,
            "seeds": arm.seeds,
            average: own["seeds"],
            "pass@k": {k: one["seeds"] for k, one in passes.items()},
            "ci95": {average: own["ci95"], "pass@k": {k: one["ci95"] for k, one in passes.items()}},
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
    way = {"tradeoff": as_json(traded)} if traded and traded.curves else {}
    return {"machine": found.machine, "versions": found.versions, "arms": arms, "comparisons": rows, **way}


def _list(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
