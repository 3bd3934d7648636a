"""Supervised fine-tuning: SFT on demonstrations, RFT on experts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from reasonloop.config import Training
from reasonloop.learner.batch import Example, supervised
from reasonloop.learner.local import scheduled
from reasonloop.records import Place
from reasonloop.run.dry import TRAINED_EXAMPLE
from reasonloop.run.session import Session
from reasonloop.run.stages import Arm, Examples, Source
from reasonloop.stages.common import shuffled, tell_skipped

FEW = 8
"""Fewer examples than this are worth a warning"""


def finetune(
    run: Session,
    start: Source,
    place: Place,
    arm: Arm,
    examples: Callable[[], Examples],
    options: Training,
    epochs: float,
) -> Source:
    """See `Stages.finetune`: the loss is on response tokens only."""
    checkpoint, expected = run.folder.checkpoint(place), run.planned.get(place.name, 0.0)
    state = checkpoint.state()
    if state is not None and state["done"]:
        run.progress.skip(expected)
        return Path(start) if state.get("empty") else checkpoint.folder
    found = examples()
    if not found.pairs:
        run.progress.skip(expected)
        run.progress.say(f"{place.stage}: no examples; the policy stays as it was")
        checkpoint.skip({"done": True, "empty": True})
        return Path(start)
    learner = run.learner(run.policy(checkpoint.folder if state else start), run.recipe.sampling.untruncated())
    if state:
        learner.load(checkpoint.folder)
    first = state["step"] if state else 0
    run.folder.unlog(stage=place.stage, branch=place.branch, iteration=place.iteration, from_step=first)
    count, seed = len(found.pairs), run.recipe.seed
    if count < FEW and not state:
        told = "1 example" if count == 1 else f"{count} examples"
        run.progress.say(f"{place.stage}: only {told} for {epochs:g} epochs: the policy will learn them by heart")
    batch = min(options.batch_size, count)
    total = max(1, round(epochs * count / batch))
    run.progress.total_units += total * batch * TRAINED_EXAMPLE - expected
    run.progress.skip(first * batch * TRAINED_EXAMPLE)
    saved_at = time.monotonic()
    for step in range(first, total):
        began = time.monotonic()
        chosen = [shuffled(step * batch + i, count, seed, place) for i in range(batch)]
        rate = scheduled(options.learning_rate, options.schedule, step, total, round(options.warmup * total))
        skipped = learner.skipped
        measured = learner.update(_batch(found, chosen), rate)
        tell_skipped(run, learner, skipped, f"{place.stage} update {step + 1}")
        line = {name: measured[name] for name in ("loss", "entropy", "grad_norm")}
        line |= {"learning_rate": rate, "skipped_updates": learner.skipped, "tokens": int(measured["tokens"])}
        seconds = round(time.monotonic() - began, 3)
        run.folder.log(**replace(place, step=step).keys, **arm.keys, **line, seconds=seconds)
        units = batch * TRAINED_EXAMPLE
        turn = place.iteration if "rloop" in arm.uses else None
        run.progress.step(place.stage, step + 1, total, iteration=turn, units=units, loss=measured["loss"])
        over = step + 1 == total
        if over or run.stopping or time.monotonic() - saved_at >= run.recipe.checkpoint_seconds:
            # a finished fine-tuning hands on its weights; nobody continues its optimizer
            checkpoint.save(learner, {"step": step + 1, "done": over}, trainer_state=not over)
            run.folder.set_state(place.name, place.iteration, step + 1)
            saved_at = time.monotonic()
            run.stop_point()
    return checkpoint.folder


def _batch(examples: Examples, chosen: list[int]) -> list[Example]:
    weights = [examples.weights[i] for i in chosen] if examples.weights is not None else None
    sampled = [examples.sampled[i] for i in chosen] if examples.sampled is not None else None
    return supervised([examples.pairs[i] for i in chosen], weights, sampled)
