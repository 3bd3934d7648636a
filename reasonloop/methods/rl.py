"""Vanilla RL with verifiable rewards: one long exploration. The baseline that RLoop is measured against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reasonloop.config import Recipe
from reasonloop.errors import InputError
from reasonloop.methods.arms import early, starting_policy, vanilla
from reasonloop.methods.averages import Ended, finish
from reasonloop.methods.method import Method
from reasonloop.records import Place
from reasonloop.runs.stages import Budget, Stages

OBJECTIVES = {
    "dapo": "DAPO",
    "grpo": "GRPO",
    "dr_grpo": "Dr. GRPO",
    "rloo": "RLOO",
    "gspo": "GSPO",
    "cispo": "CISPO",
    "ppo": "PPO",
}


def rl(run: Stages) -> None:
    start, place, arm, options = starting_policy(run), Place(), vanilla(run.recipe), run.recipe.rl
    stops = run.recipe.eval.stops
    for stop in range(1, stops + 1):
        until = round(stop * options.steps / stops) * options.rollouts_per_step
        budget = Budget(until, planned=options.rollouts, keep_best=options.keep_best, whole=stop < stops)
        trained = run.explore(start, place, arm, budget)
        spent = trained.rollouts
        if stop < stops:
            run.evaluate(trained.made_here, f"trained-{stop}", place, arm, rollouts=spent)
    product = finish(run, start, Ended(trained.made_here, "trained", place, arm.named(arm.label, product=True), spent))
    if trained.best is not None:
        run.evaluate(trained.best, "early-stopped", place, early(arm, run.recipe), rollouts=spent)
    run.deliver(trained.best or product)


def check(recipe: Recipe) -> None:
    if recipe.eval.stops > recipe.rl.steps:
        raise InputError(
            f"eval.stops = {recipe.eval.stops}: there are rl.steps = {recipe.rl.steps} to stop at; expected at most as many"
        )
    if recipe.rl.keep_best and recipe.average.deliver == "probe":
        raise InputError(
            "rl.keep_best, average.deliver = 'probe': each delivers another policy; expected one of them, or method = "
            "'rloop'"
        )


def described(options: Mapping[str, Any]) -> str:
    """An exploration, in a few words."""
    objective = OBJECTIVES.get(str(options["rl.objective"]), str(options["rl.objective"]))
    each = f"{options['rl.problems_per_step']} problems × {options['rl.group_size']} responses"
    return f"{options['rl.steps']} steps of {objective} on {each}{adapter(options, 'rl')}"


def adapter(options: Mapping[str, Any], stage: str) -> str:
    """What a sentence says of the adapter that a stage trains, if it does."""
    own, common = options.get(f"lora.{stage}.rank"), options.get("lora.rank", 0)
    rank = common if own is None else own
    return f" with LoRA of rank {rank}" if rank else ""


def sentence(options: Mapping[str, Any]) -> str:
    where = f"the task {options['task.name']} from the model {options['model.path']}"
    return f"Vanilla RL on {where}: {described(options)}"


METHOD = Method("vanilla RL", rl, check=check, sentence=sentence)
