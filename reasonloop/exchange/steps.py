"""What an imported run says of its steps: lines of metrics.jsonl, and evaluations."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reasonloop.evaluation.metrics import summarise
from reasonloop.imports.judging import Imported
from reasonloop.imports.reading import Reading
from reasonloop.imports.rows import UNKNOWN
from reasonloop.records import Rollout


class Steps:
    """Collects them as the steps are judged."""

    def __init__(self, trainer: str) -> None:
        self._label = trainer
        self._lines: list[dict[str, Any]] = []
        self._evaluations: list[dict[str, Any]] = []
        self._spent: list[tuple[int, int]] = []
        """(step, rollouts of the training so far)"""
        self.with_logprobs = self.rollouts = 0
        self._uneven: list[str] = []

    def add(self, step: Imported) -> None:
        known = sum(len(r.logprobs) > 0 and not np.isnan(r.logprobs).any() for r in step.rollouts)
        self.with_logprobs, self.rollouts = self.with_logprobs + known, self.rollouts + len(step.rollouts)
        if step.evaluation:
            self._evaluations.append(_counted(step))
            return
        spent = (self._spent[-1][1] if self._spent else 0) + len(step.rollouts)
        self._spent.append((step.step, spent))
        keys = {**step.rollouts[0].place.keys, "arm": "main", "label": self._label, "product": False, "rollouts": spent}
        self._lines.append({**keys, **means(step.rollouts)})

    @property
    def logprobs(self) -> str:
        """Which rollouts have them, as config.toml says it"""
        if not self.with_logprobs:
            return "none"
        return "all" if self.with_logprobs == self.rollouts else f"{self.with_logprobs} of {self.rollouts}"

    def finish(self, run: Path, task: str, reading: Reading) -> None:
        """Writes metrics.jsonl and evals/."""
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in self._lines)
        (run / "metrics.jsonl").write_text(text, encoding="utf-8")
        splits = {reading.problems[i].id: reading.problems[i].split for i in reading.matched}
        (run / "evals").mkdir(exist_ok=True)
        usable = [e for e in self._evaluations if len({p["n"] for p in e["problems"]}) == 1]
        self._uneven = [str(e["step"]) for e in self._evaluations if e not in usable]
        for order, found in enumerate(usable):
            step, problems = found.pop("step"), found["problems"]
            held_out = Counter(splits[problem["id"]] for problem in problems).most_common(1)[0][0]
            last = found is usable[-1]
            about = {
                "name": f"step-{step}",
                "order": order,
                "stage": "explore",
                "branch": "main",
                "iteration": 0,
                "arm": "main",
                "label": self._label if last else f"{self._label}, step {step}",
                "product": last,
                "rollouts": max((spent for at, spent in self._spent if at <= step), default=0),
                "depends_on": {"method": self._label, "task.name": task},
                "task": task,
                "split": held_out if held_out in ("probe", "test") else "test",
                "samples": problems[0]["n"],
                "metrics": summarise(problems),
            }
            path = run / "evals" / f"step-{step}.json"
            path.write_text(json.dumps({**about, **found}, allow_nan=False) + "\n", encoding="utf-8")

    def told(self) -> list[str]:
        """What a reader should know of what was written."""
        found = []
        if self._uneven:
            found.append(
                f"evaluations of steps {', '.join(self._uneven[:5])}: problems have unequal numbers of responses: "
                "they stand in no table"
            )
        if not self.with_logprobs:
            found.append("log-probs: none (importance weights, and learning from these rollouts, need them)")
        elif self.with_logprobs < self.rollouts:
            found.append(f"log-probs: of {self.with_logprobs:,} of {self.rollouts:,} rollouts")
        return found


def means(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """Over the rollouts of a step, as far as they are known of all or some of them; and how often each verdict was given."""
    parts: dict[str, list[float]] = {}
    for rollout in rollouts:
        for name, value in rollout.reward_parts.items():
            parts.setdefault(name, []).append(value)
    ends = [rollout.finish == "length" for rollout in rollouts if rollout.finish != UNKNOWN]
    found = {
        "reward": _mean(r.reward for r in rollouts if not math.isnan(r.reward)),
        "right": _mean(float(r.right) for r in rollouts),
        "length": _mean(float(r.length) for r in rollouts),
        "cut_off": _mean(map(float, ends)) if len(ends) == len(rollouts) else None,
        "reward_parts": {name: _mean(values) for name, values in sorted(parts.items())},
        "verdicts": dict(sorted(Counter(str(r.verdict) for r in rollouts).items())),
    }
    return {key: value for key, value in found.items() if value is not None}


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return float(np.mean(found)) if found else None


def _counted(step: Imported) -> dict[str, Any]:
    """An evaluation's problems and totals."""
    right: dict[str, list[bool]] = {}
    for rollout in step.rollouts:
        right.setdefault(rollout.problem_id, []).append(rollout.right)
    found = means(step.rollouts)
    return {
        "step": step.step,
        "mean_tokens": found["length"],
        **({"cut_off": found["cut_off"]} if "cut_off" in found else {}),
        "verdicts": found["verdicts"],
        "problems": [{"id": name, "n": len(own), "correct": sum(own)} for name, own in right.items()],
    }
