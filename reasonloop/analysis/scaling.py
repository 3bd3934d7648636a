"""Scaling: held-out avg@n and pass@k over iterations and over rollouts, arm by arm (RLoop, arXiv 2511.04285)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasonloop.analysis.arms import by_arm, evaluations, largest_k, paired
from reasonloop.evaluation.metrics import bootstrap_ci, paired_bootstrap

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True)
class ScalingPoint:
    """One metric of one evaluated policy, with what its arm has gained since the start."""

    arm: str
    name: str
    place: int
    """In the arm: 0 for its first evaluation. For RLoop's RFT policies, iterations done (where SFT was no evaluation)"""
    iteration: int
    rollouts: int
    metric: str
    value: float
    ci95: tuple[float, float]
    """Bootstrap over problems"""
    gain: float
    """Over the policy that the arm's RL started from"""
    gain_ci95: tuple[float, float]
    """Paired bootstrap over problems"""
    gain_probability: float
    """That the gain is above zero, in the same resamples"""


def scaling(
    source: str | Path | duckdb.DuckDBPyConnection, metrics: Sequence[str] | None = None, seed: int = 0
) -> list[ScalingPoint]:
    """The scaling curves of the run in a folder (or behind a connection of `reasonloop.store.connect`).

    `metrics`: "avg" and "pass@k"; None for avg, pass@1, pass@4, ... up to the largest k that all evaluations have. The
    start is the last policy that had spent nothing: SFT where there was one, else base; else the arm's first one.
    """
    found = evaluations(source)
    chosen = list(metrics) if metrics is not None else _metrics(largest_k(found))
    points = []
    for arm, own in by_arm(found).items():
        start = ([e for e in own if e.stage in ("base", "sft")] or own[:1])[-1]
        for place, e in enumerate(own):
            for metric in chosen:
                gain, low, high, probability = paired_bootstrap(*paired(e, start, metric), seed=seed)
                points.append(
                    ScalingPoint(
                        *(arm, e.name, place, e.iteration, e.rollouts, metric),
                        *(e.mean(metric), bootstrap_ci(e.values(metric), seed=seed), gain, (low, high), probability),
                    )
                )
    return points


def rows(points: Sequence[ScalingPoint]) -> list[dict[str, Any]]:
    """A dict per point."""
    return [asdict(point) for point in points]


def _metrics(largest: int) -> list[str]:
    ks = [4**i for i in range(10) if 4**i < largest] + [largest]
    return ["avg", *(f"pass@{k}" for k in ks)]
