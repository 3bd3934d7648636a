"""Verdicts come to the rollouts that they are for, whatever order those are finished in."""

from __future__ import annotations

import numpy as np
from tiny_models import tiny_policy, tokens

from reasonloop.config import Sampling
from reasonloop.engine.judged import sample_judged
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.protocol import Address, Prompt
from reasonloop.records import Problem
from reasonloop.verify.workers import VerifierPool, VerifierSpec

SAMPLING = Sampling(max_tokens=12, slots=5, stop=("answer", "back", "="))


class Echo:
    """Says in the detail what it was asked about; even problems in the parent, odd ones in a worker."""

    def quick(self, problem, response):
        return self.verify(problem, response) if int(problem.id) % 2 == 0 else None

    def verify(self, problem, response):
        from reasonloop.records import Judgement, Verdict

        return Judgement(Verdict.RIGHT if len(response) % 2 else Verdict.WRONG, f"{problem.id}|{response}")


def test_each_rollout_has_its_own_verdict():
    policy, rng = tiny_policy("llama"), np.random.default_rng(0)
    problems = [Problem(id=str(i), prompt="") for i in range(6)]
    prompts = [Prompt(p.id, tokens(rng, int(rng.integers(2, 9)))) for p in problems]
    engine, n = NativeEngine(), 4
    engine.load(policy)
    with VerifierPool(VerifierSpec("test_judged:Echo", {}), deadline=20) as pool:
        found = sample_judged(engine, pool, problems, prompts, n, SAMPLING, Address(0, "rl"))
    plain = engine.sample(prompts, n, SAMPLING, Address(0, "rl"))
    assert [r.detail for r in found] == [f"{i // n}|{r.text}" for i, r in enumerate(plain)]
    assert [r.right for r in found] == [len(r.text) % 2 == 1 for r in plain]


def test_given_lengths_are_kept_and_stop_tokens_ignored():
    policy, rng = tiny_policy("llama"), np.random.default_rng(0)
    prompts = [Prompt(str(i), tokens(rng, 5)) for i in range(6)]
    lengths = rng.integers(1, 13, 24)
    engine = NativeEngine()
    engine.load(policy)
    found = engine.sample(prompts, 4, SAMPLING, Address(0, "rl"), lengths=lengths)
    assert [len(r.response_tokens) for r in found] == lengths.tolist()
    free = engine.sample(prompts, 4, SAMPLING, Address(0, "rl"))
    for forced, own in zip(found, free, strict=True):  # the same draws as far as both go
        both = min(len(forced.response_tokens), len(own.response_tokens))
        np.testing.assert_array_equal(forced.response_tokens[:both], own.response_tokens[:both])
