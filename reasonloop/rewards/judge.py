"""Effort judges by name: an endpoint, a policy on this machine, or a rule of the user's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from reasonloop.exploration_options import Judge

Scorer = Callable[[Sequence[tuple[str, str]]], tuple[Sequence[float | None], Mapping[str, int]]]
"""(problem text, response text) pairs -> a score in [0, 1] or None (failed) for each, and failures by kind"""
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def judge_of(options: Judge, seed: int = 0, device: str = "cpu") -> Scorer:
    """The judge that the options name. `seed` is for an endpoint's jitter; a policy is loaded on `device`.

    Raises InputError if it can't be had: no key in the environment, no such model, no such function.
    """
    if options.base_url:
        from reasonloop.rewards.endpoint_judge import EndpointJudge

        return EndpointJudge(options, seed).scores
    if _FUNCTION.fullmatch(options.model):
        from reasonloop.rewards.rule_judge import RuleJudge

        return RuleJudge(options).scores
    from reasonloop.rewards.policy_judge import PolicyJudge

    return PolicyJudge(options, device).scores
