"""Supervised fine-tuning on a task's demonstrations."""

from __future__ import annotations

from reasonloop.policy.policy import Policy
from reasonloop.run.folder import Run
from reasonloop.stages import Source, checkpoint, deliver, demonstrations, evaluate, finetune


def sft(run: Run) -> None:
    base = run.recipe.model.path
    evaluate(run, base, "base", stage="base")
    trained = sft_stage(run)
    evaluate(run, trained, "sft", stage="sft")
    deliver(run, trained)


def sft_stage(run: Run) -> Source:
    """The recipe's model, trained on the task's demonstrations."""
    base, options = run.recipe.model.path, run.recipe.sft
    if checkpoint(run, "main-sft-0").done:
        return finetune(run, base, [], options, epochs=options.epochs, stage="sft")
    pairs = demonstrations(run.recipe, run.task, Policy.load(base), problems=run.problems["train"])
    return finetune(run, base, pairs, options, epochs=options.epochs, stage="sft")


def starting_policy(run: Run) -> Source:
    """Where RL starts: the recipe's model, or what SFT makes of it (`sft.before`); both evaluated."""
    evaluate(run, run.recipe.model.path, "base", stage="base")
    if not run.recipe.sft_first:
        return run.recipe.model.path
    trained = sft_stage(run)
    evaluate(run, trained, "sft", stage="sft")
    return trained
