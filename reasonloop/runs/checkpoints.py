"""Checkpoints of stages: a Hugging Face folder, the trainer's state and how far the stage has come, replaced as one.

What is in one is kept no longer than something may need it: the trainer's state until the stage is done, the policy until
its run has delivered. How far the stage came stays.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from reasonloop.files import (
    ADAPTER,
    TRAINER_SHARDS,
    TRAINER_STATE,
    drop_folder,
    read_object,
    recover_folder,
    replace_folder,
    write_atomically,
)


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
        partial = self._linked(other.folder, without=(self.STATE,))
        (partial / self.STATE).write_text(json.dumps(state) + "\n")
        replace_folder(partial, other.folder)

    @property
    def dropped(self) -> bool:
        """Whether nothing is left of it but how far it came."""
        return [path.name for path in self.folder.iterdir()] == [self.STATE]

    @property
    def whole(self) -> bool:
        """Whether its policy lies here as a Hugging Face folder of its own."""
        return (self.folder / "config.json").is_file() and any(self.folder.glob("*.safetensors"))

    def deliver(self, folder: Path) -> None:
        """Its policy in another folder, which must not be there yet, by links to the same files."""
        replace_folder(self._linked(folder, without=(self.STATE, TRAINER_STATE, TRAINER_SHARDS, ADAPTER)), folder)

    def _linked(self, folder: Path, without: tuple[str, ...]) -> Path:
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(self.folder, partial, ignore=lambda _, names: without, copy_function=_link)
        return partial

    def drop_policy(self) -> None:
        """Frees the disk that the stage's policy takes; how far it came stays known."""
        if self.state() is not None:
            drop_folder(self.folder, keep=self.STATE)

    def drop_trainer_state(self) -> None:
        (self.folder / TRAINER_STATE).unlink(missing_ok=True)
        shutil.rmtree(self.folder / TRAINER_SHARDS, ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
