"""Over-specialisation, and what RLoop's iterations add, as the report's figures and sentences (RLoop, arXiv 2511.04285)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from reasonloop.report.figures import Figure, Point, signed, with_intervals
from reasonloop.report.findings import Analyses
from reasonloop.report.run import Run

if TYPE_CHECKING:
    import duckdb


def specialisation_figures(run: Run, database: duckdb.DuckDBPyConnection, found: Analyses) -> None:
    """Adds two figures over rollouts spent: training minus held-out accuracy, and pass@k minus pass@1."""
    from reasonloop.analysis.specialisation import specialisation

    points = specialisation(database).evaluations
    records = {str(e["name"]): e for e in run.results}
    traces: dict[str, list[Figure]] = {"gap": [], "spread": []}
    for arm in dict.fromkeys(point.arm for point in points):
        own = [point for point in points if point.arm == arm and point.name in records]
        if not own:
            continue
        series, explored = run.series(records[own[-1].name]), arm.endswith(" explored")
        if explored:
            own = [point for point in own if records[point.name].get("stage") == "explore"]
        name = f"{run.name(series)}, explored" if explored else run.name(series)
        gaps: list[Point] = [
            (p.rollouts, p.gap, p.gap_ci95, run.label(records[p.name]))
            for p in own
            if p.gap is not None and p.gap_ci95 is not None
        ]
        spreads: list[Point] = [(p.rollouts, p.spread, p.spread_ci95, run.label(records[p.name])) for p in own]
        for figure, chosen in (("gap", gaps), ("spread", spreads)):
            if chosen:
                traces[figure].append(with_intervals(series, name, "open" if explored else "points", chosen))
    if not points:
        return
    metric = f"pass@{points[0].k} − pass@1"
    for figure in ("gap", "spread"):
        if traces[figure] and (figure == "gap" or points[0].k > 1):
            found.figures.append({"id": figure, "x": "rollouts spent", "metric": metric, "traces": traces[figure]})


def scaling_figures(run: Run, database: duckdb.DuckDBPyConnection, found: Analyses) -> None:
    """Adds what each of RLoop's iterations has gained over the start, vanilla RL beside it at equal rollouts."""
    from reasonloop.analysis.arms import by_arm, evaluations, largest_k, paired
    from reasonloop.analysis.scaling import scaling
    from reasonloop.evaluation.metrics import paired_bootstrap

    results = evaluations(database)
    arms = by_arm(results)
    tuned = [e for e in arms.get("main", []) if e.stage == "rft"]
    if not tuned:
        return
    rollouts = max(1.0, tuned[-1].rollouts / (tuned[-1].iteration + 1))  # of an iteration
    k = largest_k(results)
    metrics = {"scaling-avg": "avg", **({"scaling-pass": f"pass@{k}"} if k > 1 else {})}
    places = {e.name: float(e.iteration + 1) if e.stage == "rft" else e.rollouts / rollouts for e in results}
    records = {str(e["name"]): e for e in run.results}
    points = [
        p for p in scaling(database, list(metrics.values())) if p.arm in ("main", "vanilla") and p.name in records
    ]
    for figure, metric in metrics.items():
        traces = []
        for arm in ("vanilla", "main"):
            own: list[Point] = [
                (places[p.name], p.gain, p.gain_ci95, run.label(records[p.name]))
                for p in points
                if p.arm == arm and p.metric == metric
            ]
            if own:
                traces.append(with_intervals(arm, run.name(arm), "points", own))
        title = f"avg@{max(results[-1].samples.values())}" if metric == "avg" else metric
        found.figures.append({"id": figure, "x": "iterations, or as many rollouts", "metric": title, "traces": traces})
    for before, after in pairwise(tuned):
        told = []
        for metric in metrics.values():
            gain, low, high, _ = paired_bootstrap(*paired(after, before, metric))
            told.append(f"{metric} {signed(gain)} ({signed(low)} to {signed(high)})")
        found.note(
            "scaling-section", f"From iteration {before.iteration + 1} to {after.iteration + 1}: {', '.join(told)}."
        )
