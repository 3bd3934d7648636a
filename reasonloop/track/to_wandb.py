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

        offline = wandb.setup().settings.mode in ("offline", "dryrun")
        self._drawn: set[tuple[str, str]] = set()
        self._run = wandb.init(
            id=run.id,
            name=run.name,
            project=run.project or os.environ.get("WANDB_PROJECT") or "reasonloop",
            dir=os.environ.get("WANDB_DIR") or str(run.folder),
            config=dict(run.config),
            resume=None if offline else "allow",
            settings=wandb.Settings(console="off", silent=True, quiet=True),
        )
        if offline:
            return self._only(run.id)
        self.where = self._run.url or "wandb.ai"
        return self._run.step

    def _only(self, id: str) -> int:
        """An offline run that goes on is written anew, in place of what there was. `wandb sync` puts rows that it sends
        again where they are, but those of a second part behind them, under other steps."""
        current = Path(self._run.dir).parent
        for old in current.parent.glob(f"offline-run-*-{id}"):
            if old != current:
                shutil.rmtree(old, ignore_errors=True)
        self.where = f"offline; to send it: wandb sync {current}"
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
