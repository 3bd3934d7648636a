"""A run: its folder, which is its only state, and what all of its stages share."""

from __future__ import annotations

import fcntl
import json
import math
import signal
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import IO, Any

from reasonloop import config
from reasonloop.config import Recipe, flat, stored_recipe
from reasonloop.errors import InputError, Stopped
from reasonloop.files import partial_of, read_object, write_atomically
from reasonloop.records import Problem
from reasonloop.run.progress import Progress
from reasonloop.run.ran_on import describe_machine

MAY_DIFFER = {"checkpoint_seconds"}  # options that a continued run may have otherwise: they don't touch the result


class Run:
    """The run in `folder`: starts it, or continues what the folder holds.

    Raises InputError when the folder holds something else, another run's recipe, or a run that is being worked on.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self.progress = Progress(1.0)
        self.stopping = False
        self.processes = recipe.processes
        check_folder(recipe, folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {folder}: cannot be made ({error.strerror})") from None
        self._lock = _lock(folder)
        self.resumed = (folder / "config.toml").is_file()
        if not self.resumed:
            write_atomically(folder / "config.toml", config.dumps(recipe, {"ran_on": describe_machine(recipe)}))
            self.set_state("start", 0, 0)
        (folder / "evals").mkdir(exist_ok=True)
        self._seconds_before = float(self.state.get("seconds", 0.0))
        self._began = time.monotonic()

    # what stages share

    @cached_property
    def task(self) -> Any:
        from reasonloop.tasks import load_task

        return load_task(self.recipe.task.name, self.recipe.task.options)

    @cached_property
    def problems(self) -> dict[str, list[Problem]]:
        """By split; probe and test cut to the recipe's sizes."""
        from reasonloop.tasks import task_problems

        sizes = {"probe": self.recipe.eval.probe_problems, "test": self.recipe.eval.problems}
        found: dict[str, list[Problem]] = {"train": [], "probe": [], "test": []}
        for problem in task_problems(self.task, self.recipe.task.name):
            found[problem.split].append(problem)
        return {split: problems[: sizes.get(split, 0) or None] for split, problems in found.items()}

    @cached_property
    def verifier(self) -> Any:
        """The pool of killable workers that judges this run's rollouts."""
        from reasonloop.tasks.show import verifier_pool

        chosen = self.recipe.task
        return verifier_pool(chosen.name, chosen.options, chosen.verify_deadline, chosen.verify_workers)

    @cached_property
    def engine(self) -> Any:
        """The sampling engine, with whatever policy was loaded last."""
        from reasonloop.engine.team import TeamEngine

        return TeamEngine(self.processes)

    @cached_property
    def store(self) -> Any:
        from reasonloop.store.segments import TrajectoryStore

        return TrajectoryStore(self.folder / "trajectories", self.folder.name)

    # state, metrics, evaluations

    @property
    def threads(self) -> int:
        """CPU threads that the run began with: a continued run keeps them, since the bytes of its results depend on them."""
        return int(self._ran_on["threads"])

    @property
    def _ran_on(self) -> dict[str, Any]:
        """What `describe_machine` told where the run began."""
        found: dict[str, Any] = tomllib.loads((self.folder / "config.toml").read_text(encoding="utf-8"))["ran_on"]
        return found

    def changed(self) -> list[str]:
        """What is another here than where the run began, of what the bytes of its results depend on."""
        began = flat(self._ran_on)
        now = flat(describe_machine(self.recipe))
        keys = ("processor", "compiler", "kernels", "python", *(key for key in now if key.startswith("versions.")))
        return [
            f"{key.removeprefix('versions.')}: {began.get(key, 'unknown') or 'none'} when it began, {now[key] or 'none'} now"
            for key in keys
            if began.get(key) != now[key]
        ]

    @property
    def state(self) -> dict[str, Any]:
        path = self.folder / "state.json"
        return read_object(path) if path.is_file() else {}

    def set_state(self, stage: str, iteration: int, step: int) -> None:
        seconds = self.seconds() if hasattr(self, "_began") else 0.0
        state = {"stage": stage, "iteration": iteration, "step": step, "seconds": round(seconds, 3)}
        write_atomically(self.folder / "state.json", json.dumps(state) + "\n")

    @property
    def done(self) -> bool:
        """Whether nothing is left to do: the product is there."""
        return self.state.get("stage") == "done" and (self.folder / "model" / "config.json").is_file()

    def seconds(self) -> float:
        """Seconds of work on this run so far, over all the processes that worked on it."""
        return self._seconds_before + time.monotonic() - self._began

    def log(self, **line: Any) -> None:
        """Appends a line to metrics.jsonl; values that are None, infinite or NaN are left out."""
        known = {k: v for k, v in line.items() if v is not None and not (isinstance(v, float) and not math.isfinite(v))}
        text = json.dumps(known, allow_nan=False)
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def unlog(self, from_step: int = 0, **where: Any) -> None:
        """Takes back the lines with these values that a continued stage writes again, and a torn last line."""
        path = self.folder / "metrics.jsonl"
        text = "".join(
            json.dumps(line) + "\n"
            for line in self.metrics()
            if line.get("step", 0) < from_step or any(line.get(key) != value for key, value in where.items())
        )
        if path.is_file() and path.read_text(encoding="utf-8", errors="replace") != text:
            write_atomically(path, text)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; the torn last line of a killed process is left out."""
        path = self.folder / "metrics.jsonl"
        lines = []
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
            with suppress(ValueError):
                lines.append(json.loads(text))
        return lines

    def evaluations(self) -> list[dict[str, Any]]:
        """All finished evaluations, in the order in which they were made."""
        found = [read_object(path) for path in sorted((self.folder / "evals").glob("*.json"))]
        return sorted(found, key=lambda evaluation: evaluation.get("order", 0))

    # stopping

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM ask for a stop after the next checkpoint; a second one stops at once."""
        before: dict[signal.Signals, Any] = {}

        def ask(number: int, frame: FrameType | None) -> None:
            self.stopping = True
            for known in before:
                signal.signal(known, signal.default_int_handler)
            self.progress.say("stopping after the next checkpoint; once more stops at once")

        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop_point(self) -> None:
        """A place where nothing unsaved is left: stops here if that was asked for."""
        if self.stopping:
            raise Stopped(str(self.folder))

    def close(self) -> None:
        for shared in ("engine", "verifier"):
            if shared in self.__dict__:
                self.__dict__[shared].close()
        self._lock.close()


def check_folder(recipe: Recipe, folder: Path) -> None:
    """Raises InputError unless `folder` can take this run: it is new, empty, or holds a run of the same recipe."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"--out {folder}: a file; expected a folder, new or of the same run")
    stored = folder / "config.toml"
    if not stored.is_file():
        begun = {".lock", partial_of(stored).name}  # what a process leaves that was killed as it began
        if any(path.name not in begun for path in folder.iterdir()):
            raise InputError(f"--out {folder}: not empty and no run (no config.toml in it); expected a new folder")
        return
    try:
        there = flat(stored_recipe(tomllib.loads(stored.read_text(encoding="utf-8"))))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{stored}: cannot be read: {error}") from None
    here = flat(tomllib.loads(config.dumps(recipe)))
    differing = sorted(key for key in there.keys() | here.keys() if there.get(key) != here.get(key))
    differing = [key for key in differing if key not in MAY_DIFFER]
    if differing:
        key = differing[0]
        raise InputError(
            f"--out {folder}: holds another run: {key} = {there.get(key, 'unset')!r} there, "
            f"{here.get(key, 'unset')!r} here; expected the same recipe, or another --out"
        )


def _lock(folder: Path) -> IO[str]:
    try:
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written to: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise InputError(f"--out {folder}: another process is working on this run") from None
    return file
