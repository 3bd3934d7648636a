"""RLSP (Ye et al., arXiv 2502.06773).

Supervised fine-tuning on demonstrations of the reasoning process (where there are any: `sft.before`), then RL with an
outcome verifier and an exploration reward that doesn't look at correctness. PPO in the paper; any objective here.
"""

from __future__ import annotations

from reasonloop.recipes.sft import starting_policy
from reasonloop.run.folder import Run
from reasonloop.stages import deliver, evaluate, explore, rollouts_spent


def rlsp(run: Run) -> None:
    start, budget = starting_policy(run), run.recipe.rl.rollouts
    trained = explore(run, start, rollouts=budget)
    evaluate(run, trained, "trained", stage="explore", rollouts=rollouts_spent(run, "main", 0))
    if run.recipe.rlsp.vanilla:
        plain = explore(run, start, branch="vanilla", rollouts=budget, outcome_only=True)
        spent = rollouts_spent(run, "vanilla", 0)
        evaluate(run, plain, "vanilla", stage="explore", branch="vanilla", rollouts=spent)
    deliver(run, trained)
