"""What of a recipe is Python code of somebody's own: it is run, and may do all that the user may."""

from __future__ import annotations

import re

from reasonloop.config.recipe import Recipe, flat

NAMED = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):[A-Za-z_][\w.]*")
"""`module:name`; the group is the module"""


def own_code(recipe: Recipe) -> dict[str, str]:
    """By dotted key, each `module:name` that the recipe names."""
    every = flat(recipe.model_dump(mode="json", include={"method", "engine", "rl", "rewards"}))
    every |= {"task.name": recipe.task.name, "track.to": recipe.track.to}
    if recipe.exploration.judge.kind == "rule":
        every["exploration.judge.model"] = recipe.exploration.judge.model
    found = {}
    for key, value in every.items():
        named = [one for one in (value if isinstance(value, list | tuple) else [value]) if isinstance(one, str)]
        if named := [one for one in named if NAMED.fullmatch(one)]:
            found[key] = ", ".join(named)
    varied = [one for own in recipe.scale.vary for one in own]
    if varied := [one for one in varied if NAMED.fullmatch(one.partition("=")[2].strip().strip("'\""))]:
        found["scale.vary"] = ", ".join(varied)
    return found
