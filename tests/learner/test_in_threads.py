"""Streams of an update in several threads: the same gradients, the same bytes every time, no more tokens at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_policy, tokens

from reasonloop.config import Optimizer, Sampling
from reasonloop.learner.batch import Example
from reasonloop.learner.in_threads import cut, stream_tokens
from reasonloop.learner.local import LocalLearner
from reasonloop.learner.losses import OBJECTIVES
from reasonloop.policy.stream import pack, split_by_tokens


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def pairs(
    seed: int, prompts: int, each: int, longest: int, shared: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    beginning = tokens(rng, shared) if shared else np.empty(0, np.int32)
    distinct = [np.concatenate([beginning, tokens(rng, int(rng.integers(1, 9)))]) for _ in range(prompts)]
    all_prompts = [prompt for prompt in distinct for _ in range(each)]
    return all_prompts, [tokens(rng, int(rng.integers(1, longest + 1))) for _ in all_prompts]


@given(
    st.integers(0, 999), st.integers(1, 9), st.integers(1, 8), st.integers(1, 40), st.sampled_from([0, 30]),
    st.integers(1, 600), st.integers(1, 4),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_threads_share_all_the_work_evenly_within_the_limit(
    seed: int, prompts: int, each: int, longest: int, shared: int, limit: int, threads: int
) -> None:
    of_prompts, of_responses = pairs(seed, prompts, each, longest, shared)

    def size(members: list[int]) -> int:
        return len(pack([of_prompts[i] for i in members], [of_responses[i] for i in members]).tokens)

    dealt = cut(of_prompts, of_responses, limit, threads)
    assert len(dealt) in (1, threads)
    assert sorted(i for part in dealt for stream in part for i in stream) == list(range(len(of_prompts)))
    for members in (stream for part in dealt for stream in part):
        assert stream_tokens(of_prompts, of_responses, members) == size(members)
        assert size(members) <= limit // len(dealt) or len(members) == 1
    if len(dealt) > 1:
        assert len({len(part) for part in dealt}) == 1
        whole = sum(map(size, split_by_tokens(of_prompts, of_responses, limit)))
        assert max(sum(map(size, part)) for part in dealt) * threads <= 1.1 * whole


def examples(seed: int) -> list[Example]:
    rng = np.random.default_rng(seed)
    return [
        Example(
            prompt, response, policy_weight=np.full(len(response), 0.01), kl_weight=np.full(len(response), 0.001),
            advantage=np.full(len(response), rng.normal()),
            behaviour=-rng.exponential(3.0, len(response)).astype(np.float32),
            reference=-rng.exponential(3.0, len(response)).astype(np.float32),
        )
        for prompt, response in zip(*pairs(seed, 4, 8, 30), strict=True)
    ]  # fmt: skip


def gradients(kind: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, float], torch.Tensor]:
    """An update's measurements and, flat, the gradients that its optimizer step is given."""
    torch.set_num_threads(threads)
    learner = LocalLearner(tiny_policy(kind), Optimizer(microbatch_tokens=400), Sampling())
    found: list[torch.Tensor] = []
    monkeypatch.setattr(learner.optimizer, "step", lambda: found.extend(p.grad.flatten() for p in learner.parameters))
    measured = learner.update(examples(1), 1e-3, OBJECTIVES["dapo"])
    return measured, torch.cat(found)


@pytest.mark.parametrize("kind", ["llama_tied", "qwen3", "gemma2_softcap", "gpt2"])
def test_two_threads_have_the_gradients_of_one(kind: str, two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    of = examples(1)
    assert len(cut([e.prompt for e in of], [e.response for e in of], 400, 2)) == 2
    measured, alone = gradients(kind, 1, monkeypatch)
    found, together = gradients(kind, 2, monkeypatch)
    assert found == pytest.approx(measured, rel=1e-5, abs=1e-7)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6 * float(alone.abs().max()))
    again, bits = gradients(kind, 2, monkeypatch)
    assert again == found
    assert torch.equal(bits, together)
    assert torch.get_num_threads() == 2


def test_an_error_in_a_thread_is_the_update_s(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = LocalLearner(tiny_policy("llama"), Optimizer(microbatch_tokens=400), Sampling())
    broken = [
        *examples(1)[:-1],
        Example(np.array([10**6], np.int32), np.array([1, 2, 3], np.int32), policy_weight=np.ones(3)),
    ]
    with pytest.raises(IndexError):
        learner.update(broken, 1e-3)
    assert torch.get_num_threads() == 2
