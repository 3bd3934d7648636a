"""Evaluating a stage's policy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from reasonloop.evaluation.evaluate import answered, summary
from reasonloop.evaluation.texts import keep_texts, texts_of
from reasonloop.files import read_object
from reasonloop.policy.policy import Weights
from reasonloop.records import Place
from reasonloop.runs.session import Session
from reasonloop.runs.stages import Arm, Source
from reasonloop.stages.alarm import diverging
from reasonloop.stages.common import training_seconds


def about(run: Session, name: str, place: Place, arm: Arm, rollouts: int) -> dict[str, Any]:
    """What an evaluation says of its policy, whenever it is made."""
    return {
        "name": name,
        "stage": place.stage,
        "branch": "early" if arm.name == "early" else place.branch,
        "iteration": place.iteration,
        **arm.keys,
        "rollouts": rollouts,
        "depends_on": arm.options(run.recipe),
    }


def evaluate(run: Session, policy: Source, told: Mapping[str, Any], split: str, same_as: str = "") -> dict[str, float]:
    """See `Stages.evaluate`. `told`: see `about`."""
    folder, name, rollouts = run.folder.path / "evals", told["name"], told["rollouts"]
    path, known, saved = folder / f"{name}.json", folder / f"{same_as}.json", folder / f"{name}.partial"
    samples = run.recipe.eval.samples
    if path.is_file():
        saved.unlink(missing_ok=True)
        run.progress.skip(0 if same_as else len(run.problems[split]) * samples)
        return _values(read_object(path))
    run.folder.set_state(f"eval {name}", told["iteration"])
    run.stop_point()
    seconds = round(training_seconds(run, told["arm"], told["iteration"]), 3)
    told = {**told, "order": len(list(folder.glob("*.json"))), "seconds": seconds}
    counted = read_object(known) if same_as and known.is_file() else None
    if counted is None or counted["rollouts"] != rollouts:  # an exploration that ended early is another policy
        run.progress.say(f"evaluating {name}")
        with diverging(run, lambda: f"the evaluation {name}", "learning rate"):
            rows = answered(run, Weights(policy=run.policy(policy)), split, samples, saved)
        counted = {
            "task": run.recipe.task.name,
            "split": split,
            "sampling": run.recipe.eval_sampling.model_dump(mode="json"),
            **summary(rows, samples),
        }
        keep_texts(path, rows, run.folder.write)
    elif texts_of(known).is_file():
        run.folder.write(texts_of(path), texts_of(known).read_bytes())
    result = told | {key: value for key, value in counted.items() if key not in told}
    show_held_out(run, split, result["metrics"])
    values = _values(result)
    if split == run.recipe.eval.split:  # numbers of two splits must not stand under one another
        run.folder.unlog(stage="eval", name=name)
        keys = {key: result[key] for key in ("branch", "iteration", "arm", "label", "product", "rollouts", "name")}
        run.folder.log(stage="eval", **keys, **values)
    run.folder.write(path, json.dumps(result) + "\n")
    saved.unlink(missing_ok=True)
    return values


def _values(result: Mapping[str, Any]) -> dict[str, float]:
    return {key: value["value"] for key, value in result["metrics"].items()}


def show_held_out(run: Session, split: str, metrics: Mapping[str, Any]) -> None:
    """Puts an evaluation's avg@n into the live display, under its split's name."""
    values = {f"{split} {key}": value["value"] for key, value in metrics.items() if key.startswith("avg@")}
    run.progress.held_out(**values)
