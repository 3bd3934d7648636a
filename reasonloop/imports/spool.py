"""What is known of rollouts before they are judged, kept on disk: a file holds more of them than memory does."""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from reasonloop.imports.rows import Row

_ARRAYS: dict[str, type[np.generic]] = {
    "prompt_tokens": np.int32,
    "response_tokens": np.int32,
    "logprobs": np.float32,
    "sampled": np.bool_,
}
_PLAIN = [field.name for field in fields(Row) if field.name not in {*_ARRAYS, "prompts", "turn", "own"}]


@dataclass(frozen=True, slots=True)
class Kept:
    """A row that is a rollout of a known problem."""

    row: Row
    """Without its prompt"""
    problem: int
    """Its number among the task's"""
    file: int
    """Its number among those that were read"""
    line: int


class Spool:
    """Rows in a temporary file, found again by the key that they were kept under."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: where the temporary file is made; it goes with the object."""
        self._file = TemporaryFile(prefix=".rollouts-", dir=folder)  # noqa: SIM115
        self._end = 0
        self._at: dict[tuple[bool, int], array[int]] = {}

    def keep(self, key: tuple[bool, int], kept: Kept) -> None:
        given = {name: getattr(kept.row, name) for name in _ARRAYS}
        arrays = {name: value.astype(_ARRAYS[name]).tobytes() for name, value in given.items() if value is not None}
        head = {name: getattr(kept.row, name) for name in _PLAIN}
        place: dict[str, Any] = {"problem": kept.problem, "file": kept.file, "line": kept.line, "turn": kept.row.turn}
        sizes = {name: len(data) for name, data in arrays.items()}
        text = json.dumps([head, place, sizes], default=str).encode()
        data = b"".join([len(text).to_bytes(8, "little"), text, *arrays.values()])
        self._file.write(data)  # all of them, before the first is read
        self._at.setdefault(key, array("q")).append(self._end)
        self._end += len(data)

    @property
    def keys(self) -> list[tuple[bool, int]]:
        """In order"""
        return sorted(self._at)

    def count(self, key: tuple[bool, int]) -> int:
        return len(self._at[key])

    def read(self, key: tuple[bool, int]) -> Iterator[Kept]:
        """In the order in which they were kept"""
        for at in self._at[key]:
            self._file.seek(at)
            head, place, sizes = json.loads(self._file.read(int.from_bytes(self._file.read(8), "little")))
            turn = place.pop("turn")
            row = Row(prompts=(), turn=tuple(turn) if turn else None, **head)
            for name, size in sizes.items():
                setattr(row, name, np.frombuffer(self._file.read(size), _ARRAYS[name]).copy())
            yield Kept(row, **place)

    def close(self) -> None:
        self._file.close()


class Seen:
    """Names that were met before; more of them than memory holds lie on disk, in a file without a name."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("CREATE TABLE names (name BLOB PRIMARY KEY) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def again(self, name: bytes) -> bool:
        """Whether it was met before; from now on it was."""
        return not self._database.execute("INSERT OR IGNORE INTO names VALUES (?)", (name,)).rowcount

    def close(self) -> None:
        self._database.close()
