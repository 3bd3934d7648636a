"""Effort judges by name: an endpoint, a policy on this machine, or a rule of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reasonloop.config.exploration import Judge
from reasonloop.errors import InputError
from reasonloop.records import Problem

Scorer = Callable[[Sequence[tuple[str, str]]], Sequence[float | str]]
"""(problem text, response text) pairs -> a score in [0, 1] for each, or the kind of the failure ("kind" or "kind: why")"""


def judge_of(options: Judge, seed: int = 0, device: str = "cpu") -> Scorer:
    """The judge that the options name. `seed` is for an endpoint's jitter; a policy is loaded on `device`.

    Raises InputError if it can't be had: no key in the environment, no httpx, no such model, no such function.
    """
    if options.base_url:
        try:
            from reasonloop.rewards.endpoint_judge import EndpointJudge
        except ModuleNotFoundError as error:
            raise InputError(
                f"exploration.judge.base_url: {error}; expected httpx, which asks an endpoint: "
                "pip install reasonloop[judge]"
            ) from None
        return EndpointJudge(options, seed).scores
    if options.kind == "rule":
        from reasonloop.rewards.rule_judge import RuleJudge

        return RuleJudge(options).scores
    from reasonloop.rewards.policy_judge import PolicyJudge

    return PolicyJudge(options, device).scores


def check_judge(options: Judge, problem: Problem | None) -> None:
    """Raises InputError, with the reason, unless the judge can be had and one on this machine scores a response to the
    problem: that it never gives a score must be no news after hours.

    An endpoint isn't asked: its trouble may pass, and each request is paid for.
    """
    judge = judge_of(options)
    if options.base_url or problem is None:
        return
    (score,) = judge([(problem_text(problem), problem.response or problem.answer)])
    if isinstance(score, str):
        raise InputError(
            f"exploration.judge.model = {options.model!r}: no score for a response to problem {problem.id} ({score}); "
            "expected a number from 0 to 1"
        )


def problem_text(problem: Problem) -> str:
    """The problem as a judge reads it: its prompt, or the messages with their roles."""
    if problem.messages is None:
        return problem.prompt or ""
    return "\n\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in problem.messages)
