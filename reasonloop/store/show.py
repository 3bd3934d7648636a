"""Rows of a query, printed: a table on a terminal, tab-separated lines or JSON lines in a pipe."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from itertools import chain, count
from typing import TYPE_CHECKING, Any

from reasonloop.text import CONTROL, shown, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_CELL = 200
_USEFUL = 12
"""Characters that a column must have room for where its values are that long"""


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, as_json: bool = False) -> None:
    """Prints rows, control characters made visible.

    On a terminal: a table whose long values are cut with an ellipsis. Elsewhere: a header and tab-separated values in
    full, with tab, newline and backslash as \\t, \\n and \\\\; NULL is an empty field. `as_json`: one JSON object a
    line, values in full; NaN and infinities are null there, because JSON has no such numbers.
    """
    if as_json:
        columns = told_apart(columns)
        for row in rows:
            line = json.dumps(dict(zip(columns, map(finite, row), strict=True)), ensure_ascii=False, default=str)
            sys.stdout.write(CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", line) + "\n")
    elif sys.stdout.isatty():
        _print_table(columns, rows)
    else:
        for row in [columns, *rows]:
            sys.stdout.write("\t".join(visible(_text(value).replace("\\", "\\\\")) for value in row) + "\n")


def told_apart(columns: Sequence[str]) -> list[str]:
    """Names for JSON, where two columns of one name would be one: a, a_1, ..."""
    names: list[str] = []
    for column in columns:
        tries = chain([column], (f"{column}_{number}" for number in count(1)))
        names.append(next(name for name in tries if name not in names))
    return names


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    names = [Text(visible(name)) for name in columns]
    # Text, because a plain string would have [square brackets] in it read as markup.
    cells = [
        [Text("NULL", style="dim") if value is None else Text(shown(_text(value), _CELL)) for value in row]
        for row in rows
    ]
    widest = [max(text.cell_len for text in own) for own in zip(names, *cells, strict=True)]
    if cells and sum(min(width, _USEFUL) + 3 for width in widest) >= console.width:
        _print_records(console, names, cells)
    else:
        table = Table(header_style="bold")
        for index, name in enumerate(names):
            numeric = any(isinstance(row[index], int | float) for row in rows)
            table.add_column(name, justify="right" if numeric else "left")
        for own in cells:
            table.add_row(*own)
        console.print(table)
    console.print(f"{len(rows):,} row{'' if len(rows) == 1 else 's'}", style="dim", highlight=False)


def _print_records(console: Console, names: Sequence[Text], cells: Sequence[Sequence[Text]]) -> None:
    """A line a value, an empty line between rows: for more columns than have room beside one another."""
    from rich.table import Table

    for own in cells:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in zip(names, own, strict=True):
            table.add_row(name, value)
        console.print(table)
        console.print()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict | tuple):
        return json.dumps(finite(value), ensure_ascii=False, default=str)
    return str(value)


def finite(value: Any) -> Any:
    """A value of JSON, which has no NaN and no infinity: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    return value
