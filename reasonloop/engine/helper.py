"""A helper process of `TeamEngine`: samples its part of the prompts from the shared policy. Started by `engine.team`.

Messages are pickles over a socket, from and to a parent that is trusted. In: ("policy", body), with a descriptor
behind it, and ("sample", arguments). Out, for each sampling: ("rollouts", [(index, rollout), ...]) as they
are finished, then ("done",) or ("failed", kind, message).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle

import numpy as np
import torch

from reasonloop.config import Sampling
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.protocol import Address, Prompt
from reasonloop.engine.shared import attach
from reasonloop.machine.threads import keep_freed_memory
from reasonloop.policy.policy import quiet
from reasonloop.records import Rollout
from reasonloop.verify.worker import die_with


def main() -> None:
    """Serves until the parent is gone."""
    channel = Connection(int(sys.argv[2]))
    die_with(int(sys.argv[3]))
    keep_freed_memory()
    quiet()
    engine = NativeEngine()
    while True:
        try:
            kind, content = channel.recv()
            if kind == "policy":
                engine.load(attach(recv_handle(channel), content))
            else:
                threads, order = content
                torch.set_num_threads(threads)
                _sample(engine, channel, *order)
        except (EOFError, ConnectionError):
            os._exit(0)


def _sample(
    engine: NativeEngine,
    channel: Connection,
    prompts: Sequence[Prompt],
    n: int,
    sampling: Sampling,
    address: Address,
    lengths: np.ndarray | None,
) -> None:
    finished: list[tuple[int, Rollout]] = []

    def keep(index: int, rollout: Rollout) -> None:
        finished.append((index, rollout))

    def flush(_: int = 0) -> None:
        if finished:
            channel.send(("rollouts", finished))
            finished.clear()

    try:
        engine.sample(prompts, n, sampling, address, keep, lengths, flush)
    except (EOFError, ConnectionError):
        raise
    except Exception as error:
        channel.send(("failed", type(error).__name__, str(error)))
    else:
        flush()
        channel.send(("done",))
