"""A row as it stands in its file, and how messages call it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from reasonloop.records import Problem
from reasonloop.verify.answers import one_line

Row = dict[str, Any]


class Fault(Exception):
    """Why a row is no problem: its kind, which is counted, and the reason, which is told."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row of a file, or what is wrong with it."""

    file: str
    """Path of the file, or name of the data set"""
    unit: str
    """"line" in text with a row a line, else "row": what `number` counts"""
    number: int
    """From 1"""
    value: Any
    """A JSON value, an object where the file is as it should be; or a Fault"""

    @property
    def place(self) -> str:
        """`train.jsonl line 17`"""
        return f"{self.file} {self.unit} {self.number}"

    @property
    def meta(self) -> Row:
        """For the problem that is made of it (see `row_name`)"""
        return {"file": self.file, self.unit: self.number}


def shown(value: Any) -> str:
    """For an error's one line."""
    if isinstance(value, str):
        return one_line(value, 60) if value.strip() else repr(value[:20])
    return one_line(json.dumps(value, default=str), 60)


def row_name(problem: Problem) -> str:
    """`train.jsonl line 17` or `train.parquet row 17` where the problem came from a file, else its id."""
    file = problem.meta.get("file")
    for unit in ("line", "row"):
        if file is not None and problem.meta.get(unit) is not None:
            return f"{file} {unit} {problem.meta[unit]}"
    return problem.id
