"""The report's plots as plain data: named traces that the page's script colours for light or dark and hands to plotly.

A figure is {"id", "x": axis title, "traces": [...]} with optional "xType": "log", "xTicks", "xWhole" (whole numbers alone),
"xFormat" (of numbers that aren't rollouts), "yRange", "yType", "marks" (x positions of iteration starts); where each arm has
one of a kind, with "group" (that kind) and "arm" (its name). A trace is {"series": colour, "name", "kind", "x", "y"}; kinds:
"line", "faint", "dashed", "points" and "open" (with "lo" and "hi" for intervals, "xLo" and "xHi" for those of x; with "dash"
where the line joins no steps of training), "band" (with "lo" and "hi"), "area", "heat" (with "z", and optional "text" and
"grey": what stands in a cell, and whether its value means nothing).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from reasonloop.evaluation.metrics import summarise
from reasonloop.evaluation.table import PASSED, STARTS, arm_of, arms_of, label_of, reported, trunk_of, weight_of
from reasonloop.report.run import RunData, number

Figure = dict[str, Any]
Line = Mapping[str, Any]
Point = tuple[float, float, Sequence[float], str]
"""x, y, the interval of y, and the policy's label"""

VERDICTS = ("right", "wrong", "unparseable", "timeout", "crashed")
# A line has at most so many points, an area so many steps: enough for any screen, and a long run's report stays small.
MAX_POINTS = 1500
MAX_STEPS = 300
FEW_SOLVED = 5
"""Problems; of fewer a share means nothing"""


@dataclass
class Analyses:
    """What the analyses have found: figures, and by section of the page the sentences that go with it."""

    figures: list[Figure] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def note(self, section: str, text: str) -> None:
        self.notes.setdefault(section, []).append(text)


def all_figures(run: RunData) -> list[Figure]:
    """Every figure that needs no analysis and that the run has data for, in reading order."""
    figures = [
        _per_step(run, "reward", "reward", x="rollouts spent"),
        _held_out(run, "held-out-avg", "avg"),
        _held_out(run, "held-out-pass", "pass"),
        _tradeoff(run),
        _pass_at_k(run),
        _per_step(run, "grad-norm", "grad_norm", yType="log"),
        _per_step(run, "entropy", "entropy", yRange=[0, None]),
        _per_step(run, "kl", "kl"),
        _per_step(run, "length", "length", yRange=[0, None]),
        *(_verdicts(run, arm) for arm in run.rl_steps()),
        _finetuning(run),
    ]
    return [figure for figure in figures if figure["traces"]]


def _per_step(run: RunData, name: str, key: str, x: str = "RL step", **layout: Any) -> Figure:
    traces = []
    marks = set()  # where iterations after the first begin
    for arm, lines in run.rl_steps().items():
        steps: list[float | None] = [i + 1 for i in range(len(lines))]
        xs = steps if x == "RL step" else [number(line, "rollouts") for line in lines]
        traces += _faint_and_smooth(arm, run.name(arm), lines, key, xs)
        turns = [i for i, (before, line) in enumerate(pairwise(lines)) if line["iteration"] != before["iteration"]]
        marks |= {i + 1.5 if x == "RL step" else xs[i] or 0.0 for i in turns}
    values = [y for trace in traces for y in trace["y"] if y is not None]
    if layout.get("yType") == "log" and values and (min(values) <= 0 or max(values) < 20 * min(values)):
        layout = {"yRange": [0, None]}
    if key == "kl" and not any(values):  # nothing holds the policy to where it began
        traces = []
    whole = {"xWhole": True} if x == "RL step" else {}
    return {"id": name, "x": x, "traces": traces, "marks": sorted(marks), **whole, **layout}


def _held_out(run: RunData, name: str, metric: str) -> Figure:
    """Held-out results with intervals over rollouts spent; probe problems, which may steer the run, as dashed lines."""
    results = [e for e in run.results if _metric_key(e["metrics"], metric)]
    start = [e for e in results if arm_of(e) in STARTS][-1:]
    traces = []
    for arm in run.arms:
        own = [e for e in results if arm_of(e) == arm]
        if own and arm in PASSED:
            traces.append(_points(arm, run.name(arm), "open", own, metric))
        elif own and arm not in STARTS:
            traces.append(_points(arm, run.name(arm), "points", [*start, *own], metric))
    if not traces:
        traces = [_points(arm_of(e), label_of(e), "points", [e], metric) for e in results]
    traces += _probes(run, metric)
    keys = sorted({str(_metric_key(e["metrics"], metric)) for e in results})
    return {"id": name, "x": "rollouts spent", "metric": " / ".join(keys), "traces": traces}


def _points(arm: str, name: str, kind: str, evals: Sequence[Line], metric: str) -> Figure:
    found = [(e, e["metrics"][_metric_key(e["metrics"], metric)]) for e in evals]
    points = [(number(e, "rollouts") or 0, m["value"], m["ci95"], label_of(e)) for e, m in found]
    return with_intervals(arm, name, kind, points)


def with_intervals(series: str, name: str, kind: str, points: Sequence[Point]) -> Figure:
    """A trace of kind "points" or "open"."""
    return {
        **_trace(series, name, kind, [x for x, *_ in points], [rounded(y) for _, y, *_ in points]),
        "lo": [rounded(low) for *_, (low, _), _ in points],
        "hi": [rounded(high) for *_, (_, high), _ in points],
        "text": [label for *_, label in points],
    }


Estimate = Mapping[str, Any]
"""{"value", "ci95"}"""


def crossed(series: str, name: str, points: Sequence[tuple[Estimate, Estimate, str]], dashed: bool = False) -> Figure:
    """A trace of points that are estimates in both directions: (x, y, label) of each."""
    trace = with_intervals(series, name, "points", [(x["value"], y["value"], y["ci95"], text) for x, y, text in points])
    ends = {key: [rounded(x["ci95"][end]) for x, _, _ in points] for end, key in enumerate(("xLo", "xHi"))}
    return {**trace, "x": [rounded(x["value"]) for x, _, _ in points], **ends, **({"dash": True} if dashed else {})}


def _tradeoff(run: RunData) -> Figure:
    """Average against pass@k: a line an arm from its start on, dashed over the weights of averages with the start."""
    every = [e for e in reported(run.evals) if _metric_key(e["metrics"], "avg") and _metric_key(e["metrics"], "pass")]
    keys = [str(_metric_key(every[-1]["metrics"], metric)) for metric in ("avg", "pass")] if every else ["", ""]
    found = [e for e in every if all(key in e["metrics"] for key in keys)]  # those of as many samples
    start = [e for e in found if arm_of(e) in STARTS][-1:]
    traces = []
    for arm in run.arms:
        own = [e for e in found if arm_of(e) == arm]
        if own and arm not in STARTS and arm not in PASSED:
            traces.append(_way(arm, run.name(arm), [*start, *own], keys))
            weights = {weight: e for e in found if trunk_of(arm_of(e)) == arm and (weight := weight_of(arm_of(e)))}
            if weights:
                beside = [weights[weight] for weight in sorted(weights)]
                traces.append(_way(arm, f"{run.name(arm)}, averaged", [*start, *beside, own[-1]], keys, dashed=True))
    if keys[1] == "pass@1":  # the same number
        traces = []
    if traces and start:
        x, y = (start[0]["metrics"][key] for key in keys)
        traces.append(beginning(arm_of(start[0]), label_of(start[0]), x, y))
    axes = {"x": keys[0], "xFormat": ".3f", "metric": f"{keys[1]} against {keys[0]}"}
    return {"id": "tradeoff", **axes, "traces": traces[::-1], "topFirst": True}


def beginning(series: str, name: str, x: Estimate, y: Estimate) -> Figure:
    """The mark of what all curves begin with."""
    return {**crossed(series, name, [(x, y, name)]), "kind": "open"}


def _way(arm: str, name: str, evals: Sequence[Line], keys: Sequence[str], dashed: bool = False) -> Figure:
    x, y = keys
    return crossed(arm, name, [(e["metrics"][x], e["metrics"][y], label_of(e)) for e in evals], dashed)


def _probes(run: RunData, metric: str) -> list[Figure]:
    seen: dict[str, dict[float, tuple[str, float]]] = {}
    for record in [*run.stage("probe"), *(e for e in run.evals if e.get("metrics") and e not in run.results)]:
        metrics = record.get("metrics", record)
        key, rollouts = _metric_key(metrics, metric), number(record, "rollouts")
        if key is None or rollouts is None:
            continue
        value = metrics[key]["value"] if isinstance(metrics[key], Mapping) else metrics[key]
        for arm in arms_of(record):
            seen.setdefault(arm, {})[rollouts] = key, float(value)
    traces = []
    for arm in run.arms:
        xs = sorted(seen.get(arm, {}))
        if len(xs) > 1:
            found = [seen[arm][x] for x in xs]
            traces.append(_trace(arm, f"probe problems, {found[0][0]}", "dashed", xs, [rounded(y) for _, y in found]))
    return traces


def _metric_key(metrics: Line, metric: str) -> str | None:
    """The key of avg@n, or of pass@k with the largest k: "avg" or "pass" -> "avg@32" or "pass@32"."""
    ks = [k for name, _, k in (key.partition("@") for key in metrics) if name == metric and k.isdigit()]
    return f"{metric}@{max(ks, key=int)}" if ks else None


def _pass_at_k(run: RunData) -> Figure:
    """pass@k over k with bands, of the last policy of each arm."""
    last = {arm_of(evaluation): evaluation for evaluation in run.results if evaluation.get("problems")}
    traces = []
    ticks: list[int] = []
    for arm in (arm for arm in run.arms if arm in last):
        try:
            n = int(last[arm]["problems"][0]["n"])
            powers = [1 << i for i in range(n.bit_length())]
            ks = sorted({*powers, *range(1, min(n, 8) + 1), n})
            summary = summarise(last[arm]["problems"], ks=ks)
        except (ValueError, KeyError):
            continue
        rows, name = [summary[f"pass@{k}"] for k in ks], run.name(arm)
        band = {end: [rounded(row["ci95"][i]) for row in rows] for i, end in enumerate(("lo", "hi"))}
        traces.append(_trace(arm, name, "band", ks, []) | band)
        curve = _trace(arm, name, "dashed" if arm in PASSED else "line", ks, [rounded(row["value"]) for row in rows])
        traces.append({**curve, "text": [label_of(last[arm])] * len(ks)})
        ticks = max(ticks, powers, key=len)
    return {"id": "pass-at-k", "x": "k (samples)", "xType": "log", "xTicks": ticks, "traces": traces}


def thinned(lines: Sequence[Line], key: str) -> Iterator[tuple[int, Line]]:
    """RL steps, counted from 1, that have a table under `key`, with that table: of a long run some of them."""
    for i in range(0, len(lines), max(1, len(lines) // MAX_STEPS)):
        if isinstance(lines[i].get(key), Mapping):
            yield i + 1, lines[i][key]


def _verdicts(run: RunData, arm: str) -> Figure:
    counted = [(step, table) for step, table in thinned(run.rl_steps()[arm], "verdicts") if sum(table.values())]
    steps = [step for step, _ in counted]
    traces = []
    for verdict in VERDICTS:
        shares = [rounded(table.get(verdict, 0) / sum(table.values())) for _, table in counted]
        if any(shares):
            traces.append(_trace(verdict, verdict, "area", steps, shares))
    return of_arm(run, arm, "verdicts", x="RL step", xWhole=True, yRange=[0, 1], traces=traces)


def of_arm(run: RunData, arm: str, group: str, **figure: Any) -> Figure:
    """The one of several figures that is about this arm."""
    return {"id": f"{group}-{arm}", "group": group, "arm": run.name(arm), **figure}


def _finetuning(run: RunData) -> Figure:
    """Loss of SFT and RFT updates, one stage after the other."""
    losses: dict[tuple[str, str, int], list[float | None]] = {}
    for stage in ("sft", "rft"):
        for line in sorted(run.stage(stage), key=lambda line: line["iteration"]):
            losses.setdefault((stage, arm_of(line), line["iteration"]), []).append(rounded(number(line, "loss")))
    traces = []
    at = 1
    for (stage, arm, _), loss in losses.items():
        if any(y is not None for y in loss):
            traces.append(_trace(arm, stage.upper(), "line", *_thin(range(at, at + len(loss)), loss)))
            at += len(loss)
    return {"id": "loss", "x": "update", "xWhole": True, "traces": traces}


def _faint_and_smooth(
    series: str, name: str, lines: Sequence[Line], key: str, xs: Sequence[float | None]
) -> list[Figure]:
    """Every step as a faint line, and the mean (of gradient norms: the median, which spikes don't lift) of the last few
    as a plain one; neither runs across an iteration's start, where the policy is set back."""
    middle = np.median if key == "grad_norm" else np.mean
    window = max(1, len(lines) // 25)
    points: list[tuple[float | None, float | None, float | None]] = []  # x, value, smoothed value
    recent: list[float] = []
    for i, (x, line) in enumerate(zip(xs, lines, strict=True)):
        if i and line["iteration"] != lines[i - 1]["iteration"]:
            points.append((x, None, None))
            recent = []
        y = number(line, key)
        recent = recent if y is None else [*recent, y][-window:]
        points.append((x, rounded(y), None if y is None else rounded(float(middle(recent)))))
    if all(y is None for _, y, _ in points):
        return []
    at, raw, smooth = zip(*points, strict=True)
    plain = _trace(series, name, "line", *_thin(at, smooth))
    return [_trace(series, name, "faint", *_thin(at, raw)), plain] if window > 1 else [plain]


def _thin(xs: Sequence[Any], ys: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """At most MAX_POINTS points; of every stretch left out, the gap (None) or the largest value stays, so spikes do."""
    stride = max(1, -(-len(xs) // MAX_POINTS))
    kept = [
        max(range(start, min(start + stride, len(xs))), key=lambda i: float("inf") if ys[i] is None else float(ys[i]))
        for start in range(0, len(xs), stride)
    ]
    return [xs[i] for i in kept], [ys[i] for i in kept]


def _trace(series: str, name: str, kind: str, x: list[Any], y: list[Any]) -> Figure:
    return {"series": series, "name": name, "kind": kind, "x": x, "y": y}


def signed(value: float) -> str:
    """ "+0.123", with a real minus sign."""
    return f"{value:+.3f}".replace("-", "−")


def rounded(value: float | None) -> float | None:
    """Five digits: more than any screen shows, and half the size of the file."""
    return None if value is None else float(f"{value:.5g}")
