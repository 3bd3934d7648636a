"""`reasonloop eval`: one model on one task, outside of a run."""

from __future__ import annotations

import json
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

from reasonloop import config
from reasonloop.config import Recipe, stored_recipe
from reasonloop.errors import InputError
from reasonloop.files import write_atomically
from reasonloop.machine.threads import wait_briefly
from reasonloop.records import Group
from reasonloop.run.ran_on import describe_machine


def evaluate_model(
    model: str, task: str | None, samples: int, split: str, json_file: Path | None, overrides: list[str]
) -> dict[str, Any]:
    """Evaluates and prints the table; the result is an evaluation file's content (RUN/evals/*.json).

    A run folder brings its own task and sampling options, which `task` and `overrides` replace.
    """
    wait_briefly()
    recipe = _recipe(model, task, overrides)
    from reasonloop.policy.loading import resolve

    resolve(model)

    from reasonloop.tasks import load_task, require_gold, row_name, task_problems, tell
    from reasonloop.tasks.show import verifier_pool

    chosen = recipe.task
    loaded = load_task(chosen.name, chosen.options)
    problems = [problem for problem in task_problems(loaded, chosen.name) if problem.split == split]
    problems = problems[: recipe.eval.problems or None]
    if not problems:
        raise InputError(f"task {chosen.name!r} has no {split} problems")

    from reasonloop.engine.registry import engine_of
    from reasonloop.engine.sample import Sampler
    from reasonloop.evaluation.evaluate import block_size, count, summary
    from reasonloop.evaluation.table import results_text
    from reasonloop.machine.threads import prepare_threads
    from reasonloop.policy.loading import resolve_device
    from reasonloop.policy.policy import Policy, Weights

    prepare_threads(recipe.threads)
    pool = verifier_pool(chosen.name, chosen.options, chosen.verify_deadline, chosen.verify_workers)
    with pool, closing(engine_of(recipe.engine)) as engine:
        require_gold(loaded, problems, pool, chosen.name)
        policy = Policy.load(model, resolve_device(recipe.model.device), recipe.model.dtype)
        prompts = [Group(problem, policy.codec.encode_prompt(problem)) for problem in problems]
        for group in prompts:
            policy.codec.check_context(row_name(group.problem), group.prompt_tokens, recipe.sampling)
        tell(loaded)
        engine.load(Weights(policy=policy))
        sampler = Sampler(engine, policy.codec, recipe.eval_sampling, recipe.seed, pool)
        size, rows = block_size(samples), []
        for start in range(0, len(problems), size):
            rows += count(sampler, prompts[start : start + size], samples, split)
    result = {
        "name": model,
        "stage": "eval",
        "arm": "main",
        "label": model,
        "task": chosen.name,
        "split": split,
        "sampling": recipe.eval_sampling.model_dump(mode="json"),
        "ran_on": describe_machine(recipe),
        **summary(rows, samples),
    }
    print(results_text([result]))
    if json_file is not None:
        write_atomically(json_file, json.dumps(result) + "\n")
    return result


def _recipe(model: str, task: str | None, overrides: list[str]) -> Recipe:
    """The recipe that holds the evaluation's options: the run's own, if the model is a run folder."""
    from reasonloop.tasks import parse_task_spec

    if any(override.partition("=")[0].strip() == "eval.samples" for override in overrides):
        raise InputError("eval.samples: this command takes --samples instead")
    data: dict[str, Any] = {}
    stored = Path(model) / "config.toml"
    if stored.is_file():
        try:
            data = stored_recipe(tomllib.loads(stored.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise InputError(f"{stored}: cannot be read: {error}") from None
    elif task is None:
        raise InputError(f"eval {model}: no run folder, so --task is needed (`reasonloop tasks list` shows some)")
    if task is not None:
        name, options = parse_task_spec(task)
        same = data.get("task", {}).get("name") == name and not options
        data["task"] = data["task"] if same else {"name": name, **options}
    return config.parse(data, overrides, where=f"eval {model}")
