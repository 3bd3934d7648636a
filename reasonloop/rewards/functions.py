"""Functions of the user's own that give a number for a response, in killable workers. Free of torch: workers import it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, ClassVar

from reasonloop.config import RewardFunction
from reasonloop.errors import InputError
from reasonloop.own import load_own
from reasonloop.records import Group, Judgement, Problem, Rollout, Verdict
from reasonloop.verify.answers import one_line
from reasonloop.verify.workers import VerifierPool, VerifierSpec

Value = float | str
"""A number for a response, or the kind of the failure and why: "timeout: no verdict within 5 s" """


class OwnFunction:
    """A `module:function` of (problem, response text) as a verifier: what a worker constructs. The number travels as the
    judgement's detail.

    `where` is its key in the recipe. Raises InputError if there is no such function.
    """

    range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    """Where its numbers lie"""

    def __init__(self, function: str, where: str) -> None:
        where, expected = f"{where} = {function!r}", "a function of (problem, response)"
        self.function: Any = load_own(function, where, expected)
        if not callable(self.function):
            raise InputError(f"{where}: it is a {type(self.function).__name__}; expected {expected}")

    def call(self, problem: Problem, response: str) -> Any:
        return self.function(problem, response)

    def verify(self, problem: Problem, response: str) -> Judgement:
        """RIGHT with the number as its detail, or UNPARSEABLE where it is none, not finite, or out of range."""
        value = self.call(problem, response)
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        low, high = self.range
        if math.isfinite(number) and low <= number <= high:
            return Judgement(Verdict.RIGHT, repr(number))
        return Judgement(Verdict.UNPARSEABLE, f"it returned {value!r}")


def number_in(judgement: Judgement) -> Value:
    """What `OwnFunction.verify` says. Kinds of failures: "timeout", "crashed" (it raised, or ended its process), "nonsense"
    (no number that is wanted)."""
    if judgement.verdict is Verdict.RIGHT:
        return float(judgement.detail)
    kind = "nonsense" if judgement.verdict is Verdict.UNPARSEABLE else judgement.verdict
    return f"{kind}: {judgement.detail}"


def whole(values: Sequence[Value]) -> list[float | None]:
    """A group's values, or None for all where one is missing: its responses must stay comparable."""
    known = [value for value in values if not isinstance(value, str)]
    return [*known] if len(known) == len(values) else [None] * len(values)


class RewardFunctions:
    """The functions of `[rewards]`, each in `workers` processes of its own and within `deadline` seconds a call.

    Raises InputError if there is no such function.
    """

    def __init__(self, options: Mapping[str, RewardFunction], workers: int, deadline: float) -> None:
        self._options = options
        self._pools: dict[str, VerifierPool] = {}
        self._told: set[tuple[str, str]] = set()
        for name, own in options.items():
            named = {"function": own.function, "where": f"rewards.{name}.function"}
            OwnFunction(**named)
            spec = VerifierSpec("reasonloop.rewards.functions:OwnFunction", named)
            self._pools[name] = VerifierPool(spec, workers=workers, deadline=deadline)

    def values(self, pairs: Sequence[tuple[Problem, str]]) -> dict[str, list[Value]]:
        """By name each function's number for each (problem, response text), or why it has none; all functions at once."""
        asked = {name: [pool.submit(*pair) for pair in pairs] for name, pool in self._pools.items()}
        return {name: [number_in(future.result()) for future in futures] for name, futures in asked.items()}

    def reward(self, groups: Sequence[Group], tell: Callable[[str], None]) -> tuple[list[Group], dict[str, float]]:
        """The groups with each function's number in `reward_parts` under its name, and weight x it in the reward; a group
        in which it is missing for one response goes without it.

        The second value: reward_failures_NAME, for how many responses it was missing. `tell` is told the first failure of
        each kind, and where more than half of the responses failed.
        """
        found = self.values([(group.problem, rollout.text) for group in groups for rollout in group.rollouts])
        for name, values in found.items():
            self._tell_failures(name, values, tell)
            left = iter(values)
            groups = [self._rewarded(group, name, left) for group in groups]
        counts = {name: float(sum(isinstance(value, str) for value in values)) for name, values in found.items()}
        return list(groups), {f"reward_failures_{name}": count for name, count in counts.items()}

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def _rewarded(self, group: Group, name: str, values: Iterator[Value]) -> Group:
        weight, own = self._options[name].weight, whole(list(islice(values, len(group.rollouts))))
        rollouts = (
            rollout if value is None else _with_part(rollout, name, value, weight)
            for rollout, value in zip(group.rollouts, own, strict=True)
        )
        return replace(group, rollouts=tuple(rollouts))

    def _tell_failures(self, name: str, values: Sequence[Value], tell: Callable[[str], None]) -> None:
        failed = [value for value in values if isinstance(value, str)]
        kinds = {(name, reason.partition(":")[0]): reason for reason in reversed(failed)}
        new = [reason for kind, reason in kinds.items() if kind not in self._told]
        self._told |= kinds.keys()
        if new or len(failed) > len(values) / 2:
            tell(
                f"reward {name}: no number for {len(failed)} of {len(values)} responses "
                f"({one_line((new or failed)[0], 150)}): their groups go without it"
            )


def _with_part(rollout: Rollout, name: str, value: float, weight: float) -> Rollout:
    parts = {**rollout.reward_parts, name: value}
    return replace(rollout, reward=rollout.reward + weight * value, reward_parts=parts)


def check_functions(options: Mapping[str, RewardFunction], deadline: float, problem: Problem | None = None) -> None:
    """Raises InputError, with the reason, unless each function can be had and, with a problem, gives a number for a response
    to it: that it never does must be no news after hours."""
    functions = RewardFunctions(options, 1, deadline)
    try:
        found = functions.values([] if problem is None else [(problem, problem.response or problem.answer)])
    finally:
        functions.close()
    for name, values in found.items():
        for value in values:
            if isinstance(value, str):
                raise InputError(
                    f"rewards.{name}.function = {options[name].function!r}: no number for a response to problem "
                    f"{problem.id if problem else ''} ({value}); expected a finite one"
                )
