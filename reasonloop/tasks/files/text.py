"""Rows of text files: JSON Lines, JSON and CSV, in UTF-8, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from reasonloop.errors import InputError
from reasonloop.tasks.files.raw import Fault, RawRow, shown

WRAPPERS = ("data", "rows", "examples", "problems")
"""Keys under which a JSON object may hold the list of its rows"""
MAX_CELL = 1 << 30
"""Characters"""


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end). Raises InputError for what can't be read, and for what isn't UTF-8."""
    number = 1
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            lines: Iterable[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw
            for number, line in enumerate(lines, 1):  # split at \n alone: JSON's strings may hold U+2028
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        told = f"{path.name} line {number}: not UTF-8 text; expected UTF-8, which `iconv -f FROM -t UTF-8 {path.name}` gives"
        raise InputError(told) from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}); expected a file of problems") from None


def json_rows(path: Path) -> Iterator[RawRow]:
    """Rows of JSON Lines; or of one JSON document: a list of rows, an object of columns, or an object around a list."""
    lines = text_lines(path)
    seen: list[str] = []
    filled: list[int] = []
    for number, line in lines:
        seen.append(line)
        filled += [number] if line.strip() else []
        if len(filled) == 2:
            break
    if filled and _is_document(*(seen[number - 1] for number in filled)):
        text = "\n".join(chain(seen, (line for _, line in lines)))
        yield from _document(path, text, filled[0])
        return
    for number, line in chain(enumerate(seen, 1), lines):
        if line.strip():
            yield RawRow(str(path), "line", number, _parsed(line))


def csv_rows(path: Path) -> Iterator[RawRow]:
    """Rows of a table with a header; commas, semicolons or tabs, whichever the header has most of. Empty cells are null."""
    lines = (line for _, line in text_lines(path))
    first = next(lines, "")
    csv.field_size_limit(MAX_CELL)
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader((f"{line}\n" for line in chain([first], lines)), delimiter=delimiter, strict=True)
    start = 1
    try:
        header = [name.strip() for name in next(reader, [])]
        if len(set(header)) < len(header):
            raise InputError(f"{path.name} line 1: two columns have the same name; expected a header with one for each")
        start = reader.line_num + 1
        for cells in reader:
            number, start = start, reader.line_num + 1
            if len(cells) == len(header):
                yield RawRow(str(path), "line", number, {k: v or None for k, v in zip(header, cells, strict=True)})
            elif cells:
                reason = f"{len(cells)} cells, and the header has {len(header)}"
                yield RawRow(str(path), "line", number, Fault("wrong number of cells", reason))
    except csv.Error as error:
        opened = f"; the cell begins in line {start}" if reader.line_num > start else ""
        raise InputError(
            f"{path.name} line {reader.line_num}: not CSV ({error}){opened}; expected quotes that close"
        ) from None


def is_chat(value: Any) -> bool:
    """Whether it looks like a conversation: one row's, not a list of rows."""
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) and v.keys() & _SPEAKER for v in value)


_SPEAKER = {"role", "from"}
_PROMPTS = {"prompt", "problem", "question", "messages"}
"""What only a row has"""


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        reason = error.msg
    except (ValueError, RecursionError):
        reason = "too large or too deep"
    return Fault("not JSON", f"not JSON ({reason}): {shown(text.strip())}")


def _is_document(first: str, second: str = "") -> bool:
    """Whether the first two lines that aren't blank begin one JSON document, not JSON Lines."""
    whole = not isinstance(_parsed(first), Fault)
    if whole or not second:
        return whole and not second
    try:
        json.loads(first)
    except json.JSONDecodeError as error:
        if error.msg.startswith("Unterminated") or error.pos < len(first.rstrip()):
            return False  # broken, not begun
    except (ValueError, RecursionError):
        return False
    return first.rstrip()[-1] in "[{" or isinstance(_parsed(second), Fault)


def _document(path: Path, text: str, start: int) -> Iterator[RawRow]:
    """Of the text of a whole file, whose first line that isn't blank is `start`."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        line = text.split("\n")[error.lineno - 1].strip()
        raise InputError(
            f"{path.name} line {error.lineno}: not JSON ({error.msg}): {shown(line)}; expected a JSON list of rows, or "
            "JSON Lines"
        ) from None
    except (ValueError, RecursionError):
        raise InputError(f"{path.name} line {start}: not JSON (too large or too deep)") from None
    rows = _rows(value)
    if rows is None:
        yield RawRow(str(path), "line", start, value)
        return
    for number, row in enumerate(rows, 1):
        yield RawRow(str(path), "row", number, row)


def _rows(value: Any) -> Iterable[Any] | None:
    """The rows in a JSON value; None if it is a row itself."""
    if isinstance(value, list):
        return [value] if is_chat(value) else value
    if not isinstance(value, dict) or not value:
        return None
    for key in WRAPPERS if not value.keys() & _PROMPTS else ():
        inner = value.get(key)
        if isinstance(inner, list) and inner and all(isinstance(row, dict | list) for row in inner):
            return inner
    columns = [_column(cells) for cells in value.values()]
    lengths = {-1 if cells is None else len(cells) for cells in columns}
    if len(lengths) == 1 and lengths != {-1}:
        return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]
    return None


def _column(cells: Any) -> list[Any] | None:
    if isinstance(cells, dict) and cells and all(key.isdecimal() for key in cells):
        return list(cells.values())  # pandas' own: a number for each row
    return cells if isinstance(cells, list) and not is_chat(cells) else None
