"""Supervised fine-tuning: SFT on demonstrations, RFT on experts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from reasonloop.config import Recipe, Training
from reasonloop.errors import InputError
from reasonloop.learner.batch import supervised
from reasonloop.learner.learner import Learner, scheduled
from reasonloop.policy.policy import Policy
from reasonloop.records import Problem, Rollout
from reasonloop.run.folder import Run
from reasonloop.stages.common import TRAINED_EXAMPLE, Source, checkpoint, load_policy, shuffled, tell_skipped
from reasonloop.stages.solved import GREEDY
from reasonloop.store.experts import chosen_experts
from reasonloop.store.segments import list_segments
from reasonloop.tasks import Task


def finetune(
    run: Run,
    start: Source,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    options: Training,
    *,
    epochs: float,
    stage: str,
    iteration: int = 0,
    weights: Sequence[float] | None = None,
) -> Path:
    """Supervised training of `start` on (prompt, response) token pairs, int32 each, loss on response tokens only.

    Returns the folder of the trained policy, or `start` when there are no pairs.
    """
    own = checkpoint(run, f"main-{stage}-{iteration}")
    cursor = own.cursor()
    if cursor is not None and cursor.get("done"):
        return Path(start) if cursor.get("empty") else own.folder
    if not pairs:
        run.progress.say(f"{stage}: no examples; the policy stays as it was")
        own.skip({"done": True, "empty": True})
        return Path(start)
    weights = weights if weights is not None else [1.0] * len(pairs)
    learner = Learner(
        load_policy(run, own.folder if cursor else start),
        run.recipe.optimizer,
        run.recipe.sampling.untruncated(),
        run.recipe.model.gradient_checkpointing,
    )
    if cursor:
        learner.load(own.folder)
    first = cursor["step"] if cursor else 0
    run.unlog(stage=stage, branch="main", iteration=iteration, from_step=first)
    batch = min(options.batch_size, len(pairs))
    total = max(1, round(epochs * len(pairs) / batch))
    saved_at = time.monotonic()
    for step in range(first, total):
        began = time.monotonic()
        chosen = [shuffled(step * batch + i, len(pairs), run.recipe.seed, iteration) for i in range(batch)]
        rate = scheduled(options.learning_rate, options.schedule, step, total, round(options.warmup * total))
        examples = supervised([pairs[i] for i in chosen], [weights[i] for i in chosen])
        skipped = learner.skipped
        measured = learner.update(examples, rate)
        tell_skipped(run, learner, skipped, f"{stage} update {step + 1}")
        run.log(
            stage=stage,
            branch="main",
            iteration=iteration,
            step=step,
            loss=measured["loss"],
            entropy=measured["entropy"],
            grad_norm=measured["grad_norm"],
            learning_rate=rate,
            skipped_updates=learner.skipped,
            tokens=int(measured["tokens"]),
            seconds=round(time.monotonic() - began, 3),
        )
        run.progress.step(
            stage,
            step + 1,
            total,
            iteration=iteration if run.recipe.method == "rloop" else None,
            units=batch * TRAINED_EXAMPLE,
            loss=measured["loss"],
        )
        over = step + 1 == total
        if over or run.stopping or time.monotonic() - saved_at >= run.recipe.checkpoint_seconds:
            # a finished fine-tuning hands on its weights; nobody continues its optimizer
            own.save(learner, {"step": step + 1, "done": over}, trainer_state=not over)
            run.set_state(f"main-{stage}-{iteration}", iteration, step + 1)
            saved_at = time.monotonic()
            run.stop_point()
    return own.folder


def demonstrations(
    recipe: Recipe, task: Task, policy: Policy, problems: Sequence[Problem], limit: int | None = None
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
        (policy.encode_prompt(problem), policy.encode_response(response)) for problem, response in islice(found, limit)
    ]
    if not pairs:
        raise InputError(
            f"sft: task {recipe.task.name!r} has no demonstrations; expected training problems with a worked "
            "response, a task that generates them (then set sft.demonstrations), or sft.before = false for RL alone"
        )
    longest = max(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))
    if len(longest[0]) + len(longest[1]) > policy.context_length:
        raise InputError(
            f"sft: a demonstration has {len(longest[0]) + len(longest[1])} tokens with its prompt, more than the "
            f"model's context of {policy.context_length}"
        )
    return pairs


def solved_experts(recipe: Recipe, run_folder: Path, iteration: int) -> list[Rollout]:
    """The right greedy responses of `rl.skip_solved`, so that RFT doesn't forget what was left out of the exploration.

    Their problems' success rate is 1: the hard filter lets them through where `rloop.hard_threshold` is 1.
    """
    asked = list_segments(run_folder / "trajectories", GREEDY, iteration)
    return chosen_experts(recipe, run_folder, iteration, GREEDY).rollouts if asked else []


def expert_rollouts(recipe: Recipe, run_folder: Path, iteration: int) -> list[Rollout]:
    """All that the iteration gives RFT to train on: its experts, and what it had solved before it explored."""
    return [*chosen_experts(recipe, run_folder, iteration).rollouts, *solved_experts(recipe, run_folder, iteration)]


def experts_of(recipe: Recipe, problems: Sequence[Problem]) -> list[tuple[Problem, str]]:
    """The experts of the run in `sft.experts_of`, from all of its iterations, as demonstrations.

    They are handed over as text, so that the other run's model may have another tokenizer. Raises InputError if there is
    no such run, if it has no experts, or if they answer problems that aren't among `problems`.
    """
    folder = Path(recipe.sft.experts_of)
    by_id = {problem.id: problem for problem in problems}
    found: dict[tuple[str, str], tuple[Problem, str]] = {}
    iteration = 0
    while list_segments(folder / "trajectories", "main", iteration):
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
