"""One model on one task, outside of a run: `reasonloop eval`, and what `reasonloop sample` shares with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasonloop import config
from reasonloop.config import Recipe, stored, stored_recipe
from reasonloop.errors import InputError
from reasonloop.files import write_atomically
from reasonloop.machine.threads import wait_briefly
from reasonloop.records import Group
from reasonloop.runs.inputs import date_of
from reasonloop.runs.models import commits_told
from reasonloop.runs.ran_on import describe_machine

if TYPE_CHECKING:
    from reasonloop.engine.protocol import Engine
    from reasonloop.engine.sample import Sampler
    from reasonloop.policy.codec import Codec
    from reasonloop.tasks import Task

DEFAULT_SAMPLES = {"eval": 32, "sample": 4}
"""Responses a problem, by verb"""


@dataclass(frozen=True)
class Opened:
    """A model on a split of a task, ready to answer."""

    task: Task
    prompts: Sequence[Group]
    """The problems of the split, as many as were asked for"""
    codec: Codec
    sampler: Sampler


def evaluate_model(
    model: str, task: str | None, samples: int | None, split: str, json_file: Path | None, overrides: list[str]
) -> dict[str, Any]:
    """Evaluates and prints the table; the result is an evaluation file's content (RUN/evals/*.json).

    A run folder brings its own task and sampling options, which `task` and `overrides` replace. `samples`: None is 32, or 1
    for greedy decoding. With `json_file` the result is written there, and the responses in a Parquet file beside it.
    """
    recipe = recipe_of("eval", model, task, samples, overrides)

    from reasonloop.evaluation.evaluate import answers_of, blocks, summary
    from reasonloop.evaluation.table import results_text
    from reasonloop.evaluation.texts import expect_own, keep_texts

    if json_file is not None:
        expect_own(json_file)
    samples = recipe.eval.samples
    with opened(model, recipe, split, recipe.eval.problems, gold=True) as found:
        rows = [*chain(*blocks(found.sampler, found.prompts, samples, split, answers_of(found.task)))]
    result = {
        "name": model,
        "stage": "eval",
        "arm": "main",
        "label": model,
        "task": recipe.task.name,
        "split": split,
        "sampling": recipe.eval_sampling.model_dump(mode="json"),
        "ran_on": {**describe_machine(recipe), **commits_told(model)},
        **summary(rows, samples),
    }
    print(results_text([result]))
    print(_judged(result, recipe.sampling.max_tokens))
    if json_file is not None:
        keep_texts(json_file, rows)
        write_atomically(json_file, json.dumps(result) + "\n")
    return result


def _judged(result: dict[str, Any], most: int) -> str:
    """How many responses were cut off, and how many had a verdict other than right and wrong."""
    total = result["samples"] * len(result["problems"])
    told = [f"{round(result['cut_off'] * total):,} cut off at sampling.max_tokens = {most}"]
    told += [f"{n:,} {verdict}" for verdict, n in result["verdicts"].items() if verdict not in ("right", "wrong")]
    return f"of {total:,} responses: {', '.join(told)}"


@contextmanager
def opened(model: str, recipe: Recipe, split: str, limit: int, *, gold: bool) -> Iterator[Opened]:
    """The model loaded beside the first `limit` problems of a split (0: all), until the end of the block. Raises InputError
    where one of them can't be asked; with `gold` also where a gold answer doesn't verify as right."""
    wait_briefly()
    from reasonloop.policy.loading import resolve

    resolve(model)

    from reasonloop.runs.notes import plain_prompts, told_of_text
    from reasonloop.tasks import load_task, require_gold, row_name, task_problems, tell
    from reasonloop.tasks.show import verifier_pool

    chosen = recipe.task
    task = load_task(chosen.name, chosen.options)
    every = task_problems(task, chosen.name)
    problems = [problem for problem in every if problem.split == split][: limit or None]
    if not problems:
        there = ", ".join(sorted({problem.split for problem in every})) or "none"
        raise InputError(f"task {chosen.name!r} has no {split} problems; it has: {there}")

    from reasonloop.engine.sample import Sampler

    with verifier_pool(chosen.name, chosen.options, chosen.verify_deadline, chosen.verify_workers) as pool:
        if gold:
            require_gold(task, problems, pool, chosen.name)
        with loaded(model, recipe) as (codec, engine):
            prompts = [Group(problem, codec.encode_prompt(problem)) for problem in problems]
            for group in prompts:
                codec.check_context(row_name(group.problem), group.prompt_tokens, recipe.sampling)
            tell(task)
            if not stored_data(model):  # a run's model has learned what its prompts look like
                told = told_of_text(codec, problems, recipe.sampling.stop)
                for line in [*plain_prompts(model, chosen.name, chosen.options, problems), *told]:
                    print(line, file=sys.stderr)
            sampler = Sampler(engine, codec, recipe.eval_sampling, recipe.seed, pool)
            yield Opened(task, prompts, codec, sampler)


@contextmanager
def loaded(model: str, recipe: Recipe) -> Iterator[tuple[Codec, Engine]]:
    """The model's codec, and the recipe's engine with the model's weights, until the end of the block."""
    from reasonloop.engine.registry import engine_of
    from reasonloop.machine.threads import prepare_threads
    from reasonloop.policy.loading import resolve_device
    from reasonloop.policy.policy import Policy, Weights

    prepare_threads(recipe.threads)
    with closing(engine_of(recipe.engine)) as engine:
        options = recipe.model
        policy = Policy.load(model, resolve_device(options.device), options.dtype, options.trust_remote_code)
        policy.codec.date = date_of(recipe, Path(model)) if stored_data(model) else options.date
        engine.load(Weights(policy=policy))  # which keeps no policy alive: this frame does
        yield policy.codec, engine


def recipe_of(verb: str, model: str, task: str | None, samples: int | None, overrides: list[str]) -> Recipe:
    """The recipe that holds the options of `eval` and `sample`: the run's own, if the model is a run folder.

    `samples`: None is the command's default, or 1 where decoding is greedy.
    """
    from reasonloop.tasks import parse_task_spec

    if any(override.partition("=")[0].strip() == "eval.samples" for override in overrides):
        raise InputError("eval.samples: this command takes --samples instead")
    data = stored_data(model)
    data.get("model", {}).pop("trust_remote_code", None)  # a folder from elsewhere could say so: who asks has to
    if not data and task is None:
        raise InputError(f"{verb} {model}: no run folder, so --task is needed (`reasonloop tasks list` shows some)")
    if task is not None:
        name, options = parse_task_spec(task)
        same = data.get("task", {}).get("name") == name and not options
        data["task"] = data["task"] if same else {"name": name, **options}
    data["eval"] = {**data.get("eval", {}), "samples": 1, "probe_samples": 1}
    recipe = config.parse(data, overrides, where=f"{verb} {model}")
    greedy = recipe.eval.temperature == 0
    data["eval"]["samples"] = samples or (1 if greedy else DEFAULT_SAMPLES[verb])
    return config.parse(data, overrides, where=f"{verb} {model}")


def stored_data(model: str) -> dict[str, Any]:
    """The recipe of the run whose folder this is, as data; empty where it is none."""
    return stored_recipe(stored(Path(model))) if (Path(model) / "config.toml").is_file() else {}
