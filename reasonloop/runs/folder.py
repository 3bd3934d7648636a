"""A run's folder, which is its only state: resolved recipe, how far it is, metrics, evaluations, checkpoints, lock."""

from __future__ import annotations

import fcntl
import json
import math
import time
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from reasonloop import config
from reasonloop.config import Recipe, flat, stored_recipe
from reasonloop.config.sections import SLOTS
from reasonloop.errors import InputError
from reasonloop.files import partial_of, read_object, write_atomically
from reasonloop.records import Place
from reasonloop.runs.checkpoints import Checkpoint
from reasonloop.runs.ran_on import describe_machine

MAY_DIFFER = (
    *("checkpoint_seconds", "keep_checkpoints", "model.date", "ranks.", "track.", "plan.", "explorer.", "finetuner."),
    *("scale.address", "scale.files", "scale.retries", "scale.deadline"),
)
"""Options that a continued run may have otherwise, and sections of such: they don't touch the result (but for a command
that has to be mended), or, the date, are looked at elsewhere"""


class RunFolder:
    """The folder of the run at `path`: made, or as a process has left it.

    Raises InputError when it holds something else, another run's recipe, or a run that is being worked on.
    """

    def __init__(self, recipe: Recipe, path: Path, commits: Mapping[str, str] | None = None) -> None:
        """`commits`: what a new run remembers of its models of the hub."""
        self.recipe, self.path = recipe, path
        check_folder(recipe, path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {path}: cannot be made ({error.strerror})") from None
        self._lock = _lock(path)
        self._began = time.monotonic()
        self._seconds_before = 0.0
        self.resumed = (path / "config.toml").is_file()
        if not self.resumed:
            ran_on = {**describe_machine(recipe), **({"commits": dict(commits)} if commits else {})}
            write_atomically(path / "config.toml", config.dumps(recipe, {"ran_on": ran_on}))
            self.set_state("start")
        (path / "evals").mkdir(exist_ok=True)
        self._seconds_before = float(self.state.get("seconds", 0.0))
        for left in (path / "checkpoints").glob("*"):
            Checkpoint(left.with_name(left.name.removesuffix(".old").removesuffix(".partial"))).recover()

    def checkpoint(self, place: Place) -> Checkpoint:
        return Checkpoint(self.path / "checkpoints" / place.name)

    def checkpoints(self) -> list[Checkpoint]:
        """Those of all stages that have made one."""
        return [Checkpoint(path) for path in sorted((self.path / "checkpoints").glob("*")) if path.is_dir()]

    def close(self) -> None:
        self._lock.close()

    @property
    def threads(self) -> int:
        """CPU threads that the run began with: a continued run keeps them, since the bytes of its results depend on them."""
        return int(self._ran_on["threads"])

    @property
    def commits(self) -> dict[str, str]:
        """Those that the run's models of the hub had when it began, by what the recipe calls them."""
        return dict(self._ran_on.get("commits", {}))

    @property
    def _ran_on(self) -> dict[str, Any]:
        """What `describe_machine` told where the run began."""
        found: dict[str, Any] = tomllib.loads((self.path / "config.toml").read_text(encoding="utf-8"))["ran_on"]
        return found

    def changed(self, there: Mapping[str, Any] | None = None) -> list[str]:
        """What is another here than where the run began, of what the bytes of its results depend on; or `there`, on a
        machine that `describe_machine` has described."""
        began = {"ranks": 1} | flat(self._ran_on)
        now = {"ranks": 1} | flat(there or describe_machine(self.recipe))
        keys = (
            "ranks",
            "processor",
            "compiler",
            "kernels",
            "python",
            *(key for key in now if key.startswith("versions.")),
        )
        where, found = "there" if there else "now", []
        for key in keys:
            if began.get(key) != now[key]:
                then = began.get(key, "unknown") or "none"
                found.append(f"{key.removeprefix('versions.')}: {then} when it began, {now[key] or 'none'} {where}")
        return found

    @property
    def state(self) -> dict[str, Any]:
        path = self.path / "state.json"
        return read_object(path) if path.is_file() else {}

    def set_state(self, stage: str, iteration: int | None = None, step: int | None = None) -> None:
        """RUN/state.json, for readers: where the run is, and the seconds of work on it. A run that begins or is done is in
        no iteration, and an evaluation has no steps: what doesn't apply is left out."""
        known = {"stage": stage, "iteration": iteration, "step": step, "seconds": round(self.seconds(), 3)}
        state = {key: value for key, value in known.items() if value is not None}
        write_atomically(self.path / "state.json", json.dumps(state) + "\n")

    @property
    def done(self) -> bool:
        """Whether nothing is left to do: the product is there."""
        return self.state.get("stage") == "done" and (self.path / "model" / "config.json").is_file()

    def seconds(self) -> float:
        """Seconds of work on this run so far, over all the processes that worked on it."""
        return self._seconds_before + time.monotonic() - self._began

    def log(self, **line: Any) -> None:
        """Appends a line to metrics.jsonl; values that are None, infinite or NaN are left out."""
        known = {k: v for k, v in line.items() if v is not None and not (isinstance(v, float) and not math.isfinite(v))}
        text = json.dumps(known, allow_nan=False)
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def unlog(self, from_step: int = 0, **where: Any) -> None:
        """Takes back the lines with these values that a continued stage writes again, and a torn last line."""
        path = self.path / "metrics.jsonl"
        text = "".join(
            json.dumps(line) + "\n"
            for line in self.metrics()
            if line.get("step", 0) < from_step or any(line.get(key) != value for key, value in where.items())
        )
        if path.is_file() and path.read_text(encoding="utf-8", errors="replace") != text:
            write_atomically(path, text)

    def relog(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Has every line as `change` makes it of the one that stood there."""
        text = "".join(json.dumps(change(line)) + "\n" for line in self.metrics())
        write_atomically(self.path / "metrics.jsonl", text)

    def metrics(self) -> list[dict[str, Any]]:
        return metrics_in(self.path)

    def evaluations(self) -> list[dict[str, Any]]:
        return evaluations_in(self.path)


def metrics_in(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; the torn last line of a killed process is left out."""
    path = folder / "metrics.jsonl"
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        with suppress(ValueError):
            lines.append(json.loads(text))
    return lines


def evaluations_in(folder: Path) -> list[dict[str, Any]]:
    """All finished evaluations of a run, in the order in which they were made."""
    found = [read_object(path) for path in sorted((folder / "evals").glob("*.json"))]
    return sorted(found, key=lambda evaluation: evaluation.get("order", 0))


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
    differing = [
        one
        for one in sorted(differences(recipe, folder), key=lambda one: one.key)
        if not one.key.startswith(MAY_DIFFER) or (one.key.endswith(".command") and not (one.there and one.here))
    ]
    if differing:
        told = differing[0]
        if (folder / "model" / "config.json").is_file():
            raise InputError(
                f"--out {folder}: holds another run, which is finished: {told}; expected another --out; a run that goes on "
                f"from its product has model.path={folder} --out OTHER"
            )
        raise InputError(f"--out {folder}: holds another run: {told}; expected the same recipe, or another --out")


class Differing(NamedTuple):
    """An option that a run has otherwise than a recipe."""

    key: str
    there: Any
    """The run's; None where it is unset"""
    here: Any

    def __str__(self) -> str:
        there, here = ("unset" if value is None else repr(value) for value in (self.there, self.here))
        return f"{self.key} = {there} there, {here} here"


def differences(recipe: Recipe, folder: Path) -> list[Differing]:
    """The options that a run was begun with otherwise, the recipe's first; those that its version didn't know had what they
    have by default. Raises InputError where its recipe can't be read."""
    stored = folder / "config.toml"
    try:
        there = flat(stored_recipe(tomllib.loads(stored.read_text(encoding="utf-8"))))
    except (OSError, ValueError) as error:
        raise InputError(f"{stored}: cannot be read: {error}") from None
    here, usual = options_of(recipe), options_of(Recipe())
    if recipe.engine.name == "native":
        usual["engine.slots"] = SLOTS
    every = (Differing(key, there.get(key), here.get(key)) for key in dict.fromkeys([*here, *there]))
    return [one for one in every if there.get(one.key, usual.get(one.key)) != here.get(one.key, usual.get(one.key))]


def options_of(recipe: Recipe) -> dict[str, Any]:
    """Those that are set, by dotted key, as config.toml has them."""
    return flat(tomllib.loads(config.dumps(recipe)))


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
