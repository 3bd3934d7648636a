"""Ranks that are started again over a store that remembers the earlier start."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
import torch.distributed as dist

from reasonloop.errors import RunError
from reasonloop.ranks.meeting import meet

WAIT = timedelta(seconds=20)


def start(store: dist.Store, order: list[int]) -> list[str]:
    """All ranks, begun in this order with a pause between; what each reads where rank 0 has written its address."""
    read = [""] * len(order)

    def one(rank: int) -> None:
        shared = meet(store, rank, len(order), WAIT)
        if rank == 0:
            shared.set("address", f"of {order} {id(shared)}")
        read[rank] = shared.get("address").decode()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in order]
    for thread in threads:
        thread.start()
        thread.join(0.1)
    for thread in threads:
        thread.join(30)
    return read


def test_no_start_reads_what_an_earlier_one_wrote() -> None:
    store = dist.HashStore()
    seen = set[str]()
    for order in ([0, 1, 2], [2, 1, 0], [0, 2, 1], [1, 0, 2]):
        read = start(store, order)
        assert len(set(read)) == 1
        assert read[0] not in seen
        seen |= set(read)


def test_a_start_that_ended_half_way_is_forgotten() -> None:
    store = dist.HashStore()
    with pytest.raises(RunError, match="rank 1 has not come"):
        meet(store, 0, 2, timedelta(seconds=0.1))
    with pytest.raises(RunError, match="rank 0 has not come"):
        meet(store, 1, 2, timedelta(seconds=0.1))
    assert len(set(start(store, [0, 1]))) == 1
