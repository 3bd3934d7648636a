"""Evaluating a stage's policy, and handing over the last one."""

from __future__ import annotations

import json
from typing import Any

from reasonloop.evaluation.evaluate import evaluate_policy
from reasonloop.files import write_atomically
from reasonloop.policy.policy import Policy
from reasonloop.run.folder import Run
from reasonloop.stages.common import Source, load_policy, training_seconds


def evaluate(
    run: Run,
    source: Source | Policy,
    name: str,
    *,
    stage: str,
    iteration: int = 0,
    branch: str = "main",
    rollouts: int = 0,
    same_as: str = "",
) -> dict[str, Any]:
    """Evaluates the policy in `source` on the problems of `eval.split`; RUN/evals/<name>.json holds what came out.

    `same_as`: the name of an evaluation of the same policy, whose counts are taken over where there is one.
    """
    path = run.folder / "evals" / f"{name}.json"
    saved = path.with_suffix(".partial")
    if path.is_file():
        saved.unlink(missing_ok=True)
        return json.loads(path.read_text())
    run.set_state(f"eval {name}", iteration, 0)
    run.stop_point()
    place = {
        "name": name,
        "order": len(list(path.parent.glob("*.json"))),
        "stage": stage,
        "branch": branch,
        "iteration": iteration,
        "rollouts": rollouts,
        "seconds": round(training_seconds(run, branch, iteration), 3),
    }
    known = path.with_name(f"{same_as}.json")
    if same_as and known.is_file():
        counted = json.loads(known.read_text())
    else:
        run.progress.say(f"evaluating {name}")
        policy = source if isinstance(source, Policy) else load_policy(run, source)
        split = run.recipe.eval.split
        counted = {
            "task": run.recipe.task.name,
            "split": split,
            "sampling": run.recipe.eval_sampling.model_dump(mode="json"),
            **evaluate_policy(run, policy, split, run.recipe.eval.samples, saved),
        }
    result = place | {key: value for key, value in counted.items() if key not in place}
    show_held_out(run, result)
    values = {key: value["value"] for key, value in result["metrics"].items()}
    run.unlog(stage="eval", name=name)
    run.log(stage="eval", branch=branch, iteration=iteration, rollouts=rollouts, name=name, **values)
    write_atomically(path, json.dumps(result) + "\n")
    saved.unlink(missing_ok=True)
    return result


def show_held_out(run: Run, evaluation: dict[str, Any]) -> None:
    """Puts an evaluation's avg@n into the live display."""
    values = {key: value["value"] for key, value in evaluation["metrics"].items() if key.startswith("avg@")}
    run.progress.held_out(**values)


def deliver(run: Run, source: Source) -> None:
    """The product: RUN/model, a Hugging Face folder."""
    if not (run.folder / "model" / "config.json").is_file():
        load_policy(run, source).save(run.folder / "model")
    run.set_state("done", 0, 0)
