"""Judging model-written programs: an untrusted program, trusted tests, and a verdict that the program can't forge.

    with Sandbox(Limits(timeout=4.0)) as sandbox:
        judgement = sandbox.judge("def double(n): return 2 * n", "assert double(4) == 8")

The program runs in namespaces of its own (backend "namespaces", any Linux >= 5.14 that lets this user make them) or in
a container ("docker", only if named). Where neither is possible, nothing is run: InputError. The tests run in another
process, which calls the program's functions over a pipe (`guest`).

Verdicts: RIGHT, all tests passed. WRONG, a test failed, the program raised an exception, ended itself early, or returned
a value that isn't carried (`wire.encode`). UNPARSEABLE, the program is no Python. TIMEOUT, the deadline or the
CPU limit. CRASHED, the program was killed (segmentation fault), ran out of memory, or the sandbox or the tests failed.

Arguments are copies: what a function changes in place isn't seen by the tests.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Literal

from reasonloop.errors import InputError
from reasonloop.records import Judgement, Verdict
from reasonloop.verify.answers import one_line
from reasonloop.verify.sandbox.docker import Docker
from reasonloop.verify.sandbox.group import HelperProcess
from reasonloop.verify.sandbox.limits import Limits, refusal
from reasonloop.verify.sandbox.wire import WireError

Backend = Literal["namespaces", "docker"]
START_LIMIT = 30.0
"""Seconds that the helper may take to start."""
GRACE = 10.0
"""Seconds beyond the deadline after which the helper itself counts as lost."""


class Sandbox:
    """Judges one program at a time; safe to use from any thread. Starts with the first item, or with `start()`."""

    def __init__(self, limits: Limits | None = None, backend: Backend = "namespaces", image: str = "python:3.11-slim"):
        if backend not in ("namespaces", "docker"):
            raise InputError(f"sandbox backend: got {backend!r}, expected 'namespaces' or 'docker'")
        self.limits = limits or Limits()
        self.backend, self.image = backend, image
        self._helper: Helper | Docker | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Return when programs can be judged. Raises InputError if this machine doesn't allow it."""
        with self._lock:
            self._started()

    def judge(self, program: str, tests: str, names: Sequence[str] | None = None, support: str = "") -> Judgement:
        """The verdict on a program.

        `tests` is Python that calls the program's functions and asserts; `names` are the functions (None: whatever the
        tests use and don't define). `support` runs in front of the tests and on their side: definitions that the
        program must not replace. Raises InputError if this machine doesn't allow a sandbox.
        """
        item = {"program": program, "tests": tests, "names": None if names is None else list(names), "support": support}
        with self._lock:
            helper = self._started()
            try:
                found = helper.ask(item)
            except (EOFError, OSError, WireError) as error:
                self._close()
                return Judgement(Verdict.CRASHED, f"the sandbox failed: {one_line(str(error) or 'its helper ended')}")
        return Judgement(Verdict(found["verdict"]), one_line(found["detail"], 500))

    def close(self) -> None:
        """End the helper, and with it whatever it runs."""
        with self._lock:
            self._close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _started(self) -> Helper | Docker:
        if self._helper is None:
            self._helper = Helper(self.limits) if self.backend == "namespaces" else Docker(self.limits, self.image)
        return self._helper

    def _close(self) -> None:
        if self._helper is not None:
            self._helper.close()
            self._helper = None


class Helper(HelperProcess):
    """The process that makes the sandboxes (`namespaces`). Raises InputError if the kernel doesn't let it.

    It ends when its input does, so that it doesn't outlive this process.
    """

    def __init__(self, limits: Limits) -> None:
        if sys.platform != "linux":
            raise refusal(f"namespaces are Linux's, and this is {sys.platform}")
        self._seconds = limits.timeout + GRACE
        # with nothing of this process's environment; the fixed hash seed makes a program that iterates over a set do the
        # same every time
        super().__init__(limits, (), {"PYTHONHASHSEED": "0"})
        try:
            self.begin()
            self.send(self.limits)
            reply = self.receive(START_LIMIT)
        except (EOFError, OSError, WireError) as error:
            self.close()
            raise refusal(f"the helper process did not start ({error or 'it ended'})") from None
        if reply != ["ready"]:
            self.close()
            raise refusal(str(reply[-1]))

    def ask(self, item: dict[str, Any]) -> dict[str, str]:
        """The verdict on an item (see `guest.check`). Raises EOFError, OSError or WireError if there is none."""
        self.send(item)
        reply = self.receive(self._seconds)
        if reply[0] != "verdict":
            raise WireError(str(reply[-1]))
        return reply[1]

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()


@cache
def require_sandbox(backend: Backend = "namespaces", image: str = "python:3.11-slim") -> None:
    """Return if programs can be judged here; raises InputError otherwise. Asked once for each backend and image."""
    with Sandbox(backend=backend, image=image) as sandbox:
        sandbox.start()
        found = sandbox.judge("def double(n):\n    return 2 * n", "assert double(4) == 8")
    if found.verdict is not Verdict.RIGHT:
        raise refusal(found.detail)
