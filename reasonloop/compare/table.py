"""The comparison on a terminal (rich) and in a pipe (plain ASCII), within 100 columns."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TextIO

from reasonloop.compare.arms import Arm, Arms
from reasonloop.compare.study import Comparison, Resampled, difference_pairs, metrics_of, notes
from reasonloop.evaluation.table import WIDTH, format_estimate
from reasonloop.store.show import visible

_NAME = 44  # two of them stand in a line

Rows = list[list[str]]


def show(found: Arms, comparisons: Sequence[Comparison], file: TextIO | None = None) -> None:
    """Prints arms, differences and notes to `file` (default: standard output)."""
    file = sys.stdout if file is None else file
    chosen = difference_pairs(found.arms, comparisons)
    blocks = {"Arms": arm_rows(found.arms), "Differences": difference_rows(chosen)}
    words = notes(found)
    shown, every = ({(c.a.name, c.b.name) for c in some} for some in (chosen, comparisons))
    if len(shown) < len(every):
        words = [*words, f"{len(shown)} of {len(every)} pairs are shown; --json and --out have all of them."]
    if file.isatty():
        _print_rich(blocks, {"Differences": [_certain(c) for c in chosen if c.metric != "pass@1"]}, words, file)
        return
    for heading, rows in blocks.items():
        if len(rows) > 1:
            print(f"{heading}\n{_text(rows)}\n", file=file)
    for word in words:
        print(textwrap.fill(visible(word), WIDTH, break_long_words=False, break_on_hyphens=False), file=file)


def arm_rows(arms: Sequence[Arm]) -> Rows:
    """Heading and a row an arm: seeds, rollouts of a run, estimates with intervals."""
    metrics = metrics_of(arms[0].samples)
    columns = [metrics[0], *(metric for metric in metrics[1:] if metric != "pass@1")]
    resampled = Resampled(arms, metrics)
    first = f"{metrics[0]} = pass@1" if metrics[0] != "avg@1" else metrics[0]
    rows = [["", first, *columns[1:], "seeds", "rollouts"]]
    for arm in arms:
        estimates = [resampled.estimate(arm, metric) for metric in columns]
        cells = [format_estimate({"value": e.value, "ci95": e.ci95}) for e in estimates]
        rows.append([_short(arm.name), *cells, str(len(arm.seeds)), f"{arm.rollouts:,}" if arm.trained else "-"])
    return rows


def difference_rows(comparisons: Sequence[Comparison]) -> Rows:
    """Heading and a row for each metric of each pair; a pair is named in its first row."""
    rows = [["", "metric", "relative", "95 % interval", "absolute", "95 % interval", "P", "seeds"]]
    last = ""
    for c in comparisons:
        if c.metric == "pass@1":
            continue  # the same number as avg@n
        d, pair = c.difference, f"{_short(c.a.name)} - {_short(c.b.name)}"
        rows.append(
            [
                pair if pair != last else "",
                c.metric,
                "-" if d.relative is None else _percent(d.relative),
                "-" if d.ci95 == (None, None) else f"[{_percent(d.ci95[0])}, {_percent(d.ci95[1])}]",
                f"{d.absolute:+.3f}",
                f"[{d.ci95_absolute[0]:+.3f}, {d.ci95_absolute[1]:+.3f}]",
                f"{d.probability:.2f}",
                str(len(c.seeds)),
            ]
        )
        last = pair
    return rows


def _certain(c: Comparison) -> bool:
    lo, hi = c.difference.ci95_absolute
    return lo > 0 or hi < 0


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:+.1f}%"


def _short(name: str, width: int = _NAME) -> str:
    name = visible(name)
    return name if len(name) <= width else name[: width - 2] + ".."


def _text(rows: Rows) -> str:
    """Aligned columns; names too long for a line with their numbers get one of their own."""
    apart = _width(rows) > WIDTH
    names = [row[0] for row in rows]
    if apart:
        rows = [["  ", *row[1:]] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]
    if apart:
        lines = [f"{name}\n{line}" if name else line for name, line in zip(names, lines, strict=True)]
    return "\n".join([lines[0], "-" * _width(rows), *lines[1:]])


def _width(rows: Rows) -> int:
    return sum(max(len(row[i]) for row in rows) for i in range(len(rows[0]))) + 2 * (len(rows[0]) - 1)


def _print_rich(
    blocks: Mapping[str, Rows], strong: Mapping[str, Sequence[bool]], words: Sequence[str], file: TextIO
) -> None:
    """`strong`: for each row of a block whether it is printed in bold."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=file, highlight=False, markup=False, emoji=False)
    for heading, rows in blocks.items():
        if len(rows) < 2:
            continue
        table = Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            padding=(0, 1, 0, 0),
            title=heading,
            title_justify="left",
            title_style="bold",
        )
        for i, column in enumerate(rows[0]):
            table.add_column(column, justify="right" if i else "left", overflow="fold")
        for i, row in enumerate(rows[1:]):
            table.add_row(
                *(Text(cell) for cell in row), style="bold" if heading in strong and strong[heading][i] else None
            )
        console.print(table)
        console.print()
    for word in words:
        console.print(Text(visible(word), style="dim"))
