"""The process that makes the sandboxes, and a control group for what it runs: there the kernel itself counts memory.

Made where this user may make one: below the own group (version 1 of control groups), or beside it (version 2, in which a
group with processes hands no memory limit down). In a container, or as a user whose session owns no part of the tree, there
is none, and `memory` alone counts.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from reasonloop.verify.sandbox.limits import GUEST, KERNEL, Interpreter, Limits

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_PREFIX = "reasonloop-"
_SLACK_MIB = 16
"""For what the kernel keeps for the processes"""
_TRIES = 3
"""To make a group: another's may be swept before it is locked"""
_GONE_SECONDS = 1.0
"""That the kernel may take to end the processes of a group"""


@dataclass(frozen=True)
class _Version:
    """Of control groups: what its files are called."""

    number: int
    limit: str
    settings: tuple[tuple[str, str], ...]
    """Where the kernel has them. `{limit}` is the limit in bytes"""
    events: str
    """The file with a line "oom_kill N\""""


_FIRST = _Version(1, "memory.limit_in_bytes", (("memory.memsw.limit_in_bytes", "{limit}"),), "memory.oom_control")
_SECOND = _Version(2, "memory.max", (("memory.swap.max", "0"), ("memory.oom.group", "1")), "memory.events")


class HelperProcess(Interpreter):
    """A process that runs `main` of one of `modules`, and a `namespaces.Helper` in it. Raises OSError.

    `limits`: what that helper is given, the descriptors of the control group among them (none where there is no group).
    """

    def __init__(self, limits: Limits, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self._group = memory_group(limits)
        descriptors = self._group.descriptors if self._group else ()
        self.limits = {**asdict(limits), "group": list(descriptors)}
        try:
            super().__init__(
                [sys.executable], stderr=subprocess.DEVNULL, cwd="/", env=environment, pass_fds=descriptors
            )
        except OSError:
            self._leave()
            raise
        self._modules = [*GUEST, *KERNEL, "namespaces", *modules]

    def begin(self) -> None:
        """Have it run. Raises OSError."""
        self.run(self._modules, "main")

    def close(self) -> None:
        super().close()
        self._leave()

    def _leave(self) -> None:
        if self._group is not None:
            self._group.close()


class MemoryGroup:
    """A group with a memory limit, and what its programs need of it. Raises OSError if this user can make none.

    `descriptors`: the file that a process enters by, and the one that counts whom the kernel has killed. The group goes
    with `close`; one whose owner was killed goes when the next one is made.
    """

    def __init__(self, limits: Limits) -> None:
        version, above = _place()
        _sweep(above)
        self._folder = above / f"{_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.version = version.number
        self.descriptors: tuple[int, ...] = ()
        self._folder.mkdir()
        self._lock = -1
        try:
            self._lock = _locked(self._folder)
            # twice the folder: the kernel may not have given up the last program's yet
            limit = str(limits.memory_mib + 2 * limits.scratch_mib + _SLACK_MIB << 20)
            (self._folder / version.limit).write_text(limit)
            for name, value in version.settings:
                with suppress(FileNotFoundError):  # a kernel that doesn't count swap
                    (self._folder / name).write_text(value.format(limit=limit))
            enter = os.open(self._folder / "cgroup.procs", os.O_WRONLY)
            self.descriptors = (enter,)
            self.descriptors = (enter, os.open(self._folder / version.events, os.O_RDONLY))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Once its processes have been killed. A second time it does nothing."""
        for descriptor in (*self.descriptors, self._lock):
            with suppress(OSError):
                os.close(descriptor)
        self.descriptors, self._lock = (), -1
        until = time.monotonic() + _GONE_SECONDS
        while not _removed(self._folder) and time.monotonic() < until:
            time.sleep(0.002)


def memory_group(limits: Limits) -> MemoryGroup | None:
    """A group with these limits; None where this user can make none."""
    for _ in range(_TRIES):
        with suppress(OSError):
            return MemoryGroup(limits)
    return None


def _place() -> tuple[_Version, Path]:
    """Of this machine's control groups: the version that counts memory, and where a new group can be. Raises OSError."""
    own = [line.split(":", 2)[1:] for line in _OWN.read_text().splitlines()]
    for controllers, path in own:
        if "memory" in controllers.split(","):
            return _FIRST, _ROOT / "memory" / path.lstrip("/")
    path = dict(own).get("", "/").strip("/")
    above = (_ROOT / path).parent
    if not path or "memory" not in (above / "cgroup.subtree_control").read_text().split():
        raise FileNotFoundError(f"no group above {_ROOT / path} hands a memory limit down")
    return _SECOND, above


def _locked(folder: Path) -> int:
    """A descriptor that keeps others from taking the group for one whose owner was killed. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _removed(folder: Path) -> bool:
    """Whether it is gone now; False while a process is in it."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _sweep(above: Path) -> None:
    """Remove the groups whose owners were killed."""
    for folder in above.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            descriptor = _locked(folder)
            _removed(folder)
            os.close(descriptor)
