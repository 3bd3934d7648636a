"""Which of the wheels are of packages that this Python doesn't have: python benchmarks/gpu/missing.py WHEEL ..."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def missing(wheel: str) -> bool:
    try:
        version(Path(wheel).name.split("-")[0])
    except PackageNotFoundError:
        return True
    return False


if __name__ == "__main__":
    print(" ".join(filter(missing, sys.argv[1:])))
