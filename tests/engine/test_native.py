"""The native engine: batch invariance, behaviour log-probs, stops and limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import EOS, tiny_policy, tokens

import reasonloop.engine.native as native
from reasonloop.config import Sampling
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.protocol import Address, Prompt
from reasonloop.errors import InputError, RunError
from reasonloop.policy.policy import Policy
from reasonloop.records import Rollout

ADDRESS = Address(5, "rl", iteration=1, step=2)
SAMPLING = Sampling(max_tokens=24, slots=64, stop=("answer", "back", "no", "=", ";", "yes"))


def engine(policy: Policy) -> NativeEngine:
    made = NativeEngine()
    made.load(policy)
    return made


def prompts(count: int, seed: int = 0) -> list[Prompt]:
    rng = np.random.default_rng(seed)
    return [Prompt(f"p{i}", tokens(rng, int(rng.integers(1, 20)))) for i in range(count)]


def assert_same(got: Sequence[Rollout], expected: Sequence[Rollout]) -> None:
    """Equal tokens; log-probs to rounding, for a matrix product of another height rounds differently."""
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert (a.problem_id, a.sample, a.finish, a.text) == (b.problem_id, b.sample, b.finish, b.text)
        assert a.prompt_tokens.tolist() == b.prompt_tokens.tolist()
        assert a.response_tokens.tolist() == b.response_tokens.tolist()
        np.testing.assert_allclose(a.logprobs, b.logprobs, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def expected(policy: Policy) -> dict[tuple[str, int], Rollout]:
    """Every response sampled all alone: one prompt, one slot."""
    return {
        (rollout.problem_id, rollout.sample): rollout
        for prompt in prompts(9)
        for rollout in engine(policy).sample([prompt], 4, SAMPLING.model_copy(update={"slots": 1}), ADDRESS)
    }


def test_lengths_differ_enough_to_mean_something(expected: dict[tuple[str, int], Rollout]) -> None:
    lengths = [len(rollout.response_tokens) for rollout in expected.values()]
    assert min(lengths) == 1
    assert max(lengths) == 24
    assert len(set(lengths)) > 8


@settings(max_examples=20)
@given(
    slots=st.sampled_from([1, 2, 3, 5, 64]),
    n=st.integers(1, 4),
    order=st.permutations(range(9)),
    count=st.integers(1, 9),
    prefill=st.sampled_from([1, 25, 4096]),
)
def test_a_rollout_is_the_same_in_any_company(
    policy: Policy, expected: dict[Any, Rollout], slots: int, n: int, order: list[int], count: int, prefill: int
) -> None:
    """Any number of slots, order, group size and prefill block: few slots force compaction after every finish."""
    chosen = [prompts(9)[i] for i in order[:count]]
    before = native.PREFILL_TOKENS
    try:
        native.PREFILL_TOKENS = prefill
        got = engine(policy).sample(chosen, n, SAMPLING.model_copy(update={"slots": slots}), ADDRESS)
    finally:
        native.PREFILL_TOKENS = before
    assert_same(got, [expected[prompt.problem_id, sample] for prompt in chosen for sample in range(n)])


@pytest.mark.parametrize("family", ["qwen3", "mistral_window", "gemma2_softcap", "gpt_neox", "gpt2", "granite_scaled"])
def test_every_family_decodes_as_it_scores(family: str) -> None:
    """Cached decoding with recycled slots against one packed forward pass, windows and soft caps included."""
    policy = tiny_policy(family, seed=4)
    rollouts = engine(policy).sample(prompts(6), 3, SAMPLING.model_copy(update={"slots": 4}), ADDRESS)
    scored = policy.score([r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], SAMPLING)
    for rollout, again in zip(rollouts, scored, strict=True):
        np.testing.assert_allclose(rollout.logprobs, again, rtol=0, atol=1e-5)
    alone = [engine(policy).sample([p], 3, SAMPLING, ADDRESS) for p in prompts(6)]
    assert_same(rollouts, [rollout for group in alone for rollout in group])


SETTINGS = [
    {},
    {"temperature": 0.5},
    {"temperature": 1.7},
    {"top_p": 0.9},
    {"top_k": 7},
    {"min_p": 0.1},
    {"top_k": 30, "top_p": 0.8},
    {"temperature": 0.7, "top_p": 0.95, "min_p": 0.05},
    {"temperature": 1.2, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_behaviour_log_probs_are_those_of_a_fresh_scoring_pass(policy: Policy, setting: dict[str, Any]) -> None:
    sampling = SAMPLING.model_copy(update=setting)
    rollouts = engine(policy).sample(prompts(8), 4, sampling, ADDRESS)
    scored = policy.score([r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], sampling)
    for rollout, again in zip(rollouts, scored, strict=True):
        np.testing.assert_allclose(rollout.logprobs, again, rtol=0, atol=1e-5)
        np.testing.assert_allclose(np.exp(again - rollout.logprobs), 1.0, rtol=0, atol=1e-4)
    assert all((rollout.logprobs <= 1e-6).all() for rollout in rollouts)


def test_tokens_follow_the_policy(policy: Policy) -> None:
    """102,400 samples of one prompt: the first token from the shared prefill, the second from decoding behind each first."""
    n, prompt = 102_400, prompts(1)[0]
    sampling = SAMPLING.model_copy(update={"max_tokens": 2, "slots": 2048})
    rollouts = engine(policy).sample([prompt], n, sampling, ADDRESS, lengths=np.full(n, 2))
    pairs = np.zeros((97, 97))
    np.add.at(pairs, tuple(np.stack([r.response_tokens for r in rollouts]).T), 1)
    ids = np.concatenate([np.tile(prompt.tokens, (97, 1)), np.arange(97)[:, None]], axis=1).astype(np.int64)
    with torch.inference_mode():
        logits = policy.model(input_ids=torch.from_numpy(ids)).logits.double()
    first, second = torch.softmax(logits[0, -2], -1).numpy(), torch.softmax(logits[:, -1], -1).numpy()
    for counts, expected in ((pairs.sum(1), n * first), (pairs, n * first[:, None] * second)):
        used = expected >= 8
        assert used.any()
        statistic = ((counts[used] - expected[used]) ** 2 / expected[used]).sum()
        assert statistic < used.sum() + 4.5 * np.sqrt(2 * used.sum())


def test_finish_reasons_and_the_stop_token(policy: Policy) -> None:
    rollouts = engine(policy).sample(prompts(9), 8, SAMPLING, ADDRESS)
    stop = policy.stop_tokens(SAMPLING.stop)
    assert {rollout.finish for rollout in rollouts} == {"stop", "length"}
    for rollout in rollouts:
        ids = rollout.response_tokens.tolist()
        assert rollout.response_tokens.dtype == np.int32
        assert rollout.logprobs.dtype == np.float32
        assert len(ids) == len(rollout.logprobs)
        assert not stop.intersection(ids[:-1])
        assert (rollout.finish == "stop") == (ids[-1] in stop)
        assert rollout.finish == "stop" or len(ids) == SAMPLING.max_tokens
        assert rollout.text == policy.decode(rollout.response_tokens)
        assert "<eos>" not in rollout.text
        assert (rollout.branch, rollout.iteration, rollout.step) == ("main", 1, 2)


def test_a_first_token_that_stops_at_once() -> None:
    policy = tiny_policy("llama")
    with torch.no_grad():  # every prompt is answered with the end of sequence
        policy.model.model.norm.weight.zero_()
    policy.model.lm_head.bias = torch.nn.Parameter(torch.full((97,), -50.0).index_fill(0, torch.tensor([EOS]), 50.0))
    for slots in (1, 3, 64):
        sampling = SAMPLING.model_copy(update={"slots": slots})
        rollouts = engine(policy).sample(prompts(5), 3, sampling, ADDRESS)
        assert len(rollouts) == 15
        assert all(rollout.response_tokens.tolist() == [EOS] for rollout in rollouts)
        assert all((rollout.finish, rollout.text) == ("stop", "") for rollout in rollouts)


def test_a_stop_token_at_the_limit_is_a_stop(policy: Policy) -> None:
    long = engine(policy).sample(prompts(9), 4, SAMPLING, ADDRESS)
    stopped = next(r for r in long if r.finish == "stop" and len(r.response_tokens) > 2)
    length = len(stopped.response_tokens)
    for limit, finish in ((length, "stop"), (length - 1, "length")):
        again = engine(policy).sample(prompts(9), 4, SAMPLING.model_copy(update={"max_tokens": limit}), ADDRESS)
        same = next(r for r in again if (r.problem_id, r.sample) == (stopped.problem_id, stopped.sample))
        assert same.finish == finish
        assert same.response_tokens.tolist() == stopped.response_tokens.tolist()[:limit]


def test_a_prompt_and_response_may_fill_the_context_and_no_more(policy: Policy) -> None:
    rng = np.random.default_rng(0)
    fits, too_long = Prompt("fits", tokens(rng, 253)), Prompt("too-long", tokens(rng, 254))
    sampling = Sampling(max_tokens=3)
    assert len(engine(policy).sample([fits], 2, sampling, ADDRESS)) == 2
    with pytest.raises(InputError, match=r"problem too-long: .*254 tokens.*max_tokens = 3.*context of 256"):
        engine(policy).sample([prompts(1)[0], too_long], 2, sampling, ADDRESS)


def test_odd_requests(policy: Policy) -> None:
    assert engine(policy).sample([], 4, SAMPLING, ADDRESS) == []
    with pytest.raises(RunError, match="load"):
        NativeEngine().sample(prompts(1), 1, SAMPLING, ADDRESS)
    with pytest.raises(InputError, match=r"problem hollow: .*no tokens"):
        engine(policy).sample([*prompts(1), Prompt("hollow", np.empty(0, np.int32))], 1, SAMPLING, ADDRESS)


def test_diverged_weights_end_the_run_with_a_reason() -> None:
    policy = tiny_policy("llama")
    with torch.no_grad():
        policy.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(RunError, match="not finite"):
        engine(policy).sample(prompts(2), 2, SAMPLING, ADDRESS)


def test_addresses_give_other_draws(policy: Policy) -> None:
    first = engine(policy).sample(prompts(3), 2, SAMPLING, ADDRESS)
    others = [replace(ADDRESS, seed=6), replace(ADDRESS, step=3), replace(ADDRESS, iteration=0)]
    for address in [*others, replace(ADDRESS, purpose="eval/test")]:
        other = engine(policy).sample(prompts(3), 2, SAMPLING, address)
        assert all(
            a.response_tokens.tolist() != b.response_tokens.tolist()
            for a, b in zip(first, other, strict=True)
            if min(len(a.response_tokens), len(b.response_tokens)) > 3
        )
    vanilla = engine(policy).sample(prompts(3), 2, SAMPLING, replace(ADDRESS, branch="vanilla"))
    assert [r.response_tokens.tolist() for r in vanilla] == [r.response_tokens.tolist() for r in first]
    assert {r.branch for r in vanilla} == {"vanilla"}


def test_the_same_call_gives_the_same_bytes_and_the_weights_are_read_each_time() -> None:
    policy = tiny_policy("llama")
    sampler = engine(policy)
    first, again = (sampler.sample(prompts(5), 3, SAMPLING, ADDRESS) for _ in range(2))
    assert [r.logprobs.tobytes() for r in first] == [r.logprobs.tobytes() for r in again]
    with torch.no_grad():
        policy.model.lm_head.weight.mul_(0.5)
    changed = sampler.sample(prompts(5), 3, SAMPLING, ADDRESS)
    scored = policy.score([r.prompt_tokens for r in changed], [r.response_tokens for r in changed], SAMPLING)
    for rollout, logprobs in zip(changed, scored, strict=True):
        np.testing.assert_allclose(rollout.logprobs, logprobs, rtol=0, atol=1e-5)


def test_progress_counts_every_token_drawn_after_the_first(policy: Policy) -> None:
    counted: list[int] = []
    sampler = NativeEngine()
    sampler.load(policy)
    rollouts = sampler.sample(prompts(5), 3, SAMPLING, ADDRESS, on_tokens=counted.append)
    assert sum(counted) == sum(len(r.response_tokens) - 1 for r in rollouts)
