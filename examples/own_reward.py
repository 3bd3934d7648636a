"""A reward of your own: right answers are worth more the shorter they are. Half a minute on one core.

python examples/own_reward.py
reasonloop run RECIPE.toml rl.reward=own_reward:brief
"""

from __future__ import annotations

import reasonloop


def brief(problem: reasonloop.Problem, rollout: reasonloop.Rollout) -> float:
    """What a judged response is worth, any finite number: 0 where it is wrong, else between 1 and 0.5.

    A wrong response must get nothing for being short: the quickest way to please would be to say nothing. Group advantages
    look at differences within a problem's group alone, so the scale matters only against other parts of the reward.
    """
    most = 60  # tokens
    return float(rollout.right) * (1 - 0.5 * min(rollout.length, most) / most)


def lengths(evaluation: reasonloop.Evaluation) -> str:
    """Mean tokens of the right responses, and of all."""
    rollouts = [rollout for group in evaluation.groups for rollout in group.rollouts]
    right = [rollout.length for rollout in rollouts if rollout.right]
    every = sum(rollout.length for rollout in rollouts) / len(rollouts)
    return f"{sum(right) / max(1, len(right)):.1f} tokens a right response, {every:.1f} a response"


def main(steps: int = 12, tested: int = 32) -> None:
    task = reasonloop.load_task("countdown", numbers=3, max_number=12, train=512, test=tested)
    policy = reasonloop.Policy.load("countdown")
    before = reasonloop.evaluate(policy, task, samples=16, max_tokens=60)
    print(f"before  {before}\n        {lengths(before)}")
    learner = reasonloop.Learner(policy, learning_rate=3e-4)
    for step in range(steps):
        batch = task.batch(step, 16)
        groups = reasonloop.sample(policy, task, batch, reward=brief, max_tokens=60)
        measured = learner.rl_step(groups)
        if step % 4 == 0:
            print(f"step {step}: reward {measured['reward']:.3f}, right {measured['right']:.3f}")
    after = reasonloop.evaluate(policy, task, samples=16, max_tokens=60)
    print(f"after   {after}\n        {lengths(after)}")


if __name__ == "__main__":
    main()
