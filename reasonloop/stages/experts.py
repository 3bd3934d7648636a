"""What a fine-tuning trains on: an exploration's experts, or demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from reasonloop.config import Recipe
from reasonloop.errors import InputError, RunError
from reasonloop.policy.codec import Codec
from reasonloop.records import Place, Problem, Rollout, sampled_sum
from reasonloop.runs.session import Session
from reasonloop.runs.stages import Arm, Examples, Source
from reasonloop.stages.common import spent_before
from reasonloop.store.experts import chosen_experts, distinct, expert_rollouts, solved_experts
from reasonloop.store.segments import stored_segments
from reasonloop.store.weights import expert_weights
from reasonloop.tasks import Task


def experts(run: Session, place: Place, start: Source, arm: Arm) -> Examples:
    """See `Stages.experts`."""
    recipe, folder, iteration = run.recipe, run.folder.path, place.iteration
    options = recipe.rloop
    found = chosen_experts(recipe, folder, iteration)
    solved = solved_experts(recipe, folder, iteration)
    earlier = range(iteration) if options.accumulate else ()
    before = [rollout for i in earlier for rollout in expert_rollouts(recipe, folder, i)]
    every = distinct([*before, *found.rollouts, *solved])
    rollouts = [rollout for rollout in every if run.codec.knows(rollout.response_tokens)]
    if len(rollouts) < len(every):
        told = f"{len(every) - len(rollouts):,} of {len(every):,} left out: they have tokens without a text"
        run.progress.say(f"experts: {told}")
    counts = {
        name: getattr(found, name)
        for name in ("seen", "right", "problems", "hard_problems", "deduplicated", "selected")
    }
    if recipe.rl.skip_solved:
        counts["solved"] = len(solved)
    chosen = Place(place.branch, "select", iteration)
    if not any(line.items() >= chosen.keys.items() for line in run.folder.metrics()):
        run.folder.unlog(**chosen.keys)  # no line of it, but perhaps half of one
        spent = int((run.folder.checkpoint(place).state() or {}).get("rollouts", 0)) + spent_before(run, place)
        run.folder.log(**chosen.keys, **arm.keys, rollouts=spent, **counts, trained_on=len(rollouts))
    run.progress.say(
        f"experts: {found.seen} rollouts, {found.right} right; {found.hard_problems} of {found.problems} "
        f"problems hard; {found.deduplicated} distinct successes on them, {found.selected} after the cap"
        + (f"; {len(solved)} solved greedily" if solved else "")
        + (f"; {len(rollouts)} to train on" if len(rollouts) > found.selected else "")
    )
    return Examples(
        [(rollout.prompt_tokens, rollout.response_tokens) for rollout in rollouts],
        importance_weights(run, start, rollouts) if options.weighted else None,
        [rollout.sampled for rollout in rollouts],
        rollouts,
    )


WEIGHT_CLIP = 2.0


def importance_weights(run: Session, start: Source, rollouts: Sequence[Rollout]) -> list[float]:
    """min(pi_start/pi_behaviour, WEIGHT_CLIP), mean 1 within each problem; one scoring pass of the iteration's start."""
    without = sum(bool(np.isnan(rollout.logprobs).any()) for rollout in rollouts)
    if without:
        raise RunError(
            f"rloop.weighted: {without:,} of {len(rollouts):,} experts have no log-probs (another trainer sampled them and "
            "kept none); expected rloop.weighted=false, in a new run"
        )
    prompts, responses = [r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts]
    scored = run.policy(start).score(prompts, responses, run.recipe.sampling)
    return expert_weights(
        [sampled_sum(logprobs, r.sampled) for logprobs, r in zip(scored, rollouts, strict=True)],
        [rollout.logprob for rollout in rollouts],
        [rollout.problem_id for rollout in rollouts],
        WEIGHT_CLIP,
    ).tolist()


def demonstrations(run: Session) -> Examples:
    """See `Stages.demonstrations`."""
    return Examples(demonstration_pairs(run.recipe, run.task, run.codec, run.problems["train"]))


def demonstration_pairs(
    recipe: Recipe, task: Task, codec: Codec, problems: Sequence[Problem], limit: int | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The demonstrations (the first `limit` of them) as token pairs, in a fixed order: the task's own, or another run's
    experts on the training `problems`.

    Raises InputError if there are none, or if one is longer than the model's context.
    """
    from reasonloop.tasks import demonstrations as of_task

    options = recipe.sft
    if options.experts_of:
        found = iter(experts_of(recipe, problems))
    else:
        found = islice(
            of_task(task, options.demonstrations, recipe.seed, **options.options), options.demonstrations or None
        )
    pairs = [
        (codec.encode_prompt(problem), codec.encode_response(response)) for problem, response in islice(found, limit)
    ]
    if not pairs:
        raise InputError(
            f"sft: task {recipe.task.name!r} has no demonstrations; expected training problems with a worked "
            "response, a task that generates them (then set sft.demonstrations), or sft.before = false for RL alone"
        )
    longest = max(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))
    if len(longest[0]) + len(longest[1]) > codec.context_length:
        raise InputError(
            f"sft: a demonstration has {len(longest[0]) + len(longest[1])} tokens with its prompt, more than the "
            f"model's context of {codec.context_length}"
        )
    return pairs


def experts_of(recipe: Recipe, problems: Sequence[Problem]) -> list[tuple[Problem, str]]:
    """The experts of the run in `sft.experts_of`, from all of its iterations, as demonstrations.

    They are handed over as text, so that the other run's model may have another tokenizer. Raises InputError if there is
    no such run, if it has no experts, or if they answer problems that aren't among `problems`.
    """
    folder = Path(recipe.sft.experts_of)
    by_id = {problem.id: problem for problem in problems}
    found: dict[tuple[str, str], tuple[Problem, str]] = {}
    iteration = 0
    while stored_segments(folder / "trajectories", "main", iteration):
        for rollout in expert_rollouts(recipe, folder, iteration):
            if rollout.problem_id not in by_id:
                raise InputError(
                    f"sft.experts_of = {str(folder)!r}: its problem {rollout.problem_id} is no training problem of task "
                    f"{recipe.task.name!r}; expected a run on the same task"
                )
            found[rollout.problem_id, rollout.text] = by_id[rollout.problem_id], rollout.text
        iteration += 1
    if not found:
        got = f"no experts in its {iteration} iterations" if iteration else "no rollouts there"
        raise InputError(f"sft.experts_of = {str(folder)!r}: {got}; expected a finished run's folder")
    return list(found.values())
