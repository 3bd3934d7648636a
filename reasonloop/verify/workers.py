"""A pool of verifier workers: processes that are killed when late, so that no answer can hold up a batch.

    spec = VerifierSpec("reasonloop.verify.verifiers:MathVerifier", {"extract": "boxed"})
    with VerifierPool(spec, workers=2, deadline=5.0) as pool:
        judgements = pool.verify([(problem, response), ...])

Each slot of the pool is a thread that owns one worker process and hands it one item at a time. The deadline of an item
runs from the moment at which its worker has it: time in the queue and the start of a worker don't count. A late
worker is killed (TIMEOUT), one that dies is replaced (CRASHED); either costs that item only. No signals, no forks of
the calling process, no matter which thread calls.
"""

from __future__ import annotations

import importlib
import os
import pickle
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from reasonloop.errors import InputError, RunError
from reasonloop.own import search_own
from reasonloop.records import LONGEST_DEADLINE, Judgement, Problem, Verdict, as_judgement
from reasonloop.verify.answers import one_line
from reasonloop.verify.process import WorkerDied, WorkerLate, WorkerProcess
from reasonloop.verify.worker import crash, load_verifier

DEADLINE = 5.0
MAX_CHARS = 1_000_000
START_ATTEMPTS = 3
SUSPICION = 0.2
"""Share of its deadline after which an item's worker gets a stand-in, which is then warm when the deadline strikes."""


@dataclass(frozen=True, slots=True)
class VerifierSpec:
    """Which verifier a worker constructs, and how.

    The class has `verify(problem, response) -> Verdict | Judgement`. It may have

    - `quick(problem, response) -> Judgement | None`: bounded in time and memory, trusted: called in the calling
      process first; the worker is used only where it returns None;
    - `prepare()`: called once in a worker before it counts as ready (slow imports belong here);
    - `gold_response(problem) -> str`: a response that gives the problem's own gold answer (see `tasks.check_task`).
    """

    target: str
    """"package.module:Class"; modules in the current directory are found too"""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the constructor; they must pickle"""


class VerifierPool:
    """Judges responses in `workers` processes, each item within `deadline` seconds. Safe to use from any thread.

    A response of more than MAX_CHARS characters is UNPARSEABLE, unread: cut down, it could say something that the whole
    does not. Workers start with the first item that needs one. Raises InputError if the verifier can't be imported or
    constructed.
    """

    def __init__(self, spec: VerifierSpec, *, workers: int | None = None, deadline: float = DEADLINE) -> None:
        if workers is not None and workers < 1:
            raise InputError(f"verifier workers: got {workers}, expected at least 1")
        if not 0 < deadline <= LONGEST_DEADLINE:
            most = f"{LONGEST_DEADLINE:,.0f}"
            raise InputError(
                f"verifier deadline: got {deadline:g}, expected more than 0 and at most {most} seconds (a day)"
            )
        self.verifier = _construct(spec)
        """The verifier as constructed in this process; its `quick` is called here, its `verify` never."""
        self.sent = 0
        """Items that went to a worker so far; the others were judged here."""
        self._quick = getattr(self.verifier, "quick", None)
        self._queue = _Queue(spec, workers or max(1, min(4, os.cpu_count() or 1)), deadline)
        # Also runs at interpreter exit, and when a pool is dropped unclosed.
        self._finalizer = weakref.finalize(self, self._queue.close)

    def verify(self, items: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """The judgements of (problem, response) pairs, in their order. Raises RunError if no worker can be started."""
        found = [self._judge(problem, response) for problem, response in items]
        return [judged.result() if isinstance(judged, Future) else judged for judged in found]

    def submit(self, problem: Problem, response: str) -> Future[Judgement]:
        """`verify` of one response in the background: a quick verdict is made now, here, any other by a worker."""
        judged = self._judge(problem, response)
        if isinstance(judged, Future):
            return judged
        future: Future[Judgement] = Future()
        future.set_result(judged)
        return future

    def close(self) -> None:
        """Kill the workers. Items that are not judged fail with RunError."""
        self._finalizer()

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _judge(self, problem: Problem, response: str) -> Judgement | Future[Judgement]:
        """The judgement, where it can be made here; else a worker's."""
        if len(response) > MAX_CHARS:
            size = f"{len(response):,} characters (limit {MAX_CHARS:,})"
            return Judgement(Verdict.UNPARSEABLE, f"a response of {size}")
        try:
            quick = None if self._quick is None else self._quick(problem, response)
            if quick is not None:
                return as_judgement(quick)
        except Exception as error:
            return crash(error)
        try:
            item = pickle.dumps((problem, response), protocol=5)
        except Exception as error:
            reason = one_line(f"{type(error).__name__}: {error}", 300)
            return Judgement(Verdict.CRASHED, f"the problem can't be sent to a worker: {reason}")
        self.sent += 1
        return self._queue.put(item)


def _construct(spec: VerifierSpec) -> Any:
    if not spec.target.startswith("reasonloop."):
        search_own()
    try:
        importlib.invalidate_caches()
        pickle.dumps(dict(spec.options))
        return load_verifier(spec.target, spec.options)
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}", 300)
        raise InputError(f"verifier {spec.target!r} with options {dict(spec.options)}: {reason}") from error


_Job = tuple["Future[Judgement]", bytes]
"""Who waits for the judgement, and the item as a worker takes it"""


class _Queue:
    """The items, and the slots that serve them. Holds no reference to its pool, which may be dropped."""

    def __init__(self, spec: VerifierSpec, limit: int, deadline: float) -> None:
        self.target, self.deadline = spec.target, deadline
        self.order = {"target": spec.target, "options": dict(spec.options), "deadline": deadline}
        self.closed = False
        self._owner = os.getpid()
        # its lock is re-entrant: a finalizer may close us in a thread that holds it
        self._change = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._limit = limit
        self._slots: list[_Slot] = []
        self._idle = 0

    def put(self, item: bytes) -> Future[Judgement]:
        future: Future[Judgement] = Future()
        future.set_running_or_notify_cancel()
        with self._change:
            if self.closed:
                future.set_exception(self.failure())
                return future
            self._jobs.append((future, item))
            self._change.notify()
            if self._idle < len(self._jobs) and len(self._slots) < self._limit:
                self._slots.append(_Slot(self))
                self._slots[-1].start()
        return future

    def take(self) -> _Job | None:
        """The next job; None when the pool is closed."""
        with self._change:
            self._idle += 1
            self._change.wait_for(lambda: self._jobs or self.closed)
            self._idle -= 1
            return None if self.closed else self._jobs.popleft()

    def failure(self, reason: str = "") -> RunError:
        """Why an item can't be judged at all."""
        if self.closed:
            return RunError("the verifier pool was closed before all its items were judged")
        return RunError(f"no worker for the verifier {self.target!r} could be started: {reason}")

    def close(self) -> None:
        if os.getpid() != self._owner:  # a forked child owns neither the threads nor the workers
            return
        with self._change:
            self.closed = True
            jobs, slots = list(self._jobs), list(self._slots)
            self._jobs.clear()
            self._change.notify_all()
        for slot in slots:
            slot.kill()
        for future, _ in jobs:
            future.set_exception(self.failure())
        for slot in slots:
            if slot is not threading.current_thread():
                slot.join(timeout=5.0)


class _Slot(threading.Thread):
    """A thread with its worker, and the worker's stand-in if the item at hand looks late."""

    def __init__(self, queue: _Queue) -> None:
        super().__init__(name="verifier", daemon=True)
        self._queue = queue
        self._workers: list[WorkerProcess] = []
        """The one at work, then its stand-in"""

    def run(self) -> None:
        try:
            while (job := self._queue.take()) is not None:
                future, item = job
                try:
                    future.set_result(self._judge(item))
                except Exception as error:  # a slot that ended without a word would leave its item waiting for ever
                    future.set_exception(error)
                del job, future, item  # while this thread waits, it must not keep them alive
        finally:
            for worker in self._workers:
                worker.dispose()

    def kill(self) -> None:
        """Kill the workers, from any thread; the slot's own one then finds them dead."""
        for worker in list(self._workers):
            worker.kill()

    def _judge(self, item: bytes) -> Judgement:
        """A worker's judgement, or that there is none. Raises RunError if no worker starts, or the pool is closed."""
        for attempt in range(START_ATTEMPTS):
            try:
                worker = self._ready_worker()
            except (WorkerDied, OSError) as error:
                raise self._queue.failure(str(error)) from error
            try:
                judgement, retire = self._asked(worker, item)
            except WorkerLate:
                judgement, retire = Judgement(Verdict.TIMEOUT, f"no verdict within {self._queue.deadline:g} s"), True
            except WorkerDied as error:
                if self._queue.closed:
                    raise self._queue.failure() from error
                judgement, retire = Judgement(Verdict.CRASHED, f"the worker died: {error}"), True
                if not worker.took and attempt + 1 < START_ATTEMPTS:  # it died idle: the item is another one's to read
                    self._workers.pop(0).dispose()
                    continue
            break
        if retire:
            self._workers.pop(0).dispose()
            self._start_ahead(1)
        return judgement

    def _asked(self, worker: WorkerProcess, item: bytes) -> tuple[Judgement, bool]:
        worker.send(item)
        start = time.monotonic()
        try:
            return worker.answer(start + SUSPICION * self._queue.deadline)
        except WorkerLate:
            self._start_ahead(2)
            return worker.answer(start + self._queue.deadline)

    def _ready_worker(self) -> WorkerProcess:
        failures = 0
        while True:
            if not self._workers:
                self._new_worker()
            try:
                self._workers[0].wait_ready()
                return self._workers[0]
            except WorkerDied:
                self._workers.pop(0).dispose()
                failures += 1
                if failures == START_ATTEMPTS:
                    raise

    def _new_worker(self) -> None:
        self._workers.append(WorkerProcess(self._queue.order))
        if self._queue.closed:  # `kill` may have come just before it
            raise WorkerDied("the pool was closed")

    def _start_ahead(self, count: int) -> None:
        """Have `count` workers. A failure is not told here: `_ready_worker` meets it again when there is a job."""
        with suppress(WorkerDied, OSError):
            while len(self._workers) < count:
                self._new_worker()
