"""Leaving out what the starting policy solves already (METHODS section 2)."""

from __future__ import annotations

import json

from reasonloop.errors import RunError
from reasonloop.records import Problem
from reasonloop.rollout.engine import Address, Prompt
from reasonloop.rollout.judged import sample_judged
from reasonloop.runs import Run, write_atomically
from reasonloop.stages.common import Source, load_policy


def unsolved(run: Run, start: Source) -> list[Problem]:
    """The training problems that one greedy response of the policy `start` doesn't solve.

    RUN/unsolved.json keeps their ids for each starting policy: a run that goes on asks the policy once.
    """
    path, problems = run.folder / "unsolved.json", run.problems["train"]
    known: dict[str, list[str]] = json.loads(path.read_text()) if path.is_file() else {}
    name = str(start).removeprefix(f"{run.folder}/")
    if name not in known:
        policy = load_policy(run, start)
        run.engine.load(policy)
        prompts = [Prompt(problem.id, policy.encode_prompt(problem)) for problem in problems]
        greedy = run.recipe.sampling.model_copy(update={"top_k": 1, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0})
        address = Address(run.recipe.seed, "solved")
        rollouts = sample_judged(run.engine, run.verifier, problems, prompts, 1, greedy, address)
        known[name] = [rollout.problem_id for rollout in rollouts if not rollout.right]
        write_atomically(path, json.dumps(known) + "\n")
    left = set(known[name])
    run.progress.say(f"{len(problems) - len(left)} of {len(problems)} training problems are solved already: left out")
    if len(left) < run.recipe.rl.problems_per_step:
        raise RunError(
            f"rl.skip_solved leaves {len(left)} training problems, rl.problems_per_step needs "
            f"{run.recipe.rl.problems_per_step}: give the task more or harder problems, or set a smaller step, in a new run"
        )
    return [problem for problem in problems if problem.id in left]
