"""What the processor says of itself, on Linux."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def fields() -> dict[str, tuple[str, ...]]:
    """/proc/cpuinfo: the different values that cores give of each field, in their order; empty where it can't be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    found: dict[str, dict[str, None]] = {}
    for line in lines:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), {})[value.strip()] = None
    return {key: tuple(values) for key, values in found.items()}


def field(key: str) -> str:
    """The first core's; empty where it has none."""
    return fields().get(key, ("",))[0]
