"""Where the ranks of one start find one another.

torchrun keeps its store when it starts all of them again, with the addresses of those that have ended; a rank that reads one
of these can't connect (or finds somebody else's port).
"""

from __future__ import annotations

import secrets
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from reasonloop.errors import RunError

if TYPE_CHECKING:
    from torch.distributed import Store

_POLL = 0.01
"""Seconds between looks at the store"""


def meet(store: Store, rank: int, world: int, wait: timedelta) -> Store:
    """A part of the store that the `world` ranks of this start share and none of an earlier start knows.

    Rank 0 draws its name. The others say hello with a word drawn anew; what they are told counts only if it has that word.
    Raises RunError where not all are there in time."""
    from torch.distributed import PrefixStore

    ends = time.monotonic() + wait.total_seconds()
    name = _lead(store, world, ends) if rank == 0 else _follow(store, rank, ends)
    return PrefixStore(f"start {name}", store)


def _lead(store: Store, world: int, ends: float) -> str:
    name = secrets.token_hex(8)
    missing = set(range(1, world))
    while True:
        for other in list(missing):
            if store.check([f"there {name} {other}"]):
                missing.remove(other)
            elif store.check([f"hello {other}"]):
                store.set(f"told {other}", f"{name} {store.get(f'hello {other}').decode()}")
        if not missing:
            return name
        _pause(ends, f"rank {min(missing)} has not come")


def _follow(store: Store, rank: int, ends: float) -> str:
    word = secrets.token_hex(8)
    store.set(f"hello {rank}", word)
    while True:
        if store.check([f"told {rank}"]):
            name, told = store.get(f"told {rank}").decode().split()
            if told == word:
                store.set(f"there {name} {rank}", "")
                return name
        _pause(ends, "rank 0 has not come")


def _pause(ends: float, why: str) -> None:
    if time.monotonic() > ends:
        raise RunError(f"ranks can't find one another: {why}")
    time.sleep(_POLL)
