"""Rows of a query, printed: a table on a terminal, tab-separated lines or JSON lines in a pipe."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from typing import Any, TextIO

# Model text may hold anything: escape sequences that drive a terminal (C0, DEL, C1), and the marks that
# reorder what is shown (bidirectional controls, line and paragraph separators).
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_NAMED = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
_CELL = 200


def print_rows(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], *, as_json: bool = False, file: TextIO | None = None
) -> None:
    """Prints rows to `file` (standard output if None), control characters made visible.

    On a terminal: a table whose long values are cut with an ellipsis. Elsewhere: a header and tab-separated values in
    full, with tab, newline and backslash as \\t, \\n and \\\\; NULL is an empty field. `as_json`: one JSON object a
    line, values in full; NaN and infinities are null there, because JSON has no such numbers.
    """
    file = sys.stdout if file is None else file
    if as_json:
        columns = _told_apart(columns)
        for row in rows:
            line = json.dumps(dict(zip(columns, map(_plain, row), strict=True)), ensure_ascii=False, default=str)
            file.write(_CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", line) + "\n")
    elif file.isatty():
        _print_table(columns, rows, file)
    else:
        for row in [columns, *rows]:
            file.write("\t".join(visible(_text(value).replace("\\", "\\\\")) for value in row) + "\n")


def _told_apart(columns: Sequence[str]) -> list[str]:
    """Names for JSON, where two columns of one name would be one: a, a_1, ..."""
    names: list[str] = []
    for column in columns:
        name, count = column, 0
        while name in names:
            count += 1
            name = f"{column}_{count}"
        names.append(name)
    return names


def visible(text: str) -> str:
    """The text with control characters written out (\\n, \\x1b, \\u202e), so that none reaches a terminal."""
    return _CONTROL.sub(lambda match: _NAMED.get(match[0]) or _escape(ord(match[0])), text)


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], file: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for index, name in enumerate(columns):
        numeric = any(isinstance(row[index], int | float) for row in rows)
        table.add_column(Text(visible(name)), justify="right" if numeric else "left")
    for row in rows:
        # Text, because a plain string would have [square brackets] in it read as markup.
        table.add_row(*(Text("NULL", style="dim") if value is None else Text(_cut(_text(value))) for value in row))
    console = Console(file=file)
    console.print(table)
    console.print(f"{len(rows):,} row{'' if len(rows) == 1 else 's'}", style="dim", highlight=False)


def _cut(text: str) -> str:
    text = visible(text[: _CELL + 1])
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict | tuple):
        return json.dumps(_plain(value), ensure_ascii=False, default=str)
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
