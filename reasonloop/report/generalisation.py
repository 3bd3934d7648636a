"""Over-specialisation, and what iterations add, as the report's figures and sentences (RLoop, arXiv 2511.04285)."""

from __future__ import annotations

from itertools import pairwise

from reasonloop.analysis.arms import by_arm, evaluated, largest_k, on_shared_problems
from reasonloop.analysis.scaling import gains
from reasonloop.analysis.specialisation import specialisation
from reasonloop.evaluation.metrics import paired_bootstrap
from reasonloop.evaluation.table import PASSED
from reasonloop.report.figures import Analyses, Figure, signed, with_intervals
from reasonloop.report.run import RunData


def specialisation_figures(run: RunData, found: Analyses) -> None:
    """Adds two figures over rollouts spent: training minus held-out accuracy, and pass@k minus pass@1."""
    policies = evaluated(run.results)
    k = largest_k(policies)
    traces: dict[str, list[Figure]] = {"gap": [], "spread": []}
    for arm, own in by_arm(policies).items():
        kind, own = ("open", [e for e in own if e.arm == arm]) if arm in PASSED else ("points", own)
        told = specialisation(run.steps_behind(arm), own, k)
        gaps = [(s.policy, s.gap, s.gap_ci95) for s in told if s.gap is not None and s.gap_ci95 is not None]
        spreads = [(s.policy, s.spread, s.spread_ci95) for s in told if k > 1]
        for figure, values in (("gap", gaps), ("spread", spreads)):
            points = [(e.rollouts, value, ci95, e.label) for e, value, ci95 in values]
            traces[figure] += [with_intervals(arm, run.name(arm), kind, points)] if points else []
    for figure, drawn in traces.items():
        if drawn:
            metric = f"pass@{k} − pass@1"
            found.figures.append({"id": figure, "x": "rollouts spent", "metric": metric, "traces": drawn})


def scaling_figures(run: RunData, found: Analyses) -> None:
    """Adds what each iteration has gained over the start, arms without iterations beside it at equal rollouts."""
    policies = evaluated(run.results)
    tuned = [e for e in policies if e.stage == "rft"]
    if not tuned:
        return
    rollouts = max(1.0, tuned[-1].rollouts / (tuned[-1].iteration + 1))  # of an iteration
    places = {e.name: float(e.iteration + 1) if e.stage == "rft" else e.rollouts / rollouts for e in policies}
    arms, k = by_arm(policies), largest_k(policies)
    metrics = {"scaling-avg": "avg"} | ({"scaling-pass": f"pass@{k}"} if k > 1 else {})
    for figure, metric in metrics.items():
        traces = []
        for arm in (arm for arm in run.arms if arm in arms and arm not in PASSED):
            points = [(places[e.name], gain, ci95, e.label) for e, gain, ci95 in gains(arms[arm], metric)]
            traces.append(with_intervals(arm, run.name(arm), "points", points))
        title = f"avg@{k}" if metric == "avg" else metric
        figured = {"id": figure, "x": "iterations, or as many rollouts", "xWhole": True, "metric": title}
        found.figures.append({**figured, "traces": traces})
    for before, after in pairwise(tuned):
        told = []
        for metric in metrics.values():
            gain, low, high, _ = paired_bootstrap(*on_shared_problems([after, before], metric))
            told.append(f"{metric} {signed(gain)} ({signed(low)} to {signed(high)})")
        found.note(
            "scaling-section", f"From iteration {before.iteration + 1} to {after.iteration + 1}: {', '.join(told)}."
        )
