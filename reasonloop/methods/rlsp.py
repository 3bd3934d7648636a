"""RLSP (Ye et al., arXiv 2502.06773).

Supervised fine-tuning on demonstrations of the reasoning process (where there are any: `sft.before`), then RL with an
outcome verifier and an exploration reward that doesn't look at correctness. PPO in the paper; any objective here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reasonloop.methods.arms import starting_policy, trained, vanilla
from reasonloop.methods.averages import Ended, finish
from reasonloop.methods.method import Method
from reasonloop.methods.rl import adapter, described
from reasonloop.records import Place
from reasonloop.runs.stages import Arm, Budget, Stages


def rlsp(run: Stages) -> None:
    recipe, budget = run.recipe, run.recipe.rl.rollouts
    start = starting_policy(run, sft_first=True)
    place, arm = Place(), trained(Arm("main", "RLSP"), recipe, sft_first=True).using("")
    explored = run.explore(start, place, arm, Budget(budget))
    product = Ended(explored.made_here, "trained", place, arm.named("RLSP", product=True), explored.rollouts)
    delivered = finish(run, start, product)
    if recipe.rlsp.vanilla:
        beside, baseline = Place("vanilla"), vanilla(recipe, sft_first=True, outcome_only=True)
        plain = run.explore(start, beside, baseline, Budget(budget, outcome_only=True))
        finish(run, start, Ended(plain.made_here, "vanilla", beside, baseline, plain.rollouts))
    run.deliver(delivered)


def sentence(options: Mapping[str, Any]) -> str:
    form, first = options["exploration.form"], options.get("sft.before", True)
    where = f"the task {options['task.name']} from the model {options['model.path']}"
    paid = "" if form == "none" else f", with a reward for exploration ({form}) beside the outcome"
    beside = "; vanilla RL beside it, on the outcome alone" if options["rlsp.vanilla"] else ""
    tuned = f"supervised fine-tuning{adapter(options, 'sft')}, then " if first else ""
    return f"RLSP on {where}: {tuned}{described(options)}{paid}{beside}"


METHOD = Method("RLSP", rlsp, keys=("rlsp.vanilla",), sentence=sentence)
