"""One worker process as its owner sees it: start it, have it judge an item before a deadline, kill it.

A worker belongs to the thread that started it: on Linux the kernel kills it when that thread ends, so that a parent
which is itself killed leaves none behind. Only `kill` may be called from elsewhere.
"""

from __future__ import annotations

import json
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from reasonloop.records import Judgement, Verdict
from reasonloop.verify.worker import FRAME_LIMIT

START_LIMIT = 120.0
"""Seconds that a worker may take to import and construct its verifier, or to take in an item."""

_BOOT = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from reasonloop.verify.worker import main; main()"
# One thread per worker: several libraries otherwise start one per core at import, out of the worker's memory limit. A
# fixed hash seed: the order of a set, and with it a symbolic simplification, must not differ between two runs.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}


class WorkerDied(Exception):
    """The process ended, or sent what is no answer. The message says how."""


class WorkerLate(Exception):
    """No answer within the time given."""


class StartFailed(Exception):
    """The worker could not import, construct or prepare its verifier. The message says why."""


class WorkerProcess:
    """A process that runs `reasonloop.verify.worker` in its own process group. Raises OSError."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        # Not multiprocessing: a fork would copy the locks of torch's threads, a spawn would import the caller's main
        # module.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps([str(path) for path in sys.path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env=os.environ | _ENVIRONMENT,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdin.fileno(), False)
        self._received = bytearray()
        self._ready = False
        self._kill_lock = threading.Lock()
        with suppress(WorkerDied):  # that it died already is told by wait_ready
            self._send(pickle.dumps(dict(order) | {"parent": os.getpid()}))

    def wait_ready(self) -> None:
        """Return when the worker can take an item. Raises StartFailed."""
        if self._ready:
            return
        try:
            message = self._receive(time.monotonic() + START_LIMIT)
        except WorkerDied as error:
            raise StartFailed(f"the worker ended while it started ({error})") from error
        except WorkerLate as error:
            raise StartFailed(f"the worker was not ready after {START_LIMIT:.0f} s") from error
        if message.get("ready") is not True:
            raise StartFailed(str(message.get("failed", "no answer")))
        self._ready = True

    def send(self, item: bytes) -> None:
        """Hand over one pickled (problem, response). Raises WorkerDied."""
        try:
            self._send(item)
        except WorkerLate as error:
            raise WorkerDied("it no longer reads") from error

    def answer(self, until: float) -> tuple[Judgement, bool]:
        """(judgement, whether this worker should be replaced), waiting until the monotonic time `until`.

        Raises WorkerLate (the worker goes on: ask again or kill it) or WorkerDied.
        """
        message = self._receive(until)
        try:
            return Judgement(Verdict(message["verdict"]), str(message["detail"])), bool(message["retire"])
        except (KeyError, ValueError) as error:
            raise WorkerDied("it sent what is no answer") from error

    def kill(self) -> None:
        """SIGKILL the worker and its process group, and reap it. From any thread, any number of times."""
        with self._kill_lock:
            if self._process.returncode is None:  # not yet reaped: the number can't be another process's
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def dispose(self) -> None:
        """`kill`, and close the pipes; only for the owning thread, which alone knows that nobody is reading them."""
        self.kill()
        self._stdin.close()
        self._stdout.close()

    def _send(self, body: bytes) -> None:
        descriptor, rest = self._stdin.fileno(), memoryview(len(body).to_bytes(4, "big") + body)
        until = time.monotonic() + START_LIMIT
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:
                _wait(descriptor, select.POLLOUT, until)
            except OSError as error:
                raise WorkerDied(self._cause()) from error

    def _receive(self, until: float) -> dict[str, Any]:
        descriptor = self._stdout.fileno()
        while True:
            if len(self._received) >= 4:
                size = int.from_bytes(self._received[:4], "big")
                if size > FRAME_LIMIT:
                    raise WorkerDied("it sent what is no answer")
                if len(self._received) >= 4 + size:
                    body = bytes(self._received[4 : 4 + size])
                    del self._received[: 4 + size]
                    return _message(body)
            _wait(descriptor, select.POLLIN, until)
            part = os.read(descriptor, 1 << 16)
            if not part:
                raise WorkerDied(self._cause())
            self._received += part

    def _cause(self) -> str:
        self.kill()  # an exit that has begun keeps its own status
        code = self._process.returncode
        if code == -signal.SIGALRM:
            raise WorkerLate
        if code < 0:
            with suppress(ValueError):
                return f"killed by {signal.Signals(-code).name}"
        return f"exit status {code}"


def _message(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except ValueError as error:
        raise WorkerDied("it sent what is no answer") from error
    if not isinstance(message, dict):
        raise WorkerDied("it sent what is no answer")
    return message


def _wait(descriptor: int, event: int, until: float) -> None:
    """Return when the descriptor is ready. An answer that already lies there is taken, however late we come to look."""
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
        raise WorkerLate
