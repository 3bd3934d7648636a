"""Prompts that begin alike (few-shot examples, say) share one copy of their beginning, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from sampler import Sampler, of_slots, prompt
from tiny_models import FAMILIES, tiny_policy, tokens

from reasonloop.config import Optimizer, Sampling
from reasonloop.learner.batch import supervised
from reasonloop.learner.local import LocalLearner
from reasonloop.policy.stream import SHORTEST_PREFIX, common_prefix, pack, split_by_tokens


def alike(count: int, shared: int, seed: int = 0) -> list[np.ndarray]:
    """Prompts with `shared` first tokens in common, then different ones, of different lengths."""
    rng = np.random.default_rng(seed)
    beginning = tokens(rng, shared)
    return [np.concatenate([beginning, [10 + i], tokens(rng, i % 4)]).astype(np.int32) for i in range(count)]


def test_the_longest_common_beginning_is_found_and_leaves_every_prompt_a_token() -> None:
    prompts = alike(5, 20)
    assert common_prefix(prompts) == 20
    assert common_prefix([*prompts, prompts[0][:13]]) == 12
    assert common_prefix(prompts[:1] * 3) == 0  # equal prompts are one prompt
    assert common_prefix(alike(5, SHORTEST_PREFIX - 1)) == 0
    assert common_prefix([]) == 0


def test_the_stream_holds_the_beginning_once() -> None:
    prompts = alike(5, 20)
    responses = [tokens(np.random.default_rng(9), 3)] * 5
    stream = pack(prompts, responses)
    assert len(stream.tokens) == 20 + sum(len(prompt) - 20 for prompt in prompts) + 5 * 2


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_log_probs_are_those_of_each_pair_alone(family: str) -> None:
    policy, rng = tiny_policy(family), np.random.default_rng(1)
    prompts = [prompt for prompt in alike(6, 15) for _ in range(2)]
    responses = [tokens(rng, int(rng.integers(1, 9))) for _ in prompts]
    together = policy.score(prompts, responses, Sampling())
    for own, response, got in zip(prompts, responses, together, strict=True):
        np.testing.assert_allclose(got, policy.score([own], [response], Sampling())[0], atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "mistral_window", "gpt2"])
def test_rollouts_are_those_of_each_prompt_alone(family: str) -> None:
    policy = tiny_policy(family)
    sampler = Sampler(policy, of_slots(5))
    prompts = [prompt(f"p{i}", own) for i, own in enumerate(alike(7, 15))]
    sampling = Sampling(max_tokens=9)
    together = sampler.sample(prompts, 3, sampling)
    apart = [rollout for one in prompts for rollout in sampler.sample([one], 3, sampling)]
    for got, expected in zip(together, apart, strict=True):
        np.testing.assert_array_equal(got.response_tokens, expected.response_tokens)
        np.testing.assert_allclose(got.logprobs, expected.logprobs, atol=1e-5)


def test_gradients_do_not_depend_on_sharing() -> None:
    prompts = alike(6, 15)
    rng = np.random.default_rng(2)
    pairs = [(prompt, tokens(rng, 5)) for prompt in prompts]
    norms = []
    for limit in (1, 40, 10_000):  # each pair alone; a few together; all together
        learner = LocalLearner(tiny_policy("llama"), Optimizer(microbatch_tokens=limit), Sampling())
        measured = learner.update(supervised(pairs), 1e-3)
        norms.append((measured["loss"], measured["grad_norm"]))
    np.testing.assert_allclose(norms[1:], [norms[0]] * 2, rtol=2e-5)


def test_the_split_counts_the_beginning_once() -> None:
    prompts = alike(8, 50)
    responses = [tokens(np.random.default_rng(3), 4)] * 8
    assert len(split_by_tokens(prompts, responses, 50 + 8 * (4 + 3))) == 1
