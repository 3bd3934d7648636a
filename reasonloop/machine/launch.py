"""How this process was started: alone, or by torchrun as one of several. Free of torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from reasonloop.errors import InputError

_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Launch:
    """Which of torchrun's processes this one is."""

    rank: int = 0
    world: int = 1
    """Processes in all"""
    local_rank: int = 0
    local_world: int = 1
    """Processes on this machine"""


def launched() -> Launch:
    """As torchrun's environment says; alone where it says nothing. Raises InputError where it is none of torchrun's."""
    texts = [os.environ.get(name) for name in _ENVIRONMENT]
    if None in texts:
        return Launch()
    try:
        rank, world, local_rank, local_world = (int(text or "") for text in texts)
    except ValueError:
        rank, world, local_rank, local_world = -1, 0, -1, 0
    if not (0 <= rank < world and 0 <= local_rank < local_world <= world):
        told = ", ".join(f"{name}={text}" for name, text in zip(_ENVIRONMENT, texts, strict=True))
        raise InputError(f"{told} in the environment: expected them as torchrun sets them, or none of them")
    return Launch(rank, world, local_rank, local_world)
