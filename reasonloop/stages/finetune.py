"""Supervised fine-tuning: SFT on demonstrations, RFT on experts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reasonloop.config import Training
from reasonloop.learner.batch import Example, supervised
from reasonloop.learner.local import scheduled
from reasonloop.learner.protocol import Learner
from reasonloop.records import Place
from reasonloop.runs.dry import TRAINED_EXAMPLE
from reasonloop.runs.session import Session
from reasonloop.runs.stages import FEW_EXAMPLES, Arm, Examples, Source
from reasonloop.stages.adapted import LORA, policy_of_stage
from reasonloop.stages.alarm import diverging, expect_good, expect_numbers
from reasonloop.stages.common import leave_as_it_was, shuffled, tell_skipped


@dataclass(frozen=True)
class Passes:
    """The updates of some passes over examples: which of them each one takes, and its learning rate."""

    count: int
    """Examples"""
    options: Training
    epochs: float
    seed: int
    place: Place

    @property
    def batch(self) -> int:
        return min(self.options.batch_size, self.count)

    @property
    def total(self) -> int:
        """Updates"""
        return max(1, round(self.epochs * self.count / self.batch))

    def chosen(self, update: int) -> list[int]:
        return [shuffled(update * self.batch + i, self.count, self.seed, self.place) for i in range(self.batch)]

    def rate(self, update: int) -> float:
        options = self.options
        warmup = round(options.warmup * self.total)
        return scheduled(options.learning_rate, options.schedule, update, self.total, warmup)


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
        leave_as_it_was(run, place)
        return Path(start)
    policy = policy_of_stage(run, start, place, begun=state is not None)
    learner = run.learner(policy, run.recipe.sampling.untruncated())
    if state:
        checkpoint.restore(learner)
    first = state["step"] if state else 0
    run.folder.unlog(stage=place.stage, branch=place.branch, iteration=place.iteration, from_step=first)
    passes = Passes(len(found.pairs), options, epochs, run.recipe.seed, place)
    if passes.count < FEW_EXAMPLES and not state:
        told = "1 example" if passes.count == 1 else f"{passes.count} examples"
        run.progress.say(f"{place.stage}: only {told} for {epochs:g} epochs: the policy will learn them by heart")
    run.progress.total_units += passes.total * passes.batch * TRAINED_EXAMPLE - expected
    run.progress.skip(first * passes.batch * TRAINED_EXAMPLE)
    with diverging(run, lambda: f"{place.name}, update {learner.updates}", f"{place.stage}.learning_rate"):
        _train(run, learner, found, passes, arm, first)
    return checkpoint.folder


def _train(run: Session, learner: Learner, found: Examples, passes: Passes, arm: Arm, first: int) -> None:
    """The updates from `first` on, each with its line, and checkpoints."""
    place, batch, total = passes.place, passes.batch, passes.total
    policy, checkpoint = learner.policy, run.folder.checkpoint(place)
    saved_at = time.monotonic()
    for step in range(first, total):
        began = time.monotonic()
        rate = passes.rate(step)
        skipped = learner.skipped
        measured = learner.update(batch_of(found, passes.chosen(step)), rate)
        expect_numbers(measured)
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
            expect_good(learner)
            adapter = {LORA: policy.adapter.settings.to_json()} if policy.adapter is not None else {}
            checkpoint.save(learner, {"step": step + 1, "done": over, **adapter}, trainer_state=not over)
            run.folder.set_state(place.name, place.iteration, step + 1)
            if over:
                run.hold_trained(checkpoint.folder, learner)
            saved_at = time.monotonic()
            run.stop_point()


def batch_of(examples: Examples, chosen: Sequence[int]) -> list[Example]:
    """One update's batch: these of the examples."""
    weights = [examples.weights[i] for i in chosen] if examples.weights is not None else None
    sampled = [examples.sampled[i] for i in chosen] if examples.sampled is not None else None
    return supervised([examples.pairs[i] for i in chosen], weights, sampled)
