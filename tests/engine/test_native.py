"""The native engine: batch invariance, behaviour log-probs, stops and limits."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampler import Sampler, at, of_slots, prompt
from tiny_models import EOS, tiny_policy, tokens

import reasonloop.engine.native as native
from reasonloop.config import Sampling
from reasonloop.engine.decoder import decoder_for
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.protocol import Request
from reasonloop.errors import InputError, RunError
from reasonloop.policy.policy import Policy, Weights
from reasonloop.records import Group, Rollout

ADDRESS = at(5, "explore", iteration=1, step=2)
SAMPLING = Sampling(max_tokens=24, stop=("answer", "back", "no", "=", ";", "yes"))


def prompts(count: int, seed: int = 0) -> list[Group]:
    rng = np.random.default_rng(seed)
    return [prompt(f"p{i}", tokens(rng, int(rng.integers(1, 20)))) for i in range(count)]


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
        for one in prompts(9)
        for rollout in Sampler(policy, of_slots(1)).sample([one], 4, SAMPLING, ADDRESS)
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
        got = Sampler(policy, of_slots(slots)).sample(chosen, n, SAMPLING, ADDRESS)
    finally:
        native.PREFILL_TOKENS = before
    assert_same(got, [expected[one.problem.id, sample] for one in chosen for sample in range(n)])


@pytest.mark.parametrize("family", ["qwen3", "mistral_window", "gemma2_softcap", "gpt_neox", "gpt2", "granite_scaled"])
def test_every_family_decodes_as_it_scores(family: str) -> None:
    """Cached decoding with recycled slots against one packed forward pass, windows and soft caps included."""
    policy = tiny_policy(family, seed=4)
    rollouts = Sampler(policy, of_slots(4)).sample(prompts(6), 3, SAMPLING, ADDRESS)
    scored = policy.score([r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], SAMPLING)
    for rollout, again in zip(rollouts, scored, strict=True):
        np.testing.assert_allclose(rollout.logprobs, again, rtol=0, atol=1e-5)
    alone = [Sampler(policy).sample([p], 3, SAMPLING, ADDRESS) for p in prompts(6)]
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
    rollouts = Sampler(policy).sample(prompts(8), 4, sampling, ADDRESS)
    scored = policy.score([r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], sampling)
    for rollout, again in zip(rollouts, scored, strict=True):
        np.testing.assert_allclose(rollout.logprobs, again, rtol=0, atol=1e-5)
        np.testing.assert_allclose(np.exp(again - rollout.logprobs), 1.0, rtol=0, atol=1e-4)
    assert all((rollout.logprobs <= 1e-6).all() for rollout in rollouts)


def test_tokens_follow_the_policy(policy: Policy) -> None:
    """102,400 samples of one prompt: the first token from the shared prefill, the second from decoding behind each first."""
    n, one = 102_400, prompts(1)[0]
    sampling = SAMPLING.model_copy(update={"max_tokens": 2})
    rollouts = Sampler(policy, of_slots(2048)).sample([one], n, sampling, ADDRESS, lengths=np.full(n, 2))
    pairs = np.zeros((97, 97))
    np.add.at(pairs, tuple(np.stack([r.response_tokens for r in rollouts]).T), 1)
    ids = np.concatenate([np.tile(one.prompt_tokens, (97, 1)), np.arange(97)[:, None]], axis=1).astype(np.int64)
    with torch.inference_mode():
        logits = policy.model(input_ids=torch.from_numpy(ids)).logits.double()
    first, second = torch.softmax(logits[0, -2], -1).numpy(), torch.softmax(logits[:, -1], -1).numpy()
    for counts, expected in ((pairs.sum(1), n * first), (pairs, n * first[:, None] * second)):
        used = expected >= 8
        assert used.any()
        statistic = ((counts[used] - expected[used]) ** 2 / expected[used]).sum()
        assert statistic < used.sum() + 4.5 * np.sqrt(2 * used.sum())


def test_finish_reasons_and_the_stop_token(policy: Policy) -> None:
    rollouts = Sampler(policy).sample(prompts(9), 8, SAMPLING, ADDRESS)
    stop = policy.codec.stop_tokens(SAMPLING.stop)
    assert {rollout.finish for rollout in rollouts} == {"stop", "length"}
    for rollout in rollouts:
        ids = rollout.response_tokens.tolist()
        assert rollout.response_tokens.dtype == np.int32
        assert rollout.logprobs.dtype == np.float32
        assert len(ids) == len(rollout.logprobs)
        assert not stop.intersection(ids[:-1])
        assert (rollout.finish == "stop") == (ids[-1] in stop)
        assert rollout.finish == "stop" or len(ids) == SAMPLING.max_tokens
        assert rollout.text == policy.codec.decode(rollout.response_tokens)
        assert "<eos>" not in rollout.text
        assert (rollout.branch, rollout.iteration, rollout.step) == ("main", 1, 2)


def test_a_first_token_that_stops_at_once() -> None:
    policy = tiny_policy("llama")
    with torch.no_grad():  # every prompt is answered with the end of sequence
        policy.model.model.norm.weight.zero_()
    policy.model.lm_head.bias = torch.nn.Parameter(torch.full((97,), -50.0).index_fill(0, torch.tensor([EOS]), 50.0))
    for slots in (1, 3, 64):
        rollouts = Sampler(policy, of_slots(slots)).sample(prompts(5), 3, SAMPLING, ADDRESS)
        assert len(rollouts) == 15
        assert all(rollout.response_tokens.tolist() == [EOS] for rollout in rollouts)
        assert all((rollout.finish, rollout.text) == ("stop", "") for rollout in rollouts)


def test_a_stop_token_at_the_limit_is_a_stop(policy: Policy) -> None:
    long = Sampler(policy).sample(prompts(9), 4, SAMPLING, ADDRESS)
    stopped = next(r for r in long if r.finish == "stop" and len(r.response_tokens) > 2)
    length = len(stopped.response_tokens)
    for limit, finish in ((length, "stop"), (length - 1, "length")):
        again = Sampler(policy).sample(prompts(9), 4, SAMPLING.model_copy(update={"max_tokens": limit}), ADDRESS)
        same = next(r for r in again if (r.problem_id, r.sample) == (stopped.problem_id, stopped.sample))
        assert same.finish == finish
        assert same.response_tokens.tolist() == stopped.response_tokens.tolist()[:limit]


def test_a_prompt_and_response_may_fill_the_context_and_no_more(policy: Policy) -> None:
    rng = np.random.default_rng(0)
    fits, too_long = prompt("fits", tokens(rng, 253)), prompt("too-long", tokens(rng, 254))
    sampling = Sampling(max_tokens=3)
    assert len(Sampler(policy).sample([fits], 2, sampling, ADDRESS)) == 2
    with pytest.raises(InputError, match=r"problem too-long: .*254 tokens.*max_tokens = 3.*context of 256"):
        Sampler(policy).sample([prompts(1)[0], too_long], 2, sampling, ADDRESS)


def test_odd_requests(policy: Policy) -> None:
    assert Sampler(policy).sample([], 4, SAMPLING, ADDRESS) == []
    asked = [Request(prompts(1)[0].prompt_tokens, draw=1)]
    with pytest.raises(RunError, match="load"):
        NativeEngine().generate(asked, SAMPLING)
    with pytest.raises(RunError, match="folder"):
        NativeEngine().load(Weights(folder=Path("somewhere")))
    gone = NativeEngine()
    gone.load(Weights(policy=tiny_policy()))
    gc.collect()
    with pytest.raises(RunError, match="load"):  # it keeps no policy alive
        gone.generate(asked, SAMPLING)
    with pytest.raises(InputError, match=r"problem hollow: .*no tokens"):
        Sampler(policy).sample([*prompts(1), prompt("hollow", np.empty(0, np.int32))], 1, SAMPLING, ADDRESS)


def test_diverged_weights_end_the_run_with_a_reason() -> None:
    policy = tiny_policy("llama")
    with torch.no_grad():
        policy.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(RunError, match="not finite"):
        Sampler(policy).sample(prompts(2), 2, SAMPLING, ADDRESS)


def test_addresses_give_other_draws(policy: Policy) -> None:
    first = Sampler(policy).sample(prompts(3), 2, SAMPLING, ADDRESS)
    seed, place = ADDRESS
    others = [replace(place, step=3), replace(place, iteration=0), replace(place, stage="eval/test")]
    for address in [(6, place), *((seed, other) for other in others)]:
        other = Sampler(policy).sample(prompts(3), 2, SAMPLING, address)
        assert all(
            a.response_tokens.tolist() != b.response_tokens.tolist()
            for a, b in zip(first, other, strict=True)
            if min(len(a.response_tokens), len(b.response_tokens)) > 3
        )
    vanilla = Sampler(policy).sample(prompts(3), 2, SAMPLING, (seed, replace(place, branch="vanilla")))
    assert [r.response_tokens.tolist() for r in vanilla] == [r.response_tokens.tolist() for r in first]
    assert {r.branch for r in vanilla} == {"vanilla"}


def test_the_same_call_gives_the_same_bytes_and_the_weights_are_read_each_time() -> None:
    policy = tiny_policy("llama")
    sampler = Sampler(policy)
    first, again = (sampler.sample(prompts(5), 3, SAMPLING, ADDRESS) for _ in range(2))
    assert [r.logprobs.tobytes() for r in first] == [r.logprobs.tobytes() for r in again]
    with torch.no_grad():
        policy.model.lm_head.weight.mul_(0.5)
    changed = sampler.sample(prompts(5), 3, SAMPLING, ADDRESS)
    scored = policy.score([r.prompt_tokens for r in changed], [r.response_tokens for r in changed], SAMPLING)
    for rollout, logprobs in zip(changed, scored, strict=True):
        np.testing.assert_allclose(rollout.logprobs, logprobs, rtol=0, atol=1e-5)


def test_steps_count_every_token_drawn_after_the_first(policy: Policy) -> None:
    counted: list[int] = []
    rollouts = Sampler(policy, of_slots(on_step=counted.append)).sample(prompts(5), 3, SAMPLING, ADDRESS)
    assert sum(counted) == sum(len(r.response_tokens) - 1 for r in rollouts)


def test_a_known_version_is_laid_out_once_and_changed_weights_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Policy] = []
    monkeypatch.setattr(
        native, "decoder_for", lambda policy, capture: made.append(policy) or decoder_for(policy, capture)
    )
    policy, engine = tiny_policy("llama"), NativeEngine()
    asked = [Request(p.prompt_tokens, draw=i) for i, p in enumerate(prompts(3))]

    def generate(version: int) -> list[list[int]]:
        engine.load(Weights(version, policy))
        found = engine.generate(asked, SAMPLING)
        assert {completion.version for completion in found} == {version}
        return [completion.tokens.tolist() for completion in found]

    first = generate(0)
    assert generate(0) == first
    assert len(made) == 1
    with torch.no_grad():
        policy.model.lm_head.weight.mul_(-1.0)
    assert generate(0) != first  # a version that lies: the weights themselves tell
    assert len(made) == 2
    engine.rest()
    generate(0)
    generate(1)
    assert len(made) == 4


def test_requests_with_one_prompt_are_computed_once_wherever_they_stand(policy: Policy) -> None:
    """Equal prompts of two problems, next to one another and apart, are sampled as each alone would be."""
    one, two = prompts(2)
    order = [one.prompt_tokens, one.prompt_tokens, two.prompt_tokens, one.prompt_tokens]
    engine = NativeEngine()
    engine.load(Weights(policy=policy))
    together = engine.generate([Request(own, draw=i) for i, own in enumerate(order)], SAMPLING)
    for i, own in enumerate(order):
        (alone,) = engine.generate([Request(own, draw=i)], SAMPLING)
        assert alone.tokens.tolist() == together[i].tokens.tolist()
