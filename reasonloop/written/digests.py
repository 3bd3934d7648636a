"""Digests of files, and lines that know themselves."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from reasonloop.machine.threads import available_cores

SEGMENTS = "trajectories"
METRICS = "metrics.jsonl"
PIECE = 64 << 20
"""Bytes: a larger file's digest is that of the digests of such pieces, which are made side by side"""
_BLOCK = 1 << 20
_SUM = 16


def of_bytes(content: bytes | memoryview) -> str:
    """size:sha256 of a file's content."""
    data = memoryview(content).cast("B")
    pieces = [data[start : start + PIECE] for start in range(0, len(data), PIECE)] or [data]
    found = [hashlib.sha256(piece) for piece in pieces]
    return value_of(len(data), found[0].hexdigest() if len(found) == 1 else _joined(one.digest() for one in found))


def of_segment(content: bytes | memoryview) -> str:
    """The same of a segment of the store, of which the footer counts: that says where the pages are, and they have CRCs."""
    data = memoryview(content).cast("B")
    length = int.from_bytes(data[-8:-4], "little") + 8
    return value_of(len(data), hashlib.sha256(data[-length:] if length <= len(data) else data).hexdigest())


def of_file(path: Path) -> str:
    """`of_bytes` of a file, or `of_segment` of one that is."""
    size = path.stat().st_size
    if path.parent.name == SEGMENTS:
        with path.open("rb") as file:
            file.seek(max(0, size - 8))
            length = int.from_bytes(file.read(4), "little") + 8
            file.seek(max(0, size - length))
            tail = file.read()
        return value_of(size, hashlib.sha256(tail).hexdigest())
    starts = range(0, size, PIECE) or range(1)
    with path.open("rb") as file, ThreadPoolExecutor(min(len(starts), available_cores())) as threads:
        found = list(threads.map(lambda start: _of_piece(file.fileno(), start), starts))
    return value_of(size, found[0].hex() if len(found) == 1 else _joined(found))


def _of_piece(handle: int, start: int) -> bytes:
    digest = hashlib.sha256()
    for at in range(start, start + PIECE, _BLOCK):
        digest.update(os.pread(handle, _BLOCK, at))
    return digest.digest()


def _joined(digests: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()


def value_of(size: int, digest: str) -> str:
    return f"{size}:{digest}"


def size_of(value: str) -> int:
    return int(value.partition(":")[0])


def sealed(record: Mapping[str, Any]) -> str:
    """A line of JSON that knows itself."""
    text = json.dumps(record)
    return json.dumps({**record, "sum": _sum(text)}) + "\n"


def unsealed(line: str | bytes) -> dict[str, Any]:
    """What was sealed. Raises ValueError for anything else."""
    found = json.loads(line)
    if not isinstance(found, dict) or found.pop("sum", None) != _sum(json.dumps(found)):
        raise ValueError("its sum is another one")
    return found


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_SUM]


def digest(run: Path, name: str) -> str:
    """Of a file, by name in the run, as it is."""
    path = run / name
    return of_start(path, f"{path.stat().st_size}:") if name == METRICS else of_file(path)


def of_start(path: Path, value: str) -> str:
    """The digest of a file's first bytes, as many as `value` is of: of metrics.jsonl, to which lines are added."""
    with path.open("rb") as file:
        content = file.read(size_of(value))
    return value_of(len(content), hashlib.sha256(content).hexdigest())
