"""What every backend of the sandbox needs: the limits, and how a process without files gets its modules."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass

from reasonloop.errors import InputError
from reasonloop.verify.answers import one_line

GUEST = ("reasonloop.verify.sandbox.wire", "reasonloop.verify.sandbox.guest")
# Takes its modules from its input: no file of the project's has to be readable, or to exist, where it runs. Read from
# the descriptor, not from sys.stdin, which would read ahead.
BOOT = """
import json, os, sys, types
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


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use."""

    timeout: float = 4.0
    """Seconds from the moment at which the checker has the item; the CPU limit is a second more, for each process"""
    memory_mib: int = 512
    """Address space of each process"""
    processes: int = 8
    """Processes and threads at once, its own included"""
    scratch_mib: int = 16
    """Size of the writable folder, and of a file"""

    def __post_init__(self) -> None:
        for name, least in (("timeout", 0.05), ("memory_mib", 64), ("processes", 1), ("scratch_mib", 1)):
            if not getattr(self, name) >= least:
                raise InputError(f"sandbox {name}: got {getattr(self, name)}, expected at least {least}")


def refusal(reason: str) -> InputError:
    """The error of a machine that can't make a sandbox."""
    return InputError(
        f"model-written programs can't be run safely here: {one_line(reason, 300)}; expected Linux >= 5.14 that lets this "
        'user make user, mount, pid and network namespaces, or backend = "docker" where docker is installed'
    )


def sources(names: Sequence[str]) -> dict[str, str]:
    """The source of each module, for BOOT."""
    folder = importlib.resources.files("reasonloop.verify.sandbox")
    return {name: (folder / f"{name.rpartition('.')[2]}.py").read_text(encoding="utf-8") for name in names}
