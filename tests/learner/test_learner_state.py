"""The learner's state and safeguards: continuing, skipping, clipping, schedules, gradient checkpointing."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sampler import Sampler, prompt
from tiny_models import pairs, tiny_policy, tokens

from reasonloop.config import Optimizer, Sampling
from reasonloop.engine.kernel_decoder import KINDS, known
from reasonloop.learner.batch import Example, supervised
from reasonloop.learner.local import LocalLearner, scheduled
from reasonloop.policy.policy import Policy


def batch(seed: int) -> list[Example]:
    prompts, responses = pairs(seed, groups=3, size=2)
    return supervised(list(zip(prompts, responses, strict=True)))


def weights(policy: Policy) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in policy.model.state_dict().items()}


@pytest.mark.parametrize("family", ["llama", "llama_tied", "qwen3"])
def test_a_loaded_learner_continues_with_the_same_bytes(family: str, tmp_path: Path) -> None:
    options = Optimizer(weight_decay=0.1, microbatch_tokens=40)
    straight = LocalLearner(tiny_policy(family), options, Sampling())
    for seed in range(3):
        straight.update(batch(seed), 1e-3)
    (tmp_path / "model").mkdir()
    straight.save(tmp_path / "model")
    continued = LocalLearner(Policy.load(tmp_path / "model"), options, Sampling())
    continued.load(tmp_path / "model")
    assert (continued.updates, continued.skipped) == (3, 0)
    assert weights(continued.policy) == weights(straight.policy)
    for seed in range(3, 6):
        assert continued.update(batch(seed), 5e-4) == straight.update(batch(seed), 5e-4)
        assert weights(continued.policy) == weights(straight.policy)
    fresh = LocalLearner(Policy.load(tmp_path / "model"), options, Sampling())  # without its moments it goes elsewhere
    fresh.update(batch(3), 5e-4)
    assert weights(fresh.policy) != weights(straight.policy)


def poisoned_example(kind: str) -> Example:
    example = batch(0)[0]
    behaviour = np.full(len(example.response), -1.0, np.float32)
    advantage = np.full(len(example.response), float(kind) if kind != "weight" else 1.0)
    weight = np.full(len(example.response), float("inf") if kind == "weight" else 1.0)
    return Example(example.prompt, example.response, policy_weight=weight, advantage=advantage, behaviour=behaviour)


@pytest.mark.parametrize("kind", ["inf", "-inf", "nan", "1e30", "weight"])  # 1e30: finite, but not its norm
def test_a_non_finite_gradient_skips_the_update_and_is_counted(kind: str) -> None:
    learner = LocalLearner(tiny_policy("llama"), Optimizer(), Sampling())
    learner.update(batch(1), 1e-3)
    before = weights(learner.policy)
    moments = copy.deepcopy(learner.optimizer.state_dict()["state"])
    metrics = learner.update([*batch(2), poisoned_example(kind)], 1e-3)
    assert not np.isfinite(metrics["grad_norm"])
    assert (learner.updates, learner.skipped) == (2, 1)
    assert weights(learner.policy) == before
    for index, state in learner.optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, moments[index][name]) for name, value in state.items())
    healthy = learner.update(batch(2), 1e-3)  # nothing of the bad gradient is left behind
    assert np.isfinite(healthy["grad_norm"])
    assert (learner.updates, learner.skipped) == (3, 1)
    assert weights(learner.policy) != before
    twin = LocalLearner(tiny_policy("llama"), Optimizer(), Sampling())
    twin.update(batch(1), 1e-3)
    twin.update(batch(2), 1e-3)
    assert weights(twin.policy) == weights(learner.policy)


def test_a_poisoned_weight_skips_too() -> None:
    learner = LocalLearner(tiny_policy("llama"), Optimizer(), Sampling())
    with torch.no_grad():
        learner.policy.model.model.layers[1].mlp.up_proj.weight[0, 0] = float("inf")
    before = weights(learner.policy)
    learner.update(batch(0), 1e-3)
    assert learner.skipped == 1
    assert weights(learner.policy) == before


def step_and_gradient(clip: float) -> tuple[float, list[torch.Tensor]]:
    """grad_norm as reported, and the gradient that the optimizer saw."""
    learner = LocalLearner(tiny_policy("llama"), Optimizer(grad_clip=clip), Sampling())
    seen: list[torch.Tensor] = []
    step = learner.optimizer.step

    def spy() -> None:
        seen.extend(p.grad.clone() for p in learner.parameters if p.grad is not None)
        step()

    learner.optimizer.step = spy  # type: ignore[method-assign]
    return learner.update(batch(0), 1e-3)["grad_norm"], seen


def test_gradients_are_clipped_to_the_norm_and_reported_before() -> None:
    norm, plain = step_and_gradient(1e9)
    assert norm == pytest.approx(float(torch.cat([g.flatten() for g in plain]).norm()), rel=1e-5)
    reported, clipped = step_and_gradient(norm / 4)
    assert reported == pytest.approx(norm, rel=1e-6)
    for small, large in zip(clipped, plain, strict=True):
        torch.testing.assert_close(small, large / 4, rtol=1e-4, atol=1e-8)


def test_adamw_is_the_published_one() -> None:
    """Loshchilov and Hutter 2019, algorithm 2, in float64 over three updates with changing rates."""
    beta1, beta2, decay, clip, eps = 0.9, 0.95, 0.05, 0.5, 1e-8
    options = Optimizer(betas=(beta1, beta2), weight_decay=decay, grad_clip=clip)
    learner = LocalLearner(tiny_policy("llama"), options, Sampling())
    theta = [p.detach().double().clone() for p in learner.parameters]
    first, second = ([torch.zeros_like(p) for p in theta] for _ in range(2))
    seen: list[torch.Tensor] = []
    step = learner.optimizer.step

    def spy() -> None:
        seen[:] = [p.grad.double().clone() for p in learner.parameters]  # type: ignore[union-attr]
        step()

    learner.optimizer.step = spy  # type: ignore[method-assign]
    for update, rate in enumerate((1e-3, 3e-3, 5e-4), start=1):
        learner.update(batch(update), rate)
        for i, gradient in enumerate(seen):
            first[i] = beta1 * first[i] + (1 - beta1) * gradient
            second[i] = beta2 * second[i] + (1 - beta2) * gradient**2
            mean, variance = first[i] / (1 - beta1**update), second[i] / (1 - beta2**update)
            theta[i] = theta[i] * (1 - rate * decay) - rate * mean / (variance.sqrt() + eps)
    for got, expected in zip(learner.parameters, theta, strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-6)


@given(
    peak=st.floats(1e-7, 1e-2),
    total=st.integers(1, 400),
    warmup=st.integers(0, 50),
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
)
def test_schedules(peak: float, total: int, warmup: int, schedule: str) -> None:
    rates = [scheduled(peak, schedule, update, total, warmup) for update in range(total)]
    assert all(0 < rate <= peak * (1 + 1e-9) for rate in rates)
    rising, falling = rates[:warmup], rates[warmup:]
    np.testing.assert_allclose(rising, [peak * (i + 1) / warmup for i in range(len(rising))], rtol=1e-9)
    if not falling:
        return
    assert falling[0] == pytest.approx(peak)
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(falling))
    end = peak if schedule == "constant" or len(falling) == 1 else 0.1 * peak
    assert falling[-1] == pytest.approx(end)
    assert scheduled(peak, schedule, total + 10, total, warmup) >= 0.1 * peak * (1 - 1e-9)
    if schedule == "linear" and len(falling) > 2:
        np.testing.assert_allclose(np.diff(falling, 2), 0, atol=1e-9 * peak)
    if schedule == "cosine" and len(falling) % 2 == 1:
        assert falling[len(falling) // 2] == pytest.approx(0.55 * peak if len(falling) > 1 else peak)


def gradient_of(policy: Policy, checkpointing: bool) -> dict[str, Any]:
    learner = LocalLearner(policy, Optimizer(grad_clip=1e9, microbatch_tokens=30), Sampling(), checkpointing)
    seen: dict[str, Any] = {}
    step = learner.optimizer.step

    def spy() -> None:
        seen.update({n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None})
        step()

    learner.optimizer.step = spy  # type: ignore[method-assign]
    learner.update(batch(0), 0.0)
    return seen


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral_window", "gpt2"])
def test_gradient_checkpointing_changes_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = gradient_of(tiny_policy(family), checkpointing=False)
    policy = tiny_policy(family)
    layers = 0
    original = torch.utils.checkpoint.checkpoint

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal layers
        layers += 1
        return original(*args, **kwargs)

    monkeypatch.setattr("reasonloop.learner.recompute.checkpoint", counted)
    by_kernels = known(policy) if family in KINDS else None
    recomputed = gradient_of(policy, checkpointing=True)
    assert layers >= 2  # it was on
    assert by_kernels is None or known(policy) == by_kernels  # which decode as before
    assert plain.keys() == recomputed.keys()
    for name in plain:
        torch.testing.assert_close(recomputed[name], plain[name], rtol=1e-5, atol=1e-7)


def test_dropout_stays_off_in_training_with_checkpointing_and_sampling_does_not_change() -> None:
    """GPT-2 has dropout everywhere; the trained policy must be the sampled one, so that ratios start at 1."""
    dropping = {"attn_pdrop": 0.5, "resid_pdrop": 0.5, "embd_pdrop": 0.5}
    policy = tiny_policy("gpt2", **dropping)
    rng = np.random.default_rng(0)
    prompts = [prompt(f"p{i}", tokens(rng, 5)) for i in range(3)]
    sampler = Sampler(policy)
    sampling = Sampling(max_tokens=10)
    before = sampler.sample(prompts, 2, sampling)
    learner = LocalLearner(policy, Optimizer(), sampling, checkpointing=True)
    after = sampler.sample(prompts, 2, sampling)
    for a, b in zip(before, after, strict=True):
        assert a.response_tokens.tolist() == b.response_tokens.tolist()
        np.testing.assert_allclose(a.logprobs, b.logprobs, rtol=0, atol=1e-6)
    examples = [
        Example(
            r.prompt_tokens,
            r.response_tokens,
            policy_weight=np.full(r.length, 0.01),
            advantage=np.ones(r.length),
            behaviour=r.logprobs,
        )
        for r in after
    ]
    assert abs(learner.update(examples, 1e-3)["k1"]) < 1e-5
