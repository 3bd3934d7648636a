"""Files of problems: JSON objects one a line (JSONL), and where in them a problem came from."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reasonloop.errors import InputError
from reasonloop.records import Problem
from reasonloop.verify.answers import one_line

Row = dict[str, Any]


def read_rows(path: Path, expected: str, lists: bool = False) -> list[tuple[int, Row]]:
    """(line from 1, object) for each line of a UTF-8 file, gzipped or not, that isn't blank; with `lists` the file may
    also be one JSON list, and the number is the position in it. Raises InputError, with what was `expected` of a row."""
    text = _text(path)
    rows = []
    for number, value in _values(path, text, expected, lists):
        if not isinstance(value, dict):
            raise InputError(f"{path.name} line {number}: {shown(value)} is no JSON object; expected {expected}")
        rows.append((number, value))
    if not rows:
        raise InputError(f"{path}: the file is empty; expected one JSON object per line: {expected}")
    return rows


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; expected a file of problems") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}); expected a file of problems") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path.name} line {line}: not UTF-8 text") from None


def _values(path: Path, text: str, expected: str, lists: bool) -> Iterator[tuple[int, Any]]:
    if lists and text.lstrip().startswith("["):
        yield from enumerate(_parsed(path, 1, text, expected), 1)
        return
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: JSON's strings may hold U+2028
        if line.strip():
            yield number, _parsed(path, number, line, expected)


def _parsed(path: Path, number: int, text: str, expected: str) -> Any:
    """`text`, which begins in that line of the file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        number, reason = number + error.lineno - 1, error.msg
    except (ValueError, RecursionError):
        reason = "too large or too deep"
    raise InputError(f"{path.name} line {number}: not JSON ({reason}): {shown(text.strip())}; expected {expected}")


def shown(value: Any) -> str:
    """For an error's one line."""
    return one_line(value if isinstance(value, str) else json.dumps(value), 60)


def row_name(problem: Problem) -> str:
    """`train.jsonl line 17` where the problem came from a file, else its id."""
    file, line = problem.meta.get("file"), problem.meta.get("line")
    return f"{file} line {line}" if file is not None and line is not None else problem.id
