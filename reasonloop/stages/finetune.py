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
from reasonloop.runs import Run
from reasonloop.stages.common import TRAINED_EXAMPLE, Source, checkpoint, device, shuffled
from reasonloop.tasks import Task


def finetune(
    run: Run,
    start: Source,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    options: Training,
    *,
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
        Policy.load(own.folder if cursor else start, device(run)),
        run.recipe.optimizer,
        run.recipe.sampling.model_copy(update={"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}),
        run.recipe.model.gradient_checkpointing,
    )
    if cursor:
        learner.load(own.folder)
    first = cursor["step"] if cursor else 0
    run.unlog(stage=stage, branch="main", iteration=iteration, from_step=first)
    batch = min(options.batch_size, len(pairs))
    total = max(1, round(options.epochs * len(pairs) / batch))
    saved_at = time.monotonic()
    for step in range(first, total):
        began = time.monotonic()
        chosen = [shuffled(step * batch + i, len(pairs), run.recipe.seed, iteration) for i in range(batch)]
        rate = scheduled(options.learning_rate, options.schedule, step, total, round(options.warmup * total))
        examples = supervised([pairs[i] for i in chosen], [weights[i] for i in chosen])
        measured = learner.update(examples, rate)
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
    recipe: Recipe, task: Task, policy: Policy, limit: int | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The task's demonstrations (the first `limit` of them) as token pairs, in a fixed order.

    Raises InputError if there are none, or if one is longer than the model's context.
    """
    from reasonloop.tasks import demonstrations as of_task

    options = recipe.sft
    found = islice(
        of_task(task, options.demonstrations, recipe.seed, **options.options), options.demonstrations or None
    )
    pairs = [
        (policy.encode_prompt(problem), policy.encode_response(response)) for problem, response in islice(found, limit)
    ]
    if not pairs:
        raise InputError(
            f"sft: task {recipe.task.name!r} has no demonstrations; expected training problems with a worked "
            "response, or a task that generates them (then set sft.demonstrations)"
        )
    longest = max(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))
    if len(longest[0]) + len(longest[1]) > policy.context_length:
        raise InputError(
            f"sft: a demonstration has {len(longest[0]) + len(longest[1])} tokens with its prompt, more than the "
            f"model's context of {policy.context_length}"
        )
    return pairs
