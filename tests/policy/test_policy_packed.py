"""Weights laid out for decoding: the same numbers, and no trace of them left behind."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from tiny_models import pairs, tiny_policy

import reasonloop.policy.packed as packed
from reasonloop.config import Sampling
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.protocol import Address, Prompt
from reasonloop.kernels import products
from reasonloop.policy.policy import Policy
from reasonloop.policy.stream import pack

pytestmark = pytest.mark.skipif(not packed.available(), reason="torch without oneDNN")


@pytest.fixture(autouse=True)
def small_weights_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "WORTH", 1)


def hidden(policy: Policy) -> torch.Tensor:
    stream = pack(*pairs(3, groups=4))
    with torch.inference_mode():
        return policy.hidden(stream.tokens, stream.positions, stream.plan)


@pytest.mark.parametrize("rows", [1, 4, 63, 300])
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_is_that_of_float64(rows: int, bias: bool) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight = (torch.randn(size, generator=generator) for size in ((2, rows, 96), (131, 96)))
    added = torch.randn(131, generator=generator) if bias else None
    expected = x.double() @ weight.double().t() + (added.double() if added is not None else 0)
    with torch.inference_mode():
        got = packed.packed_linear(weight, added)(x)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "llama_tied", "qwen2", "gemma2_softcap", "granite_scaled", "gpt2"])
def test_hidden_states_and_logits_are_the_same_and_all_is_undone(family: str) -> None:
    policy = tiny_policy(family)
    plain, attributes = hidden(policy), [set(vars(module)) for module in policy.model.modules()]
    with torch.inference_mode():
        logits = policy.head().logits(plain)
    with packed.packed_weights(policy) as head, torch.inference_mode():
        torch.testing.assert_close(hidden(policy), plain, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(head.logits(plain), logits, rtol=1e-4, atol=1e-5)
    assert [set(vars(module)) for module in policy.model.modules()] == attributes
    assert torch.equal(hidden(policy), plain)


@pytest.mark.parametrize("bias", [False, True])
def test_siblings_are_one_product_of_the_tensor_that_they_are_given_together(bias: bool) -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(96, size, bias=bias) for size in (64, 32, 32)]
    products = packed.packed_siblings(layers)
    first, second = torch.randn(2, 5, 96), torch.randn(2, 5, 96)
    # in turn, the same one twice, one left out, another input between two, an equal tensor that isn't the same
    calls = [
        (0, first),
        (1, first),
        (2, first),
        (0, first),
        (0, first),
        (2, first),
        (1, second),
        (1, first),
        (2, first),
    ]
    calls += [(0, second), (1, second.clone()), (2, second), (0, second)]
    with torch.inference_mode():
        for which, x in calls:
            torch.testing.assert_close(products[which](x), layers[which](x), rtol=1e-5, atol=1e-5)


def test_a_layers_input_is_not_kept_once_all_siblings_have_used_it() -> None:
    layers = [torch.nn.Linear(96, 64, bias=False) for _ in range(2)]
    products = packed.packed_siblings(layers)
    x = torch.randn(3, 96)
    kept = weakref.ref(x)
    with torch.inference_mode():
        for product in products:
            product(x)
    del x
    assert kept() is None


def test_it_is_undone_after_an_error() -> None:
    policy = tiny_policy()
    with pytest.raises(KeyError), packed.packed_weights(policy):
        raise KeyError
    assert not any("forward" in vars(module) for module in policy.model.modules())


def test_a_copy_is_of_the_weights_as_they_are_at_each_call() -> None:
    policy, engine = tiny_policy(), NativeEngine()
    engine.load(policy)
    prompts = [Prompt("p", pairs(1)[0][0])]
    engine.sample(prompts, 4, Sampling(max_tokens=8), Address(0, "x"))
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(0.5)
    rollouts = engine.sample(prompts, 4, Sampling(max_tokens=8), Address(0, "x"))
    scored = policy.score([r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], Sampling())
    for rollout, expected in zip(rollouts, scored, strict=True):
        np.testing.assert_allclose(rollout.logprobs, expected, atol=1e-5)


def test_only_float32_is_laid_out() -> None:
    policy = tiny_policy()
    policy.compute_in("bfloat16")
    with packed.packed_weights(policy) as head:
        assert head.project is products.linear
        assert not any("forward" in vars(module) for module in policy.model.modules())
