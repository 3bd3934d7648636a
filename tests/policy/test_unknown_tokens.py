"""Vocabularies larger than their tokenizers: a token without a text is never drawn. Log-probs are transformers' own, with
its share; where anything is truncated, it is first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import EOS, VOCABULARY, tiny_model, tiny_policy, tokens
from torch import Tensor

from reasonloop.api.learner import Learner
from reasonloop.config import Sampling
from reasonloop.engine.draw import draw
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.protocol import Request
from reasonloop.errors import InputError
from reasonloop.policy.policy import Policy, Weights
from reasonloop.policy.stream import pack
from reasonloop.records import Rollout

PADDED = VOCABULARY + 31
HOLES = (7, 50)
PLAIN = Sampling(max_tokens=24)
CUT = Sampling(max_tokens=24, temperature=0.8, top_p=0.9, top_k=40)


class Punctured:
    """A tokenizer without some of its words."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def get_vocab(self) -> dict[str, int]:
        return {word: i for word, i in self._tokenizer.get_vocab().items() if i not in HOLES}


def padded(family: str, holes: bool) -> Policy:
    whole = tiny_policy(family, vocab_size=PADDED)
    return Policy(whole.model, Punctured(whole.codec.tokenizer)) if holes else whole


def own_logprobs(policy: Policy, prompt: np.ndarray, response: np.ndarray, sampling: Sampling) -> Tensor:
    """What transformers' logits say of a response."""
    ids = torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64))[None]
    logits = policy.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float() / sampling.temperature
    return logits.log_softmax(-1).gather(1, torch.from_numpy(response.astype(np.int64))[:, None])[:, 0]


CASES = [
    ("llama", False),
    ("llama", True),
    ("gemma2_softcap", True),
    ("gpt2", False),
    ("qwen3", False),
    ("granite_scaled", True),
]


@pytest.mark.parametrize(("family", "holes"), CASES)
@pytest.mark.parametrize("sampling", [PLAIN, CUT])
def test_no_unknown_token_is_sampled_and_what_is_sampled_is_scored(
    family: str, holes: bool, sampling: Sampling
) -> None:
    policy, rng = padded(family, holes), np.random.default_rng(0)
    unknown = (*(HOLES if holes else ()), *range(VOCABULARY, PADDED))
    assert policy.codec.unknown == unknown
    engine = NativeEngine(slots=5)
    engine.load(Weights(policy=policy))
    prompts = [tokens(rng, 3 + i % 4) for i in range(12)]
    found = engine.generate([Request(prompt, draw, length=24) for draw, prompt in enumerate(prompts)], sampling)
    assert not set(np.concatenate([one.tokens for one in found]).tolist()) & set(unknown)
    scored = policy.score(prompts, [one.tokens for one in found], sampling)
    for prompt, one, again in zip(prompts, found, scored, strict=True):
        np.testing.assert_allclose(one.logprobs, again, atol=3e-5)
        if sampling is PLAIN:
            np.testing.assert_allclose(
                one.logprobs, own_logprobs(policy, prompt, one.tokens, sampling).detach(), atol=3e-5
            )


@pytest.mark.parametrize(("family", "holes"), CASES)
def test_gradients_are_those_of_transformers_own_log_probs(family: str, holes: bool) -> None:
    policy, rng = padded(family, holes), np.random.default_rng(1)
    prompt, response = tokens(rng, 5), tokens(rng, 9)
    response[response == HOLES[0]] = response[response == HOLES[1]] = 8
    pulls = torch.from_numpy(rng.normal(size=9).astype(np.float32))
    grads = []
    for logprobs in (
        policy.scorer(pack([prompt], [response], policy.device), PLAIN).logprobs,
        own_logprobs(policy, prompt, response, PLAIN),
    ):
        policy.model.zero_grad()
        (logprobs * pulls).sum().backward()
        grads.append({name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, expected in grads[1].items():
        assert torch.allclose(grads[0][name], expected, atol=1e-5 * float(expected.abs().max()) + 1e-7), name


def test_entropies_are_those_of_transformers_own_distribution() -> None:
    policy, rng = padded("llama", holes=True), np.random.default_rng(2)
    prompt, response = tokens(rng, 5), np.full(4, 9, np.int32)
    ids = torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64))[None]
    with torch.inference_mode():
        scored = policy.scorer(pack([prompt], [response], policy.device), PLAIN)
        own = policy.model(input_ids=ids, use_cache=False).logits[0, 4:-1].log_softmax(-1)
    torch.testing.assert_close(scored.entropies, -(own.exp() * own).sum(-1), atol=1e-5, rtol=1e-5)


def test_what_others_sampled_of_them_is_not_learned() -> None:
    policy = padded("llama", holes=False)
    assert policy.codec.knows(np.array([5, 9], np.int32))
    assert not policy.codec.knows(np.array([5, VOCABULARY], np.int32))
    rollout = Rollout("p", np.array([5], np.int32), np.array([VOCABULARY], np.int32), np.zeros(1, np.float32))
    with pytest.raises(InputError, match="finetune: a response has a token that the policy's tokenizer doesn't have"):
        Learner(policy).finetune([rollout])


def test_an_end_that_only_the_model_names_may_be_said() -> None:
    model = tiny_model("llama", vocab_size=PADDED)
    model.generation_config.eos_token_id = [EOS, PADDED - 1]
    policy = Policy(model, tiny_policy("llama").codec.tokenizer)
    assert policy.codec.unknown == tuple(range(VOCABULARY, PADDED - 1))
    absent = policy.head().absent
    assert absent is not None
    assert absent.tolist() == list(policy.codec.unknown)


def test_a_vocabulary_without_padding_is_whole() -> None:
    assert tiny_policy("llama").head().absent is None


def test_what_is_drawn_is_the_model_s_distribution_but_for_them() -> None:
    """How often each token is drawn, against its probability among those that have a text; log-probs are of the whole."""
    logits = torch.tensor([0.3, 2.0, -1.0, 1.5, 4.0, 0.0])
    absent = torch.tensor([1, 4])
    count = 20000
    uniforms = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    tokens, logprobs = draw(logits.repeat(count, 1), uniforms, PLAIN, absent)
    often = torch.bincount(tokens, minlength=6) / count
    kept = logits.index_fill(0, absent, -torch.inf)
    torch.testing.assert_close(often, kept.softmax(-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[tokens], atol=1e-6, rtol=0)
    best, certain = draw(logits.repeat(3, 1), uniforms[:3], Sampling(top_k=1), absent)
    assert (best.tolist(), certain.tolist()) == ([3] * 3, [0.0] * 3)
