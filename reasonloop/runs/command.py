"""A command of the user's own that does a stage's work: run in a process group of its own, watched, never left behind."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from reasonloop.errors import InputError, RunError, Stopped
from reasonloop.files import open_own, read_object
from reasonloop.runs import guard
from reasonloop.text import shown

GRACE_SECONDS = 30.0
"""Between the signal that asks a command to end and the one that ends it"""
LOOK_SECONDS = 0.2
LAST_LINES = 12
TAIL_BYTES = 16384


@dataclass(frozen=True)
class Command:
    """One stage's command, and the folder that it works in.

    FOLDER/out            what it was told to write to
    FOLDER/done           there once it has ended by itself with exit code 0 (`guard`)
    FOLDER/tries.jsonl    what its tries took
    FOLDER/out.1          what an earlier try, which was cut off, has left
    """

    what: str
    """For messages: the option that names it"""
    words: Sequence[str]
    folder: Path
    log: Path
    """Its output, each try's behind the one before"""
    resumes: bool
    """Whether it goes on from what a try before has left in `out`; else that is moved aside"""
    patience: float
    """Seconds in which neither its log nor its folder may stay as they are"""

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def done(self) -> bool:
        """Whether this very command has come to its end: one that was mended since is another."""
        done = self.folder / "done"
        return done.is_file() and read_object(done)["words"] == list(self.words)

    @property
    def seconds(self) -> float:
        """What the tries took that have written into `out`."""
        total = 0.0
        for line in (self.folder / "tries.jsonl").read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # torn
                total += json.loads(line)["seconds"]
        return total

    def run(self, look: Callable[[], None], stopping: Callable[[], bool], say: Callable[[str], None]) -> None:
        """Runs it, unless it is done. `look` is called every now and then while it works.

        Raises RunError where it can't be started, ends with another exit code than 0, or is silent for too long; Stopped
        where `stopping` says so. Whatever happens to this process, the command ends.
        """
        if self.done:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self._alone(say) as lock:
            if self.done:  # it came to its end while we waited
                return
            self._make_room(say)
            say(f"{self.what}: {shlex.join(self.words)}")
            say(f"its output goes to {self.log}")
            began = self._begin_log()
            process = self._start(lock)
            try:
                why = self._watch(process, look, stopping)
            finally:
                self._end(process)
        if why == "stop":
            raise Stopped(str(self.folder))
        if not self.done:
            self._fail(process.returncode, why, began, say)

    def _start(self, lock: int) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-I", guard.__file__, str(self.folder), f"{GRACE_SECONDS:g}", *self.words]
        with open(self.log, "ab", opener=open_own) as log:
            return subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[lock],  # held for as long as the guard is there
            )

    def _watch(self, process: subprocess.Popen[bytes], look: Callable[[], None], stopping: Callable[[], bool]) -> str:
        """Until the command has ended (""), should stop ("stop"), or has been silent for too long ("silent")."""
        changed, seen = time.monotonic(), self._size()
        wait = LOOK_SECONDS
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(wait)
                return ""
            wait = min(1.2 * wait, 10 * LOOK_SECONDS)
            if stopping():
                return "stop"
            look()
            now = self._size()
            if now != seen:
                changed, seen = time.monotonic(), now
            elif time.monotonic() - changed > self.patience:
                return "silent"

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """The end of its input tells the guard to end the command; an error on our way out ends both at once."""
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait()
        except BaseException:
            process.send_signal(signal.SIGTERM)
            raise

    def _size(self) -> tuple[int, float]:
        """Changes whenever something is written: of files in its folder, how many bytes, and the newest time."""
        total, newest = 0, 0.0
        for path in (self.log, *self.out.rglob("*")):
            with suppress(OSError):
                stat = path.stat()
                total, newest = total + stat.st_size, max(newest, stat.st_mtime)
        return total, newest

    def _make_room(self, say: Callable[[str], None]) -> None:
        """An empty `out`, or the one that a resuming command goes on from."""
        done = self.folder / "done"
        if self.out.exists() and (not self.resumes or done.is_file()):
            aside = next(path for n in range(1, 10_000) if not (path := self.out.with_name(f"out.{n}")).exists())
            self.out.rename(aside)
            (self.folder / "tries.jsonl").unlink(missing_ok=True)
            if any(aside.iterdir()):
                say(f"{self.what}: what an earlier try has left is moved to {aside}")
            else:
                aside.rmdir()
        done.unlink(missing_ok=True)
        self.out.mkdir(exist_ok=True)

    @contextmanager
    def _alone(self, say: Callable[[str], None]) -> Iterator[int]:
        """An open file whose lock nobody else has: a guard of a killed process may still be ending its command."""
        lock = open_own(self.folder / ".lock", os.O_RDWR)
        try:
            late, told = time.monotonic() + GRACE_SECONDS + guard.REAP_SECONDS, False
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > late:
                        raise RunError(
                            f"{self.what}: the command of an earlier process still runs (it holds {self.folder / '.lock'}); "
                            "end it, then run the same command again"
                        ) from None
                if not told:
                    say(f"{self.what}: waiting for the command of a killed process to end")
                told = True
                time.sleep(LOOK_SECONDS)
            yield lock
        finally:
            os.close(lock)

    def _begin_log(self) -> int:
        """A line that says what is run, and how; where the output of this try begins."""
        with open(self.log, "ab", opener=open_own) as file:
            file.write(f"$ {shlex.join(self.words)}\n".encode(errors="replace"))
            return file.tell()

    def _fail(self, code: int, why: str, began: int, say: Callable[[str], None]) -> None:
        for line in last_lines(self.log, began):
            say(f"  {line}")
        happened = f"ended with exit code {code}"
        if why == "silent":
            happened = f"wrote nothing for {self.patience:g} seconds, and was ended"
        elif code > 128:
            with suppress(ValueError):
                happened = f"was ended by {signal.Signals(code - 128).name}"
        raise RunError(
            f"{self.what}: the command {happened}; its output is in {self.log}: once that is mended, the same run goes on "
            "from here"
        )


def last_lines(log: Path, began: int) -> list[str]:
    """The last lines that a try has written, fit for a terminal; of a line that was drawn over, what it was in the end."""
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(began, file.tell() - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return [shown(line, 300) for line in lines if line][-LAST_LINES:]


def require_program(command: str, what: str) -> None:
    """Raises InputError unless there is the program that a command begins with."""
    program = shlex.split(command)[0]
    if shutil.which(program) is None:
        raise InputError(f"{what}: no program {program!r} here; expected one that is on PATH, or its path")
