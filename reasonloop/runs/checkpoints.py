"""Checkpoints of stages: a Hugging Face folder, the trainer's state and how far the stage has come, replaced as one.

What is in one is kept no longer than something may need it: the trainer's state until the stage is done, the policy until
its run has delivered. How far the stage came stays. The run's digests know all of it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from reasonloop.errors import InputError, RunError, first_line
from reasonloop.files import (
    ADAPTER,
    OF_TRAINER,
    TRAINER_SHARDS,
    TRAINER_STATE,
    disk_errors,
    drop_folder,
    fsync,
    make_folder,
    read_object,
    recover_folder,
    replace_folder,
    write_atomically,
)
from reasonloop.written.digests import of_bytes
from reasonloop.written.known import CHECKPOINTS, check
from reasonloop.written.ledger import Ledger


class Savable(Protocol):
    """What a checkpoint asks of a learner."""

    def save(self, folder: Path, trainer_state: bool = True, whole: bool = True) -> None: ...


class Loadable(Protocol):
    def load(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class Checkpoint:
    """RUN/checkpoints/<stage>; `Place.name` is the stage's."""

    folder: Path
    ledger: Ledger | None = None
    """The run's, where this process works on it"""

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
        make_folder(self.folder.parent)
        partial.mkdir()
        with disk_errors(self.folder):
            learner.save(partial, trainer_state, whole=bool(state.get("done")))
        (partial / self.STATE).write_text(json.dumps(state) + "\n")
        self._replace(partial, self.folder)

    def restore(self, learner: Loadable) -> None:
        """Has a learner go on where this one stands. Raises RunError where its state is lost or damaged; FileNotFoundError
        where the stage was done without one."""
        for name in OF_TRAINER:
            check(self.folder / name)
        try:
            learner.load(self.folder)
        except (InputError, RunError, FileNotFoundError, MemoryError):
            raise
        except Exception as error:
            if "out of memory" in str(error):
                raise
            raise RunError(
                f"{self.folder / TRAINER_STATE}: damaged ({first_line(error)}); restore it from a copy, or delete the "
                f"folder {self.folder} and digests.jsonl, and the stage begins again"
            ) from error

    def skip(self, state: Mapping[str, Any]) -> None:
        """A finished stage that made no policy of its own."""
        self.write(self.STATE, json.dumps(state) + "\n")

    def share(self, other: Checkpoint, state: Mapping[str, Any]) -> None:
        """`other` begins where this one stands, with a state of its own, unless it has begun. The files are the same ones
        where that is possible: a checkpoint is replaced, never changed."""
        if other.folder.exists():
            return
        partial, text = self._linked(other.folder, without=(self.STATE,)), json.dumps(state) + "\n"
        (partial / self.STATE).write_text(text)
        self._replace(partial, other.folder, self._known() | {self.STATE: of_bytes(text.encode())})

    @property
    def dropped(self) -> bool:
        """Whether nothing is left of it but how far it came."""
        return [path.name for path in self.folder.iterdir()] == [self.STATE]

    @property
    def whole(self) -> bool:
        """Whether its policy lies here as a Hugging Face folder of its own."""
        return (self.folder / "config.json").is_file() and any(self.folder.glob("*.safetensors"))

    def deliver(self, folder: Path) -> None:
        """Its policy in another folder, which must not be there yet, by links to the same files. Raises RunError where they
        aren't what was written."""
        check(self.folder, OF_TRAINER)
        partial = self._linked(folder, without=(self.STATE, *OF_TRAINER, ADAPTER))
        self._replace(partial, folder, self._known())

    def _linked(self, folder: Path, without: tuple[str, ...]) -> Path:
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(self.folder, partial, ignore=lambda _, names: without, copy_function=_link)
        return partial

    def drop_policy(self) -> None:
        """Frees the disk that the stage's policy takes; how far it came stays known."""
        if self.state() is not None:
            self._going(name for name in self._known() if name != self.STATE)
            drop_folder(self.folder, keep=self.STATE)
            fsync(self.folder)

    def drop_trainer_state(self) -> None:
        self._going(name for name in self._known() if name.startswith(OF_TRAINER))
        (self.folder / TRAINER_STATE).unlink(missing_ok=True)
        shutil.rmtree(self.folder / TRAINER_SHARDS, ignore_errors=True)

    def forget(self) -> None:
        """It is as if the stage had never been begun."""
        self._going(self._known())
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, name: str, text: str) -> None:
        """A file beside the state, whole or not at all."""
        make_folder(self.folder)
        (self.ledger.write if self.ledger is not None else write_atomically)(self.folder / name, text)

    def _replace(self, partial: Path, folder: Path, known: Mapping[str, str] | None = None) -> None:
        """Puts the finished `partial` in `folder`'s place. `known`: digests of its files, as far as there are any."""
        if self.ledger is not None:
            self.ledger.put_folder(partial, folder, known)
        else:
            replace_folder(partial, folder)

    def _known(self) -> dict[str, str]:
        """Its files' digests, by name in it."""
        return self.ledger.below(self.folder) if self.ledger is not None else {}

    def _going(self, names: Iterable[str]) -> None:
        """Before files, by name in it, are removed."""
        going = [f"{CHECKPOINTS}/{self.folder.name}/{name}" for name in names]
        if self.ledger is not None and going:
            self.ledger.put(dict.fromkeys(going))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
