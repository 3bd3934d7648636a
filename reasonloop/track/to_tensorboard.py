"""TensorBoard: event files in RUN/tensorboard/, written by its own package, without torch and TensorFlow.

They are written anew whenever a process of the run starts: metrics.jsonl has it all, and so a killed run leaves no half
events, and what it did behind its last checkpoint leaves none at all.
"""

from __future__ import annotations

import json
import time
from typing import Any

from reasonloop.track.points import Point
from reasonloop.track.protocol import TrackedRun

FLUSH_SECONDS = 2


class Tensorboard:
    def __init__(self) -> None:
        self.where = ""

    def start(self, run: TrackedRun) -> int:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = run.folder / "tensorboard"
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = EventFileWriter(str(folder), flush_secs=FLUSH_SECONDS)
        # a TensorBoard that is open drops what it read of the old files
        self._add(0, session_log=SessionLog(status=SessionLog.START))
        recipe = json.dumps(run.config, indent=2).replace("\n", "\n    ")
        self._add(0, summary=text_pb("recipe", f"    {recipe}"))
        self._writer.flush()
        self.where = f"tensorboard --logdir {run.folder.parent}"
        return 0

    def log(self, point: Point, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
        self._add(point.at, summary=Summary(value=values))

    def _add(self, step: int, **what: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(step=step, wall_time=time.time(), **what))

    def finish(self, done: bool) -> None:
        self._writer.close()
