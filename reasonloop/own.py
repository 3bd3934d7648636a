"""Code of the user's own that a recipe names as `module:name`: a task, a method, an objective, an advantage, a reward."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reasonloop.errors import InputError, first_line
from reasonloop.machine.python import search_also

_beside: list[str] = []
"""Folders beside the current directory in which modules of the user's own may lie"""


def look_in(folder: Path) -> None:
    """From now on `load_own` looks in a folder, a recipe's, too."""
    _beside.append(str(folder.resolve()))


def search_own() -> None:
    """Has Python look where modules of the user's own lie: behind all that is installed, so that none stands in for it."""
    for folder in (os.getcwd(), *_beside):
        search_also(folder)


def load_own(target: str, where: str, expected: str) -> Any:
    """What `module:name` names, in an installed module, one in the current directory or one beside the recipe. It is run.

    Raises InputError with `where` (the key and its value) and what was expected.
    """
    search_own()
    return load_named(target, where, expected)


def load_named(target: str, where: str, expected: str) -> Any:
    """The same, from where Python looks anyway."""
    module, colon, name = target.partition(":")
    if not (colon and module and name):
        raise InputError(f"{where}: expected {expected}, named as module:name")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError:
        hidden = _hidden(module)
        raise InputError(f"{where}: module {module!r} has no {name!r}{hidden}; expected {expected}") from None
    except Exception as error:  # whatever a module of the user's own raises while it is imported
        raise InputError(
            f"{where}: module {module!r} cannot be imported ({type(error).__name__}: {first_line(error)}); "
            "expected a module in the current directory, beside the recipe, or an installed one"
        ) from None
    return found


def _hidden(module: str) -> str:
    """A word about a file of the user's own that an installed module of the same name stands before."""
    found = getattr(sys.modules.get(module), "__file__", None)
    own = [Path(folder, f"{module}.py") for folder in (os.getcwd(), *_beside)]
    other = next((path for path in own if path.is_file() and (not found or not path.samefile(found))), None)
    return f" (it is {found or 'built into Python'}: {other} needs another name)" if other else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """ "did you mean ...?", or what is known."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
