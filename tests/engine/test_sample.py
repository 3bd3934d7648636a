"""Rollouts are made of completions in one place: each its problem's, with its own verdict, whatever engine sampled it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sampler import Sampler, of_slots, prompt
from tiny_models import EOS, tokens

from reasonloop.config import EngineOptions, Sampling
from reasonloop.engine import sample as engine_sample
from reasonloop.engine.checked import CheckedEngine
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.protocol import Completion, Done, Request
from reasonloop.engine.registry import engine_of
from reasonloop.errors import InputError
from reasonloop.policy.policy import Policy, Weights
from reasonloop.records import Place, Rollout
from reasonloop.verify.workers import VerifierPool, VerifierSpec

SAMPLING = Sampling(max_tokens=12, stop=("answer", "back", "="))


class Echo:
    """Says in the detail what it was asked about; even problems in the parent, odd ones in a worker."""

    def quick(self, problem, response):
        return self.verify(problem, response) if int(problem.id) % 2 == 0 else None

    def verify(self, problem, response):
        from reasonloop.records import Judgement, Verdict

        return Judgement(Verdict.RIGHT if len(response) % 2 else Verdict.WRONG, f"{problem.id}|{response}")


class UniformEngine:
    """A second engine: words drawn without a model, finished in any order. All that another engine has to be."""

    exact = False

    def __init__(self, words: int = 40) -> None:
        self.words, self.version = words, -1

    def load(self, weights: Weights) -> None:
        self.version = weights.version

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: Done | None = None
    ) -> list[Completion]:
        found: list[Any] = [None] * len(requests)
        for i in random.Random(0).sample(range(len(requests)), len(requests)):
            length = requests[i].length or 1 + requests[i].draw % sampling.max_tokens
            drawn = np.random.default_rng(requests[i].draw).integers(4, 4 + self.words, length).astype(np.int32)
            logprobs = np.full(length, -np.log(self.words), np.float32)
            found[i] = Completion(drawn, logprobs, "length", self.version)
            if on_done is not None:
                on_done(i, found[i])
        return found

    def rest(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("engine", [NativeEngine, UniformEngine])
def test_each_rollout_has_its_own_verdict(engine: Any, policy: Policy) -> None:
    rng, n, made = np.random.default_rng(0), 4, engine()
    prompts = [prompt(str(i), tokens(rng, int(rng.integers(2, 9)))) for i in range(6)]
    made.load(Weights(7, policy))
    told: list[Rollout] = []
    with VerifierPool(VerifierSpec("test_sample:Echo", {}), deadline=20) as pool:
        groups = engine_sample.Sampler(made, policy.codec, SAMPLING, 0, pool).sample(
            prompts, n, Place(step=3), told.append
        )
    found = [rollout for group in groups for rollout in group.rollouts]
    assert [r.problem_id for r in found] == [group.problem.id for group in prompts for _ in range(n)]
    assert [r.sample for r in found] == list(range(n)) * 6
    assert {(r.version, r.step, r.branch) for r in found} == {(7, 3, "main")}
    assert [r.detail for r in found] == [f"{i // n}|{r.text}" for i, r in enumerate(found)]
    assert [r.right for r in found] == [len(r.text) % 2 == 1 for r in found]
    assert [r.text for r in found] == [policy.codec.decode(r.response_tokens) for r in found]
    assert sorted((r.problem_id, r.sample) for r in told) == sorted((r.problem_id, r.sample) for r in found)


def test_given_lengths_are_kept_and_stop_tokens_ignored(policy: Policy) -> None:
    rng = np.random.default_rng(0)
    prompts = [prompt(str(i), tokens(rng, 5)) for i in range(6)]
    lengths, sampler = rng.integers(1, 13, 24), Sampler(policy, of_slots(5))
    found = sampler.sample(prompts, 4, SAMPLING, lengths=lengths)
    assert [len(r.response_tokens) for r in found] == lengths.tolist()
    free = sampler.sample(prompts, 4, SAMPLING)
    for forced, own in zip(found, free, strict=True):  # the same draws as far as both go
        both = min(len(forced.response_tokens), len(own.response_tokens))
        np.testing.assert_array_equal(forced.response_tokens[:both], own.response_tokens[:both])


def test_who_stops_a_call_stops_it_at_once(policy: Policy) -> None:
    done: list[Rollout] = []

    def stop(rollout: Rollout) -> None:
        done.append(rollout)
        raise KeyboardInterrupt

    engine = NativeEngine()
    engine.load(Weights(policy=policy))
    prompts = [prompt("p", np.array([5, 6], np.int32))]
    with pytest.raises(KeyboardInterrupt):
        engine_sample.Sampler(engine, policy.codec, SAMPLING, 0).sample(prompts, 8, Place(), stop)
    assert len(done) == 1
    assert len(Sampler(policy, engine).sample(prompts, 8, SAMPLING)) == 8  # and the engine is as good as new


def test_engines_are_named() -> None:
    assert isinstance(engine_of(EngineOptions()), NativeEngine)
    named = engine_of(EngineOptions.model_validate({"name": "test_sample:UniformEngine", "words": 9}))
    assert isinstance(named, CheckedEngine)  # its numbers are not the learner's
    assert named.engine.words == 9  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"name": "nativ"}, "engine.name = 'nativ': unknown; did you mean 'native'?"),
        ({"name": "test_sample:Echo"}, "has no exact; expected an engine"),
        ({"name": "test_sample:Missing"}, "module 'test_sample' has no 'Missing'"),
        ({"name": "native", "slot": 5}, "its options {'slot': 5} were refused"),
        ({"slots": 0}, "engine.slots = 0: expected a whole number of at least 1"),
    ],
)
def test_what_is_no_engine_is_one_clear_error(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as told:
        engine_of(EngineOptions.model_validate(options))
    assert expected in str(told.value)


def test_an_end_of_sequence_ends_a_response(policy: Policy) -> None:
    assert EOS in policy.codec.stop_tokens(())
