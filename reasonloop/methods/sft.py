"""Supervised fine-tuning on a task's demonstrations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reasonloop.config import Recipe
from reasonloop.errors import InputError
from reasonloop.methods.arms import SFT
from reasonloop.methods.averages import Ended, finish
from reasonloop.methods.method import Method
from reasonloop.methods.rl import adapter
from reasonloop.records import Place
from reasonloop.runs.stages import BASE, Stages


def sft(run: Stages) -> None:
    base, options, place = run.recipe.model.source, run.recipe.sft, Place(stage="sft")
    run.evaluate(base, "base", Place(stage="base"), BASE)
    trained = run.finetune(base, place, SFT, run.demonstrations, options, options.epochs)
    run.deliver(finish(run, base, Ended(trained, "sft", place, SFT.named("SFT", product=True))))


def check(recipe: Recipe) -> None:
    if recipe.sft.before:
        raise InputError("sft.before is for the methods with RL; method = 'sft' is that stage alone")


def sentence(options: Mapping[str, Any]) -> str:
    where = f"the task {options['task.name']} from the model {options['model.path']}"
    return f"Supervised fine-tuning{adapter(options, 'sft')} on {where}"


METHOD = Method("SFT", sft, check=check, sentence=sentence, stages=("sft",))
