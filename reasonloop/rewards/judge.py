"""Effort judges by name: an endpoint, a policy on this machine, or a rule of the user's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from reasonloop.config.exploration import Judge
from reasonloop.errors import InputError
from reasonloop.records import Problem, Verdict

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


def check_judge(options: Judge, problem: Problem | None) -> None:
    """Raises InputError, with the reason, unless the judge can be had and one on this machine scores a response to the
    problem: that it never gives a score must be no news after hours.

    An endpoint isn't asked: its trouble may pass, and each request is paid for.
    """
    if options.base_url or problem is None:
        judge_of(options)
        return
    pair = (problem_text(problem), problem.response or problem.answer)
    if _FUNCTION.fullmatch(options.model):
        from reasonloop.rewards.rule_judge import RuleJudge

        (judgement,) = RuleJudge(options).judgements([pair])
        failed = judgement.verdict is not Verdict.RIGHT
        reason = f"{'' if judgement.verdict is Verdict.UNPARSEABLE else f'{judgement.verdict}: '}{judgement.detail}"
    else:
        (score,), failures = judge_of(options)([pair])
        failed, reason = score is None, ", ".join(failures)
    if failed:
        raise InputError(
            f"exploration.judge.model = {options.model!r}: no score for a response to problem {problem.id} ({reason}); "
            "expected a number from 0 to 1"
        )


def problem_text(problem: Problem) -> str:
    """The problem as a judge reads it: its prompt, or the messages with their roles."""
    if problem.messages is None:
        return problem.prompt or ""
    return "\n\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in problem.messages)
