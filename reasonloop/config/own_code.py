"""What of a recipe is Python code of somebody's own: it is run, and may do all that the user may."""

from __future__ import annotations

import re

from reasonloop.config.recipe import Recipe, flat

_NAMED = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):[A-Za-z_][\w.]*")


def module_of(value: object) -> str:
    """The module of a `module:name`; empty for anything else."""
    match = _NAMED.fullmatch(value) if isinstance(value, str) else None
    return match[1] if match else ""


def varied(recipe: Recipe) -> dict[str, str]:
    """The overrides of `scale.vary` whose value is a `module:name`, each with its module."""
    overrides = [override for own in recipe.scale.vary for override in own]
    modules = {override: module_of(override.partition("=")[2].strip().strip("'\"")) for override in overrides}
    return {override: module for override, module in modules.items() if module}


def own_code(recipe: Recipe) -> dict[str, str]:
    """By dotted key, each `module:name` that the recipe names."""
    every = flat(recipe.model_dump(mode="json", include={"method", "engine", "rl", "rewards"}))
    every |= {"task.name": recipe.task.name, "track.to": recipe.track.to}
    if recipe.exploration.judge.kind == "rule":
        every["exploration.judge.model"] = recipe.exploration.judge.model
    found = {}
    for key, value in every.items():
        if named := [one for one in (value if isinstance(value, list | tuple) else [value]) if module_of(one)]:
            found[key] = ", ".join(named)
    if overrides := varied(recipe):
        found["scale.vary"] = ", ".join(overrides)
    return found
