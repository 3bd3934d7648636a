"""What a tracker is: a class of three methods, made without arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from reasonloop.track.points import Point


@dataclass(frozen=True)
class TrackedRun:
    """The run as a tracker gets to know it."""

    id: str
    """8 characters, kept in the run folder: the same whenever the run goes on, wherever its folder is then"""
    name: str
    """What a reader calls it"""
    project: str | None
    """None: the tracker's own choice"""
    config: Mapping[str, Any]
    """The resolved recipe, and under `ran_on` what the run began on"""
    folder: Path
    """The run folder"""


class Tracker(Protocol):
    """Lives in a process of its own and may be slow, raise or hang: the run doesn't notice. After an exception it is made
    and started anew."""

    where: str
    """Where what it got is to be seen, for a reader; known once it has started"""

    def start(self, run: TrackedRun) -> int | None:
        """Opens the run, a new one or the one that it has under this id. Returns how many points it holds of it: 0 has all
        of them given again, None those behind the last that it was given in full."""
        ...

    def log(self, point: Point, step: int) -> None:
        """Takes a point. `step` counts them, 0, 1, 2, ...; after a kill a tracker that returned None may get the last few
        once more, each under its own step."""
        ...

    def finish(self, done: bool) -> None:
        """Everything is stored when it returns. `done`: whether the run is; otherwise it may go on later."""
        ...
