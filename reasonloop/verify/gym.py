"""reasoning-gym's problems and scores, from a helper process that keeps the library, and every answer, in a sandbox.

    with GymScorer("leg_counting", {}, splits=[(0, 100)]) as scorer:
        question, answer = scorer.entries(0, 0, 1)[0]
        scorer.score((0, 0), question, answer)     # 1.0

This process never imports the library: `sandbox.scoring` says what keeps an answer in.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from reasonloop.errors import InputError
from reasonloop.own import nearest
from reasonloop.records import Judgement, Verdict
from reasonloop.verify.answers import one_line
from reasonloop.verify.sandbox.group import HelperProcess
from reasonloop.verify.sandbox.limits import Limits, refusal
from reasonloop.verify.sandbox.wire import WireError

LIBRARY = "reasoning_gym"
START_LIMIT = 120.0
"""Seconds that the helper may take to start: it imports the library and makes its generators."""
ENTRIES_LIMIT = 600.0
"""Seconds for the problems of one request."""
GRACE = 10.0
"""Seconds beyond the deadline after which the helper itself counts as lost."""
# a process with threads gets no user namespace: none for linear algebra. The fixed hash seed makes a generator that
# iterates over a set do the same every time
_ENVIRONMENT = {"PYTHONHASHSEED": "0"} | dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)
_PACKAGES = ("site-packages", "dist-packages")

Place = tuple[int, int]
"""(split, index) of a problem"""


class GymScorer:
    """One generator of reasoning-gym. Safe to use from any thread; starts with the first request, or with `start()`.

    `splits`: (seed, size) of each: problem `index` of a split is drawn from seed + index, for index < size.
    """

    def __init__(
        self, dataset: str, config: Mapping[str, Any], splits: Sequence[tuple[int, int]], limits: Limits | None = None
    ) -> None:
        self.dataset, self.limits = dataset, limits or Limits(memory_mib=1024)
        self._order = {"dataset": dataset, "config": dict(config), "splits": [list(split) for split in splits]}
        self._helper: _Helper | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Return when answers can be scored.

        Raises InputError if the library is not installed, has no such generator or option, or this machine no sandbox.
        """
        with self._lock:
            self._started()

    def entries(self, split: int, start: int, stop: int) -> list[tuple[str | None, str | None]]:
        """(question, gold answer) of the problems from `start` to `stop`; (None, why) where the generator makes none.

        A gold answer may be None, too. Raises InputError as `start` does, and if the generator does not answer.
        """
        with self._lock:
            try:
                reply = self._started().ask(["entries", split, start, stop], ENTRIES_LIMIT)
            except (EOFError, OSError, WireError) as error:
                self._close()
                why = one_line(str(error) or "its process ended", 300)
                raise InputError(f"reasoning-gym's generator {self.dataset!r} makes no problems: {why}") from None
        return [(question, answer) for question, answer in reply[1]]

    def score(self, place: Place, question: str, answer: str) -> float | Judgement:
        """The library's score of an answer to a problem, or the verdict that there is none: WRONG, TIMEOUT, CRASHED.

        `question` is what the problem must ask. Raises InputError as `start` does.
        """
        with self._lock:
            helper = self._started()
            try:
                reply = helper.ask(["score", *place, question, answer], self.limits.timeout + GRACE)
            except (EOFError, OSError, WireError) as error:
                self._close()
                return Judgement(Verdict.CRASHED, f"the sandbox failed: {one_line(str(error) or 'its helper ended')}")
        if reply[0] == "score":
            return float(reply[1])
        return Judgement(Verdict(reply[1]), one_line(reply[2], 300))

    def close(self) -> None:
        """End the helper, and with it whatever it runs."""
        with self._lock:
            self._close()

    def __enter__(self) -> GymScorer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _started(self) -> _Helper:
        if self._helper is None:
            self._helper = _Helper(self.limits, self._order)
        return self._helper

    def _close(self) -> None:
        if self._helper is not None:
            self._helper.close()
            self._helper = None


class _Helper(HelperProcess):
    """The process that holds the library. It ends when its input does. Raises InputError."""

    def __init__(self, limits: Limits, order: Mapping[str, Any]) -> None:
        packages = _packages()
        if sys.platform != "linux":
            raise _refusal(f"namespaces are Linux's, and this is {sys.platform}")
        super().__init__(limits, ["scoring"], _ENVIRONMENT)
        try:
            self.begin()
            self.send({**order, "limits": self.limits, "packages": packages})
            reply = self.receive(START_LIMIT)
        except (EOFError, OSError, WireError) as error:
            self.close()
            raise _refusal(f"the helper process did not start ({error or 'it ended'})") from None
        if reply == ["ready"]:
            return
        self.close()
        raise _unknown(order["dataset"], *reply[1:]) if reply[0] == "refused" else _refusal(str(reply[-1]))

    def ask(self, request: list[Any], seconds: float) -> list[Any]:
        """Its reply to a request (`sandbox.scoring`). Raises EOFError, OSError or WireError if there is none."""
        self.send(request)
        reply: list[Any] = self.receive(seconds)
        if reply[0] == "failed":
            raise WireError(str(reply[-1]))
        return reply

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()


def _packages() -> list[str]:
    """Folders of installed packages, the library's among them. Raises InputError if it is not installed."""
    found = importlib.util.find_spec(LIBRARY)
    if found is None or found.origin is None:
        raise InputError("reasoning-gym is not installed; expected `pip install 'reasonloop[gym]'`")
    folders = [str(Path(found.origin).parent.parent), *(path for path in sys.path if Path(path).name in _PACKAGES)]
    return [path for path in dict.fromkeys(map(os.path.realpath, folders)) if os.path.isdir(path)]


def _unknown(dataset: str, what: str, which: str, known: Sequence[str]) -> InputError:
    """The library knows no such generator, or the generator no such option or value."""
    if what == "dataset" and not which:
        return InputError(f"reasoning-gym: no generator is named; expected dataset = one of {', '.join(known)}")
    if what == "dataset":
        return InputError(f"unknown generator {which!r} of reasoning-gym; {nearest(which, known)}")
    if what == "option":
        return InputError(f"reasoning-gym's {dataset!r} has no option {which!r}; {nearest(which, known)}")
    return InputError(f"reasoning-gym's {dataset!r} refuses its options: {one_line(which, 300)}")


def _refusal(reason: str) -> InputError:
    return refusal(reason, docker=False, what="reasoning-gym's scorers, some of which execute answers,")
