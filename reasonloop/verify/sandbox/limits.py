"""What every backend of the sandbox needs: the limits, and a process that gets its modules without files."""

from __future__ import annotations

import importlib.resources
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reasonloop.errors import InputError
from reasonloop.records import LONGEST_DEADLINE
from reasonloop.verify.answers import one_line
from reasonloop.verify.sandbox.wire import WireError, receive, send

GUEST = ("wire", "guest")
KERNEL = ("kernel", "memory", "seccomp")
# Takes its modules from its input: no file of the project's has to be readable, or to exist, where it runs. Read from
# the descriptor, not from sys.stdin, which would read ahead.
BOOT = """
import os, sys
if len(sys.argv) > 1:  # while it imports it is killed with its parent; later the end of its input tells it
    import ctypes
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]): sys.exit(0)
import json, types
def read(n):
    b = b""
    while len(b) < n:
        p = os.read(0, n - len(b))
        if not p: sys.exit(0)
        b += p
    return b
sources, main = json.loads(read(int.from_bytes(read(4), "big")))
for name, source in {"reasonloop": "", "reasonloop.verify": "", "reasonloop.verify.sandbox": "", **sources}.items():
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
    parent, _, last = name.rpartition(".")
    if parent: setattr(sys.modules[parent], last, module)
    exec(compile(source, name, "exec"), module.__dict__)
getattr(module, main)()
"""


BOUNDS = {
    "timeout": (0.05, LONGEST_DEADLINE),
    "memory_mib": (64, 1 << 30),
    "processes": (1, 1 << 20),
    "scratch_mib": (1, 1 << 20),
}
"""Least and most of each limit"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use."""

    timeout: float = 4.0
    """Seconds from the moment at which the checker has the item; the CPU limit is a second more, for each process"""
    memory_mib: int = 512
    """Memory of all its processes together (looked at every 10 ms; in a control group, too, where this user may make one),
    and address space of each one"""
    processes: int = 8
    """Processes and threads at once, its own included"""
    scratch_mib: int = 16
    """Size of the writable folder, and of a file"""

    def __post_init__(self) -> None:
        for name, (least, most) in BOUNDS.items():
            if not least <= getattr(self, name) <= most:
                got = getattr(self, name)
                raise InputError(f"sandbox {name}: got {got}, expected at least {least} and at most {most:,}")


def refusal(reason: str, docker: bool = True, what: str = "model-written programs") -> InputError:
    """The error of a machine that can't make a sandbox; `docker`: whether that would do instead."""
    instead = ', or backend = "docker" where docker is installed' if docker else ""
    return InputError(
        f"{what} can't be run safely here: {one_line(reason, 300)}; expected Linux >= 5.14 that lets this "
        f"user make user, mount, pid and network namespaces{instead}"
    )


class Interpreter:
    """A fresh Python, without site-packages, that runs a function of our modules, and the pipes to it. Raises OSError.

    Not a fork of this process, which would copy the locks of its threads, and its secrets.
    """

    def __init__(self, python: Sequence[str], **options: Any) -> None:
        watched = [str(os.getpid())] if python[0] == sys.executable and sys.platform == "linux" else []
        self._process = subprocess.Popen(
            [*python, "-S", "-s", "-P", "-B", "-X", "utf8", "-c", BOOT, *watched],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            **options,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def run(self, modules: Sequence[str], main: str) -> None:
        """Have it run the function `main` of the last of `modules`, which are the sandbox's."""
        package = "reasonloop.verify.sandbox"
        folder = importlib.resources.files(package)
        sources = {f"{package}.{name}": (folder / f"{name}.py").read_text(encoding="utf-8") for name in modules}
        self.send([sources, main])

    def send(self, message: Any) -> None:
        send(self._stdin.fileno(), message)

    def receive(self, seconds: float | None = None) -> Any:
        """Its next message. Raises WireError if none has begun after so many seconds."""
        poll = select.poll()
        poll.register(self._stdout.fileno(), select.POLLIN)
        if not poll.poll(None if seconds is None else seconds * 1000):
            raise WireError(f"no answer within {seconds:g} s")
        return receive(self._stdout.fileno())

    def kill(self) -> None:
        """From any thread."""
        self._process.kill()

    def close(self) -> None:
        """Kill it and let go of the pipes."""
        self.kill()
        self._process.wait()
        self._stdin.close()
        self._stdout.close()
