"""Small real runs that something happens to: begun, continued, and compared with a run that nothing happened to."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SHOW_SECONDS = 20.0
TESTS = Path(__file__).parents[2] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "with_ranks")]

from faulty_disk import CUT, MODES, PESSIMIST, FaultyDisk  # noqa: E402, F401
from run_fixtures import command, finish, outcome, small_recipe, start, temporary  # noqa: E402

PLANS: dict[str, list[str]] = {
    "rl": ["method=rl", "rl.steps=3", "rl.probe_every=2", "rl.keep_best=true", "rl.refill_rounds=1", "eval.samples=2"],
    "rloop": ["rl.steps=2", "rl.probe_every=1", "rl.keep_best=true", "eval.samples=1", "rft.epochs=1"],
    "rloop, branches, adapters": [
        *("scale.branches=2", "lora.rl.rank=2", "rloop.vanilla=false", "rl.steps=2", "eval.samples=1", "rft.epochs=1"),
    ],
    "rlsp": [
        *("method=rlsp", "rl.objective=ppo", "rl.kl_coef=0.1", "rl.kl_in=reward", "rl.epochs=2", "ppo.warmup_steps=1"),
        *("exploration.form=length", "exploration.alpha=0.8", "exploration.length_scale=4", "rlsp.vanilla=true"),
        *("rl.steps=2", "eval.samples=1"),
    ],
    "short": [
        *("rloop.iterations=1", "rl.steps=2", "rloop.vanilla=false", "eval.samples=1", "eval.explored=false"),
        "rft.epochs=1",
    ],
}
"""Recipes of the campaign, by name: options over `run_fixtures.small_recipe`"""


@dataclass
class Case:
    """A run of a plan, in a folder of its own. Its name is part of what the store holds: it is `run` everywhere."""

    plan: str
    folder: Path
    options: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.out, self.log = self.folder / "run", self.folder / "log"

    @property
    def argv(self) -> list[str | Path]:
        return ["run", recipe(), *PLANS[self.plan], *self.options, "--out", self.out]

    def work(self, **trouble: Any) -> tuple[int, str]:
        """The command's exit code and what it said; `trouble` as `run_fixtures.start` takes it."""
        self.log.unlink(missing_ok=True)
        code = command(self.argv, log=self.log, **trouble)
        return code, self.log.read_text(errors="replace") if self.log.exists() else ""

    def killed_after(self, seconds: float) -> tuple[int, str]:
        """`work` by a process that is killed then, if it hasn't ended."""
        self.log.unlink(missing_ok=True)
        process = start(self.argv, log=self.log)
        process.join(seconds)
        process.kill()
        code = finish(process)
        return code, self.log.read_text(errors="replace") if self.log.exists() else ""

    def verb(self, *argv: str | Path) -> tuple[int, str]:
        """The same of another verb."""
        self.log.unlink(missing_ok=True)
        code = command(argv, log=self.log)
        return code, self.log.read_text(errors="replace")


_known: dict[tuple[str, ...], dict[str, Any]] = {}


def recipe() -> Path:
    path = temporary() / "small.toml"
    return path if path.is_file() else small_recipe(temporary())


def unbroken(plan: str, options: Sequence[str] = ()) -> dict[str, Any]:
    """What a run of the plan ends with where nothing happens to it."""
    key = (plan, *options)
    if key not in _known:
        case = Case(plan, temporary() / f"unbroken-{len(_known)}", options)
        code, said = case.work()
        if code:
            raise RuntimeError(f"{plan}: exit code {code}: {said}")
        _known[key] = outcome(case.out)
    return _known[key]


def differing(case: Case) -> list[str]:
    """The files that a finished run has otherwise than an unbroken one."""
    found, expected = outcome(case.out), unbroken(case.plan, case.options)
    return [name for name in sorted({*found, *expected}) if found.get(name, "-") != expected.get(name, "-")]


@contextmanager
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="reasonloop-faults-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def last(said: str) -> str:
    """The last line of what a command said."""
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


_shown = [0.0]


def show(done: int, total: int, bad: object = None) -> None:
    """How far a campaign is, now and then, and what has gone wrong, at once: for whoever watches."""
    if bad:
        print(json.dumps(bad), file=sys.stderr, flush=True)
    if time.monotonic() - _shown[0] > _SHOW_SECONDS or done >= total:
        _shown[0] = time.monotonic()
        print(f"{done} of {total}", file=sys.stderr, flush=True)
