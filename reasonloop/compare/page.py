"""The comparison as one HTML file, in the report's style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from reasonloop.compare.arms import Arms, ComparedArm
from reasonloop.compare.figures import arm_colours, forests, held_out, pass_at_k, tradeoff_figure
from reasonloop.compare.study import Comparison, estimate, metrics_of
from reasonloop.compare.tradeoff import Tradeoff, last_equal
from reasonloop.compare.words import CURVES, TYPESET, Legend, headline, notes, number, percent, share, spent, traded
from reasonloop.report.page import facts
from reasonloop.report.results import difference_cell, estimate_cell, heading_cell, html_table, spread_section
from reasonloop.report.sections import TRADEOFF, plots_section
from reasonloop.report.shell import document, write_page

LEGEND = Legend(
    "The first arm minus the second: in percent of the second, then the absolute difference, each with its 95 % "
    "interval; then the share of resamples in which the first arm leads.",
    "▲ and ▼ mark a lead and a loss whose interval leaves out zero.",
    "A question mark is a bound that there isn't: in some resamples the second arm solves nothing.",
    "Where the second arm solves nothing there is no relative difference.",
)


def write_comparison(found: Arms, comparisons: Sequence[Comparison], curves: Tradeoff, path: Path) -> Path:
    """Writes the page to `path`: needs no network, works in light and dark. Returns the path."""
    return write_page(render(found, comparisons, curves), path)


def render(found: Arms, comparisons: Sequence[Comparison], curves: Tradeoff) -> str:
    """The whole page as a string."""
    arms = found.arms
    metrics = [metric for metric in metrics_of(arms[0].samples) if metric != "pass@1"]
    figures = [*forests(arms, comparisons, metrics), *held_out(arms), pass_at_k(arms)]
    figures += [picture] if (picture := tradeoff_figure(curves, arms[0].samples)) else []
    places = {f"forest-{metric}": (metric, "relative difference, 95 % intervals") for metric in metrics}
    told = "".join(
        f'<p class="lead">{escape(line)}</p>'
        for line in [*headline(arms, comparisons, TYPESET), *traded(curves, TYPESET)]
    )
    body = [
        f"<header><h1>{escape(_title(arms))}</h1>{told}<p>{escape(sentence(arms))}</p></header>",
        _results(arms, metrics, notes(found)),
        plots_section(*TRADEOFF, figures),
        _curves(curves, arms),
        plots_section(
            "differences",
            "Who leads, and how surely",
            "The first arm against the second, in percent of the second. An interval that leaves out zero is a difference "
            "that other seeds and other problems of this kind should show, too.",
            places,
            figures,
        ),
        _differences(arms, comparisons, metrics),
        plots_section(
            "pass-at-k-section",
            "Solved with k tries",
            "pass@k is the chance that at least one of k samples is right. Bands are 95 % intervals over seeds and "
            "problems.",
            {"pass-at-k": ("pass@k on held-out problems", "k on a logarithmic axis")},
            figures,
        ),
        plots_section(
            "curves",
            "On the way there",
            "Held-out accuracy over the rollouts spent: a thin line for each seed, a thick one for their mean.",
            {
                "held-out-avg": (f"Test problems, avg@{arms[0].samples}", "evaluated policies"),
                "probe-avg": ("Probe problems", "mean accuracy during training"),
            },
            figures,
        ),
        _runs(found),
    ]
    return document(_title(arms), "\n".join(body), {"figures": figures})


def sentence(arms: Sequence[ComparedArm]) -> str:
    """What is compared, in one sentence."""
    seeds = {seed for arm in arms for seed in arm.seeds}
    rollouts = sorted({arm.rollouts for arm in arms if arm.trained})
    spent = f", {rollouts[0]:,} training rollouts a run" if len(rollouts) == 1 else ""
    task = arms[0].entries[0].identity.get("task.name", "the task")
    return (
        f"{len(arms)} arm{'s' * (len(arms) > 1)}, {len(seeds)} seed{'s' * (len(seeds) > 1)}{spent}; evaluated on "
        f"{len(arms[0].entries[0].ids)} held-out problems of {task}, {arms[0].samples} samples each."
    )


def _title(arms: Sequence[ComparedArm]) -> str:
    products = [arm.name for arm in arms if arm.product]
    names = products if len(products) > 1 else [arm.name for arm in arms if arm.arm not in ("base", "explored")]
    names = names or [arms[0].name]
    return " against ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} others"


def _results(arms: Sequence[ComparedArm], metrics: Sequence[str], words: Sequence[str]) -> str:
    colours = arm_colours(arms)
    same = " = pass@1" if metrics[0] != "avg@1" else ""
    head = [heading_cell(metrics[0] + same), *(heading_cell(metric) for metric in metrics[1:])]
    body = []
    for arm in arms:
        cells = "".join(estimate_cell(estimate(arm, metric)) for metric in metrics)
        spent = f"{arm.rollouts:,}" if arm.trained else "–"
        seeds = f"{len(arm.seeds)} seed{'s' * (len(arm.seeds) > 1)}"
        body.append(
            f'<tr class="{"strong" if arm is arms[0] else ""}"><th scope="row">'
            f'<span class="dot {colours[arm.name]}"></span>{escape(arm.name)}</th>{cells}'
            f"<td>{spent}<small>{seeds}</small></td></tr>"
        )
    table = html_table([*head, "<th>rollouts<small>seeds</small></th>"], body)
    text = "".join(f"<p>{escape(word)}</p>" for word in words)
    return f'<section id="results"><h2>Results</h2>{text}{table}</section>'


def _differences(arms: Sequence[ComparedArm], comparisons: Sequence[Comparison], metrics: Sequence[str]) -> str:
    rows: dict[tuple[str, str], list[str]] = {}
    for c in comparisons:
        if c.metric in metrics:
            rows.setdefault((c.a.name, c.b.name), []).append(_difference(c))
    if not rows:
        return ""
    body = [
        f'<tr><th scope="row">{escape(a)} <span class="against">against</span> {escape(b)}</th>{"".join(cells)}</tr>'
        for (a, b), cells in rows.items()
    ]
    return (
        f'<section id="pairs"><h2>Every pair</h2><p>{escape(" ".join(LEGEND.of(comparisons)))}</p>'
        f"{html_table([heading_cell(metric) for metric in metrics], body, 'differences')}</section>"
    )


def _curves(found: Tradeoff, arms: Sequence[ComparedArm]) -> str:
    """How the curves lie to each other, and what k samples spread over an arm's way solve."""
    gaps = [
        f'<tr><th scope="row">{escape(a)} <span class="against">against</span> {escape(b)}</th>'
        f"{difference_cell(gap['gap'], gap['ci95'], gap['sign'])}{_equal(found.equal.get((a, b), ()))}</tr>"
        for (a, b), gap in found.gaps.items()
    ]
    parts = []
    if gaps:
        head = [
            f"<th>pass@{found.k}<small>at equal averages</small></th>",
            "<th>rollouts<small>for the same average</small></th>",
        ]
        parts += [f"<p>{escape(CURVES)}</p>", html_table(head, gaps, "differences")]
    colours = arm_colours(arms)
    ways = {curve.name: colours[curve.arm.name] for curve in found.curves}
    parts.append(spread_section([(ways[name], name, own) for name, own in found.spread.items()], found.k))
    told = "".join(parts)
    return f'<section id="equal-averages"><h2>At equal averages</h2>{told}</section>' if told else ""


def _equal(rows: Sequence[Mapping[str, Any]]) -> str:
    row = last_equal(rows)
    if row is None:
        return "<td>–</td>"
    equals = f"{row['rollouts']:,.0f} = {row['equals']:,.0f}"
    return f"<td><b>{equals}</b><small>{spent(row['ci95']).replace(', ', ' to ')}</small></td>"


def _difference(c: Comparison) -> str:
    d = c.difference
    absolute, lo, hi = (number(value, 3, TYPESET) for value in (d.absolute, *d.ci95_absolute))
    mark = {1: "up", -1: "down", 0: ""}[d.sign]
    relative = f"{percent(d.relative, TYPESET)} %" if d.relative is not None else absolute
    lower, upper = (percent(bound, TYPESET) for bound in d.ci95)
    bounds = f"<small>{lower} to {upper} %</small>" if d.relative is not None else ""
    return (
        f'<td class="{mark}"><b>{relative}</b>{bounds}<small>{absolute}</small><small>{lo} to {hi}</small>'
        f"<small>leads in {share(d.probability)}</small></td>"
    )


def _runs(found: Arms) -> str:
    lists = [
        facts(arm.name, {f"seed {e.seed}": f"{e.run}, {e.rollouts:,} rollouts" for e in arm.entries}, capital=False)
        for arm in found.arms
    ]
    tables: list[tuple[str, Mapping[str, Any]]] = [("Machine", found.machine), ("Versions", found.versions)]
    lists += [facts(title, table) for title, table in tables]
    return f'<section id="runs"><h2>Runs, machine and versions</h2>{"".join(lists)}</section>'
