"""An objective and an advantage of your own, compared with DAPO: about half a minute on one core.

    python examples/own_objective.py
    reasonloop run RECIPE.toml rl.objective=own_objective:soft_clip rl.advantage=own_objective:above_the_median

(the second from this folder, or with the recipe in it).
"""

from __future__ import annotations

import numpy as np
import torch

import reasonloop


def soft_clip(logprobs: torch.Tensor, log_ratios: torch.Tensor, targets) -> torch.Tensor:
    """The loss of each token, float32 [M], to be minimised. M tokens of many responses stand in one row, without padding.

    `log_ratios` [M] are to the policy that sampled (0 in a step's first update); `targets.advantage` [M]. What becomes of
    the tokens (their mean over the update, or over each response first) is the objective's aggregation and not said here.
    """
    return -torch.tanh(torch.exp(log_ratios) - 1) * targets.advantage  # the ratio saturates, and isn't cut off


def above_the_median(rewards: np.ndarray) -> np.ndarray:
    """One advantage for each response of a group, float64 [G] -> float64 [G]. Where most responses are wrong the median is
    0: the right ones are reinforced, and nothing is pushed down."""
    return rewards - np.median(rewards)


def train(steps: int, tested: int, **options) -> reasonloop.Evaluation:
    """Some RL steps from the bundled model. Each arm meets the same problems and the same draws."""
    task = reasonloop.load_task("countdown", numbers=3, max_number=12, train=512, test=tested)
    policy = reasonloop.Policy.load("countdown")
    learner = reasonloop.Learner(policy, learning_rate=3e-4)
    for step in range(steps):
        groups = reasonloop.sample(policy, task, task.batch(step, 16), max_tokens=34, step=step)
        # two updates a step: in the second one the ratios are no longer 1, and clipping has something to do
        measured = learner.rl_step(groups, updates_per_step=2, **options)
        if step % 4 == 0:
            print(f"  step {step}: reward {measured['reward']:.3f}, k1 {measured['k1']:+.5f}")
    return reasonloop.evaluate(policy, task, samples=16, max_tokens=34)


def main(steps: int = 12, tested: int = 32) -> None:
    print("dapo")
    print(" ", dapo := train(steps, tested, objective="dapo"))
    print("soft_clip, above_the_median")
    print(" ", own := train(steps, tested, objective=soft_clip, advantage=above_the_median))
    print("the difference:", own.compared_with(dapo)["avg@16"])


if __name__ == "__main__":
    main()
