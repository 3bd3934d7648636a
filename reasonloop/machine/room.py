"""What room there is: memory of the machine and of its GPUs, and on disks. Free of torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Room:
    """Bytes."""

    free: int
    total: int


def memory() -> Room:
    """What is free and what there is, a container's limit included. macOS doesn't tell what is free: all is."""
    free = total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, IndexError):
        free = 1024 * int(re.findall(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())[0])
    with suppress(OSError, ValueError, IndexError):  # no such file, or "max"
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        # what files have left there is given up when it is asked for
        idle = int(re.findall(r"^inactive_file (\d+)", (CGROUP / "memory.stat").read_text(), re.M)[0])
        free, total = min(free, limit - used + idle), min(total, limit)
    return Room(free, total)


@dataclass(frozen=True)
class Gpu:
    name: str
    room: Room


@cache
def gpus() -> tuple[Gpu, ...]:
    """Those that this process may use, as NVIDIA's driver lists them; empty where it lists none, or isn't there."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    asked = [program, "--query-gpu=index,uuid,name,memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(asked, capture_output=True, check=True, timeout=10).stdout.decode(errors="replace")
    except (OSError, subprocess.SubprocessError):
        return ()
    found = {}
    for line in told.splitlines():
        with suppress(ValueError):  # one that tells no memory hides no other
            index, uuid, name, free, total = (part.strip() for part in line.split(","))
            found[index] = uuid, Gpu(name, Room(int(free) << 20, int(total) << 20))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(gpu for _, gpu in found.values())
    chosen = [name.strip() for name in visible.split(",")]
    return tuple(
        gpu
        for name in chosen
        for index, (uuid, gpu) in found.items()
        if name and (index == name or uuid.startswith(name))
    )


def disk(folder: Path) -> Room:
    """Of the disk where the folder is or will be."""
    there = next((one for one in (folder, *folder.absolute().parents) if one.exists()), Path("/"))
    found = shutil.disk_usage(there)
    return Room(found.free, found.total)


def shown(size: float) -> str:
    """Bytes for a reader: "0.4 GiB"."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 20 else f"{size / 2**20:.0f} MiB"
