"""Which models the kernels decode, and that sampling's log-probs are the model's own whoever decodes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sampler import Sampler, of_slots, prompt
from tiny_models import FAMILIES, tiny_policy, tokens

from reasonloop.config import Sampling
from reasonloop.engine.kernel_decoder import KernelDecoder, known
from reasonloop.kernels.ops import library
from reasonloop.policy.policy import Policy
from reasonloop.records import Group, Rollout

KNOWN = {"llama", "llama_tied", "qwen2", "qwen3"}
SAMPLING = Sampling(max_tokens=12)


@pytest.fixture(autouse=True, params=["kernels", "modules"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What decodes: our kernels where they know the model, or its own modules where there is no compiler."""
    if request.param == "modules":
        monkeypatch.setattr("reasonloop.kernels.ops.library", lambda: None)
    elif library() is None:
        pytest.skip("there is no C compiler")
    return str(request.param)


def prompts(seed: int = 0) -> list[Group]:
    rng = np.random.default_rng(seed)
    return [prompt(f"p{i}", tokens(rng, 3 + 4 * i)) for i in range(4)]


def assert_sampled_as_scored(policy: Policy, n: int = 2) -> list[Rollout]:
    """Log-probs of sampling are those of a forward pass over the whole response by the model's own modules."""
    rollouts = Sampler(policy, of_slots(5)).sample(prompts(), n, SAMPLING)
    expected = policy.score([r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], SAMPLING)
    for rollout, logprobs in zip(rollouts, expected, strict=True):
        np.testing.assert_allclose(rollout.logprobs, logprobs, atol=2e-5)
    return rollouts


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_are_those_of_a_forward_pass_over_the_whole_response(family: str, by: str) -> None:
    """Slots are taken, left and taken again, prompts of unlike lengths, in groups."""
    policy = tiny_policy(family)
    assert_sampled_as_scored(policy, 3)
    assert (KernelDecoder.of(policy) is not None) == (by == "kernels" and family in KNOWN)


def test_mistral_without_a_window_is_one_of_them(by: str) -> None:
    policy = tiny_policy("mistral_window", sliding_window=None)
    assert_sampled_as_scored(policy)
    assert (KernelDecoder.of(policy) is not None) == (by == "kernels")


def test_what_a_learner_changes_is_seen_by_the_next_call() -> None:
    policy = tiny_policy("qwen3")
    first = assert_sampled_as_scored(policy)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.1)
    again = assert_sampled_as_scored(policy)
    assert [r.response_tokens.tolist() for r in first] != [r.response_tokens.tolist() for r in again]


def test_a_linear_layer_with_a_product_of_its_own_keeps_it() -> None:
    policy = tiny_policy("qwen2")
    key = policy.model.model.layers[1].self_attn.k_proj
    key.forward = lambda x: 2 * torch.nn.functional.linear(x, key.weight, key.bias)
    assert_sampled_as_scored(policy)


def scaled(policy: Policy) -> None:
    policy.model.model.layers[1].mlp.up_proj = torch.nn.Sequential(policy.model.model.layers[1].mlp.up_proj)


def other_activation(policy: Policy) -> None:
    policy.model.model.layers[0].mlp.act_fn = torch.nn.GELU()


def half(policy: Policy) -> None:
    policy.compute_in("bfloat16")


def window(policy: Policy) -> None:
    policy.model.model.layers[1].self_attn.sliding_window = 3


class Other(torch.nn.Module):
    """A layer that computes something else."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: object, **kwargs: object) -> object:
        return self.inner(*args, **kwargs)


def other_layer(policy: Policy) -> None:
    policy.model.model.layers[0] = Other(policy.model.model.layers[0])


def hooked(policy: Policy) -> None:
    policy.model.model.layers[0].register_forward_hook(lambda module, args, out: out * 1.5)


def other_forward(policy: Policy) -> None:
    mlp = policy.model.model.layers[0].mlp
    mlp.forward = lambda x: mlp.down_proj(x)


@pytest.mark.parametrize(
    "change", [scaled, other_activation, half, window, other_layer, hooked, other_forward], ids=lambda f: f.__name__
)
def test_a_model_that_was_changed_is_left_to_its_own_modules(change: object) -> None:
    policy = tiny_policy("llama")
    assert known(policy)
    change(policy)  # type: ignore[operator]
    assert not known(policy)
