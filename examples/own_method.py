"""A method of your own: expert iteration without RL (rejection sampling), beside what RLoop does. Half a minute on one core.

    python examples/own_method.py
    reasonloop run RECIPE.toml method=own_method:METHOD --dry-run

A method is a function of `run`, read from top to bottom. That it can be stopped and continued, planned by `--dry-run`,
reported and compared comes by itself: every stage that was finished before returns at once what it made.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import reasonloop
from reasonloop.methods import Method
from reasonloop.methods.arms import starting_policy, trained
from reasonloop.records import Place
from reasonloop.runs.stages import Arm, Budget, Stages


def rejection_sampling(run: Stages) -> None:
    """Sample the policy as it is, keep what is right on hard problems, fine-tune the base on it, and again from there."""
    recipe, spent = run.recipe, 0
    # what its policies depend on: equal options are the same arm in any run, which is how `compare` pairs seeds
    arm = trained(Arm("main", "rejection sampling"), recipe).using("", "rloop", "rft")
    base = theta = starting_policy(run)  # evaluated, too
    for i in range(recipe.rloop.iterations):
        explore, tune = Place(iteration=i), Place(stage="rft", iteration=i)
        last = i + 1 == recipe.rloop.iterations
        # learn=False: the rollouts are stored, and the weights stay as they are
        sampled = run.explore(theta, explore, arm, Budget(recipe.rl.rollouts, learn=False))
        spent += sampled.rollouts
        # asked for when they are needed: a finished fine-tuning needs none
        experts = partial(run.experts, explore, theta, arm)
        theta = run.finetune(base, tune, arm, experts, recipe.rft, recipe.rft.epochs_of(i))
        of = arm.named(f"rejection sampling {i + 1}", product=last)
        run.evaluate(theta, f"iteration-{i}", tune, of, rollouts=spent)
    run.deliver(theta)


METHOD = Method("rejection sampling", rejection_sampling, stages=("explore", "rft"))


def main(steps: int = 6, tested: int = 32) -> None:
    recipe = {
        "method": "own_method:METHOD",
        "task": {"name": "countdown", "numbers": [3], "max_number": 12, "train": 256, "test": tested},
        "sampling": {"max_tokens": 34},
        "rl": {"steps": steps, "problems_per_step": 32, "group_size": 8, "refill_rounds": 0},
        "rloop": {"iterations": 2, "hard_threshold": 0.9, "cap": 16},
        "rft": {"learning_rate": 1e-3},
        "eval": {"samples": 16},
    }
    with tempfile.TemporaryDirectory() as folder:
        done = reasonloop.run(recipe, out=Path(folder) / "run")
        print(done)
        print("the last against the base:", done.evals[-1].compared_with(done.evals[0])["avg@16"])


if __name__ == "__main__":
    main()
