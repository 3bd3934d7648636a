"""Leaving out what the starting policy solves already (METHODS section 2)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reasonloop.config import Recipe
from reasonloop.errors import RunError
from reasonloop.records import Problem, Rollout
from reasonloop.rewards.outcome import outcome_reward
from reasonloop.rollout.engine import Address, Prompt
from reasonloop.rollout.judged import sample_judged
from reasonloop.runs import Run
from reasonloop.stages.common import Source, load_policy
from reasonloop.store.experts import select_experts
from reasonloop.store.segments import list_segments

BRANCH = "greedy"
"""The store's branch of the greedy responses: one for each training problem, in step 0 of their iteration."""


def greedy_rollouts(run: Run, start: Source, iteration: int) -> list[Rollout]:
    """One greedy response of the policy `start` to each training problem, from the store once it is there."""
    stored = run.store.read(BRANCH, iteration)
    if stored:
        return stored
    policy, problems = load_policy(run, start), run.problems["train"]
    run.engine.load(policy)
    prompts = [Prompt(problem.id, policy.encode_prompt(problem)) for problem in problems]
    greedy = run.recipe.sampling.model_copy(update={"top_k": 1, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0})
    address = Address(run.recipe.seed, "solved", BRANCH, iteration)
    judged = sample_judged(run.engine, run.verifier, problems, prompts, 1, greedy, address)
    rollouts = [outcome_reward(replace(r, sample=0), greedy.max_tokens) for r in judged]
    run.store.write(rollouts, branch=BRANCH, iteration=iteration, step=0)
    return rollouts


def unsolved(run: Run, greedy: list[Rollout], iteration: int) -> list[Problem]:
    """The training problems without those whose `greedy` response is right.

    Where an iteration of RLoop has solved so many that a step can't be filled, some of the solved ones stay in. Raises
    RunError where that is so from the start: the problems are too easy for the policy.
    """
    problems, needed = run.problems["train"], run.recipe.rl.problems_per_step
    solved = {rollout.problem_id for rollout in greedy if rollout.right}
    left = [problem for problem in problems if problem.id not in solved]
    run.progress.say(f"{len(solved)} of {len(problems)} training problems are solved already: left out")
    if len(left) < needed and iteration == 0:
        raise RunError(
            f"rl.skip_solved leaves {len(left)} training problems, rl.problems_per_step needs {needed}: give the task "
            "more or harder problems, or set a smaller step, in a new run"
        )
    missing = max(0, needed - len(left))
    return left + [problem for problem in problems if problem.id in solved][:missing]


def solved_experts(recipe: Recipe, run_folder: Path, iteration: int) -> list[Rollout]:
    """The right greedy responses, so that RFT doesn't forget what is left out of the exploration.

    Their problems' success rate is 1: the hard filter lets them through where `rloop.hard_threshold` is 1.
    """
    store = run_folder / "trajectories"
    if not list_segments(store, BRANCH, iteration):
        return []
    threshold = recipe.rloop.hard_threshold
    return select_experts(
        store, iteration=iteration, branch=BRANCH, hard_threshold=threshold, seed=recipe.seed
    ).rollouts
