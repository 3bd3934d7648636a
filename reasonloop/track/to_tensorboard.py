"""TensorBoard: event files in RUN/tensorboard/, written by its own package, without torch and TensorFlow.

They are written anew whenever a process of the run starts: metrics.jsonl has it all, and so a killed run leaves no half
events, and what it did behind its last checkpoint leaves none at all.
"""

from __future__ import annotations

import json
import time

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from reasonloop.track.points import Point
from reasonloop.track.protocol import TrackedRun


class Tensorboard:
    def __init__(self) -> None:
        self.where = ""

    def start(self, run: TrackedRun) -> int:
        folder = run.folder / "tensorboard"
        for old in folder.glob("events.out.tfevents.*") if folder.is_dir() else ():
            old.unlink()
        self._writer = EventFileWriter(str(folder), flush_secs=2)
        # a TensorBoard that is open drops what it read of the old files
        self._add(Event(session_log=SessionLog(status=SessionLog.START)), 0)
        recipe = "".join(f"    {line}\n" for line in json.dumps(run.config, indent=2).splitlines())
        self._add(Event(summary=text_pb("recipe", recipe)), 0)
        self._writer.flush()
        self.where = f"tensorboard --logdir {run.folder.parent}"
        return 0

    def log(self, point: Point, step: int) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
        self._add(Event(summary=Summary(value=values)), point.at)

    def _add(self, event: Event, step: int) -> None:
        event.step, event.wall_time = step, time.time()
        self._writer.add_event(event)

    def finish(self, done: bool) -> None:
        self._writer.close()
