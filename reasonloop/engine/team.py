"""Sampling small models in several processes.

A decoding step of a small model is a hundred small operations with Python between them, and Python's interpreter lock
keeps all that on one core. So prompts are dealt to as many processes as there are threads, each with a native engine of its
own on weights that all of them share (`engine.shared`). A rollout depends on its address alone, not on who samples it.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.reduction import send_handle
from typing import Any

import numpy as np
import torch

from reasonloop.config import Sampling
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.protocol import Address, Prompt
from reasonloop.engine.shared import share
from reasonloop.errors import InputError, RunError
from reasonloop.kernels import build as building
from reasonloop.policy.policy import Policy
from reasonloop.records import Rollout

SMALL = 30_000_000
"""Parameters up to which a model is sampled by several processes unless told otherwise: larger ones keep all cores busy
with their matrix products, and read their weights once for all rows."""
WORTH = 4000
"""Rollouts below which helpers aren't worth the seconds that they take to start"""
MOST = 8
"""Processes at most, unless told otherwise: each takes some 300 MB."""

_BOOT = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from reasonloop.engine.helper import main; main()"


def worthwhile(processes: int, rollouts: float) -> int:
    """`processes` for a `TeamEngine` that is to make so many rollouts: where the choice is open (0), one if they are few."""
    return processes or int(rollouts < WORTH)


class TeamEngine:
    """Samples like `NativeEngine`, small models on CPUs in several processes. To be closed.

    `processes`: how many; 0 for as many as torch has threads where the model is small, else one. They share the threads.
    Where weights can't be shared (not on Linux, or on a GPU) there is one. It doesn't keep a policy alive that nobody
    else has any more.
    """

    def __init__(self, processes: int = 0) -> None:
        self.processes = processes
        self._policy: Callable[[], Policy | None] = lambda: None
        self._shared: Callable[[], Policy | None] = lambda: None
        """The policy that the helpers have"""
        self._placement: object = None
        """Its `Policy.placement` then: another engine may have moved the weights since"""
        self._helpers: list[_Helper] = []

    def load(self, policy: Policy) -> None:
        self._policy = weakref.ref(policy)

    def sample(
        self,
        prompts: Sequence[Prompt],
        n: int,
        sampling: Sampling,
        address: Address,
        on_finished: Callable[[int, Rollout], None] | None = None,
        lengths: np.ndarray | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> list[Rollout]:
        """As `NativeEngine.sample`. `on_tokens` counts the tokens of this process alone.

        Raises RunError when a helper ends before its work is done.
        """
        policy, engine = self._policy(), NativeEngine()
        if policy is None:
            raise RunError("the engine has no policy: call load() first")
        engine.load(policy)
        team = min(self._size(policy), len(prompts))
        if team < 2:
            return engine.sample(prompts, n, sampling, address, on_finished, lengths, on_tokens)
        threads = torch.get_num_threads()
        found: dict[int, Rollout] = {}

        def finished(index: int, rollout: Rollout) -> None:
            found[index] = rollout
            if on_finished is not None:
                on_finished(index, rollout)

        each = max(1, threads // team)
        one = sampling.model_copy(update={"slots": math.ceil(sampling.slots / team)})
        # where in the whole each one's responses are: every team-th prompt's
        places = [(np.arange(i, len(prompts), team)[:, None] * n + np.arange(n)).ravel() for i in range(team)]
        forced = [None if lengths is None else lengths[place] for place in places]
        try:
            helpers = self._ready(team - 1, policy)
            for i, helper in enumerate(helpers, 1):
                helper.begin((prompts[i::team], n, one, address, forced[i]), each, places[i])

            def collect(count: int) -> None:
                for helper in helpers:
                    helper.collect(finished, wait=False)
                if on_tokens is not None:
                    on_tokens(count)

            torch.set_num_threads(each)

            def own(index: int, rollout: Rollout) -> None:
                finished(int(places[0][index]), rollout)

            engine.sample(prompts[::team], n, one, address, own, forced[0], collect)
            for helper in helpers:
                helper.collect(finished, wait=True)
        except BaseException:
            self.close()  # what they were doing is of no use any more
            raise
        finally:
            torch.set_num_threads(threads)
        return [found[i] for i in range(len(prompts) * n)]

    def close(self) -> None:
        """Ends the helpers. The engine can still be used: it starts others."""
        for helper in self._helpers:
            helper.close()
        self._helpers, self._shared = [], lambda: None

    def _size(self, policy: Policy) -> int:
        if policy.device.type != "cpu" or not hasattr(os, "memfd_create"):
            return 1
        if self.processes:
            return self.processes
        small = sum(parameter.numel() for parameter in policy.model.parameters()) <= SMALL
        return min(torch.get_num_threads(), MOST) if small else 1

    def _ready(self, count: int, policy: Policy) -> list[_Helper]:
        """So many helpers, with the policy."""
        fresh = [_Helper() for _ in range(count - len(self._helpers))]
        self._helpers += fresh
        if fresh or self._shared() is not policy or self._placement is not policy.placement:
            descriptor, body = share(policy)
            try:
                for helper in self._helpers:  # a policy is shared with all at once: its memory has moved
                    helper.hand_over(descriptor, body)
            finally:
                os.close(descriptor)
            self._shared, self._placement = weakref.ref(policy), policy.placement
        return self._helpers[:count]


class _Helper:
    """A helper process as its owner sees it. All methods raise RunError when it is gone."""

    def __init__(self) -> None:
        self._channel, theirs = Pipe(duplex=True)
        with theirs:
            order = [json.dumps([str(path) for path in sys.path]), str(theirs.fileno()), str(os.getpid())]
            kernels, descriptors = building.handed_on()
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, *order],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the parent
                pass_fds=[theirs.fileno(), *descriptors],
                env=os.environ | {"OMP_NUM_THREADS": "1", building.SWITCH: kernels},
            )
        self._working = False
        self._places = np.empty(0, np.int64)

    def hand_over(self, descriptor: int, body: bytes) -> None:
        self._send(("policy", body))
        with self._open():
            send_handle(self._channel, descriptor, self._process.pid)

    def begin(self, order: tuple[Any, ...], threads: int, places: np.ndarray) -> None:
        """`order`: the engine's arguments (prompts, n, sampling, address, lengths). `places`: int [responses], the index
        of each of its responses in the whole."""
        self._places, self._working = places, True
        self._send(("sample", (threads, order)))

    def collect(self, finished: Callable[[int, Rollout], None], wait: bool) -> None:
        """Hands on what it has finished: what is there already, or all of it."""
        while self._working and (wait or self._channel.poll()):
            kind, *content = self._receive()
            if kind == "rollouts":
                for index, rollout in content[0]:
                    finished(int(self._places[index]), rollout)
            elif kind == "done":
                self._working = False
            else:
                name, message = content
                raise (
                    InputError(message)
                    if name == "InputError"
                    else RunError(message if name == "RunError" else f"a sampling process failed: {name}: {message}")
                )

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._channel.close()

    def _send(self, message: tuple[Any, ...]) -> None:
        with self._open():
            self._channel.send(message)

    def _receive(self) -> tuple[Any, ...]:
        with self._open():
            message: tuple[Any, ...] = self._channel.recv()
        return message

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Turns a closed channel into the one clear error."""
        try:
            yield
        except (EOFError, ConnectionError):
            code = self._process.wait()
            cause = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
            raise RunError(
                f"a sampling process ended before its work was done ({cause}); "
                "the same command goes on, with processes = 1 in a new run if memory is short"
            ) from None
