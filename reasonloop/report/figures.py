"""The report's plots as plain data: named traces that the page's script colours for light or dark and hands to plotly.

A figure is {"id", "x": axis title, "traces": [...]} with optional "xType": "log", "xTicks", "yRange", "yType", "marks"
(x positions of iteration starts). A trace is {"series", "name", "kind", "x", "y"}; kinds: "line", "faint", "dashed",
"points" and "open" (with "lo" and "hi" for intervals), "band" (with "lo" and "hi"), "area".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from reasonloop.evaluation.metrics import summarise
from reasonloop.report.run import SERIES, Run, number

Figure = dict[str, Any]
Line = Mapping[str, Any]
Point = tuple[float, float, Sequence[float], str]
"""x, y, the interval of y, and the policy's label"""

VERDICTS = ("right", "wrong", "unparseable", "timeout", "crashed")
# A line has at most so many points: enough for any screen, and a long run's report stays small.
MAX_POINTS = 1500


def all_figures(run: Run) -> list[Figure]:
    """Every figure that the run has data for, in reading order."""
    figures = [
        _per_rollout(run, "reward", "reward"),
        _held_out(run, "held-out-avg", "avg"),
        _held_out(run, "held-out-pass", "pass"),
        _pass_at_k(run),
        _per_step(run, "grad-norm", "grad_norm", yType="log"),
        _per_step(run, "entropy", "entropy", yRange=[0, None]),
        _per_step(run, "kl", "kl"),
        _per_step(run, "length", "length", yRange=[0, None]),
        _verdicts(run, "vanilla"),
        _verdicts(run, "main"),
        _supervised(run),
    ]
    return [figure for figure in figures if figure["traces"]]


def _per_rollout(run: Run, name: str, key: str) -> Figure:
    traces = []
    for series, lines in run.rl_steps().items():
        traces += _faint_and_smooth(series, run.name(series), lines, key, lambda line, i: number(line, "rollouts"))
    return {"id": name, "x": "rollouts spent", "traces": traces, "marks": _marks(run, "rollouts")}


def _per_step(run: Run, name: str, key: str, **layout: Any) -> Figure:
    traces = []
    for series, lines in run.rl_steps().items():
        traces += _faint_and_smooth(series, run.name(series), lines, key, lambda line, i: float(i + 1))
    values = [y for trace in traces for y in trace["y"] if y is not None]
    if layout.get("yType") == "log" and values and (min(values) <= 0 or max(values) < 20 * min(values)):
        layout = {"yRange": [0, None]}
    if not any(values):
        traces = []
    return {"id": name, "x": "RL step", "traces": traces, "marks": _marks(run, "step"), **layout}


def _held_out(run: Run, name: str, metric: str) -> Figure:
    """Held-out results with intervals over rollouts spent; probe problems, which may steer the run, as dashed lines."""
    results = [e for e in run.results if _metric_key(e, metric)]
    start = [e for e in results if run.series(e) in ("base", "sft")][-1:]
    traces = []
    for series in ("vanilla", "main"):
        own = [e for e in results if run.series(e) == series]
        rloop = series == "main" and run.method == "rloop"
        chain = [e for e in own if not (rloop and e.get("stage") == "explore")]
        explored = [e for e in own if rloop and e.get("stage") == "explore"]
        if chain:
            traces.append(_points(run, series, run.name(series), "points", [*start, *chain], metric))
        if explored:
            traces.append(_points(run, series, "RLoop, explored", "open", explored, metric))
    if not traces:
        traces = [_points(run, run.series(e), run.label(e), "points", [e], metric) for e in results]
    traces += _probes(run, metric)
    keys = sorted({str(_metric_key(e, metric)) for e in results})
    return {"id": name, "x": "rollouts spent", "metric": " / ".join(keys), "traces": traces}


def _points(run: Run, series: str, name: str, kind: str, evals: Sequence[Line], metric: str) -> Figure:
    found = [(e, e["metrics"][_metric_key(e, metric)]) for e in evals]
    points = [(number(e, "rollouts") or 0, m["value"], m["ci95"], run.label(e)) for e, m in found]
    return with_intervals(series, name, kind, points)


def with_intervals(series: str, name: str, kind: str, points: Sequence[Point]) -> Figure:
    """A trace of kind "points" or "open"."""
    return {
        **_trace(series, name, kind, [x for x, *_ in points], [rounded(y) for _, y, *_ in points]),
        "lo": [rounded(low) for *_, (low, _), _ in points],
        "hi": [rounded(high) for *_, (_, high), _ in points],
        "text": [label for *_, label in points],
    }


def _probes(run: Run, metric: str) -> list[Figure]:
    seen: dict[tuple[str, float], tuple[str, float]] = {}
    shared = max((number(line, "rollouts") or 0 for line in run.shared), default=0)
    for record in [*run.stage("probe"), *(e for e in run.evals if e.get("metrics") and e not in run.results)]:
        metrics = record.get("metrics", record)
        key = _metric_key({"metrics": metrics}, metric)
        rollouts = number(record, "rollouts")
        if key is None or rollouts is None:
            continue
        value = metrics[key]["value"] if isinstance(metrics[key], Mapping) else metrics[key]
        seen[run.series(record), rollouts] = (key, float(value))
        if run.series(record) == "main" and not record.get("iteration") and rollouts <= shared:
            seen["vanilla", rollouts] = (key, float(value))
    traces = []
    for series in ("vanilla", "main"):
        mine = sorted((x, key, y) for (s, x), (key, y) in seen.items() if s == series)
        if len(mine) > 1:
            name = f"probe problems, {mine[0][1]}"
            xs, _, ys = zip(*mine, strict=True)
            traces.append(_trace(series, name, "dashed", list(xs), [rounded(y) for y in ys]))
    return traces


def _metric_key(evaluation: Line, metric: str) -> str | None:
    """The key of avg@n, or of pass@k with the largest k: "avg" or "pass" -> "avg@32" or "pass@32"."""
    keys = [k for k in evaluation["metrics"] if k.startswith(f"{metric}@") and k.partition("@")[2].isdigit()]
    return max(keys, key=lambda k: int(k.partition("@")[2]), default=None)


def _pass_at_k(run: Run) -> Figure:
    """pass@k over k with bands: base, the end of vanilla RL, the last RLoop policy (and the last explored one)."""
    last: dict[tuple[str, bool], dict[str, Any]] = {}
    for evaluation in run.results:
        if evaluation.get("problems"):
            series = run.series(evaluation)
            explored = (run.method, series, evaluation.get("stage")) == ("rloop", "main", "explore")
            last[series, explored] = evaluation
    traces = []
    ticks: list[int] = []
    for (series, explored), evaluation in sorted(last.items(), key=lambda item: SERIES.index(item[0][0])):
        try:
            n = int(evaluation["problems"][0]["n"])
            ks = sorted({1 << i for i in range(n.bit_length())} | {*range(1, min(n, 8) + 1), n})
            summary = summarise(evaluation["problems"], ks=ks, draws=1000)
        except (ValueError, KeyError):
            continue
        rows = [summary[f"pass@{k}"] for k in ks]
        name = "RLoop, explored" if explored else run.name(series)
        if not explored:
            band = _trace(series, name, "band", ks, [])
            band |= {"lo": [rounded(r["ci95"][0]) for r in rows], "hi": [rounded(r["ci95"][1]) for r in rows]}
            traces.append(band)
        kind = "dashed" if explored else "line"
        curve = _trace(series, name, kind, ks, [rounded(r["value"]) for r in rows])
        traces.append({**curve, "text": [run.label(evaluation)] * len(ks)})
        ticks = max(ticks, [1 << i for i in range(n.bit_length())], key=len)
    return {"id": "pass-at-k", "x": "k (samples)", "xType": "log", "xTicks": ticks, "traces": traces}


def _verdicts(run: Run, series: str) -> Figure:
    lines = run.rl_steps().get(series, [])
    lines = lines[:: max(1, len(lines) // 300)]
    counts = [[float((line.get("verdicts") or {}).get(v, 0)) for v in VERDICTS] for line in lines]
    totals = [sum(row) for row in counts]
    traces = []
    steps = [i + 1 for i, total in enumerate(totals) if total]
    for column, verdict in enumerate(VERDICTS):
        shares = [rounded(row[column] / total) for row, total in zip(counts, totals, strict=True) if total]
        if any(shares):
            traces.append(_trace(verdict, verdict, "area", [s * max(1, len(lines) // 300) for s in steps], shares))
    return {"id": f"verdicts-{series}", "x": "RL step", "yRange": [0, 1], "traces": traces}


def _supervised(run: Run) -> Figure:
    """Loss of SFT and RFT updates, one stage after the other."""
    traces = []
    at = 0
    for stage, series in (("sft", "sft"), ("rft", "main")):
        iterations = sorted({int(line.get("iteration") or 0) for line in run.stage(stage)})
        for iteration in iterations:
            lines = [line for line in run.stage(stage) if int(line.get("iteration") or 0) == iteration]
            loss = [number(line, "loss") for line in lines]
            if any(y is not None for y in loss):
                name = "SFT" if stage == "sft" else "RFT"
                xs = list(range(at + 1, at + len(loss) + 1))
                traces.append(_trace(series, name, "line", *_thin(xs, [rounded(y) for y in loss])))
                at += len(loss)
    return {"id": "loss", "x": "update", "traces": traces}


def _marks(run: Run, axis: str) -> list[float]:
    """Where RLoop's iterations after the first begin, on the axis of rollouts or of RL steps."""
    lines = run.rl_steps().get("main", [])
    marks = []
    for i in range(1, len(lines)):
        if lines[i].get("iteration") != lines[i - 1].get("iteration"):
            before = number(lines[i - 1], "rollouts")
            marks.append(float(i) + 0.5 if axis == "step" else before or 0.0)
    return marks


def _faint_and_smooth(
    series: str, name: str, lines: Sequence[Line], key: str, at: Callable[[Line, int], float | None]
) -> list[Figure]:
    """Every step as a faint line, and the mean (of gradient norms: the median, which spikes don't lift) of the last few
    as a plain one; neither runs across an iteration's start, where the policy is set back."""
    middle = np.median if key == "grad_norm" else np.mean
    window = max(1, len(lines) // 25)
    xs: list[float | None] = []
    raw: list[float | None] = []
    smooth: list[float | None] = []
    recent: list[float] = []
    for i, line in enumerate(lines):
        x, y = at(line, i), number(line, key)
        if i and line.get("iteration") != lines[i - 1].get("iteration"):
            xs.append(x)
            raw.append(None)
            smooth.append(None)
            recent = []
        if y is not None:
            recent = [*recent[1 - window :], y] if window > 1 else [y]
        xs.append(x)
        raw.append(rounded(y))
        smooth.append(rounded(float(middle(recent))) if recent and y is not None else None)
    if all(y is None for y in raw):
        return []
    plain = _trace(series, name, "line", *_thin(xs, smooth))
    return [_trace(series, name, "faint", *_thin(xs, raw)), plain] if window > 1 else [plain]


def _thin(xs: Sequence[Any], ys: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """At most MAX_POINTS points; of every stretch left out, the gap (None) or the largest value stays, so spikes do."""
    stride = -(-len(xs) // MAX_POINTS) if xs else 1
    if stride == 1:
        return list(xs), list(ys)
    kept = []
    for start in range(0, len(xs), stride):
        stretch = range(start, min(start + stride, len(xs)))
        kept.append(max(stretch, key=lambda i: float("inf") if ys[i] is None else float(ys[i])))
    return [xs[i] for i in kept], [ys[i] for i in kept]


def _trace(series: str, name: str, kind: str, x: list[Any], y: list[Any]) -> Figure:
    return {"series": series, "name": name, "kind": kind, "x": x, "y": y}


def signed(value: float) -> str:
    """A difference as a reader sees it."""
    return f"{value:+.3f}".replace("-", "−")


def rounded(value: float | None) -> float | None:
    """Five digits: more than any screen shows, and half the size of the file."""
    return None if value is None else float(f"{value:.5g}")
