"""Average against pass@k on the way: what any method trades for the other, read at equal averages and at equal rollouts.

One policy is one point, and any point can be moved along such a curve: by stopping earlier, by averaging with the start. So
two methods are compared by their curves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonloop.compare.arms import ComparedArm
from reasonloop.evaluation.bootstrap import DRAWS, FEWEST, interval, over_seeds, resampled_means
from reasonloop.evaluation.metrics import largest_k, mean_interval, pass_at_k
from reasonloop.evaluation.spread import spread
from reasonloop.evaluation.table import trunk_of, weighed, weight_of

Floats = NDArray[np.float64]
GRID = 65
"""Averages at which two curves are compared"""
ENOUGH = 0.95
"""Share of resamples in which there has to be something to compare"""


@dataclass(frozen=True)
class Curve:
    """An arm's policies: over the rollouts spent, or over the weight of an average of its start and its end."""

    name: str
    of: str
    """What its arm is called, whether it or an average of it is delivered"""
    arm: ComparedArm
    over: str
    """"rollouts" or "weight" """
    at: tuple[float, ...]
    """Rollouts or weights of the points; the first is the start"""
    correct_NSP: NDArray[np.int64]
    """Right ones of `arm.samples`, [points, seeds, problems]"""

    def label(self, point: int) -> str:
        if not point:
            return "start"
        return f"{self.at[point]:,.0f} rollouts" if self.over == "rollouts" else f"w = {self.at[point]:g}"


def common_seeds(a: Curve, b: Curve) -> list[int]:
    return sorted(set(a.arm.seeds) & set(b.arm.seeds))


def curves(arms: Sequence[ComparedArm]) -> list[Curve]:
    """Those of the arms that were evaluated on the way or averaged with their start, at as many points in every seed."""
    found = []
    for arm in arms:
        ways = [entry.way for entry in arm.entries]
        if arm.trained and len(ways[0]) > 1 and len({len(way) for way in ways}) == 1:
            at = tuple(float(np.mean([stop.rollouts for stop in stops])) for stops in zip(*ways, strict=True))
            right = np.array([[stop.correct_P for stop in stops] for stops in zip(*ways, strict=True)])
            of = arm.name.removesuffix(" x 1")
            found.append(Curve(of, of, arm, "rollouts", at, right))
            found += _averaged(arm, right[0], arms)
    return found


def _averaged(arm: ComparedArm, start_SP: NDArray[np.int64], arms: Sequence[ComparedArm]) -> list[Curve]:
    """The curve over the weights of the averages of an arm's end, if there are such."""
    runs = [entry.run for entry in arm.entries]
    own = [one for one in arms if weighed(one.arm) and trunk_of(one.arm) == arm.arm]
    own = [one for one in own if [entry.run for entry in one.entries] == runs]
    if not own:
        return []
    weights = {weight: one.correct_SP for one in own if (weight := weight_of(one.arm))}
    at = (0.0, *sorted(weights), 1.0)
    right = np.array([start_SP, *(weights[weight] for weight in sorted(weights)), arm.correct_SP])
    of = arm.name.removesuffix(" x 1")
    return [Curve(f"{of}, averaged", of, arm, "weight", at, right)]


def values(curve: Curve) -> tuple[Floats, Floats]:
    """The average and pass@k of every point, each [points, seeds, problems]."""
    n = curve.arm.samples
    by_count = pass_at_k(n, np.arange(n + 1), largest_k(n))
    return curve.correct_NSP / n, by_count[curve.correct_NSP]


def points(curve: Curve) -> list[dict[str, Any]]:
    """Of each point what it is, its average and its pass@k, each with its 95 % interval over seeds and problems."""
    averages, passed = values(curve)
    return [
        {
            curve.over: at,
            "avg": {"value": float(own.mean()), "ci95": list(mean_interval(own))},
            "pass": {"value": float(solved.mean()), "ci95": list(mean_interval(solved))},
        }
        for at, own, solved in zip(curve.at, averages, passed, strict=True)
    ]


class Drawn:
    """Curves under one and the same resamples of seeds and problems."""

    def __init__(self, found: Sequence[Curve], draws: int = DRAWS) -> None:
        self._means: dict[str, Floats] = {}
        self._draws: dict[str, Floats] = {}
        for curve in found:
            both = np.stack(values(curve))  # [metrics, points, seeds, problems]
            flat = both.reshape(-1, both.shape[-1])
            self._draws[curve.name] = resampled_means(flat, draws).reshape(*both.shape[:3], draws)
            self._means[curve.name] = both.mean(axis=3)

    def _of(self, curve: Curve, seeds: Sequence[int]) -> tuple[Floats, Floats, Floats, Floats]:
        """Average and pass@k of the points over these seeds, [points]; and of each draw, [draws, points]."""
        rows = [curve.arm.seeds.index(seed) for seed in seeds]
        means = self._means[curve.name][:, :, rows].mean(axis=2)
        drawn = [[over_seeds(means_SD) for means_SD in of] for of in self._draws[curve.name][:, :, rows]]
        own = np.asarray(drawn)  # [metrics, points, draws]
        return means[0], means[1], own[0].T, own[1].T

    def gap(self, a: Curve, b: Curve) -> dict[str, Any] | None:
        """How far pass@k of `a` lies above that of `b` at equal averages, over the seeds that both have: the mean from the
        start's average to the highest that both reach, and the least gap there. Where a curve has an average twice, the
        better one counts. None where one of them never rises above its start."""
        seeds = common_seeds(a, b)
        (x, y, x_DN, y_DN), (u, v, u_DN, v_DN) = self._of(a, seeds), self._of(b, seeds)
        (told_G,), (low,), (high,) = _gaps(x[None], y[None], u[None], v[None])
        if high <= low:
            return None
        gaps_DG, lows_D, highs_D = _gaps(x_DN, y_DN, u_DN, v_DN)  # over each draw's own stretch
        means_D = gaps_DG.mean(axis=1)[highs_D > lows_D]
        if len(means_D) < ENOUGH * len(lows_D):
            return None
        lo, hi = interval(means_D)
        return {
            "seeds": seeds,
            "gap": float(told_G.mean()),
            "ci95": [lo, hi],
            "least": float(told_G.min()),
            "averages": [float(low), float(high)],
            "sign": int(lo > 0) - int(hi < 0),
        }

    def equal(self, a: Curve, b: Curve) -> list[dict[str, Any]]:
        """For each point of `a` behind its start that lies above the start of `b`: after how many rollouts `b` first has
        that average, and how far pass@k of `a` is above that of `b` there. A bound of None: not within the rollouts of
        `b`."""
        seeds = common_seeds(a, b)
        (x, y, x_DN, y_DN), (u, v, u_DN, v_DN) = self._of(a, seeds), self._of(b, seeds)
        spent_N = np.array(b.at)
        rows = []
        for point in (n for n in range(1, len(a.at)) if x[n] >= u[0]):
            when, passed = reached(u[None], v[None], spent_N, x[None, point])
            when_D, passed_D = reached(u_DN, v_DN, spent_N, x_DN[:, point])
            # no interpolation: between a number and an infinity there is nothing
            lo, hi = (float(bound) for bound in np.quantile(when_D, [0.025, 0.975], method="nearest"))
            ahead_D = (y_DN[:, point] - passed_D)[np.isfinite(when_D)]
            there = bool(np.isfinite(when[0])) and np.isfinite(when_D).mean() > ENOUGH
            rows.append(
                {
                    "rollouts": a.at[point],
                    "equals": _finite(float(when[0])),
                    "ci95": [_finite(lo), _finite(hi)],
                    "pass": float(y[point] - passed[0]) if there else None,
                    "pass_ci95": list(interval(ahead_D)) if there else None,
                }
            )
        return rows


def spread_of(curve: Curve) -> dict[str, Any] | None:
    """`evaluation.spread` over the policies on a curve's way. None for averages, and where an evaluation doesn't tell which
    samples were right."""
    ways = [[stop.right_PN for stop in entry.way[1:] if stop.right_PN is not None] for entry in curve.arm.entries]
    if curve.over != "rollouts" or any(len(own) < len(curve.at) - 1 for own in ways):
        return None
    return spread([np.array(own) for own in ways], largest_k(curve.arm.samples))


def _gaps(x_DN: Floats, y_DN: Floats, u_DN: Floats, v_DN: Floats) -> tuple[Floats, Floats, Floats]:
    """Of two curves the gaps in pass@k from the starts' average to the highest that both reach, [draws, grid], and where
    that stretch begins and ends, [draws]."""
    low_D = np.maximum(x_DN[:, 0], u_DN[:, 0])
    high_D = np.minimum(x_DN.max(axis=1), u_DN.max(axis=1))
    at_DG = low_D[:, None] + np.maximum(high_D - low_D, 0.0)[:, None] * np.linspace(0, 1, GRID)
    return at_averages(x_DN, y_DN, at_DG) - at_averages(u_DN, v_DN, at_DG), low_D, high_D


def at_averages(x_DN: Floats, y_DN: Floats, at_DG: Floats) -> Floats:
    """The most that a curve has at averages `at`, [draws, grid]. `x_DN`, `y_DN`: averages and pass@k of its points; between
    two of them it is taken as straight. Where it never has that average (in some draws): what it has at its nearest one."""
    best_DG = np.full(at_DG.shape, -np.inf)
    for i, j in pairwise(range(x_DN.shape[1])):
        (x0, y0), (x1, y1) = ((x_DN[:, n, None], y_DN[:, n, None]) for n in (i, j))
        share = (at_DG - x0) / np.where(x1 == x0, 1.0, x1 - x0)
        crossing = np.where((share >= 0) & (share <= 1), y0 + share * (y1 - y0), -np.inf)
        best_DG = np.maximum(best_DG, crossing)
    nearest_DG = np.abs(x_DN[:, :, None] - at_DG[:, None, :]).argmin(axis=1)
    return np.where(np.isfinite(best_DG), best_DG, np.take_along_axis(y_DN, nearest_DG, axis=1))


def reached(x_DN: Floats, y_DN: Floats, spent_N: Floats, level_D: Floats) -> tuple[Floats, Floats]:
    """The rollouts after which a curve first has an average of `level`, inf where it never does, and its pass@k there."""
    when_D, passed_D = np.full(len(x_DN), np.inf), np.full(len(x_DN), np.nan)
    for i in range(x_DN.shape[1] - 1, 0, -1):
        x0, x1 = x_DN[:, i - 1], x_DN[:, i]
        share = np.clip((level_D - x0) / np.where(x1 == x0, 1.0, x1 - x0), 0.0, 1.0)
        here = (np.minimum(x0, x1) <= level_D) & (level_D <= np.maximum(x0, x1))
        when_D = np.where(here, spent_N[i - 1] + share * (spent_N[i] - spent_N[i - 1]), when_D)
        passed_D = np.where(here, y_DN[:, i - 1] + share * (y_DN[:, i] - y_DN[:, i - 1]), passed_D)
    below = level_D <= x_DN[:, 0]
    return np.where(below, spent_N[0], when_D), np.where(below, y_DN[:, 0], passed_D)


@dataclass(frozen=True)
class Tradeoff:
    """What there is to say of the curves: by their names."""

    k: int
    curves: tuple[Curve, ...]
    gaps: Mapping[tuple[str, str], dict[str, Any]]
    equal: Mapping[tuple[str, str], list[dict[str, Any]]]
    spread: Mapping[str, dict[str, Any]]


def tradeoff(arms: Sequence[ComparedArm], baseline: str | None = None) -> Tradeoff:
    """Of the first arm's curves against each of the others, or of each against those of `baseline`."""
    k = largest_k(arms[0].samples)
    if k == 1:  # pass@1 is the average
        return Tradeoff(k, (), {}, {}, {})
    found = curves(arms)
    drawn = Drawn(found)
    gaps, equal = {}, {}
    for a, b in _pairs(found, baseline) if len(arms[0].entries[0].ids) >= FEWEST else ():
        if (gap := drawn.gap(a, b)) is not None:
            gaps[a.name, b.name] = gap
        if a.over == b.over == "rollouts":
            equal[a.name, b.name] = drawn.equal(a, b)
    spread_out = {curve.name: own for curve in found if (own := spread_of(curve)) is not None}
    return Tradeoff(k, tuple(found), gaps, equal, spread_out)


def _pairs(found: Sequence[Curve], baseline: str | None) -> list[tuple[Curve, Curve]]:
    """Only curves of two arms: an arm's own averages lie on both of its ends."""
    names = [curve.of for curve in found]
    turned = baseline in names
    one = baseline if turned else names[0] if names else ""
    own, others = ([c for c in found if (c.of == one) == mine] for mine in (True, False))
    return [(b, a) if turned else (a, b) for a in own for b in others if common_seeds(a, b)]


def last_equal(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Of `Drawn.equal` the last point that the other curve reaches within its rollouts."""
    return next((row for row in reversed(rows) if row["equals"] is not None), None)


def as_json(found: Tradeoff) -> dict[str, Any]:
    """As it stands in a study's result file."""
    return {
        "k": found.k,
        "curves": {curve.name: points(curve) for curve in found.curves},
        "gaps": [{"a": a, "b": b, **gap} for (a, b), gap in found.gaps.items()],
        "equal": [{"a": a, "b": b, "points": rows} for (a, b), rows in found.equal.items()],
        "spread": dict(found.spread),
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
