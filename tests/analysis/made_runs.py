"""Run folders with known contents."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reasonloop.analysis.arms import EvaluatedPolicy
from reasonloop.records import Place, Rollout, Verdict
from reasonloop.store.segments import TrajectoryStore


def evaluation(name: str, correct: Sequence[int], n: int = 32, **fields: Any) -> dict[str, Any]:
    """As `reasonloop.stages.evaluate` writes it, as far as analyses read it."""
    address = {"stage": "explore", "iteration": 0, "rollouts": 0, "split": "test"} | fields
    arm = {"base": "base", "sft": "sft", "rft": "main", "explore": "explored"}[address["stage"]]
    problems = [{"id": f"p{i:03d}", "n": n, "correct": c} for i, c in enumerate(correct)]
    return {"name": name, "arm": arm, "samples": n, "metrics": {"pass@1": {}}, "problems": problems} | address


def policy(name: str, correct: Sequence[int], n: int = 32, **fields: Any) -> EvaluatedPolicy:
    return EvaluatedPolicy.of(evaluation(name, correct, n, **fields))


def write_evaluation(folder: Path, e: Mapping[str, Any], order: int) -> None:
    (folder / "evals").mkdir(parents=True, exist_ok=True)
    (folder / "evals" / f"{e['name']}.json").write_text(json.dumps({**e, "order": order}))


def step(iteration: int, number: int, rollouts: int, branch: str = "main", **fields: Any) -> dict[str, Any]:
    place = {"stage": "explore", "branch": branch, "iteration": iteration, "step": number}
    address = {**place, "arm": branch, "rollouts": rollouts}
    return address | {"reward": 0.5, "right": 0.5, "entropy": 1.0, "grad_norm": 1.0, "skipped_updates": 0} | fields


def write_metrics(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def rollout(problem: str, step: int, sample: int, tokens: Sequence[int], **fields: Any) -> Rollout:
    branch, iteration = fields.pop("branch", "main"), fields.pop("iteration", 0)
    return Rollout(
        problem_id=problem,
        prompt_tokens=np.array([1], dtype=np.int32),
        response_tokens=np.array(tokens, dtype=np.int32),
        logprobs=np.zeros(len(tokens), dtype=np.float32),
        place=Place(branch, iteration=iteration, step=step),
        sample=sample,
        **{"verdict": Verdict.RIGHT, **fields},
    )


def write_rollouts(folder: Path, rollouts: Sequence[Rollout]) -> None:
    store = TrajectoryStore(folder / "trajectories", "made")
    groups: dict[Place, list[Rollout]] = {}
    for r in rollouts:
        groups.setdefault(r.place, []).append(r)
    for place, own in groups.items():
        store.write(own, place)
