"""Code of the user's own that a recipe names as `module:name`: a task, a method, an objective, an advantage, a reward."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Iterable
from typing import Any

from reasonloop.errors import InputError, first_line


def load_own(target: str, where: str, expected: str) -> Any:
    """What `module:name` names, in an installed module or one in the current directory.

    Raises InputError with `where` (the key and its value) and what was expected.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
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
        raise InputError(f"{where}: module {module!r} has no {name!r}; expected {expected}") from None
    except Exception as error:  # whatever a module of the user's own raises while it is imported
        raise InputError(
            f"{where}: module {module!r} cannot be imported ({type(error).__name__}: {first_line(error)}); "
            "expected a module in the current directory, beside the recipe, or an installed one"
        ) from None
    return found


def nearest(name: str, known: Iterable[str]) -> str:
    """ "did you mean ...?", or what is known."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
