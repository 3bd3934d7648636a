"""A run's folder, which is its only state: resolved recipe, how far it is, metrics, evaluations, checkpoints, lock."""

from __future__ import annotations

import fcntl
import json
import math
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from reasonloop import config
from reasonloop.config import Recipe, flat, stored_recipe
from reasonloop.config.sections import SLOTS
from reasonloop.errors import InputError, RunError
from reasonloop.files import ADAPTER, append, lines_of, make_folder, open_own, partial_of, read_object, read_toml
from reasonloop.records import Place
from reasonloop.runs.checkpoints import Checkpoint
from reasonloop.runs.ran_on import describe_machine
from reasonloop.runs.whole import ledger_of
from reasonloop.written.digests import METRICS
from reasonloop.written.known import CHECKPOINTS, MODEL, NAME, STATE, Written, check

MAY_DIFFER = (
    *("checkpoint_seconds", "keep_checkpoints", "model.date", "ranks.", "track.", "plan.", "explorer.", "finetuner."),
    *("scale.address", "scale.files", "scale.retries", "scale.deadline", "exploration.judge.api_key_env"),
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
            make_folder(path)
        except OSError as error:
            raise InputError(f"--out {path}: cannot be made ({error.strerror})") from None
        self._lock = _lock(path)
        self._began = time.monotonic()
        self._seconds_before = 0.0
        try:
            self._open(commits or {})
        except BaseException:
            self.close()
            raise

    def _open(self, commits: Mapping[str, str]) -> None:
        path = self.path
        self.resumed = (path / "config.toml").is_file()
        for left in (*(path / CHECKPOINTS).glob("*"), path / MODEL, path / ADAPTER):
            Checkpoint(left.with_name(left.name.removesuffix(".old").removesuffix(".partial"))).recover()
        ran_on = self._ran_on if self.resumed else describe_machine(self.recipe)
        self.ledger, self.told = ledger_of(path, {"threads": ran_on["threads"]}, resumed=self.resumed)
        """Of `told` each line is to be said: what isn't as it was written, and doesn't keep the run from going on"""
        if not self.resumed:
            ran_on |= {"commits": dict(commits)} if commits else {}
            self.ledger.write(path / "config.toml", config.dumps(self.recipe, {"ran_on": ran_on}))
            self.set_state("start")
        make_folder(path / "evals")
        self._seconds_before = float(self.state.get("seconds", 0.0))

    def checkpoint(self, place: Place) -> Checkpoint:
        return Checkpoint(self.path / CHECKPOINTS / place.name, self.ledger)

    def checkpoints(self) -> list[Checkpoint]:
        """Those of all stages that have made one."""
        return [Checkpoint(path, self.ledger) for path in sorted((self.path / CHECKPOINTS).glob("*")) if path.is_dir()]

    def close(self) -> None:
        self._lock.close()

    @property
    def threads(self) -> int:
        """CPU threads that the run began with: a continued run keeps them, since the bytes of its results depend on them."""
        threads = int(self._ran_on["threads"])
        if threads != self.ledger.known.began.get("threads", threads):
            raise RunError(
                f"{self.path / 'config.toml'}: ran_on.threads = {threads}, and the run began with "
                f"{self.ledger.known.began['threads']}; restore it from a copy"
            )
        return threads

    @property
    def commits(self) -> dict[str, str]:
        """Those that the run's models of the hub had when it began, by what the recipe calls them."""
        return dict(self._ran_on.get("commits", {}))

    @property
    def _ran_on(self) -> dict[str, Any]:
        """What `describe_machine` told where the run began."""
        found = read_toml(self.path / "config.toml").get("ran_on")
        if not isinstance(found, dict) or not isinstance(found.get("threads"), int):
            raise InputError(f"{self.path / 'config.toml'}: no [ran_on] with threads in it; restore it from a copy")
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
        path = self.path / STATE
        return read_object(path) if path.is_file() else {}

    def set_state(self, stage: str, iteration: int | None = None, step: int | None = None) -> None:
        """RUN/state.json, for readers: where the run is, and the seconds of work on it. A run that begins or is done is in
        no iteration, and an evaluation has no steps: what doesn't apply is left out."""
        known = {"stage": stage, "iteration": iteration, "step": step, "seconds": round(self.seconds(), 3)}
        state = {key: value for key, value in known.items() if value is not None}
        self.write(self.path / STATE, json.dumps(state) + "\n")

    def write(self, path: Path, content: str | bytes | memoryview) -> None:
        """A file in the run, whole or not at all, whose digest is kept."""
        self.ledger.write(path, content)

    @property
    def done(self) -> bool:
        """Whether nothing is left to do: the product is there."""
        there = self.state.get("stage") == "done" and (self.path / MODEL / "config.json").is_file()
        return there and not self.ledger.known.wrong(STATE)

    def seconds(self) -> float:
        """Seconds of work on this run so far, over all the processes that worked on it."""
        return self._seconds_before + time.monotonic() - self._began

    def log(self, **line: Any) -> None:
        """Appends a line to metrics.jsonl; values that are None, infinite or NaN are left out."""
        known = {k: v for k, v in line.items() if v is not None and not (isinstance(v, float) and not math.isfinite(v))}
        text = json.dumps(known, allow_nan=False)
        append(self.path / METRICS, text + "\n")

    def unlog(self, from_step: int = 0, **where: Any) -> None:
        """Takes back the lines with these values that a continued stage writes again, and a torn last line."""
        path = self.path / METRICS
        text = "".join(
            json.dumps(line) + "\n"
            for line in self.metrics()
            if line.get("step", 0) < from_step or any(line.get(key) != value for key, value in where.items())
        )
        if path.is_file() and path.read_text(encoding="utf-8", errors="replace") != text:
            self.write(path, text)

    def relog(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Has every line as `change` makes it of the one that stood there."""
        self.write(self.path / METRICS, "".join(json.dumps(change(line)) + "\n" for line in self.metrics()))

    def metrics(self) -> list[dict[str, Any]]:
        return lines_of(self.path / METRICS)

    def evaluations(self) -> list[dict[str, Any]]:
        return evaluations_in(self.path)


def metrics_in(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; the torn last line of a killed process is left out. Raises InputError for a line
    that is damaged, RunError where lines aren't what the run has written."""
    check(folder / METRICS)
    return lines_of(folder / METRICS)


def evaluations_in(folder: Path) -> list[dict[str, Any]]:
    """All finished evaluations of a run, in the order in which they were made."""
    check(folder / "evals")
    found = [read_object(path) for path in sorted((folder / "evals").glob("*.json"))]
    return sorted(found, key=lambda evaluation: evaluation.get("order", 0))


def check_folder(recipe: Recipe, folder: Path) -> None:
    """Raises InputError unless `folder` can take this run: it is new, empty, or holds a run of the same recipe."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"--out {folder}: a file; expected a folder, new or of the same run")
    _expect_own_files(folder)
    stored = folder / "config.toml"
    if not stored.is_file():
        # what a process leaves that was killed as it began
        begun = {".lock", NAME, *(partial_of(folder / name).name for name in (stored.name, NAME))}
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
        if wrong := Written.read(folder).wrong(stored.name):
            raise InputError(f"{stored}: {wrong}, not what the run has written ({told}); restore it from a copy")
        if (folder / "model" / "config.json").is_file():
            raise InputError(
                f"--out {folder}: holds another run, which is finished: {told}; expected another --out; a run that goes on "
                f"from its product has model.path={folder} --out OTHER"
            )
        raise InputError(f"--out {folder}: holds another run: {told}; expected the same recipe, or another --out")


def _expect_own_files(folder: Path) -> None:
    """Raises InputError for a link in the place of a file, which would have something else written over: a folder may have
    been prepared by somebody else. Folders in it may be links, to where there is room."""
    for path in sorted(folder.iterdir()):
        link = path.is_symlink() and (not path.is_dir() or path.name.endswith(".partial"))
        if link or not (path.is_file() or path.is_dir()):
            what = "a link" if link else "a pipe, a socket or a device"
            raise InputError(f"--out {folder}: {path.name} in it is {what}; expected a folder whose files are its own")


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
    have by default, and those of a critic count where there is one. Raises InputError where its recipe can't be read."""
    stored = folder / "config.toml"
    table = read_toml(stored)
    if not table:
        raise InputError(f"{stored}: empty; restore it from a copy")
    there = flat(stored_recipe(table))
    here, usual = options_of(recipe), options_of(Recipe())
    if recipe.engine.name == "native":
        usual["engine.slots"] = SLOTS
    critic = "ppo" in (recipe.rl.objective, there.get("rl.objective"))
    keys = [key for key in dict.fromkeys([*here, *there]) if critic or not key.startswith("ppo.")]
    every = (Differing(key, there.get(key), here.get(key)) for key in keys)
    return [one for one in every if there.get(one.key, usual.get(one.key)) != here.get(one.key, usual.get(one.key))]


def options_of(recipe: Recipe) -> dict[str, Any]:
    """Those that are set, by dotted key, as config.toml has them."""
    return flat(tomllib.loads(config.dumps(recipe)))


def _lock(folder: Path) -> IO[str]:
    try:
        file = open(folder / ".lock", "r+", opener=open_own)  # noqa: SIM115
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written to: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise InputError(f"--out {folder}: another process is working on this run") from None
    return file
