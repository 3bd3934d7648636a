"""A branch on another machine, as that machine sees it: an exploration in a run of its own, in a temporary folder, whose
segments and metrics lines are handed over step by step.

Nothing here knows of Ray. Torch is imported when the work begins.
"""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import socket
import stat
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasonloop import config
from reasonloop.errors import InputError, RunError, first_line
from reasonloop.files import own_alone
from reasonloop.machine.python import behind_installed
from reasonloop.records import Place
from reasonloop.runs.progress import Progress
from reasonloop.runs.stages import Arm, Budget

if TYPE_CHECKING:
    import numpy as np

    from reasonloop.runs.session import Session

PREFIX = "reasonloop-branch-"
"""Of the temporary folders that branches work in"""
NEW = 60.0
"""Seconds for which such a folder is left alone"""


@dataclass(frozen=True)
class Job:
    """An exploration to be made. The same one wherever it is made, and however often."""

    recipe: str
    """TOML"""
    run: str
    """The run's name: the store writes it into each row"""
    place: Place
    arm: Arm
    budget: Budget
    threads: int
    """Of each rank"""
    ranks: int = 1
    """Processes that sample and learn together, each on a device of its own"""


@dataclass(frozen=True)
class Part:
    """What is handed over at once."""

    step: int = -1
    """-1: the branch has begun, and nothing is made yet"""
    state: Mapping[str, Any] = field(default_factory=dict)
    """How far the branch has come: as an exploration's checkpoint has it"""
    segments: Mapping[str, bytes] = field(default_factory=dict)
    """By name, as the store wrote them"""
    lines: tuple[Mapping[str, Any], ...] = ()
    """Of metrics.jsonl"""
    said: tuple[str, ...] = ()
    """What a reader should be told"""
    done: bool = False
    """Whether this is the last of it"""
    machine: str = ""
    described: Mapping[str, Any] = field(default_factory=dict)
    """See `describe_machine`; of the first part"""
    failed: str = ""
    """Why the branch can't be made: nothing follows"""
    where: str = ""
    """The traceback of a failure that nobody foresaw"""


class BranchWorker:
    """Works on a branch, a part at a time."""

    def __init__(self, job: Job, policy: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> None:
        self._parts = parts(job, policy, inputs)

    def part(self) -> Part | None:
        """The next one; None when there is none left."""
        return next(self._parts, None)


def parts(job: Job, policy: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> Iterator[Part]:
    """The branch, made here, as it is made. What goes wrong is a part, too."""
    try:
        from reasonloop.runs.ran_on import describe_machine

        with _workplace(inputs) as folder, _opened(job, policy, folder) as run:
            yield Part(machine=_machine(), described=describe_machine(run.recipe))
            yield from _explored(job, run, folder / "policy")
    except (InputError, RunError) as error:
        yield Part(failed=str(error), machine=_machine())
    except Exception as error:
        told = f"{type(error).__name__}: {first_line(error)}"
        yield Part(failed=told, where=traceback.format_exc(), machine=_machine())


def _explored(job: Job, run: Session, start: Path) -> Iterator[Part]:
    from reasonloop.stages.exploration import Exploration

    seen, trajectories = 0, run.folder.path / "trajectories"
    exploration = Exploration(run, start, job.place, job.arm, job.budget)
    for step in exploration.steps():
        segments = {path.name: path.read_bytes() for path in sorted(trajectories.glob("*.parquet"))}
        for name in segments:
            (trajectories / name).unlink()
        lines = run.folder.metrics()
        yield Part(
            step=step.place.step,
            state=exploration.state.to_json(),
            segments=segments,
            lines=tuple(lines[seen:]),
            said=_said(run),
            done=exploration.over,
        )
        seen = len(lines)


class _Quiet(Progress):
    """Shows nothing, and keeps what is said."""

    def __init__(self) -> None:
        super().__init__(1.0, io.StringIO())
        self.told: list[str] = []

    def say(self, text: str) -> None:
        self.told.append(text)


def _said(run: Session) -> tuple[str, ...]:
    told = getattr(run.progress, "told", [])
    found = tuple(told)
    told.clear()
    return found


@contextmanager
def _opened(job: Job, policy: Mapping[str, np.ndarray], folder: Path) -> Iterator[Session]:
    """A run of the job's recipe in `folder`, and its start in `folder`/policy."""
    from reasonloop.machine.threads import prepare_threads

    prepare_threads(job.threads)
    from reasonloop.ranks.beside import ranks_beside
    from reasonloop.runs.session import Session
    from reasonloop.stages.packed import CODEC, unpack

    unpack(policy, folder / "policy")
    recipe = config.parse(tomllib.loads(job.recipe), [], "recipe")
    model = recipe.model.model_copy(update={"path": str(folder / "inputs" / CODEC), "revision": None})
    recipe = recipe.model_copy(update={"model": model, "threads": job.threads, "checkpoint_seconds": float("inf")})
    with ranks_beside(recipe, job.ranks) as leader:
        run = Session(recipe, folder / job.run, leader=leader)
        run.progress = _Quiet()
        try:
            yield run
        finally:
            run.close()


@contextmanager
def _workplace(inputs: Mapping[str, np.ndarray]) -> Iterator[Path]:
    """A temporary folder, in whose folder `inputs` this process works until it is left. What processes that were killed
    have left of theirs goes."""
    from reasonloop.stages.packed import unpack

    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        _remove_unless_used(left)
    folder, before, paths = Path(tempfile.mkdtemp(prefix=PREFIX)), os.getcwd(), [*sys.path]
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            (folder / "inputs").mkdir()
            unpack(inputs, folder / "inputs")
            os.chdir(folder / "inputs")
            sys.path[:] = behind_installed(str(folder / "inputs"))
            yield folder
        finally:
            os.chdir(before)
            sys.path[:] = paths
            shutil.rmtree(folder, ignore_errors=True)


def _remove_unless_used(folder: Path) -> None:
    if not own_alone(folder, stat.S_ISDIR):
        return  # somebody else's
    with suppress(OSError), (folder / ".lock").open() as lock:
        if time.time() - folder.stat().st_mtime < NEW:
            return  # it may be about to be locked
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


def _machine() -> str:
    return f"{socket.gethostname()}, process {os.getpid()}"


def job_of(run: Session, place: Place, arm: Arm, budget: Budget, task: Mapping[str, Any]) -> Job:
    """The job of one of the run's branches. `task`: the options of its task as they are there."""
    recipe = run.recipe.of_branch(place.twin[0])
    options = {"name": recipe.task.name, "verify_deadline": recipe.task.verify_deadline}
    options |= {"verify_workers": recipe.task.verify_workers, **task}
    table = {**tomllib.loads(config.dumps(recipe)), "task": options}
    table["model"]["date"] = run.date.isoformat()
    table.pop("track", None)
    return Job(_toml(table), run.folder.path.name, replace(place, step=0), arm, budget, run.threads, run.world)


def _toml(table: Mapping[str, Any]) -> str:
    import tomli_w

    return tomli_w.dumps(table)
