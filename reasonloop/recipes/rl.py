"""Vanilla RL with verifiable rewards: one long exploration. The baseline that RLoop is measured against."""

from __future__ import annotations

from reasonloop.recipes.sft import starting_policy
from reasonloop.runs import Run
from reasonloop.stages import deliver, evaluate, explore, rollouts_spent


def rl(run: Run) -> None:
    start = starting_policy(run)
    budget = run.recipe.rl.rollouts
    trained = explore(run, start, rollouts=budget)
    evaluate(run, trained, "trained", stage="explore", rollouts=rollouts_spent(run, "main", 0))
    deliver(run, trained)
