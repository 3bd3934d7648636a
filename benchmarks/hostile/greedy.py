"""How much more memory than its limit a program can have whose processes take it as fast as they can.

    python benchmarks/hostile/greedy.py

The limit holds for all processes together. It is looked at every 10 ms: in between, more can be taken. Where a control
group can be made for the programs, the kernel holds them at their limit and a little, too. Both are tried. How much there
was is counted by the kernel, for a control group in which all of this runs: that wants root, and version 1 of such groups.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from reasonloop.verify.sandbox import group as sandbox_group
from reasonloop.verify.sandbox.limits import Limits
from reasonloop.verify.sandbox.sandbox import Sandbox

GROUPS = Path("/sys/fs/cgroup/memory")
PROCESSES, PIECES, LIMITS = (2, 4, 6), (1, 16, 64), (128, 512)
"""Pieces and limits in MiB; a program may have 8 processes, the sandbox's own two among them"""
GREEDY = """
import os, time
def f(processes, piece):
    for _ in range(processes):
        if os.fork() == 0:
            held = []
            while True:
                held.append(bytearray(b"x") * (piece << 20))
    time.sleep(60)
"""


@contextmanager
def group() -> Iterator[Path]:
    """A control group that this process is in until the block is left."""
    own = next(line.split(":")[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line)
    above = GROUPS / own.strip("/")
    made = above / f"reasonloop-{os.getpid()}"
    made.mkdir()
    try:
        (made / "cgroup.procs").write_text(str(os.getpid()))
        yield made
    finally:
        (above / "cgroup.procs").write_text(str(os.getpid()))
        while (made / "cgroup.procs").read_text():  # whatever the last sandbox had is being ended
            time.sleep(0.01)
        made.rmdir()


def peak(group: Path, processes: int, piece: int, limit: int) -> dict[str, Any]:
    """MiB that a program had at most."""
    with Sandbox(Limits(timeout=10, memory_mib=limit)) as sandbox:
        assert sandbox.judge("def f(): return 1", "assert f() == 1").verdict == "right"
        before = int((group / "memory.usage_in_bytes").read_text())
        (group / "memory.max_usage_in_bytes").write_text("0")
        found = sandbox.judge(GREEDY, f"f({processes}, {piece})")
        most = int((group / "memory.max_usage_in_bytes").read_text()) - before
    said = {"verdict": str(found.verdict), "detail": found.detail}
    return {"processes": processes, "piece": piece, "limit": limit, "peak": round(most / 2**20, 1), **said}


def looks(rounds: int) -> dict[str, Any]:
    """What came of all programs as the sandbox is set up now."""
    with group() as own:
        found = [peak(own, *one) for _ in range(rounds) for one in product(PROCESSES, PIECES, LIMITS)]
    kept = all(one["verdict"] == "crashed" and "ran out of memory" in one["detail"] for one in found)
    shares = [one["peak"] / one["limit"] for one in found]
    return {"programs": len(found), "kept": kept, "median": median(shares), "most": max(shares), "all": found}


def campaign(rounds: int = 3) -> dict[str, Any]:
    """Looked at alone, and held in a control group as well."""
    with patch.object(sandbox_group, "memory_group", return_value=None):
        looked = looks(rounds)
    return {"looked": looked, "group": looks(rounds)}


if __name__ == "__main__":
    print(json.dumps(campaign(), indent=1))
