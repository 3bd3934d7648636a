"""How much memory the processes of a program have together. Standard library only.

A limit of the address space holds for one process, and a program may have several. The kernel counts them together in a
control group (`group`), which few users may make: so the helper looks as well, every few milliseconds.
"""

from __future__ import annotations

import os
from contextlib import suppress

_PAGE = os.sysconf("SC_PAGE_SIZE")
_READ_LIMIT = 1 << 16


def held(proc: int, ancestor: int, most: int) -> int:
    """Bytes that the descendants of a process have together; 0 where there are fewer than two of them.

    `proc`: a descriptor of /proc. Pages that several share are counted once for all of them where that decides whether it
    is more than `most` bytes.
    """
    processes = _descendants(proc, ancestor)
    if len(processes) < 2:
        return 0
    counted = [[int(part) for part in _read(proc, f"{number}/statm").split()[1:3]] for number in processes]
    if sum(resident for resident, _ in filter(None, counted)) * _PAGE <= most:
        return 0
    return sum(
        _proportional(proc, number) or (told[0] - told[1]) * _PAGE
        for number, told in zip(processes, counted, strict=True)
        if told
    )


def enter(group: int) -> None:
    """Move this process into a control group, by a descriptor of its `cgroup.procs`, whoever the process has become."""
    with suppress(OSError):  # a group that has lost its owner: what is looked at counts still
        os.write(group, b"0")


def killed(events: int) -> int:
    """How many processes of a control group the kernel has killed for want of memory. `events`: its file of counts."""
    with suppress(OSError):
        for line in os.pread(events, _READ_LIMIT, 0).splitlines():
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return 0


def _descendants(proc: int, ancestor: int) -> list[int]:
    found: list[int] = []
    todo = [ancestor]
    while todo:
        process = todo.pop()
        with suppress(OSError):
            folder = os.open(f"{process}/task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=proc)
            try:
                threads = os.listdir(folder)
            finally:
                os.close(folder)
            children = [int(n) for thread in threads for n in _read(proc, f"{process}/task/{thread}/children").split()]
            found += children
            todo += children
    return found


def _proportional(proc: int, process: int) -> int:
    """Bytes, of shared pages its share of them; 0 if the kernel doesn't tell."""
    for line in _read(proc, f"{process}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) << 10
    return 0


def _read(proc: int, path: str) -> bytes:
    """A file below /proc; nothing where there is none any more."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY, dir_fd=proc)
        try:
            return os.read(descriptor, _READ_LIMIT)
        finally:
            os.close(descriptor)
    return b""
