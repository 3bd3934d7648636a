"""The methods, each on one screen."""

from __future__ import annotations

from collections.abc import Callable

from reasonloop.run.folder import Run


def method(name: str) -> Callable[[Run], None]:
    """The method that a recipe names."""
    from reasonloop.recipes.rl import rl
    from reasonloop.recipes.rloop import rloop
    from reasonloop.recipes.rlsp import rlsp
    from reasonloop.recipes.sft import sft

    return {"sft": sft, "rl": rl, "rloop": rloop, "rlsp": rlsp}[name]
