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
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from reasonloop.errors import InputError, RunError
from reasonloop.records import Judgement, Problem, Verdict, as_judgement
from reasonloop.verify.answers import one_line
from reasonloop.verify.process import StartFailed, WorkerDied, WorkerLate, WorkerProcess
from reasonloop.verify.worker import crash, load_verifier

DEADLINE = 5.0
MAX_CHARS = 1_000_000
MEMORY_BYTES = 4 << 30
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

    A response of more than `max_chars` characters is UNPARSEABLE, unread: cut down, it could say something that the
    whole does not. `memory_bytes` limits each worker's address space (None: no limit). Workers start with the first
    item that needs one, or at once with `prestart`. Raises InputError if the verifier can't be imported or
    constructed.
    """

    def __init__(
        self,
        spec: VerifierSpec,
        *,
        workers: int | None = None,
        deadline: float = DEADLINE,
        max_chars: int = MAX_CHARS,
        memory_bytes: int | None = MEMORY_BYTES,
        prestart: bool = False,
    ) -> None:
        if workers is not None and workers < 1:
            raise InputError(f"verifier workers: got {workers}, expected at least 1")
        if not deadline > 0:
            raise InputError(f"verifier deadline: got {deadline}, expected more than 0 seconds")
        self.spec = spec
        self.verifier = _construct(spec)
        """The verifier as constructed in this process; its `quick` is called here, its `verify` never."""
        self.sent = 0
        """Items that went to a worker so far; the others were judged here."""
        self._quick = getattr(self.verifier, "quick", None)
        self._max_chars = max_chars
        order = {
            "target": spec.target,
            "options": dict(spec.options),
            "deadline": deadline,
            "memory_bytes": memory_bytes,
        }
        self._slots = _Slots(order, workers or max(1, min(4, os.cpu_count() or 1)), deadline)
        # Also runs at interpreter exit, and when a pool is dropped unclosed.
        self._finalizer = weakref.finalize(self, self._slots.close)
        if prestart:
            self._slots.grow_to(self._slots.limit, prestart=True)

    def verify(self, items: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """The judgements of (problem, response) pairs, in their order. Raises RunError if no worker can be started."""
        return self.submit(items).result()

    def submit(self, items: Sequence[tuple[Problem, str]]) -> Future[list[Judgement]]:
        """`verify` in the background: the quick verdicts are made now, here, the others by the workers."""
        batch = _Batch(len(items))
        jobs = []
        for index, (problem, response) in enumerate(items):
            judgement = self._refuse(response) or self._try_quick(problem, response)
            if judgement is None:
                jobs.append(_Job(batch, index, problem, response))
            else:
                batch.results[index] = judgement
        self.sent += len(jobs)
        batch.expect(len(jobs))
        self._slots.put(jobs)
        return batch.future

    def close(self) -> None:
        """Kill the workers. Batches that are not finished fail with RunError."""
        self._finalizer()

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _refuse(self, response: str) -> Judgement | None:
        if len(response) <= self._max_chars:
            return None
        size = f"{len(response):,} characters (limit {self._max_chars:,})"
        return Judgement(Verdict.UNPARSEABLE, f"a response of {size}")

    def _try_quick(self, problem: Problem, response: str) -> Judgement | None:
        if self._quick is None:
            return None
        try:
            result = self._quick(problem, response)
            return None if result is None else as_judgement(result)
        except Exception as error:
            return crash(error)


def _construct(spec: VerifierSpec) -> Any:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        importlib.invalidate_caches()
        pickle.dumps(dict(spec.options))
        return load_verifier(spec.target, dict(spec.options))
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}", 300)
        raise InputError(f"verifier {spec.target!r} with options {dict(spec.options)}: {reason}") from error


class _Batch:
    """Results by index, and the future that gets them when the last one is in."""

    def __init__(self, size: int) -> None:
        self.results: list[Judgement | None] = [None] * size
        self.future: Future[list[Judgement]] = Future()
        self.future.set_running_or_notify_cancel()
        self._missing = size
        self._failed = False
        self._lock = threading.Lock()

    def expect(self, missing: int) -> None:
        self._missing = missing
        if not missing:
            self._finish()

    def settle(self, index: int, judgement: Judgement) -> None:
        with self._lock:
            self.results[index] = judgement
            self._missing -= 1
            last = not self._missing and not self._failed
        if last:
            self._finish()

    def fail(self, error: Exception) -> None:
        with self._lock:
            first, self._failed = self._missing > 0 and not self._failed, True
        if first:
            self.future.set_exception(error)

    def _finish(self) -> None:
        self.future.set_result([judgement for judgement in self.results if judgement is not None])


@dataclass(frozen=True, slots=True)
class _Job:
    batch: _Batch
    index: int
    problem: Problem
    response: str


class _Slots:
    """The queue, and the threads and processes that serve it. Holds no reference to its pool, which may be dropped."""

    def __init__(self, order: Mapping[str, Any], limit: int, deadline: float) -> None:
        self.limit = limit
        self.deadline = deadline
        self._order = order
        self._owner = os.getpid()
        self._change = (
            threading.Condition()
        )  # its lock is re-entrant: a finalizer may close us in a thread that holds it
        self._jobs: deque[_Job] = deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._processes: set[WorkerProcess] = set()
        self.closed = False

    def put(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        with self._change:
            if self.closed:
                for job in jobs:
                    job.batch.fail(_closed())
                return
            self._jobs.extend(jobs)
            wanted = len(self._threads) - self._idle + len(self._jobs)
            self._change.notify(len(jobs))
        self.grow_to(min(self.limit, wanted))

    def grow_to(self, count: int, prestart: bool = False) -> None:
        with self._change:
            while len(self._threads) < count and not self.closed:
                thread = threading.Thread(target=_Slot(self).serve, args=(prestart,), name="verifier", daemon=True)
                self._threads.append(thread)
                thread.start()

    def take(self) -> _Job | None:
        """The next job; None when the pool is closed."""
        with self._change:
            self._idle += 1
            while not self._jobs and not self.closed:
                self._change.wait()
            self._idle -= 1
            return None if self.closed else self._jobs.popleft()

    def start(self) -> WorkerProcess:
        process = WorkerProcess(self._order)
        with self._change:
            self._processes.add(process)
            closed = self.closed
        if closed:
            self.discard(process)
            raise StartFailed("the pool was closed")
        return process

    def discard(self, process: WorkerProcess) -> None:
        process.dispose()
        with self._change:
            self._processes.discard(process)

    def refusal(self, reason: str) -> RunError:
        """Why a job can't be judged at all."""
        if self.closed:
            return _closed()
        target = self._order["target"]
        return RunError(f"no worker for the verifier {target!r} could be started: {reason}")

    def close(self) -> None:
        if os.getpid() != self._owner:  # a forked child owns neither the threads nor the workers
            return
        with self._change:
            self.closed = True
            jobs, threads, processes = list(self._jobs), list(self._threads), list(self._processes)
            self._jobs.clear()
            self._change.notify_all()
        for process in processes:
            process.kill()
        for job in jobs:
            job.batch.fail(_closed())
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(timeout=5.0)


def _closed() -> RunError:
    return RunError("the verifier pool was closed before all its items were judged")


class _Slot:
    """One thread's worker, and its stand-in if the item at hand looks late."""

    def __init__(self, slots: _Slots) -> None:
        self._slots = slots
        self._worker: WorkerProcess | None = None
        self._standby: WorkerProcess | None = None

    def serve(self, prestart: bool) -> None:
        try:
            if prestart:
                self._worker = self._try_start()
            while (job := self._slots.take()) is not None:
                try:
                    self._serve_one(job)
                except Exception as error:  # a slot that ended without a word would leave its batch waiting for ever
                    job.batch.fail(error)
                del job  # while this thread waits, it must not keep a batch alive
        finally:
            for process in (self._worker, self._standby):
                if process is not None:
                    self._slots.discard(process)

    def _serve_one(self, job: _Job) -> None:
        try:
            item = pickle.dumps((job.problem, job.response), protocol=5)
        except Exception as error:
            reason = one_line(f"{type(error).__name__}: {error}", 300)
            job.batch.settle(job.index, Judgement(Verdict.CRASHED, f"the problem can't be sent to a worker: {reason}"))
            return
        try:
            judgement = self._judge(item)
        except (StartFailed, OSError) as error:
            job.batch.fail(self._slots.refusal(str(error)))
            return
        if self._slots.closed and judgement.verdict is Verdict.CRASHED:
            job.batch.fail(_closed())
        else:
            job.batch.settle(job.index, judgement)

    def _judge(self, item: bytes) -> Judgement:
        worker = self._ready_worker()
        try:
            worker.send(item)
            start = time.monotonic()
            try:
                judgement, retire = worker.answer(start + SUSPICION * self._slots.deadline)
            except WorkerLate:
                if self._standby is None:
                    self._standby = self._try_start()
                judgement, retire = worker.answer(start + self._slots.deadline)
        except WorkerLate:
            judgement, retire = Judgement(Verdict.TIMEOUT, f"no verdict within {self._slots.deadline:g} s"), True
        except WorkerDied as error:
            judgement, retire = Judgement(Verdict.CRASHED, f"the worker died: {error}"), True
        if retire:
            self._replace()
        return judgement

    def _ready_worker(self) -> WorkerProcess:
        for attempt in range(1, START_ATTEMPTS + 1):
            if self._worker is None:
                self._worker = self._slots.start()
            try:
                self._worker.wait_ready()
                return self._worker
            except StartFailed:
                self._slots.discard(self._worker)
                self._worker = None
                if attempt == START_ATTEMPTS:
                    raise
        raise AssertionError

    def _replace(self) -> None:
        if self._worker is not None:
            self._slots.discard(self._worker)
        self._worker, self._standby = self._standby or self._try_start(), None

    def _try_start(self) -> WorkerProcess | None:
        """A worker ahead of need. A failure is not told here: `_ready_worker` meets it again when there is a job."""
        try:
            return self._slots.start()
        except (StartFailed, OSError):
            return None
