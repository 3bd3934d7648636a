"""The machine's C compiler, which builds our kernels (`kernels`) where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache


def path() -> str | None:
    return shutil.which("gcc") or shutil.which("cc")


@cache
def version() -> str:
    """Its name and version in a line, empty where there is none."""
    program = path()
    if program is None:
        return ""
    try:
        told = subprocess.run(
            [program, "--version"], capture_output=True, check=True, timeout=10, env=os.environ | {"LC_ALL": "C"}
        ).stdout.decode(errors="replace")
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.partition("\n")[0]
