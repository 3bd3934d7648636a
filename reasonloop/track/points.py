"""The lines of metrics.jsonl as points for a tracker: names, values, and where on which axis."""

from __future__ import annotations

import json
import math
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonloop.config import flat

Key = str
"""What a line is about, as text: stage, branch, iteration, step and name; the same when a continued run writes it again"""

ABOUT = ("stage", "branch", "iteration", "step", "name")
ELSEWHERE = (*ABOUT, "rollouts")
"""Numbers of a line that say where it belongs, and are no values"""
TIMINGS = ("seconds", "tokens_per_second")


@dataclass(frozen=True)
class Point:
    """A line of metrics.jsonl."""

    axis: str
    """What it is drawn against: "rollouts", or "rft/update" and such where supervised training counts its own"""
    at: int
    """Where on that axis"""
    values: Mapping[str, float]
    """By name, "explore/reward" and such"""

    @property
    def digest(self) -> str:
        """Equal for equal values, timings left aside."""
        told = {name: value for name, value in self.values.items() if not name.endswith(TIMINGS)}
        return f"{zlib.crc32(json.dumps([self.axis, self.at, told], sort_keys=True).encode()):08x}"


class Points:
    """A run's metrics.jsonl as it grows, read from where the last reading ended. What a continued stage takes back and
    writes again keeps its key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clear()

    def _clear(self) -> None:
        self.known: dict[Key, Point] = {}
        """In the file's order"""
        self._offset, self._last = 0, b""
        self._lines = Counter[str]()
        self._rollouts = 0
        self._updates: dict[tuple[Any, Any], dict[int, int]] = {}

    def read(self) -> None:
        """Takes in the whole lines that are new, or all where they aren't behind those that we know."""
        if not self._path.is_file():
            self._clear()
            return
        with self._path.open("rb") as file:
            file.seek(self._offset - len(self._last))
            if file.read(len(self._last)) != self._last:
                self._clear()
            file.seek(self._offset)
            for raw in file:
                if not raw.endswith(b"\n"):
                    break  # half of a line: it is read when it is whole, or gone when the run goes on
                self._offset, self._last = self._offset + len(raw), raw
                with suppress(ValueError):
                    line = json.loads(raw)
                    if isinstance(line, dict):
                        self._add(line)

    def _add(self, line: Mapping[str, Any]) -> None:
        about = [line.get(name) for name in ABOUT]
        count = self._lines[json.dumps(about)]
        self._lines[json.dumps(about)] += 1
        values = {f"{prefix}/{name}": value for prefix in prefixes(line) for name, value in _numbers(line)}
        if values:
            self.known[json.dumps([*about, count] if count else about)] = Point(*self._place(line), values)

    def _place(self, line: Mapping[str, Any]) -> tuple[str, int]:
        spent, step = line.get("rollouts"), line.get("step")
        if isinstance(spent, int):
            self._rollouts = max(self._rollouts, spent)
            return "rollouts", spent
        if not isinstance(step, int):
            return "rollouts", self._rollouts
        # supervised training counts anew in each iteration
        lengths = self._updates.setdefault((line.get("stage"), line.get("branch")), {})
        iteration = line.get("iteration", 0)
        lengths[iteration] = max(lengths.get(iteration, 0), step + 1)
        return f"{prefixes(line)[0]}/update", step + sum(n for other, n in lengths.items() if other < iteration)


def prefixes(line: Mapping[str, Any]) -> list[str]:
    """What the names of a line's values begin with: its stage, or the branch beside the method itself that it belongs to.
    The steps that two arms share are of both; evaluations of the product are told once more."""
    stage, branch = str(line.get("stage")), str(line.get("branch", "main"))
    found = [_prefix(stage, "explored" if stage == "eval" and line.get("arm") == "explored" else branch)]
    if isinstance(other := line.get("shared_with"), str):
        found.append(_prefix(stage, other))
    if stage == "eval" and line.get("product"):
        found.append("product")
    return found


def _prefix(stage: str, branch: str) -> str:
    if branch in ("main", stage):
        return stage
    if stage == "explore":
        return branch
    return f"{stage}/{branch}" if stage in ("eval", "probe") else f"{branch}/{stage}"


def _numbers(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The values of a line, those of tables in it by path."""
    for name, value in flat(line).items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if number and (name not in ELSEWHERE or (name == "iteration" and "seconds" in line)):
            yield name.replace(".", "/"), value
