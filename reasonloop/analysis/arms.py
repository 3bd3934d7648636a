"""A run's evaluated policies by arm, with their counts per problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonloop.errors import InputError
from reasonloop.evaluation.metrics import avg_at_k, pass_at_k
from reasonloop.evaluation.table import STARTS, arm_of, label_of


@dataclass(frozen=True, slots=True)
class EvaluatedPolicy:
    """What an evaluation (RUN/evals/*.json) says of one policy."""

    name: str
    label: str
    """What a reader calls it"""
    stage: str
    arm: str
    iteration: int
    rollouts: int
    """Rollouts that its arm had spent by then"""
    counts: dict[str, tuple[int, int]]
    """(right samples, samples) by problem id, sorted"""
    scores: dict[str, float]
    """Sum of the samples' scores by problem id; of right ones where there are none"""

    @classmethod
    def of(cls, evaluation: Mapping[str, Any]) -> EvaluatedPolicy:
        """`evaluation`: as the file has it, with `problems`."""
        counts = {str(p["id"]): (int(p["correct"]), int(p["n"])) for p in evaluation["problems"]}
        return cls(
            name=str(evaluation.get("name")),
            label=label_of(evaluation),
            stage=str(evaluation.get("stage")),
            arm=arm_of(evaluation),
            iteration=int(evaluation.get("iteration") or 0),
            rollouts=int(evaluation.get("rollouts") or 0),
            counts=dict(sorted(counts.items())),
            scores={str(p["id"]): float(p.get("score", p["correct"])) for p in evaluation["problems"]},
        )

    def values(self, metric: str) -> NDArray[np.float64]:
        """Per problem, in the order of `counts`: the accuracy ("avg"), pass@k ("pass@8") or the mean "score", float64
        [problems].

        ValueError for k above the number of samples.
        """
        c, n = zip(*self.counts.values(), strict=True)
        if metric == "score":
            return np.array([self.scores[problem] for problem in self.counts]) / np.array(n)
        return avg_at_k(c, n) if metric == "avg" else pass_at_k(n, c, int(metric.removeprefix("pass@")))

    def mean(self, metric: str) -> float:
        return float(self.values(metric).mean())


def evaluated(evaluations: Iterable[Mapping[str, Any]]) -> list[EvaluatedPolicy]:
    """The policies of the evaluations that have counts, by rollouts spent, then in the order in which they were made."""
    ordered = sorted(evaluations, key=lambda e: (e.get("rollouts") or 0, e.get("order") or 0))
    return [EvaluatedPolicy.of(evaluation) for evaluation in ordered if evaluation.get("problems")]


def by_arm(policies: Sequence[EvaluatedPolicy]) -> dict[str, list[EvaluatedPolicy]]:
    """The policies of each arm in the order given; those that RL may start from (base, SFT) open each: it began from the
    last of them."""
    starts = [e for e in policies if e.arm in STARTS]
    arms: dict[str, list[EvaluatedPolicy]] = {}
    for e in policies:
        if e.arm not in STARTS:
            arms.setdefault(e.arm, [*starts]).append(e)
    return arms or ({"main": starts} if starts else {})


def on_shared_problems(policies: Sequence[EvaluatedPolicy], metric: str) -> NDArray[np.float64]:
    """The policies' values on the problems that all of them have, in one order, float64 [policies, problems]."""
    shared = [problem for problem in policies[0].counts if all(problem in other.counts for other in policies)]
    if not shared:
        names = ", ".join(repr(e.name) for e in policies)
        raise InputError(f"evaluations {names} have no problem in common; expected those of one split")
    values = [dict(zip(e.counts, e.values(metric), strict=True)) for e in policies]
    return np.array([[own[problem] for problem in shared] for own in values])


def largest_k(policies: Sequence[EvaluatedPolicy]) -> int:
    """The largest k whose pass@k all of these policies have."""
    return min((n for e in policies for _, n in e.counts.values()), default=1)
