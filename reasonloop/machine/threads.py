"""Threads and memory as runs want them. torch is imported by the functions."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

from reasonloop.machine.launch import launched

SPINS = "1000"
"""GNU OpenMP's spins before a waiting thread sleeps"""


def keep_freed_memory() -> None:
    """Tells the C library to keep memory that torch has freed (up to 1 GiB), instead of giving it back to the system.

    A step frees and takes the same megabytes again and again, and the system clears every page anew. Without glibc this
    does nothing. torch must not have worked yet: call it first.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # mallopt(3)
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, 1 << 30)
        mallopt(top_pad, 1 << 26)
        mallopt(mmap_threshold, 1 << 30) or mallopt(mmap_threshold, 1 << 25)  # older glibc takes 32 MiB at most


def wait_briefly() -> None:
    """Has OpenMP's threads look for their next work for some ten microseconds before they sleep. Before torch is imported.

    A decoding step is hundreds of operations that two threads share for microseconds each; to be woken for each takes as
    long. Threads that spin on without end, OpenMP's own choice, take the cores from other processes: two runs on the same
    two cores then take twice as long and more (docs/log.md). An environment that says otherwise is left alone.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if os.environ["OMP_WAIT_POLICY"].upper() == "PASSIVE":
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def prepare_threads(threads: int) -> int:
    """Sets torch's threads (0: all cores that this process may use) and returns them. Call it before torch is imported."""
    wait_briefly()
    import torch

    keep_freed_memory()
    torch.set_num_threads(threads or available_cores())
    return torch.get_num_threads()


def available_cores() -> int:
    """CPU cores that this process may use: its share, where torchrun has started several on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // launched().local_world)
