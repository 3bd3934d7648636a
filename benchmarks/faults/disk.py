"""A disk that is full, that fails, or whose power is cut, at chosen operations and sizes; then the same command goes on.

    python benchmarks/faults/disk.py --operations 20 --sizes 10      # a sample; --operations 0: all of them

Whatever happened, the run must end in one line (or with its process), and the same command with the same bytes as if nothing
had happened. A result has what happened, both exit codes, what was said, and which files came out otherwise.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from work import CUT, MODES, PESSIMIST, Case, FaultyDisk, differing, last, place, show, unbroken

NEW_NAMESPACE = 0x20000
"""CLONE_NEWNS"""
DISK, BALLAST = 64, "ballast"
"""MiB, and the file that takes what isn't free of them"""


def operations(plan: str) -> int:
    """How many a run of the plan has."""
    with place() as folder:
        case, count = Case(plan, folder), folder / "count"
        code, said = case.work(disk=FaultyDisk(case.out, CUT, 0, count=count))
        assert code == 0, said
        return int(count.read_text())


def faulty(plan: str, mode: str, at: int, seed: int = PESSIMIST) -> dict[str, Any]:
    """A run at whose `at`-th operation the disk goes wrong, and its end."""
    with place() as folder:
        case = Case(plan, folder)
        code, said = case.work(disk=FaultyDisk(case.out, mode, at, seed))
        return {"plan": plan, "mode": mode, "at": at, "seed": seed, **_end(case, code, said, killed=mode == CUT)}


def full(plan: str, size: int) -> dict[str, Any]:
    """A run on a disk that has room for so many KiB, and is then given more: a tmpfs where one may be mounted, or else a
    limit on every file's size."""
    with place() as folder, _disk(folder, size) as (how, trouble):
        case = Case(plan, folder / "disk")
        code, said = case.work(**trouble)
        (folder / "disk" / BALLAST).unlink(missing_ok=True)
        return {"plan": plan, "mode": how, "kib": size, **_end(case, code, said, killed=False)}


def _end(case: Case, code: int, said: str, killed: bool) -> dict[str, Any]:
    one_line = killed or code == 0 or (code in (1, 2) and last(said).startswith("reasonloop: "))
    result = {"code": code, "said": last(said), "traceback": "Traceback" in said}
    code, said = case.work()
    result |= {
        "code_after": code,
        "said_after": last(said) if code else "",
        "differing": differing(case) if not code else [],
    }
    good = one_line and not code and not result["differing"] and not result["traceback"] and "Traceback" not in said
    return {**result, "good": good}


@contextmanager
def _disk(folder: Path, size: int) -> Iterator[tuple[str, dict[str, Any]]]:
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        yield "file size", {"largest": size << 10}
        return
    with (disk / BALLAST).open("wb") as ballast:  # a disk that is too small from the start is refused
        ballast.write(bytes((DISK << 20) - (size << 10)))
    try:
        yield "tmpfs", {}
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def own_mounts() -> bool:
    """Whether this process, and those that it starts from now on, may mount something that nobody else sees."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() or libc.unshare(NEW_NAMESPACE):
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True).returncode == 0


def campaign(count: int, sizes: int, seed: int = 0, plan: str = "short") -> list[dict[str, Any]]:
    """`count` operations (0: all) in each mode, after a power cut also by luck, and `sizes` full disks."""
    own_mounts()
    random, total = Random(seed), operations(plan)
    unbroken(plan)
    found = []
    for mode in MODES:
        chosen = sorted(random.sample(range(1, total + 1), min(count, total))) if count else list(range(1, total + 1))
        for i, at in enumerate(chosen):
            luck = PESSIMIST if mode != CUT or i % 2 == 0 else 1 + random.randrange(1 << 30)
            found.append(faulty(plan, mode, at, luck))
            show(len(found), len(MODES) * len(chosen), None if found[-1]["good"] else found[-1])
    for size in range(sizes):
        found.append(full(plan, int(2 ** random.uniform(3, 10.5))))
        show(size + 1, sizes, None if found[-1]["good"] else found[-1])
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=20, help="in each mode; 0: all")
    parser.add_argument("--sizes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plan", default="short")
    given = parser.parse_args()
    results = campaign(given.operations, given.sizes, given.seed, given.plan)
    for one in results:
        print(json.dumps(one))
    print(f"{sum(one['good'] for one in results)} of {len(results)} good")
