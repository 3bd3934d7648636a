"""Processes of ours that run Python: each finds what is installed before anything that lies in the current folder.

`python -c` and `python -m` put the current folder first: a json.py in a cloned repository would be run. Here it comes last,
so that a recipe's own modules are found there, and stand in for nothing.
"""

from __future__ import annotations

import json
import os
import site
import sys
import sysconfig
from pathlib import Path

HOME = str(Path(__file__).parents[2])
"""Where the package lies: a process that is started here has the same one"""
added: set[str] = set()
"""Folders that `search_also` has put at the end of `sys.path`"""
BOOT = """
import os, sys
if parent := int(sys.argv.pop(1)):
    if sys.platform == "linux":
        import ctypes
        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
    if os.getppid() != parent:
        sys.exit(1)
import json
from importlib import import_module
sys.path[:] = json.loads(sys.argv.pop(1))
sys.exit(import_module(sys.argv.pop(1)).main())
"""


def started(module: str, *arguments: str, with_us: bool = False) -> list[str]:
    """The words that start `main()` of a module of ours in another process; what it returns is the exit code.

    `with_us`: on Linux the kernel kills it when the thread that starts it ends, however that one does, also while it still
    imports.
    """
    parent = os.getpid() if with_us else 0
    return [sys.executable, "-P", "-c", BOOT, str(parent), json.dumps(search_path()), module, *arguments]


def search_path() -> list[str]:
    """`sys.path` with the current folder behind all that is installed. If the package itself lies there, uninstalled, what
    is installed in its version alone comes behind it."""
    here = os.path.realpath(os.getcwd())
    path = [str(one) for one in sys.path]
    current = [one for one in path if os.path.realpath(one) == here and one not in added]
    others = [one for one in path if one not in current]
    end = next((place for place, one in enumerate(others) if one in added), len(others))
    found = [*others[:end], *current, *others[end:]]
    if os.path.realpath(HOME) != here:
        return found
    standard = [one for one in found if _of_python(one)]
    return [*standard, HOME, *(one for one in found if one not in standard)]


def search_also(folder: str) -> None:
    """Has Python look in a folder, too, behind all others."""
    if folder not in sys.path:
        sys.path.append(folder)
        added.add(folder)


def behind_installed(folder: str) -> list[str]:
    """`sys.path` with a folder behind what is installed, and before all else."""
    known = {*(sysconfig.get_path(name) for name in ("purelib", "platlib")), site.getusersitepackages()}
    installed = [one for one in sys.path if _of_python(one) or one in known]
    return [*installed, folder, *(one for one in sys.path if one not in installed)]


def _of_python(entry: str) -> bool:
    """Whether it is a place of the standard library."""
    libraries = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    above, name = os.path.split(entry)
    return entry in libraries or (above in libraries and name == "lib-dynload") or name.endswith(".zip")
