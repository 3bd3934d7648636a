"""Leaving out what the starting policy solves already (RLSP, arXiv 2502.06773)."""

from __future__ import annotations

from reasonloop.errors import RunError
from reasonloop.policy.policy import Weights
from reasonloop.records import Group, Place, Rollout
from reasonloop.rewards.outcome import outcome_reward
from reasonloop.runs.session import Session
from reasonloop.runs.stages import Source
from reasonloop.store.experts import GREEDY


def greedy_rollouts(run: Session, start: Source, iteration: int) -> list[Rollout]:
    """One greedy response of the policy `start` to each training problem, from the store once it is there."""
    stored = run.store.read(GREEDY, iteration)
    if stored:
        return stored
    policy = run.policy(start)
    run.engine.load(Weights(policy=policy))
    greedy = run.recipe.sampling.untruncated().model_copy(update={"top_k": 1})
    place = Place(GREEDY, GREEDY, iteration)
    groups = run.sampler(greedy).sample(run.prompts("train"), 1, place)
    run.engine.rest()
    rollouts = [outcome_reward(rollout, greedy.max_tokens) for group in groups for rollout in group.rollouts]
    run.store.write(rollouts, place)
    return rollouts


def unsolved(run: Session, prompts: list[Group], greedy: list[Rollout], iteration: int) -> list[Group]:
    """The training problems without those whose `greedy` response is right.

    Where an iteration of RLoop has solved so many that a step can't be filled, some of the solved ones stay in. Raises
    RunError where that is so from the start: the problems are too easy for the policy.
    """
    needed = run.recipe.rl.problems_per_step
    solved = {rollout.problem_id for rollout in greedy if rollout.right}
    left = [group for group in prompts if group.problem.id not in solved]
    run.progress.say(f"{len(solved)} of {len(prompts)} training problems are solved already: left out")
    if len(left) < needed and iteration == 0:
        raise RunError(
            f"rl.skip_solved leaves {len(left)} training problems, rl.problems_per_step needs {needed}: give the task "
            "more or harder problems, or set a smaller step, in a new run"
        )
    missing = max(0, needed - len(left))
    return left + [group for group in prompts if group.problem.id in solved][:missing]
