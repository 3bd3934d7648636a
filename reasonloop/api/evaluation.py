"""`reasonloop.evaluate`: a policy on held-out problems, counted as runs and `reasonloop eval` count. Torch is loaded by what
it calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from reasonloop.api.options import EvalKeywords, EvalOptions, sampling_of
from reasonloop.api.task import Task, expect_task
from reasonloop.config import EngineOptions, validated
from reasonloop.errors import InputError
from reasonloop.evaluation.bootstrap import difference
from reasonloop.evaluation.metrics import avg_at_k, pass_at_k
from reasonloop.evaluation.table import metric_keys
from reasonloop.records import Group

if TYPE_CHECKING:
    from reasonloop.policy.policy import Policy


class Estimate(float):
    """A number with its 95 % interval, `low` to `high`, by bootstrap over problems."""

    low: float
    high: float

    def __new__(cls, value: float, low: float, high: float) -> Estimate:
        made = super().__new__(cls, value)
        made.low, made.high = low, high
        return made

    def __repr__(self) -> str:
        return f"{float(self):.3f} [{self.low:.3f}, {self.high:.3f}]"

    __str__ = __repr__

    def __reduce__(self) -> tuple[type[Estimate], tuple[float, float, float]]:
        return Estimate, (float(self), self.low, self.high)


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What `evaluate` found, or an evaluation of a run.

    print(result)                  # avg@32 0.155 [0.132, 0.179]  pass@8 ...
    result.average, result.pass_at[8].low
    result.compared_with(before)   # differences on the same problems, with intervals
    """

    record: Mapping[str, Any]
    """As `reasonloop eval --json` writes it: task, split, samples, metrics, verdicts, problems, ..."""
    groups: Sequence[Group] = field(default=())
    """Every response, by problem; none in an evaluation that was read from a run"""

    @property
    def name(self) -> str:
        return str(self.record.get("label") or self.record.get("name") or "")

    @property
    def metrics(self) -> dict[str, Estimate]:
        """By name: avg@n (the mean share of right samples), pass@k (the chance that k samples hold a right one, unbiased),
        maj@n (the majority's answer is right) where the task tells answers apart, and with partial credit score"""
        found = self.record["metrics"].items()
        return {name: Estimate(metric["value"], *metric["ci95"]) for name, metric in found}

    def __getitem__(self, name: str) -> Estimate:
        """`result["pass@8"]`. KeyError, with the names there are, for another."""
        if name not in self.record["metrics"]:
            raise KeyError(f"{name}; there are {', '.join(self.record['metrics'])}")
        return self.metrics[name]

    @property
    def average(self) -> Estimate:
        """avg@n of all n samples"""
        return next(value for name, value in self.metrics.items() if name.startswith("avg@"))

    @property
    def pass_at(self) -> dict[int, Estimate]:
        """pass@k by k"""
        return {int(name[5:]): value for name, value in self.metrics.items() if name.startswith("pass@")}

    @property
    def counts(self) -> dict[str, int]:
        """How many of each problem's n samples were right, by its id"""
        return {problem["id"]: problem["correct"] for problem in self.record["problems"]}

    @property
    def verdicts(self) -> dict[str, int]:
        return dict(self.record["verdicts"])

    def compared_with(self, other: Evaluation) -> dict[str, Estimate]:
        """By metric this evaluation's minus the other's, problem by problem: pairing takes their difficulty out of the
        interval. Raises InputError unless both are of the same problems with as many samples."""
        if not isinstance(other, Evaluation):
            raise InputError(f"compared_with: got a {type(other).__name__}; expected an Evaluation")
        mine, theirs = self.record, other.record
        for key in ("task", "split"):
            if mine.get(key) != theirs.get(key):
                raise InputError(
                    f"compared_with: {key} {mine.get(key)!r} and {theirs.get(key)!r}; expected the same one"
                )
        if list(self.counts) != list(other.counts) or mine["samples"] != theirs["samples"]:
            raise InputError(
                f"compared_with: {len(self.counts)} problems x {mine['samples']} samples and {len(other.counts)} x "
                f"{theirs['samples']}; expected two evaluations on the same problems, with as many samples"
            )
        names = [name for name in mine["metrics"] if name in theirs["metrics"]]
        order = np.argsort(list(self.counts))  # as `reasonloop compare` has them, whose draws these are
        found = {name: difference(self._each(name)[order][None], other._each(name)[order][None]) for name in names}
        return {name: Estimate(one.absolute, *one.ci95_absolute) for name, one in found.items()}

    def _each(self, metric: str) -> np.ndarray:
        """The metric of each problem, float64 [problems]"""
        problems, n = self.record["problems"], self.record["samples"]
        kind, _, k = metric.partition("@")
        if kind == "maj":
            return np.array([float(problem["majority"]) for problem in problems])
        if kind == "score":
            return np.array([problem["score"] / n for problem in problems])
        right = np.array([problem["correct"] for problem in problems])
        return pass_at_k(n, right, int(k)) if kind == "pass" else avg_at_k(right, n)

    def __repr__(self) -> str:
        of = f"{self.record['split']}, {len(self.counts)} problems x {self.record['samples']} samples"
        shown = [f"{name} {value}" for name, value in self._shown().items()]
        return f"{self.name}: {of}: {'  '.join(shown)}" if self.name else f"{of}: {'  '.join(shown)}"

    def _repr_html_(self) -> str:
        heads = "".join(f"<th>{name}</th>" for name in self._shown())
        cells = "".join(f"<td>{value}</td>" for value in self._shown().values())
        about = f"{len(self.counts)} {self.record['split']} problems, {self.record['samples']} samples each"
        return f"<table><caption>{about}</caption><tr>{heads}</tr><tr>{cells}</tr></table>"

    def _shown(self) -> dict[str, Estimate]:
        """The columns of a run's table"""
        return {name: self.metrics[name] for name, _ in metric_keys([self.record])}


def evaluate(policy: Policy, task: Task, split: str = "test", **options: Unpack[EvalKeywords]) -> Evaluation:
    """The policy's average and pass@k on the problems of a split, with 95 % intervals, counts and every response.

        before = reasonloop.evaluate(policy, task, samples=32, max_tokens=34)

    `options`: `samples` (32; 1 with `temperature=0`, which is greedy) responses a problem, `problems` (0: all), `seed` (0),
    `slots` (256), and those of `[sampling]` as `sample` has them. Policies that are evaluated with the same seed meet the
    same draws, so that differences between them are sharper than their own intervals. The same numbers come from
    `reasonloop eval`.

    Raises InputError for an unknown option or split, or a split without problems.
    """
    from reasonloop.api.keeping import KeepingSampler
    from reasonloop.engine.registry import engine_of
    from reasonloop.evaluation.evaluate import blocks, summary
    from reasonloop.policy.policy import Weights, expect_policy

    expect_policy("evaluate", policy)
    expect_task("evaluate", task)
    greedy = options.get("temperature") == 0
    if greedy:
        options["temperature"] = 1.0
        options.setdefault("samples", 1)
    chosen = validated(EvalOptions, dict(options), "evaluate")
    sampling = sampling_of(chosen).untruncated(0) if greedy else sampling_of(chosen)
    if greedy and chosen.samples > 1:
        raise InputError(f"evaluate: samples = {chosen.samples}: with temperature = 0 all are one; expected 1")
    problems = task.split(split)[: chosen.problems or None]
    if not problems:
        raise InputError(f"task {task.name!r} has no {split} problems")
    prompts = [Group(problem, policy.codec.encode_prompt(problem)) for problem in problems]
    with closing(engine_of(EngineOptions.model_validate({"slots": chosen.slots}))) as engine:
        engine.load(Weights(policy.version, policy))
        sampler = KeepingSampler(engine, policy.codec, sampling, chosen.seed, task.verifier)
        rows = [*chain(*blocks(sampler, prompts, chosen.samples, split, task.answers))]
    record = {
        "task": task.name,
        "split": split,
        "sampling": sampling.model_dump(mode="json"),
        **summary(rows, chosen.samples),
    }
    return Evaluation(record, tuple(sampler.kept))
