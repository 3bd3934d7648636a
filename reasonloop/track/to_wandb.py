"""Weights & Biases. What it keeps itself, an offline run above all, goes to RUN/wandb/ unless WANDB_DIR says otherwise."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from reasonloop.track.points import Point
from reasonloop.track.protocol import TrackedRun


class Wandb:
    def __init__(self) -> None:
        self.where = ""

    def start(self, run: TrackedRun) -> int:
        import wandb

        project = run.project or os.environ.get("WANDB_PROJECT") or "reasonloop"
        place = os.environ.get("WANDB_DIR") or str(run.folder)
        settings = wandb.Settings(console="off", silent=True, quiet=True)
        self._run = wandb.init(
            id=run.id,
            name=run.name,
            project=project,
            dir=place,
            config=dict(run.config),
            resume="allow",
            settings=settings,
        )
        self._drawn: set[tuple[str, str]] = set()
        self.where = self._run.url or "wandb.ai"
        if not self._run.offline:
            return self._run.step
        # `wandb sync` doesn't join the files of an offline run that went on: there is one, written anew from metrics.jsonl
        current = Path(self._run.dir).parent
        for old in current.parent.glob(f"offline-run-*-{run.id}"):
            if old != current:
                shutil.rmtree(old, ignore_errors=True)
        self.where = f"wandb sync {current}"
        return 0

    def log(self, point: Point, step: int) -> None:
        for prefix in {name.partition("/")[0] for name in point.values}:
            if (prefix, point.axis) not in self._drawn:
                self._drawn.add((prefix, point.axis))
                self._run.define_metric(point.axis, hidden=True)
                self._run.define_metric(f"{prefix}/*", step_metric=point.axis)
        self._run.log({point.axis: point.at, **point.values}, step=step)

    def finish(self, done: bool) -> None:
        self._run.finish(exit_code=0 if done else 1)
