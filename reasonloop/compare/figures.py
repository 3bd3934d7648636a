"""The comparison's plots as plain data (the format of `reasonloop.report.figures`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from reasonloop.compare.arms import ComparedArm
from reasonloop.compare.policies import Entry, Point
from reasonloop.compare.study import Comparison, difference_pairs, estimate
from reasonloop.compare.tradeoff import Tradeoff, points
from reasonloop.compare.words import share
from reasonloop.report.figures import Figure, beginning, crossed, rounded

PALETTE = 7  # colours of the style sheet for arms that have none of their own


def arm_colours(arms: Sequence[ComparedArm]) -> dict[str, str]:
    """Arm name -> the style sheet's colour: the first arm of a kind has the colour that reports give it."""
    own: dict[str, str] = {}
    others = 0
    for arm in arms:
        if arm.arm != "explored" and arm.arm not in own.values():
            own[arm.name] = arm.arm
        else:
            others += 1
            own[arm.name] = f"arm-{(others - 1) % PALETTE + 1}"
    return own


def forests(arms: Sequence[ComparedArm], comparisons: Sequence[Comparison], metrics: Sequence[str]) -> list[Figure]:
    """Relative differences with their intervals, a figure a metric, coloured by the first arm."""
    colours = arm_colours(arms)
    figures = []
    for metric in metrics:
        rows = [c for c in difference_pairs(arms, comparisons) if c.metric == metric]
        traces = []
        for c in rows:
            lo, hi = c.difference.ci95
            relative = c.difference.relative
            if relative is not None:
                row = {"x": [rounded(relative)], "lo": [rounded(lo)], "hi": [rounded(hi)], "y": [[c.a.name, c.b.name]]}
                leads = f"leads in {share(c.difference.probability)} of resamples"
                text = [f"{leads}, {len(c.seeds)} seed{'s' * (len(c.seeds) > 1)}"]
                traces.append({"series": colours[c.a.name], "name": c.a.name, "kind": "forest", "text": text, **row})
        figures.append({"id": f"forest-{metric}", "x": "relative difference", "forest": len(traces), "traces": traces})
    return [figure for figure in figures if figure["traces"]]


def pass_at_k(arms: Sequence[ComparedArm]) -> Figure:
    """pass@k over k: means over seeds and problems, bands of 95 % over both."""
    n, colours = arms[0].samples, arm_colours(arms)
    ticks = [1 << i for i in range(n.bit_length())]
    ks = sorted({*ticks, *range(1, min(n, 8) + 1), n})
    traces: list[Figure] = []
    for arm in reversed(arms):  # the first arm is drawn last, on top
        found = [estimate(arm, f"pass@{k}") for k in ks]
        head = {"series": colours[arm.name], "name": arm.name, "x": ks}
        band = {"lo": [rounded(e["ci95"][0]) for e in found], "hi": [rounded(e["ci95"][1]) for e in found]}
        traces.append({**head, "kind": "band", "y": [], **band})
        traces.append({**head, "kind": "line", "y": [rounded(e["value"]) for e in found]})
    return {"id": "pass-at-k", "x": "k (samples)", "xType": "log", "xTicks": ticks, "topFirst": True, "traces": traces}


def held_out(arms: Sequence[ComparedArm]) -> list[Figure]:
    """avg@n on the test problems, and on probe problems, over rollouts spent: a thin line a seed, a thick one their mean."""
    test = _curves(arms, "held-out-avg", _averages, "points")
    probe = _curves(arms, "probe-avg", lambda entry: entry.probes, "line")
    return [figure for figure in (test, probe) if figure["traces"]]


def _averages(entry: Entry) -> list[Point]:
    return [(stop.rollouts, float(stop.correct_P.mean()) / entry.samples) for stop in entry.way]


def tradeoff_figure(found: Tradeoff, samples: int) -> Figure | None:
    """Average against pass@k: a line a curve from its start on, with 95 % intervals as crosses; dashed over weights."""
    if not found.curves:
        return None
    colours = arm_colours([curve.arm for curve in found.curves if curve.over == "rollouts"])
    traces = [
        crossed(
            colours[curve.arm.name],
            curve.name,
            [
                (point["avg"], point["pass"], f"{curve.name}, {curve.label(place)}")
                for place, point in enumerate(points(curve))
            ],
            dashed=curve.over == "weight",
        )
        for curve in reversed(found.curves)
    ]
    start = points(found.curves[0])[0]
    traces.insert(0, beginning("base", "where RL starts", start["avg"], start["pass"]))
    axes = {"x": f"avg@{samples}", "xFormat": ".3f", "metric": f"pass@{found.k} against avg@{samples}"}
    return {"id": "tradeoff", **axes, "topFirst": True, "traces": traces}


def mean_curve(curves: Sequence[Sequence[Point]]) -> list[Point]:
    """The mean of curves over the stretch that all of them cover, at every x that one of them has.

    Runs with refills spend unequal rollouts in a step, so their points lie side by side: between points a curve is
    taken as straight.
    """
    lo, hi = max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves)
    xs = sorted({x for curve in curves for x, _ in curve if lo <= x <= hi})
    means = np.mean([np.interp(xs, [x for x, _ in curve], [y for _, y in curve]) for curve in curves], axis=0)
    return [(x, float(y)) for x, y in zip(xs, means, strict=True)]


def _curves(arms: Sequence[ComparedArm], name: str, of: Callable[[Entry], Sequence[Point]], kind: str) -> Figure:
    colours = arm_colours(arms)
    traces: list[Figure] = []
    for arm in reversed(arms):
        curves = [of(entry) for entry in arm.entries if len(of(entry)) > 1]
        if not curves:
            continue
        head = {"series": colours[arm.name], "name": arm.name}
        if len(curves) > 1:
            traces += [_line({**head, "kind": "faint"}, curve) for curve in curves]
        traces.append(_line({**head, "kind": kind}, mean_curve(curves)))
    return {"id": name, "x": "rollouts spent", "topFirst": True, "traces": traces}


def _line(head: Mapping[str, Any], points: Sequence[Point]) -> Figure:
    return {**head, "x": [x for x, _ in points], "y": [rounded(y) for _, y in points]}
