"""RL overfitting: training reward against held-out avg@n and pass@k, on one axis of rollouts spent (arXiv 2511.04285)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reasonloop.analysis.arms import Evaluation, by_arm, evaluations, largest_k, paired, probes, rl_steps
from reasonloop.evaluation.metrics import bootstrap_ci, paired_bootstrap

if TYPE_CHECKING:
    import duckdb

_SPLITS = 100  # random halvings of the problems behind `cross_fitted`


@dataclass(frozen=True, slots=True)
class TrainPoint:
    """One RL step."""

    arm: str
    iteration: int
    step: int
    rollouts: int
    reward: float | None
    right: float | None


@dataclass(frozen=True, slots=True)
class HeldOutPoint:
    """One metric of one evaluation. Probe evaluations have no interval, since the run keeps no counts of theirs."""

    arm: str
    name: str
    split: str
    iteration: int
    rollouts: int
    metric: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Fall:
    """From an arm's best held-out value to its last one."""

    arm: str
    metric: str
    peak_name: str
    peak_rollouts: int
    peak: float
    last_name: str
    last_rollouts: int
    last: float
    fall: float
    """peak - last, 0 or more"""
    ci95: tuple[float, float]
    """Paired bootstrap over problems, the peak's place taken as given: since the best of several noisy values is too high,
    so is this interval; `cross_fitted` isn't"""
    probability: float
    """That the peak is above the last, in the same resamples"""
    cross_fitted: float | None
    """The fall measured on one half of the problems from the peak that the other half chooses, mean over random halvings:
    negative where there is no fall. None for a single problem"""


@dataclass(frozen=True, slots=True)
class Overfitting:
    """The overfitting curves of a run."""

    train: list[TrainPoint]
    held_out: list[HeldOutPoint]
    falls: list[Fall]

    def rows(self) -> list[dict[str, Any]]:
        """All points in one long table: arm, rollouts, series ("train reward" or split and metric), value, low, high."""
        train = [
            {
                "arm": p.arm,
                "rollouts": p.rollouts,
                "series": "train reward",
                "value": p.reward,
                "low": None,
                "high": None,
            }
            for p in self.train
        ]
        held_out = [
            {
                "arm": p.arm,
                "rollouts": p.rollouts,
                "series": f"{p.split} {p.metric}",
                "value": p.value,
                "low": p.low,
                "high": p.high,
            }
            for p in self.held_out
        ]
        return train + held_out


def overfitting(
    source: str | Path | duckdb.DuckDBPyConnection, metrics: Sequence[str] | None = None, seed: int = 0
) -> Overfitting:
    """The curves of the run in a folder (or behind a connection of `reasonloop.store.connect`).

    `metrics`: "avg" and "pass@k"; None for avg and the largest k that all evaluations have. Probe evaluations are added
    with the metrics of these names that their lines hold.
    """
    found = evaluations(source)
    chosen = list(metrics) if metrics is not None else ["avg", f"pass@{largest_k(found)}"]
    train = [
        TrainPoint(arm, line["iteration"], line["step"], int(line["rollouts"] or 0), line["reward"], line.get("right"))
        for arm, lines in rl_steps(source).items()
        for line in lines
    ]
    arms = by_arm(found)
    held_out = [held_out_point(arm, e, metric, seed) for arm, own in arms.items() for e in own for metric in chosen]
    for arm, lines in probes(source).items():
        for line in lines:
            held_out += _probe_points(arm, line, chosen)
    falls = [fall for arm, own in arms.items() for metric in chosen if (fall := fall_from_peak(arm, own, metric, seed))]
    return Overfitting(train, held_out, falls)


def held_out_point(arm: str, e: Evaluation, metric: str, seed: int = 0) -> HeldOutPoint:
    """One metric of an evaluation with its 95 % bootstrap interval over problems."""
    values = e.values(metric)
    low, high = bootstrap_ci(values, seed=seed)
    return HeldOutPoint(arm, e.name, e.split, e.iteration, e.rollouts, metric, float(values.mean()), low, high)


def fall_from_peak(arm: str, own: Sequence[Evaluation], metric: str, seed: int = 0) -> Fall | None:
    """The fall from the best of an arm's evaluations (the earliest of equal ones) to its last; None for fewer than two."""
    if len(own) < 2:
        return None
    means = [e.mean(metric) for e in own]
    peak, last = own[int(np.argmax(means))], own[-1]
    fall, low, high, probability = paired_bootstrap(*paired(peak, last, metric), seed=seed)
    return Fall(
        arm=arm,
        metric=metric,
        peak_name=peak.name,
        peak_rollouts=peak.rollouts,
        peak=max(means),
        last_name=last.name,
        last_rollouts=last.rollouts,
        last=means[-1],
        fall=fall,
        ci95=(low, high),
        probability=probability,
        cross_fitted=_cross_fitted(own, metric, seed),
    )


def _cross_fitted(own: Sequence[Evaluation], metric: str, seed: int) -> float | None:
    values = [dict(zip(e.correct, e.values(metric), strict=True)) for e in own]
    shared = [problem for problem in values[0] if all(problem in other for other in values)]
    values_TP = np.array([[of[problem] for problem in shared] for of in values])
    problems = len(shared)
    if problems < 2:
        return None
    rng = np.random.default_rng(seed)
    falls = []
    for _ in range(_SPLITS):
        order = rng.permutation(problems)
        half, other = order[: problems // 2], order[problems // 2 :]
        for choosing, measuring in ((half, other), (other, half)):
            best = int(np.argmax(values_TP[:, choosing].mean(axis=1)))
            falls.append(float((values_TP[best, measuring] - values_TP[-1, measuring]).mean()))
    return float(np.mean(falls))


def _probe_points(arm: str, line: dict[str, Any], metrics: Sequence[str]) -> list[HeldOutPoint]:
    averages = [key for key in line if key.startswith("avg@") and line[key] is not None]
    points = []
    for metric in metrics:
        key = averages[0] if metric == "avg" and averages else metric
        if line.get(key) is not None:
            points.append(
                HeldOutPoint(
                    *(arm, f"step {line['step']}", "probe", line["iteration"], int(line["rollouts"] or 0)),
                    *(metric, float(line[key]), None, None),
                )
            )
    return points
