"""The arms that several methods have, and where their training starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reasonloop.config import Recipe
from reasonloop.records import Place
from reasonloop.runs.stages import BASE, Arm, Source, Stages

SFT = Arm("sft", "SFT", (*BASE.uses, "sampling", "optimizer", "sft"))


def started(arm: Arm, recipe: Recipe, sft_first: bool = False) -> Arm:
    """The arm, which begins where `starting_policy` says."""
    return arm.using(*(SFT.uses if comes_first(recipe, sft_first) else BASE.uses), "sampling", "optimizer")


def trained(arm: Arm, recipe: Recipe, sft_first: bool = False, *, outcome_only: bool = False) -> Arm:
    """The arm, which is trained by RL."""
    also = ["ppo"] if recipe.rl.objective == "ppo" else []
    also += ["exploration"] if recipe.exploration.form != "none" and not outcome_only else []
    return started(arm, recipe, sft_first).using("rl", "rewards", *also)


def vanilla(recipe: Recipe, sft_first: bool = False, *, outcome_only: bool = False, **changed: Any) -> Arm:
    """Vanilla RL, the baseline: the same arm whatever method it stands beside. `changed`: options of `[rl]`."""
    options = {f"rl.{key}": value for key, value in changed.items()}
    return trained(Arm("vanilla", "vanilla RL", changed=options), recipe, sft_first, outcome_only=outcome_only)


def early(arm: Arm, recipe: Recipe) -> Arm:
    """Vanilla RL's policy that did best on the probe problems."""
    return steered(replace(arm, name="early", label="vanilla, best"), recipe)


def steered(arm: Arm, recipe: Recipe) -> Arm:
    """The arm, where the probe problems have a say."""
    return replace(arm, changed={**arm.changed, "eval.probe_samples": recipe.eval.probe_samples})


def comes_first(recipe: Recipe, by_default: bool = False) -> bool:
    """Whether RL starts from an SFT stage."""
    return by_default if recipe.sft.before is None else recipe.sft.before


def starting_policy(run: Stages, sft_first: bool = False) -> Source:
    """Where RL starts: the recipe's model, or what SFT makes of it (`sft.before`; unset: `sft_first`); both evaluated."""
    base = run.recipe.model.source
    run.evaluate(base, "base", Place(stage="base"), BASE)
    if not comes_first(run.recipe, sft_first):
        return base
    options, place = run.recipe.sft, Place(stage="sft")
    tuned = run.finetune(base, place, SFT, run.demonstrations, options, options.epochs)
    run.evaluate(tuned, "sft", place, SFT)
    return tuned
