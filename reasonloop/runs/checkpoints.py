"""Checkpoints of stages: a Hugging Face folder, the trainer's state and how far the stage has come, replaced as one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from reasonloop.files import drop_folder, read_object, recover_folder, replace_folder, write_atomically


class Savable(Protocol):
    """What a checkpoint asks of a learner."""

    def save(self, folder: Path, trainer_state: bool = True, whole: bool = True) -> None: ...


@dataclass(frozen=True)
class Checkpoint:
    """RUN/checkpoints/<stage>; `Place.name` is the stage's."""

    folder: Path

    STATE = "stage.json"

    def recover(self) -> None:
        """Finishes what a killed process has left half done. Once, when a run begins to work."""
        recover_folder(self.folder)

    def state(self) -> dict[str, Any] | None:
        """How far the stage has come; None when it has not made a checkpoint yet. A finished one has "done"."""
        path = self.folder / self.STATE
        return read_object(path) if path.is_file() else None

    def save(self, learner: Savable, state: Mapping[str, Any], trainer_state: bool = True) -> None:
        """Weights, tokenizer, trainer's state and how far the stage has come, whole or not at all. Of a policy with an
        adapter that is the adapter alone until the stage is done."""
        partial = self.folder.with_name(self.folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        learner.save(partial, trainer_state, whole=bool(state.get("done")))
        (partial / self.STATE).write_text(json.dumps(state) + "\n")
        replace_folder(partial, self.folder)

    def skip(self, state: Mapping[str, Any]) -> None:
        """A finished stage that made no policy of its own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / self.STATE, json.dumps(state) + "\n")

    def share(self, other: Checkpoint, state: Mapping[str, Any]) -> None:
        """`other` begins where this one stands, with a state of its own, unless it has begun. The files are the same ones
        where that is possible: a checkpoint is replaced, never changed."""
        if other.folder.exists():
            return
        partial = other.folder.with_name(other.folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(self.folder, partial, copy_function=_link)
        (partial / self.STATE).unlink()
        (partial / self.STATE).write_text(json.dumps(state) + "\n")
        replace_folder(partial, other.folder)

    def drop_weights(self) -> None:
        """Frees the disk that a finished stage's policy takes; how far it came stays known."""
        state = self.state()
        if state is not None and state.get("done"):
            drop_folder(self.folder, keep=self.STATE)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
