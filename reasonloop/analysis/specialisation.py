"""Over-specialisation: entropy, the gap between training and held-out accuracy, pass@k minus pass@1 (arXiv 2511.04285)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reasonloop.analysis.arms import Evaluation, by_arm, evaluations, largest_k, rl_steps
from reasonloop.evaluation.metrics import bootstrap_ci

if TYPE_CHECKING:
    import duckdb

WINDOW = 5
"""RL steps whose mean share of right rollouts is the training accuracy beside an evaluation"""


@dataclass(frozen=True, slots=True)
class EntropyPoint:
    """The policy's mean token entropy in one RL step, nats."""

    arm: str
    iteration: int
    step: int
    rollouts: int
    entropy: float


@dataclass(frozen=True, slots=True)
class SpecialisationPoint:
    """One evaluated policy."""

    arm: str
    name: str
    iteration: int
    rollouts: int
    train: float | None
    """Share of right training rollouts over WINDOW RL steps: the last ones before, for a policy that RL made; the first ones
    after, for a policy that RL goes on from (base, SFT, RFT). None where the run has none"""
    held_out: float
    gap: float | None
    """train - held_out"""
    gap_ci95: tuple[float, float] | None
    """Bootstrap over the held-out problems"""
    pass_1: float
    pass_k: float
    k: int
    spread: float
    """pass@k - pass@1: what sampling more than once is worth; a policy that always says the same has 0"""
    spread_ci95: tuple[float, float]
    """Bootstrap over the held-out problems"""


@dataclass(frozen=True, slots=True)
class Specialisation:
    """Over-specialisation of a run's arms."""

    entropy: list[EntropyPoint]
    evaluations: list[SpecialisationPoint]

    def rows(self) -> list[dict[str, Any]]:
        """The evaluations, a dict each."""
        return [asdict(point) for point in self.evaluations]


def specialisation(source: str | Path | duckdb.DuckDBPyConnection, window: int = WINDOW) -> Specialisation:
    """Over-specialisation of the run in a folder (or behind a connection of `reasonloop.store.connect`)."""
    steps, found = rl_steps(source), evaluations(source)
    k = largest_k(found)
    entropy = [
        EntropyPoint(arm, line["iteration"], line["step"], int(line["rollouts"] or 0), float(line["entropy"]))
        for arm, lines in steps.items()
        for line in lines
        if line.get("entropy") is not None
    ]
    points = []
    for arm, own in by_arm(found).items():
        lines = steps.get(arm.removesuffix(" explored"), [])
        for e in own:
            train, held_out = training_accuracy(lines, e, window), e.mean("avg")
            pass_1, pass_k = e.mean("pass@1"), e.mean(f"pass@{k}")
            gap, gap_ci95 = None, None
            if train is not None:
                low, high = bootstrap_ci(e.values("avg"))
                gap, gap_ci95 = train - held_out, (train - high, train - low)
            spread_ci95 = bootstrap_ci(e.values(f"pass@{k}") - e.values("pass@1"))
            point = (train, held_out, gap, gap_ci95, pass_1, pass_k, k, pass_k - pass_1, spread_ci95)
            points.append(SpecialisationPoint(arm, e.name, e.iteration, e.rollouts, *point))
    return Specialisation(entropy, points)


def training_accuracy(lines: Sequence[dict[str, Any]], e: Evaluation, window: int = WINDOW) -> float | None:
    """The share of right training rollouts that belongs to an evaluated policy (see `SpecialisationPoint.train`)."""
    if e.stage == "explore":
        near = [line for line in lines if line["iteration"] == e.iteration and line["rollouts"] <= e.rollouts][-window:]
    else:
        after = [line for line in lines if line["rollouts"] > e.rollouts]
        near = [line for line in after if line["iteration"] == after[0]["iteration"]][:window]
    known = [line["right"] for line in near if line.get("right") is not None]
    return float(np.mean(known)) if known else None
