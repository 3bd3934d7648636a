"""One worker process as its owner sees it: start it, have it judge an item before a deadline, kill it.

A worker belongs to the thread that started it: on Linux the kernel kills it when that thread ends, so that a parent
which is itself killed leaves none behind. Only `kill` may be called from elsewhere.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from reasonloop.machine.python import started
from reasonloop.records import Judgement, Verdict, as_judgement

START_LIMIT = 120.0
"""Seconds that a worker may take to import and construct its verifier, or to take in an item."""
LINE_LIMIT = 1 << 16
"""Bytes of a worker's line; a longer one is garbage."""

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


class WorkerProcess:
    """A process that runs `reasonloop.verify.worker` in its own process group. Raises OSError."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            # Not multiprocessing: a fork would copy the locks of torch's threads, a spawn would import the caller's main
            # module.
            self._process = subprocess.Popen(
                started("reasonloop.verify.worker", with_us=True),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                start_new_session=True,
                env=os.environ | _ENVIRONMENT,
            )
        self._received = b""
        self._ready = False
        self.took = False
        """Whether it has read the item that it was sent last"""
        self._kill_lock = threading.Lock()
        with suppress(WorkerDied):  # that it died already is told by wait_ready
            self.send(pickle.dumps(dict(order)))

    def wait_ready(self) -> None:
        """Return when the worker can take an item. Raises WorkerDied, with the reason if its verifier can't be made."""
        if self._ready:
            return
        try:
            message = self._receive(time.monotonic() + START_LIMIT)
        except WorkerDied as error:
            raise WorkerDied(f"the worker ended while it started ({error})") from error
        except WorkerLate as error:
            raise WorkerDied(f"the worker was not ready after {START_LIMIT:.0f} s") from error
        if message.get("ready") is not True:
            raise WorkerDied(str(message.get("failed", "no answer")))
        self._ready = True

    def send(self, item: bytes) -> None:
        """Hand over one pickled (problem, response). Raises WorkerDied."""
        self.took = False
        self._socket.settimeout(START_LIMIT)
        try:
            self._socket.sendall(len(item).to_bytes(4, "big") + item)
        except TimeoutError as error:
            raise WorkerDied("it no longer reads") from error
        except OSError as error:
            raise WorkerDied(self._cause()) from error

    def answer(self, until: float) -> tuple[Judgement, bool]:
        """(judgement, whether this worker should be replaced), waiting until the monotonic time `until`.

        Raises WorkerLate (the worker goes on: ask again or kill it) or WorkerDied.
        """
        message = self._receive(until)
        if not self.took and message == {"taken": True}:
            self.took = True
            message = self._receive(until)
        try:
            judgement = Judgement(Verdict(message["verdict"]), str(message["detail"]), message["score"])
            return as_judgement(judgement), bool(message["retire"])
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
        """`kill`, and close the socket; only for the owning thread, which alone knows that nobody is reading it."""
        self.kill()
        self._socket.close()

    def _receive(self, until: float) -> dict[str, Any]:
        """The worker's next line. One that already lies there is taken, however late we come to look."""
        while b"\n" not in self._received:
            if len(self._received) > LINE_LIMIT:
                raise WorkerDied("it sent what is no answer")
            self._socket.settimeout(max(0.0, until - time.monotonic()))
            try:
                part = self._socket.recv(LINE_LIMIT)
            except (TimeoutError, BlockingIOError) as error:
                raise WorkerLate from error
            except OSError:
                part = b""
            if not part:
                raise WorkerDied(self._cause())
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise WorkerDied("it sent what is no answer") from error
        if not isinstance(message, dict):
            raise WorkerDied("it sent what is no answer")
        return message

    def _cause(self) -> str:
        self.kill()  # an exit that has begun keeps its own status
        code = self._process.returncode
        if code == -signal.SIGALRM:
            raise WorkerLate
        if code < 0:
            with suppress(ValueError):
                return f"killed by {signal.Signals(-code).name}"
        return f"exit status {code}"
