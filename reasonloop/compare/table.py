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
from reasonloop.compare.study import Comparison, Resampled, difference_pairs, metrics_of, notes
from reasonloop.evaluation.table import WIDTH, format_estimate, plain_table
from reasonloop.text import visible


def show(found: Arms, comparisons: Sequence[Comparison], file: TextIO | None = None) -> None:
    """Prints arms, differences and notes to `file` (default: standard output)."""
    file = sys.stdout if file is None else file
    console = Console(file=file, width=None if file.isatty() else WIDTH)
    chosen = difference_pairs(found.arms, comparisons)
    for table in (arm_table(found.arms), difference_table(chosen)):
        if table.rows:
            console.print(table, "")
    sentences = notes(found)
    shown, every = ({(c.a.name, c.b.name) for c in some} for some in (chosen, comparisons))
    if len(shown) < len(every):
        sentences.append(f"{len(shown)} of {len(every)} pairs are shown; --json and --out have all of them.")
    for sentence in sentences:
        # A path is one word, however long.
        lines = textwrap.fill(visible(sentence), console.width, break_long_words=False, break_on_hyphens=False)
        console.print(Text(lines, "dim"), overflow="ignore", crop=False)


def arm_table(arms: Sequence[ComparedArm]) -> Table:
    """A row an arm: estimates with intervals, seeds, rollouts of a run."""
    metrics = metrics_of(arms[0].samples)
    columns = [metrics[0], *(metric for metric in metrics[1:] if metric != "pass@1")]
    resampled = Resampled(arms, metrics)
    first = f"{metrics[0]} = pass@1" if metrics[0] != "avg@1" else metrics[0]
    table = _table("Arms", [first, *columns[1:], "seeds", "rollouts"])
    for arm in arms:
        cells = [format_estimate(resampled.estimate(arm, metric)) for metric in columns]
        cells += [str(len(arm.seeds)), f"{arm.rollouts:,}" if arm.trained else "-"]
        table.add_row(Text(visible(arm.name)), *map(Text, cells))
    return table


def difference_table(comparisons: Sequence[Comparison]) -> Table:
    """A row a pair, in it a line for each metric, in bold where the interval leaves out zero."""
    columns = ["metric", "relative", "95 % interval", "absolute", "95 % interval", "P", "seeds"]
    table = _table("Differences", columns)
    lines: dict[str, list[list[Text]]] = {}
    for c in comparisons:
        if c.metric == "pass@1":
            continue  # the same number as avg@n
        d, (lo, hi) = c.difference, c.difference.ci95_absolute
        cells = [
            c.metric,
            "-" if d.relative is None else _percent(d.relative),
            "-" if d.ci95 == (None, None) else f"[{_percent(d.ci95[0])}, {_percent(d.ci95[1])}]",
            f"{d.absolute:+.3f}",
            f"[{lo:+.3f}, {hi:+.3f}]",
            f"{d.probability:.2f}",
            str(len(c.seeds)),
        ]
        style = "bold" if lo > 0 or hi < 0 else ""
        lines.setdefault(f"{c.a.name} - {c.b.name}", []).append([Text(cell, style) for cell in cells])
    for pair, own in lines.items():
        table.add_row(Text(visible(pair)), *(Text("\n").join(column) for column in zip(*own, strict=True)))
    return table


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:+.1f}%"


def _table(title: str, columns: Sequence[str]) -> Table:
    """A table without rows, its first column for names: where it is too wide they wrap first."""
    table = plain_table(title=title, title_justify="left", title_style="bold")
    for column in ("", *columns):
        table.add_column(column, justify="right" if column else "left", overflow="fold")
    return table
