"""Trackers as a user would write them, and bad ones. What they get goes to the file that TRACKED names."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from reasonloop.track import Point, TrackedRun


def got(path: Path) -> list[tuple[int, Point]]:
    """(step, point) in the order in which they came; half of a last line is none."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [(step, Point(*point)) for step, point in (json.loads(line) for line in lines if line.endswith("\n"))]


class Ledger:
    """Appends a line a point, and knows how many it has."""

    where = "a file"

    def start(self, run: TrackedRun) -> int | None:
        self.path = Path(os.environ["TRACKED"])
        held = got(self.path)
        self.path.write_text("".join(json.dumps([step, list(vars(one).values())]) + "\n" for step, one in held))
        return len(held)

    def log(self, point: Point, step: int) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps([step, [point.axis, point.at, dict(point.values)]]) + "\n")

    def finish(self, done: bool) -> None:
        with self.path.with_suffix(".finished").open("a") as file:
            file.write(f"{done}\n")


class Forgetful(Ledger):
    """Can't say what it has."""

    def start(self, run: TrackedRun) -> None:
        super().start(run)


class Down:
    where = "nowhere"

    def start(self, run: TrackedRun) -> int | None:
        raise ConnectionError("no route to host\nand a second line")

    def log(self, point: Point, step: int) -> None:
        raise AssertionError

    def finish(self, done: bool) -> None:
        raise AssertionError


class Hangs(Down):
    def start(self, run: TrackedRun) -> int | None:
        time.sleep(3600)
        return 0


class Lacking:
    def start(self, run: TrackedRun) -> int | None:
        return 0
