"""The comparison on a terminal, and as plain ASCII of 100 columns in a pipe."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reasonloop.compare.arms import Arms, ComparedArm
from reasonloop.compare.study import Comparison, difference_pairs, estimate, metrics_of
from reasonloop.compare.tradeoff import Tradeoff, last_equal
from reasonloop.compare.words import CURVES, Legend, headline, notes, number, percent, share, spent, traded
from reasonloop.evaluation.table import WIDTH, format_estimate, plain_table
from reasonloop.text import visible

LEGEND = Legend(
    "Differences: the first arm minus the second; relative: in percent of the second. leads: the share of resamples in "
    "which the first arm is ahead.",
    "* the 95 % interval leaves out zero.",
    "? no bound: in some resamples the second arm solves nothing.",
    "- no relative difference: the second arm solves nothing.",
)


def show(
    found: Arms, comparisons: Sequence[Comparison], curves: Tradeoff | None = None, file: TextIO | None = None
) -> None:
    """Prints headline, arms, differences, how curves lie and notes to `file` (default: standard output)."""
    file = sys.stdout if file is None else file
    console = Console(file=file, width=None if file.isatty() else WIDTH)
    chosen = difference_pairs(found.arms, comparisons)
    for sentence in [*headline(found.arms, comparisons), *(traded(curves) if curves else [])]:
        _write(console, sentence, "bold")
    console.print()
    for table in (arm_table(found.arms), difference_table(chosen), *(curve_tables(curves) if curves else ())):
        if table.rows:
            console.print(table, "")
    sentences = [*(LEGEND.of(chosen) if chosen else []), *([CURVES] if curves and curves.gaps else []), *notes(found)]
    shown, every = ({(c.a.name, c.b.name) for c in some} for some in (chosen, comparisons))
    if len(shown) < len(every):
        sentences.append(
            f"{len(shown)} of {len(every)} pairs are shown, all of {found.arms[0].name} or with --baseline NAME all of "
            "NAME among them; --json and --out have every one."
        )
    for sentence in sentences:
        _write(console, sentence, "dim")


def _write(console: Console, sentence: str, style: str) -> None:
    # A path is one word, however long.
    lines = textwrap.fill(visible(sentence), console.width, break_long_words=False, break_on_hyphens=False)
    console.print(Text(lines, style), overflow="ignore", crop=False)


def arm_table(arms: Sequence[ComparedArm]) -> Table:
    """A row an arm: estimates with intervals, seeds, rollouts of a run."""
    metrics = metrics_of(arms[0].samples)
    columns = [metrics[0], *(metric for metric in metrics[1:] if metric != "pass@1")]
    first = f"{metrics[0]} = pass@1" if metrics[0] != "avg@1" else metrics[0]
    table = _table("Arms", [first, *columns[1:], "seeds", "rollouts"])
    for arm in arms:
        cells = [format_estimate(estimate(arm, metric)) for metric in columns]
        cells += [str(len(arm.seeds)), f"{arm.rollouts:,}" if arm.trained else "-"]
        table.add_row(Text(visible(arm.name)), *map(Text, cells))
    return table


def difference_table(comparisons: Sequence[Comparison]) -> Table:
    """A row a pair, in it a line for each metric, starred and in bold where the interval leaves out zero."""
    columns = ["metric", "relative", "95 % interval", "absolute", "95 % interval", "leads", "seeds"]
    table = _table("Differences", columns)
    lines: dict[str, list[list[Text]]] = {}
    for c in comparisons:
        if c.metric == "pass@1":
            continue  # the same number as avg@n
        d, (lo, hi) = c.difference, c.difference.ci95_absolute
        cells = [
            c.metric,
            "-" if d.relative is None else f"{percent(d.relative)} %",
            "-" if d.relative is None else f"[{percent(d.ci95[0])}, {percent(d.ci95[1])}]",
            f"{'*' * abs(d.sign)} {number(d.absolute, 3)}",
            f"[{number(lo, 3)}, {number(hi, 3)}]",
            share(d.probability),
            str(len(c.seeds)),
        ]
        style = "bold" if d.sign else ""
        lines.setdefault(f"{c.a.name} - {c.b.name}", []).append([Text(cell, style) for cell in cells])
    for pair, own in lines.items():
        table.add_row(Text(visible(pair)), *(Text("\n").join(column) for column in zip(*own, strict=True)))
    return table


def curve_tables(found: Tradeoff) -> list[Table]:
    """How curves lie to each other at equal averages; what as many rollouts equal; k samples spread over an arm's way."""
    k = f"pass@{found.k}"
    gaps = _table("At equal averages", [f"{k}, mean", "95 % interval", "least", "averages"])
    for (a, b), gap in found.gaps.items():
        low, high = gap["averages"]
        cells = [f"{'*' * abs(gap['sign'])} {number(gap['gap'], 3)}", _bounds(gap["ci95"])]
        cells += [number(gap["least"], 3), f"{low:.3f} to {high:.3f}"]
        gaps.add_row(Text(visible(f"{a} - {b}")), *(Text(cell, "bold" if gap["sign"] else "") for cell in cells))
    equal = _table("Rollouts for the same average", ["after", "equal", "95 % interval", f"{k} there", "95 % interval"])
    for (a, b), rows in found.equal.items():
        if row := last_equal(rows):
            there = ["-", "-"] if row["pass"] is None else [number(row["pass"], 3), _bounds(row["pass_ci95"])]
            cells = [f"{row['rollouts']:,.0f}", f"{row['equals']:,.0f}", f"[{spent(row['ci95'])}]", *there]
            equal.add_row(Text(visible(f"{a} - {b}")), *map(Text, cells))
    spread = _table(
        f"{found.k} samples spread over an arm's way", ["policies", "average", k, "against its last", "95 %"]
    )
    for name, own in found.spread.items():
        cells = [str(own["policies"]), f"{own['avg']:.3f}", format_estimate(own["pass"])]
        cells += [f"{'*' * abs(own['sign'])} {number(own['difference'], 3)}", _bounds(own["ci95"])]
        spread.add_row(Text(visible(name)), *map(Text, cells))
    return [gaps, equal, spread]


def _bounds(ci95: Sequence[float]) -> str:
    return f"[{number(ci95[0], 3)}, {number(ci95[1], 3)}]"


def _table(title: str, columns: Sequence[str]) -> Table:
    """A table without rows, its first column for names: where it is too wide they wrap first."""
    table = plain_table(title=title, title_justify="left", title_style="bold")
    for column in ("", *columns):
        table.add_column(column, justify="right" if column else "left", overflow="fold")
    return table
