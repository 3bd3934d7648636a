"""Leaving out what the starting policy solves already (RLSP, arXiv 2502.06773)."""

from __future__ import annotations

from reasonloop.engine.judged import sample_judged
from reasonloop.engine.protocol import Address, Prompt
from reasonloop.errors import RunError
from reasonloop.records import Problem, Rollout
from reasonloop.rewards.outcome import outcome_reward
from reasonloop.run.folder import Run
from reasonloop.stages.common import Source, load_policy

GREEDY = "greedy"
"""The store's branch of the greedy responses: one for each training problem, in step 0 of their iteration."""


def greedy_rollouts(run: Run, start: Source, iteration: int) -> list[Rollout]:
    """One greedy response of the policy `start` to each training problem, from the store once it is there."""
    stored = run.store.read(GREEDY, iteration)
    if stored:
        return stored
    policy, problems = load_policy(run, start), run.problems["train"]
    run.engine.load(policy)
    prompts = [Prompt(problem.id, policy.encode_prompt(problem)) for problem in problems]
    greedy = run.recipe.sampling.untruncated().model_copy(update={"top_k": 1})
    address = Address(run.recipe.seed, "solved", GREEDY, iteration)
    judged = sample_judged(run.engine, run.verifier, problems, prompts, 1, greedy, address)
    rollouts = [outcome_reward(r, greedy.max_tokens) for r in judged]
    run.store.write(rollouts, branch=GREEDY, iteration=iteration, step=0)
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
