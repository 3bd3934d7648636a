"""Ranks beside a process that no torchrun has started: those of a branch on a machine with several devices."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from reasonloop.config import Recipe
from reasonloop.machine.python import started
from reasonloop.ranks.channel import Leader
from reasonloop.ranks.team import assembled

PATIENCE = 20.0
"""Seconds in which ranks that aren't needed any more end by themselves"""
TOLD = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
)
"""What torchrun tells its processes in their environment, beside TORCHELASTIC_*"""


@contextmanager
def ranks_beside(recipe: Recipe, world: int) -> Iterator[Leader | None]:
    """Rank 0's end of `world` ranks on this machine, this process being the first, until the block is left; None for one.

    The others are started here; they end when this process does, however it does. What torchrun has told a parent of this
    process counts for nothing.
    """
    told = {key: value for key, value in os.environ.items() if key in TOLD or key.startswith("TORCHELASTIC_")}
    for key in told:
        del os.environ[key]
    try:
        if world == 1:
            yield None
            return
        with _started(world), assembled(recipe) as leader:
            yield leader
    finally:
        os.environ.update(told)


@contextmanager
def _started(world: int) -> Iterator[None]:
    """Ranks 1 to `world` - 1 as processes, and this process as rank 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    own = [{key: str(value) for key, value in {**common, "RANK": r, "LOCAL_RANK": r}.items()} for r in range(world)]
    others = [
        subprocess.Popen(
            started("reasonloop.cli", "run", "beside", with_us=True),
            env={**os.environ, **told},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for told in own[1:]
    ]
    os.environ.update(own[0])
    try:
        yield
    finally:
        for key in own[0]:
            os.environ.pop(key, None)
        for other in others:
            try:
                other.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                other.kill()
                other.wait()
