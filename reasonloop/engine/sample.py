"""Rollouts, made in one place for every engine: from requests to judged responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from reasonloop.config import Sampling
from reasonloop.engine.protocol import Completion, Engine, Request
from reasonloop.records import Group, Judgement, Place, Rollout
from reasonloop.verify.workers import VerifierPool


class Codec(Protocol):
    """What sampling asks of a policy's codec (`policy.codec`)."""

    def decode(self, tokens: np.ndarray) -> str: ...

    def stop_tokens(self, texts: Sequence[str]) -> frozenset[int]: ...

    def stop_texts(self, texts: Sequence[str]) -> tuple[str, ...]: ...

    def check_context(self, name: str, prompt: np.ndarray, sampling: Sampling) -> None: ...


@dataclass(frozen=True)
class Sampler:
    """Makes rollouts."""

    engine: Engine
    codec: Codec
    sampling: Sampling
    seed: int
    """The run's, which names all random draws together with their place"""
    verifier: VerifierPool | None = None
    """Judges finished responses while the engine samples the others; None: rollouts without verdicts"""

    def sample(
        self, groups: Sequence[Group], n: int, place: Place, on_done: Callable[[Rollout], None] | None = None
    ) -> list[Group]:
        """The groups with `n` rollouts each, of `groups` the problems and prompts count.

        `on_done` is called for each rollout as soon as it is there, in any order; it may raise, to stop. Raises InputError
        where a prompt has no tokens, or where the context doesn't hold it and max_tokens.
        """
        stop, texts = self.codec.stop_tokens(self.sampling.stop), self.codec.stop_texts(self.sampling.stop)
        for group in groups:
            self.codec.check_context(f"problem {group.problem.id}", group.prompt_tokens, self.sampling)
        requests = [
            Request(group.prompt_tokens, place.draw(self.seed, group.problem.id, i), stop, stop_texts=texts)
            for group in groups
            for i in range(n)
        ]
        made: dict[int, Rollout] = {}
        verdicts: dict[int, Future[Judgement]] = {}

        def done(index: int, completion: Completion) -> None:
            group = groups[index // n]
            made[index] = rollout = Rollout(
                problem_id=group.problem.id,
                prompt_tokens=group.prompt_tokens,
                response_tokens=completion.tokens,
                logprobs=completion.logprobs,
                version=completion.version,
                finish=completion.finish,
                text=self.codec.decode(completion.tokens),
                place=place,
                sample=index % n,
            )
            if self.verifier is not None:
                verdicts[index] = self.verifier.submit(group.problem, rollout.text)
            if on_done is not None:
                on_done(rollout)

        self.engine.generate(requests, self.sampling, done)
        for index, verdict in verdicts.items():
            found = verdict.result()
            made[index] = replace(made[index], verdict=found.verdict, detail=found.detail, score=found.score)
        of_group = [tuple(made[k * n + i] for i in range(n)) for k in range(len(groups))]
        return [replace(g, rollouts=own, sampling=self.sampling) for g, own in zip(groups, of_group, strict=True)]
