"""Run folders with known contents."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reasonloop.analysis.arms import Evaluation
from reasonloop.records import Rollout, Verdict
from reasonloop.store.segments import TrajectoryStore


def evaluation(name: str, correct: Sequence[int], n: int = 32, **fields: Any) -> Evaluation:
    ids = [f"p{i:03d}" for i in range(len(correct))]
    address = {"stage": "explore", "branch": "main", "iteration": 0, "rollouts": 0, "split": "test"} | fields
    return Evaluation(name=name, correct=dict(zip(ids, correct, strict=True)), samples=dict.fromkeys(ids, n), **address)


def write_evaluation(folder: Path, e: Evaluation, order: int) -> None:
    """As `reasonloop.stages.evaluate` writes it, as far as analyses read it."""
    problems = [{"id": p, "n": e.samples[p], "correct": c} for p, c in e.correct.items()]
    fields = {key: getattr(e, key) for key in ("name", "stage", "branch", "iteration", "rollouts", "split")}
    row = fields | {"order": order, "samples": 32, "metrics": {}, "problems": problems}
    (folder / "evals").mkdir(parents=True, exist_ok=True)
    (folder / "evals" / f"{e.name}.json").write_text(json.dumps(row))


def step(iteration: int, number: int, rollouts: int, branch: str = "main", **fields: Any) -> dict[str, Any]:
    address = {"stage": "explore", "branch": branch, "iteration": iteration, "step": number, "rollouts": rollouts}
    return address | {"reward": 0.5, "right": 0.5, "entropy": 1.0, "grad_norm": 1.0, "skipped_updates": 0} | fields


def write_metrics(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def rollout(problem: str, step: int, sample: int, tokens: Sequence[int], **fields: Any) -> Rollout:
    return Rollout(
        problem_id=problem,
        prompt_tokens=np.array([1], dtype=np.int32),
        response_tokens=np.array(tokens, dtype=np.int32),
        logprobs=np.zeros(len(tokens), dtype=np.float32),
        step=step,
        sample=sample,
        **{"verdict": Verdict.RIGHT, **fields},
    )


def write_rollouts(folder: Path, rollouts: Sequence[Rollout]) -> None:
    store = TrajectoryStore(folder / "trajectories", "made")
    groups: dict[tuple[str, int, int], list[Rollout]] = {}
    for r in rollouts:
        groups.setdefault((r.branch, r.iteration, r.step), []).append(r)
    for (branch, iteration, number), own in groups.items():
        store.write(own, branch=branch, iteration=iteration, step=number)
