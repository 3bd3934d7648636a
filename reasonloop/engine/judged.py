"""Sampling with verdicts: the verifier works on finished responses while the engine samples the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

from reasonloop.config import Sampling
from reasonloop.engine.protocol import Address, Engine, Prompt
from reasonloop.records import Judgement, Problem, Rollout
from reasonloop.verify.workers import VerifierPool


def sample_judged(
    engine: Engine,
    verifier: VerifierPool,
    problems: Sequence[Problem],
    prompts: Sequence[Prompt],
    n: int,
    sampling: Sampling,
    address: Address,
    on_tokens: Callable[[int], None] | None = None,
) -> list[Rollout]:
    """`n` rollouts for each of the problems, whose `prompts` are given, in order, each with its verdict."""
    verdicts: dict[int, Future[list[Judgement]]] = {}

    def submit(index: int, rollout: Rollout) -> None:
        verdicts[index] = verifier.submit([(problems[index // n], rollout.text)])

    rollouts = engine.sample(prompts, n, sampling, address, submit, on_tokens=on_tokens)
    judgements = [verdicts[i].result()[0] for i in range(len(rollouts))]
    return [replace(r, verdict=j.verdict, detail=j.detail) for r, j in zip(rollouts, judgements, strict=True)]
