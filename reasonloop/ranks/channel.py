"""What rank 0 and the others tell one another: commands and answers, and signs of life beside them. Free of torch.

Each follower has two connections to rank 0. One is for work. Over the other both say every second that they are there, in a
thread of their own: a rank that dies, or that says nothing for too long, ends the run with its name. Where the main thread
can't be reached, since it waits for that rank inside of a library, the thread says it and ends the process: a run may be
killed at any moment.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

from reasonloop.errors import RunError

BEAT = 1.0
"""Seconds between two signs of life"""
GRACE = 5.0
"""Seconds for the main thread to say itself that a rank is lost; and for the cause, where an exchange has failed"""
GOES_ON = "nothing that was stored is lost; the same command goes on"

OnPart = Callable[[int, Any], None]
"""Called with a rank, and a part of its answer"""


@dataclass
class Other:
    """A follower, as rank 0 sees it."""

    rank: int
    where: str
    """Its process and machine"""
    work: Connection
    life: Connection
    heard: float = field(default_factory=time.monotonic)
    gone: bool = False

    def __str__(self) -> str:
        return f"rank {self.rank} ({self.where})"


class Leader:
    """Rank 0's end."""

    def __init__(self, others: Sequence[Other], timeout: float) -> None:
        """`timeout`: seconds after which a rank that says nothing is lost."""
        self.others, self.timeout = {other.rank: other for other in others}, timeout
        self.lost = ""
        """Which rank, and why"""
        self._failed = ""
        """An exchange has, says a rank: the cause is another's"""
        self._busy: set[int] = set()
        self._answers: dict[int, Any] = {}
        self._told, self._ended, self._is_lost = threading.Event(), threading.Event(), threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="ranks", daemon=True)
        self._watcher.start()

    def tell(self, name: str, each: Sequence[tuple[Any, ...]] = (), *same: Any) -> None:
        """A command for all followers, with arguments of their own, by rank from 1 on, and then the same for all."""
        self._answers = {}
        for i, (rank, other) in enumerate(sorted(self.others.items())):
            own = each[i] if each else ()
            try:
                other.work.send((name, (*own, *same)))
            except OSError:
                self._fail(other)
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise RunError(
                    f"{name}: can't be sent to other ranks ({error}); expected functions of a module"
                ) from None
            self._busy.add(rank)

    def answers(self, on_part: OnPart | None = None) -> list[Any]:
        """All followers' answers to the last command, by rank, when each has come. Raises RunError where one is lost."""
        while self._busy:
            self.parts(on_part, BEAT)
        return [self._answers[rank] for rank in sorted(self._answers)]

    def parts(self, on_part: OnPart | None, seconds: float = 0.0) -> None:
        """Hands on what followers have sent by now, or within so many seconds."""
        self.expect_all()
        busy = {self.others[rank].work: self.others[rank] for rank in self._busy}
        for connection in wait([*busy], seconds):
            other = busy[connection]  # type: ignore[index]
            try:
                kind, value = other.work.recv()
            except (EOFError, OSError):
                self._fail(other)
            if kind == "answer":
                self._busy.discard(other.rank)
                self._answers[other.rank] = value
            elif on_part is not None:
                on_part(other.rank, value)

    def abandon(self) -> None:
        """Has followers give up what they are sampling, and waits until they have."""
        if self.lost:
            return
        for rank in self._busy:
            with suppress(OSError):
                self.others[rank].work.send(("abandon", ()))
        self.answers()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Around what all ranks do at the same time. Where that fails since another rank is lost, it is that one's fault."""
        try:
            yield
        except RuntimeError:
            self._is_lost.wait(GRACE)
            self.expect_all()
            raise

    def expect_all(self) -> None:
        """Raises RunError where a rank is lost."""
        if self.lost:
            self._told.set()
            raise RunError(f"{self.lost}; {GOES_ON}")

    def end(self) -> None:
        """Lets all followers go. What they are in the middle of is not waited for."""
        self._ended.set()
        for other in self.others.values():
            with suppress(OSError):
                other.work.send(("leave", ()))
        until = time.monotonic() + GRACE
        for other in self.others.values() if not self.lost else ():
            with suppress(OSError, EOFError):
                while other.work.poll(max(0.0, until - time.monotonic())):
                    other.work.recv()
        self._watcher.join(2 * BEAT)
        for other in self.others.values():
            other.work.close()
            other.life.close()

    def _fail(self, other: Other) -> NoReturn:
        """Its connection for work is closed: why, the other one knows."""
        self._is_lost.wait(GRACE)
        self.expect_all()
        self._told.set()
        raise RunError(f"{other} has gone; {GOES_ON}")

    def _watch(self) -> None:
        """Until a rank is lost, or the run ends."""
        beat, seen, failed_at = 0.0, time.monotonic(), 0.0
        while not self._ended.is_set() and not self.lost:
            now = time.monotonic()
            if now - seen > 5 * BEAT:  # this process was stopped itself: nobody could be heard
                for other in self.others.values():
                    other.heard = now
            seen = now
            if now >= beat:
                beat = now + BEAT
                for other in self.others.values():
                    with suppress(OSError):
                        other.life.send_bytes(b"")
            late = [other for other in self.others.values() if not other.gone and now - other.heard > self.timeout]
            if late:
                self._lose(f"{late[0]} has said nothing for {self.timeout:g} s: it is stopped, or its machine is gone")
            elif self._failed and now - failed_at > GRACE:
                self._lose(self._failed)
            else:
                before = self._failed
                self._listen()
                failed_at = failed_at if self._failed == before else now
        if self.lost and not self._told.wait(GRACE) and not self._ended.is_set():
            sys.stdout.flush()
            print(f"reasonloop: {self.lost}; {GOES_ON}", file=sys.stderr, flush=True)
            os._exit(1)

    def _listen(self) -> None:
        by_life = {other.life: other for other in self.others.values() if not other.gone}
        for connection in wait([*by_life], BEAT / 4):
            other = by_life[connection]  # type: ignore[index]
            try:
                said = other.life.recv_bytes().decode()
            except (EOFError, OSError):
                other.gone = True
                if not self._ended.is_set() and not self._failed.startswith(str(other)):
                    self._lose(f"{other} has died: it was killed (out of memory?), or crashed")
                    return
                continue
            other.heard = time.monotonic()
            if said.startswith("?"):
                self._failed = f"{other}: {said[1:]}"
            elif said:
                self._lose(f"{other}: {said}")
                return

    def _lose(self, why: str) -> None:
        self.lost = why
        self._is_lost.set()


class Line:
    """A follower's end."""

    def __init__(self, rank: int, work: Connection, life: Connection, timeout: float) -> None:
        self.rank, self.work, self.life, self.timeout = rank, work, life, timeout
        self._leaving = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()

    def serve(self, worker: Any) -> None:
        """Does what rank 0 says, each command a method of the worker, until it is told to leave. Raises EOFError where
        rank 0 has gone."""
        while True:
            name, arguments = self.work.recv()
            if name == "leave":
                self._leaving.set()
                return
            if name != "abandon":  # what was to be given up was done already
                self.work.send(("answer", getattr(worker, name)(*arguments)))

    def part(self, value: Any) -> None:
        """Sends a part of the answer to the command at hand."""
        self.work.send(("part", value))

    def abandoned(self) -> bool:
        """Whether rank 0 has no use any more for the command at hand. Raises EOFError where it has none for this process."""
        if not self.work.poll(0):
            return False
        name, _ = self.work.recv()
        if name == "leave":
            self._leaving.set()
            raise EOFError
        return True

    def fail(self, why: str, others: bool = False) -> None:
        """Why this process ends. `others`: an exchange has failed, which another one has caused."""
        self._leaving.set()
        with suppress(OSError), self._lock:
            self.life.send_bytes(f"{'?' if others else ''}{why}".encode())

    def _watch(self) -> None:
        heard = seen = time.monotonic()
        beat = 0.0
        while True:
            now = time.monotonic()
            heard, seen = (now if now - seen > 5 * BEAT else heard), now
            try:
                if now >= beat:
                    beat = now + BEAT
                    with self._lock:
                        self.life.send_bytes(b"")
                if self.life.poll(BEAT / 4):
                    self.life.recv_bytes()
                    heard = time.monotonic()
            except (EOFError, OSError):  # rank 0 has gone, and has said why
                if self._leaving.wait(GRACE):
                    return
                os._exit(1)
            if now - heard > self.timeout:
                if self.rank == 1:
                    why = f"rank 0 has said nothing for {self.timeout:g} s: it is stopped, or its machine is gone"
                    print(f"reasonloop: {why}; {GOES_ON}", file=sys.stderr, flush=True)
                os._exit(1)
