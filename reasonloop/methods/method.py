"""Methods by name. A new one is a file with a `METHOD`, here or of the user's own (`module:NAME`)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reasonloop.config import Recipe, flat
from reasonloop.config.sections import OBJECTIVES
from reasonloop.errors import InputError
from reasonloop.own import load_own, nearest
from reasonloop.runs.dry import DryStages
from reasonloop.runs.stages import Stages

METHODS = ("sft", "rl", "rloop", "rlsp")


@dataclass(frozen=True)
class Method:
    """What a recipe's `method` names."""

    title: str
    """What a reader calls it"""
    run: Callable[[Stages], None]
    """The method itself"""
    keys: tuple[str, ...] = ()
    """Switches of a recipe that are this method's alone, by dotted key"""
    check: Callable[[Recipe], None] = lambda recipe: None
    """Raises InputError where the recipe asks for what the method hasn't"""
    sentence: Callable[[Mapping[str, Any]], str] | None = None
    """What a recipe does, its options given by dotted key, for the report: a sentence without its full stop"""
    elsewhere: bool = False
    """Whether its explorations may be made elsewhere (`Recipe.elsewhere`), so that it gets none of their policies"""
    stages: tuple[str, ...] = ("explore",)
    """Stages without whose lines a report says that something isn't there yet"""


def method(name: str) -> Method:
    """The method that a recipe names. Raises InputError with the nearest name."""
    if ":" in name:
        found = load_own(name, f"method = {name!r}", "a reasonloop.methods.Method")
    elif name in METHODS:
        found = importlib.import_module(f"reasonloop.methods.{name}").METHOD
    else:
        if name in OBJECTIVES:
            raise InputError(f'method = {name!r}: an objective; expected method = "rl" with rl.objective = "{name}"')
        raise InputError(f"method = {name!r}: unknown; {nearest(name, METHODS)} (one of your own is named module:NAME)")
    if not isinstance(found, Method):
        raise InputError(f"method = {name!r}: a {type(found).__name__}; expected a reasonloop.methods.Method")
    return found


def checked_method(recipe: Recipe, where: str) -> Method:
    """The recipe's method, once it is known that it can do what the recipe asks for. `where` names the recipe's source in
    errors (InputError)."""
    try:
        chosen = method(recipe.method)
        options = flat(recipe.model_dump(mode="json"))
        for name in METHODS:
            for key in method(name).keys:
                if name != recipe.method and options[key]:
                    raise InputError(f"{key} needs method = {name!r}, got {recipe.method!r}")
        if recipe.elsewhere and not chosen.elsewhere:
            raise InputError(
                f"{recipe.elsewhere}: method = {recipe.method!r} goes on from the policy that it explores, and nothing but "
                'rollouts comes back; expected method = "rloop"'
            )
        chosen.check(recipe)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return chosen


def plan(recipe: Recipe, sizes: Mapping[str, int] | None = None) -> DryStages:
    """The recipe's method, run without doing anything: what it would do, and how much work that is. `sizes`: problems by
    split, where they are known."""
    dry = DryStages(recipe, sizes)
    method(recipe.method).run(dry)
    return dry
