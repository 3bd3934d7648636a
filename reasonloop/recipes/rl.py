"""Vanilla RL with verifiable rewards: one long exploration. The baseline that RLoop is measured against."""

from __future__ import annotations

from reasonloop.recipes.sft import starting_policy
from reasonloop.run.folder import Run
from reasonloop.stages import best_policy, deliver, evaluate, explore, rollouts_spent


def rl(run: Run) -> None:
    start = starting_policy(run)
    budget = run.recipe.rl.rollouts
    trained = explore(run, start, rollouts=budget, keep_best=run.recipe.rl.keep_best)
    spent = rollouts_spent(run, "main", 0)
    evaluate(run, trained, "trained", stage="explore", rollouts=spent)
    best = best_policy(run, "main")
    if best is not None:
        evaluate(run, best, "early-stopped", stage="explore", branch="early", rollouts=spent)
    deliver(run, best or trained)
