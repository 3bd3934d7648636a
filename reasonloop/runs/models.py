"""The commits of a run's models of the hub: asked for once, kept in its config.toml, and the same ones when it goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from reasonloop.config import Recipe
from reasonloop.errors import InputError
from reasonloop.policy.hub import HubName, commit_of, hold, hub_name
from reasonloop.policy.loading import beneath, weights_of


def sources(recipe: Recipe) -> dict[str, str]:
    """What the recipe loads models from, by the option that names it."""
    found = {"model": recipe.model.source}
    judge = recipe.exploration.judge
    if recipe.exploration.form == "judge" and judge.model and not judge.base_url:
        found["judge"] = judge.model
    return found


def hub_models(recipe: Recipe) -> dict[str, HubName]:
    """The recipe's models of the hub, by what it calls them; those that it gives the commit of aren't among them. Raises
    InputError for a revision of a folder on this machine."""
    return _moving(sources(recipe).values())


def _beneath(recipe: Recipe) -> dict[str, HubName]:
    """The same of what stands beneath an adapter, which no option names."""
    with suppress(InputError):  # loading says it
        return _moving(beneath(recipe.model.source))
    return {}


def _moving(sources: Iterable[str]) -> dict[str, HubName]:
    names = {source: hub_name(source) for source in sources}
    return {source: name for source, name in names.items() if name is not None and not name.is_commit}


def commits_of(recipe: Recipe) -> dict[str, str]:
    """The commit that each of `hub_models` is now, and each model beneath an adapter. Raises InputError where one can't be
    had."""
    return {source: commit_of(name) for source, name in (hub_models(recipe) | _beneath(recipe)).items()}


def commits_told(model: str) -> dict[str, dict[str, str]]:
    """For what a result ran on: the commit of a model of the hub; nothing for others."""
    name = hub_name(model)
    return {"commits": {model: commit_of(name)}} if name else {}


def pinned(recipe: Recipe, commits: Mapping[str, str]) -> Recipe:
    """The recipe with its models of the hub at these commits; what stands beneath an adapter is held at its own in this
    process. Raises InputError for one that has none there: what was a folder on this machine isn't to be another model
    now."""
    for source in hub_models(recipe):
        if source not in commits:
            raise InputError(
                f"model {source}: the run began with a folder of this name, which isn't here any more; expected it back"
            )
    loaded = sources(recipe)
    if commit := commits.get(loaded["model"]):
        path = recipe.model.path.partition("@")[0]
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"path": path, "revision": commit})})
    if commit := commits.get(loaded.get("judge", "")):
        options = recipe.exploration
        judge = options.judge.model_copy(update={"model": f"{options.judge.model.partition('@')[0]}@{commit}"})
        recipe = recipe.model_copy(update={"exploration": options.model_copy(update={"judge": judge})})
    for source, name in _beneath(recipe).items() if commits else ():
        if source in commits:
            hold(name, commits[source])
    return recipe


def pins(recipe: Recipe, commits: Mapping[str, str]) -> list[str]:
    """What `pinned` changes of it, as `section.key=value`."""
    fixed = pinned(recipe, commits)
    both = {
        "model.path": (recipe.model.path, fixed.model.path),
        "model.revision": (recipe.model.revision, fixed.model.revision),
        "exploration.judge.model": (recipe.exploration.judge.model, fixed.exploration.judge.model),
    }
    return [f'{key}="{after}"' for key, (before, after) in both.items() if before != after]


def told(recipe: Recipe) -> list[str]:
    """What a reader should know of the recipe's models of the hub, a line each."""
    lines = []
    for source, name in hub_models(recipe).items():
        stored = weights_of(source)
        size = f", {stored.bytes / 1e9:.2f} GB of weights" if stored else ""
        lines.append(f"model {source}: the hub's commit {commit_of(name)}{size}")
    return lines
