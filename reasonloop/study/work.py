"""A study at work: its runs as processes of their own, some at a time, and what is to be seen of them."""

from __future__ import annotations

import heapq
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from reasonloop.files import open_own
from reasonloop.machine.python import started
from reasonloop.runs.inputs import DATE
from reasonloop.study.archive import finished, seconds_of

PAUSE = 0.2
"""Seconds between two looks at the processes"""
LEFT = re.compile(r"(?<!\d)(?:(\d+) days?, )?(\d+):(\d\d):(\d\d) left$")


@dataclass
class Job:
    """One run of the study."""

    arm: str
    seed: int
    run: Path
    overrides: Sequence[str]
    units: float
    """How much work it is, in comparison with others"""
    date: str = ""
    """That its chat template writes as today's"""
    process: subprocess.Popen[bytes] | None = None
    code: int | None = None
    """Exit code, once it has ended"""
    _log_from: int = field(default=0, repr=False)

    @property
    def name(self) -> str:
        return f"{self.arm} seed {self.seed}"

    @property
    def log(self) -> Path:
        """What the run prints, of all tries"""
        return self.run.with_name(f"{self.run.name}.log")

    def command(self, recipe: Path) -> list[str]:
        return started("reasonloop.cli", "run", str(recipe), *self.overrides, "--out", str(self.run))

    def start(self, recipe: Path, threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        if self.date:
            environment[DATE] = self.date
        self.code = None
        with open(self.log, "ab", opener=open_own) as log:
            self._log_from = log.tell()
            # A session of its own: Ctrl-C reaches us alone, and we ask the runs to stop.
            self.process = subprocess.Popen(
                self.command(recipe),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                preexec_fn=_stop_with_parent if sys.platform == "linux" else None,
            )

    def ended(self) -> bool:
        assert self.process is not None
        self.code = self.process.poll()
        return self.code is not None

    def last_line(self) -> str:
        """The last thing that this try has said; of a failed one its error."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(self._log_from, file.seek(0, os.SEEK_END) - 4000))
                lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        except OSError:
            return ""
        errors = [line for line in lines if line.startswith("reasonloop: ")]
        return (errors[-1:] or lines[-1:] or [""])[0].removeprefix("reasonloop: ")

    def seconds_left(self) -> float | None:
        """What the run itself says."""
        told = LEFT.search(self.last_line())
        if told is None:
            return None
        days, hours, minutes, seconds = (int(part or 0) for part in told.groups())
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()


def _stop_with_parent() -> None:
    """Between fork and exec: a study that is killed takes its runs with it, each behind a checkpoint."""
    from reasonloop.verify.sandbox.kernel import prctl

    with suppress(OSError):
        prctl("PR_SET_PDEATHSIG", signal.SIGTERM)


class Crew:
    """Works through jobs in their order, at most `at_once` at a time. `on_done` is called with each that came to its end."""

    def __init__(self, recipe: Path, threads: int, at_once: int, on_done: Callable[[Job], None]) -> None:
        self.recipe, self.threads, self.at_once, self.on_done = recipe, threads, at_once, on_done
        self.waiting: list[Job] = []
        self.working: list[Job] = []
        self.done: list[Job] = []
        self.failed: list[Job] = []
        self.stopping = False

    def work(self, jobs: Sequence[Job]) -> None:
        """Returns when all jobs have ended, or those at work after they were asked to stop (`stopping`)."""
        self.waiting = list(jobs)
        with Board(self) as board, self._stoppable(board):
            while self.working or (self.waiting and not self.stopping):
                while self.waiting and len(self.working) < self.at_once and not self.stopping:
                    job = self.waiting.pop(0)
                    job.start(self.recipe, self.threads)
                    self.working.append(job)
                    board.say(f"{job.name}: begun, {job.run}")
                time.sleep(PAUSE)
                for job in [job for job in self.working if job.ended()]:
                    self.working.remove(job)
                    self._settle(job, board)
                board.refresh()

    def _settle(self, job: Job, board: Board) -> None:
        if job.code == 0 and finished(job.run):
            self.done.append(job)
            self.on_done(job)
            board.say(f"{job.name}: done after {timedelta(seconds=round(seconds_of(job.run)))}; {board.line()}")
        elif self.stopping:
            self.waiting.append(job)
            board.say(f"{job.name}: stopped")
        else:
            self.failed.append(job)
            board.say(f"{job.name}: failed (exit {job.code}): {job.last_line()}; {board.line()}")

    @contextmanager
    def _stoppable(self, board: Board) -> Iterator[None]:
        """Ctrl-C and SIGTERM ask all runs to stop after a checkpoint, a second one at once."""

        def ask(number: int, frame: FrameType | None) -> None:
            if not self.stopping:
                board.say("stopping each run after its next checkpoint; once more stops at once")
            self.stopping = True
            for job in self.working:
                if job.process is not None:
                    with suppress(ProcessLookupError):
                        job.process.send_signal(signal.SIGINT)

        before: dict[int, Any] = {one: signal.signal(one, ask) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            for job in self.working:  # an error of ours: nothing is left behind at work
                if job.process is not None and job.process.poll() is None:
                    job.process.terminate()

    def seconds_left(self) -> float | None:
        """To the end of all jobs; None before anything is known."""
        own = {job.run: job.seconds_left() for job in self.working}
        known = [(seconds_of(job.run), job.units) for job in self.done]
        known += [(seconds_of(job.run) + left, job.units) for job in self.working if (left := own[job.run]) is not None]
        if not known:
            return None
        rate = sum(seconds for seconds, _ in known) / max(sum(units for _, units in known), 1e-9)
        lanes = [left if (left := own[job.run]) is not None else rate * job.units for job in self.working]
        lanes += [0.0] * (self.at_once - len(lanes))
        heapq.heapify(lanes)
        for job in self.waiting:
            heapq.heapreplace(lanes, lanes[0] + rate * job.units)
        return max(lanes)


class Board:
    """What is to be seen: on a terminal the runs at work, each with its own last line; in a pipe a line for each change."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self._live: Live | None = None

    def __enter__(self) -> Board:
        console = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
        if console.is_terminal and not console.is_dumb_terminal:
            # no thread of its own: one that holds a lock when a run is started would hold it there for ever
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def refresh(self) -> None:
        if self._live is not None:
            lines = [self.line(), *(f"  {job.name}  {job.last_line()}" for job in self.crew.working)]
            rows = [Text(line, no_wrap=True, overflow="ellipsis") for line in lines]
            self._live.update(Group(*rows), refresh=True)

    def line(self) -> str:
        """How far the study is."""
        crew = self.crew
        ended = len(crew.done) + len(crew.failed)
        total = ended + len(crew.working) + len(crew.waiting)
        left = crew.seconds_left()
        time_left = "" if left is None or ended == total else f", about {timedelta(seconds=round(left))} left"
        failed = f" ({len(crew.failed)} failed)" if crew.failed else ""
        return f"{ended} of {total} runs{failed}{time_left}"
