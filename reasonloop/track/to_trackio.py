"""Trackio: its database on this machine (TRACKIO_DIR), or where TRACKIO_SPACE_ID or TRACKIO_SERVER_URL say."""

from __future__ import annotations

from reasonloop.track.points import Point
from reasonloop.track.protocol import TrackedRun


class Trackio:
    def __init__(self) -> None:
        self.where = ""

    def start(self, run: TrackedRun) -> int:
        import trackio

        project = run.project or "reasonloop"
        # it knows runs by their names alone: another folder of this name is another run
        name = f"{run.name}-{run.id[:4]}"
        self._run = trackio.init(project=project, name=name, config=dict(run.config), resume="allow", embed=False)
        self.where = f"trackio show --project {project}"
        return int(self._run._next_step)

    def log(self, point: Point, step: int) -> None:
        self._run.log({point.axis: point.at, **point.values}, step=step)

    def finish(self, done: bool) -> None:
        self._run.finish()
