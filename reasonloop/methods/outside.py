"""What RLoop can't do where a command of the user's own explores or fine-tunes in our place."""

from __future__ import annotations

from collections.abc import Iterable

from reasonloop.config import Recipe, flat
from reasonloop.errors import InputError

ASKED_FOR = ("rl.steps", "rl.problems_per_step", "rl.group_size")
"""Of `[rl]` what an exploration is asked for, whoever explores"""
OF_EXPLORING = ("rl.", "ppo.", "lora.rl.")
OF_TUNING = ("rft.", "lora.rft.")


def check_outside(recipe: Recipe) -> None:
    """Raises InputError where the recipe asks a command for what our own stages alone do, or sets what nobody reads."""
    if recipe.explorer.command:
        _check_explorer(recipe)
    if recipe.finetuner.command:
        _unread(recipe, "finetuner.command", recipe.finetuner.handed_on, OF_TUNING, beside=("rft.epochs",))


def _check_explorer(recipe: Recipe) -> None:
    rloop = recipe.rloop
    refused = {
        "rloop.vanilla": (rloop.vanilla, "the baseline would be trained by another trainer than RLoop: run it apart"),
        "scale.branches": (recipe.scale.branches > 1, "one command explores"),
        "rloop.weighted": (rloop.weighted, "the policy's log-probs of what it sampled are not handed back"),
        'rloop.experts = "base_policy"': (rloop.experts == "base_policy", "it has no exploration"),
        "rl.probe_every": (recipe.rl.probe_every > 0, "nobody probes the policy on the way"),
        "[rewards]": (bool(recipe.rewards), "its rewards are its own"),
        "[exploration]": (recipe.exploration.form != "none", "its rewards are its own"),
    }
    for option, (asked, why) in refused.items():
        if asked:
            raise InputError(f"{option} beside explorer.command: {why}")
    if not recipe.explorer.rollouts:
        raise InputError("explorer.command without explorer.rollouts: expected whose layout its rollouts have, as verl")
    _unread(recipe, "explorer.command", recipe.explorer.handed_on, OF_EXPLORING, beside=ASKED_FOR)


def _unread(
    recipe: Recipe, who: str, handed_on: Iterable[str], sections: tuple[str, ...], beside: tuple[str, ...]
) -> None:
    """Raises InputError for an option that is set, and that the command neither gets nor anything else looks at."""
    if "recipe" in handed_on:
        return
    here, usual = (flat(one.model_dump(mode="json")) for one in (recipe, Recipe()))
    known = {*beside, *handed_on}
    for key, value in here.items():
        if key.startswith(sections) and key not in known and value != usual.get(key):
            raise InputError(
                f"{key} = {value!r}: {who} does this its own way; expected {{{key}}} in it, or the option left out"
            )
