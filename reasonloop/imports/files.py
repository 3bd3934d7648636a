"""The files that a trainer left: which there are, what they are by their first bytes, and their records one at a time."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reasonloop.errors import InputError
from reasonloop.imports.rows import NoRollout

MOST_AT_ONCE = 1 << 28
"""Bytes of a JSON file that isn't one of lines: it is read whole"""

PICKLE = "pickles"
BINARY = "files that are no JSON and no Parquet"
PACKED = "compressed files (expected: unpacked)"
EMPTY = "empty files"
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")
"""The first bytes of gzip, zstd, bzip2 and xz"""


@dataclass(frozen=True)
class Found:
    """A file, and what it is."""

    path: Path
    kind: str
    """"jsonl", "json", "parquet", or what it is that can't be read (PICKLE, PACKED, BINARY, EMPTY)"""


def list_files(given: Sequence[Path]) -> list[Path]:
    """The files, and those in the folders, each once: folders and names in the order of the numbers in them (2 before 10).

    Raises InputError for a path that isn't there, or can't be read.
    """
    found: dict[Path, Path] = {}
    for path in given:
        if path.is_dir():
            for folder, folders, names in os.walk(path):
                folders[:] = [name for name in folders if not name.startswith(".")]
                for file in (Path(folder) / name for name in names if not name.startswith(".")):
                    if file.is_file():  # and no pipe, that one would wait for
                        found.setdefault(file.resolve(), file)
        elif path.is_file():
            found.setdefault(path.resolve(), path)
        else:
            raise InputError(f"{path}: no such file or folder; expected a trainer's rollouts")
    return sorted(found.values(), key=_natural)


def _natural(path: Path) -> list[list[tuple[int, int, str]]]:
    pieces = (re.findall(r"[0-9]+|[^0-9]+", part) for part in path.parts)
    return [[(0, int(p), "") if p.isdigit() and p.isascii() else (1, 0, p) for p in found] for found in pieces]


def kind_of(path: Path) -> Found:
    """What a file is. Raises InputError where it can't be opened."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        return Found(path, EMPTY)
    if start.startswith(b"PAR1"):
        return Found(path, "parquet")
    if start.startswith(_PACKED):
        return Found(path, PACKED)
    # torch.save makes a zip of a pickle; protocol 2 and later begin with its opcode
    if start.startswith(b"PK\x03\x04") or (start[0] == 0x80 and len(start) > 1 and 2 <= start[1] <= 5):
        return Found(path, PICKLE)
    if not text or text[0] not in b"[{" or b"\0" in start:
        torn = path.suffix in (".jsonl", ".ndjson") and b"\0" not in start
        return Found(path, "jsonl" if torn else BINARY)
    return Found(path, _json_kind(path))


def _json_kind(path: Path) -> str:
    """ "jsonl" where the first line is a record by itself, or no more than one was begun; else "json"."""
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
        rest = bool(file.read(1))
    try:
        record = json.loads(first.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        # an indented object or array, or lines of which the first is torn
        return "json" if rest and path.stat().st_size <= MOST_AT_ONCE and _whole(path) is not None else "jsonl"
    if isinstance(record, dict) and isinstance(record.get("columns"), list) and isinstance(record.get("data"), list):
        return "json"
    messages = isinstance(record, list) and record and isinstance(record[0], Mapping) and "role" in record[0]
    return "json" if isinstance(record, list) and not messages else "jsonl"


def _whole(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return None


def records(found: Found) -> Iterator[tuple[int, Any]]:
    """(line, record) of a file, lines counted from 1; of a table or an array its rows. What is torn comes as `NoRollout`."""
    if found.kind == "parquet":
        yield from _table(found.path)
    elif found.kind == "json":
        whole = _whole(found.path)
        if whole is None:
            yield 1, NoRollout("torn file")
        else:
            yield from enumerate(_rows(whole), start=1)
    elif found.kind == "jsonl":
        yield from _lines(found.path)


def _rows(whole: Any) -> Sequence[Any]:
    """The records of an array, or of a table as W&B keeps it: {"columns": [name], "data": [[value]]}; else one."""
    if (
        isinstance(whole, dict)
        and isinstance(columns := whole.get("columns"), list)
        and isinstance(whole.get("data"), list)
    ):
        return [dict(zip(columns, row, strict=False)) for row in whole["data"]]
    return whole if isinstance(whole, list) else [whole]


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    # in bytes a line ends at "\n" alone: text may hold U+2028 and U+0085, which would end one of str.splitlines
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, NoRollout("torn line")


def _table(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError, ValueError):
        yield number + 1, NoRollout("damaged table")


def digest(found: Found, without: str = "") -> bytes:
    """Of all that a file holds; with `without` of its rows but for that key."""
    whole = hashlib.blake2b(digest_size=16)
    if without:
        for _, record in records(found):
            whole.update(record_digest(record, without))
    else:
        with found.path.open("rb") as file:
            while block := file.read(1 << 20):
                whole.update(block)
    return whole.digest()


def record_digest(record: Any, without: str = "") -> bytes:
    """Of a record in everything, but for the key `without`."""
    kept = {key: value for key, value in record.items() if key != without} if isinstance(record, dict) else record
    return hashlib.blake2b(json.dumps(kept, sort_keys=True, default=str).encode(), digest_size=16).digest()
