"""Policies in bfloat16: float32 copies take the optimizer's steps, gradient sums and log-probs are float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sampler import Sampler, prompt
from tiny_models import pairs, tiny_policy

from reasonloop.config import Optimizer, Sampling
from reasonloop.learner.batch import Example, supervised
from reasonloop.learner.local import LocalLearner
from reasonloop.policy.policy import Policy


def batch(seed: int, groups: int = 4) -> list[Example]:
    prompts, responses = pairs(seed, groups=groups, size=2)
    return supervised(list(zip(prompts, responses, strict=True)))


def rounded(policy: Policy) -> Policy:
    """The same weights, rounded to bfloat16 and back: where both sides of a comparison start."""
    policy.compute_in("bfloat16")
    policy.compute_in("float32")
    return policy


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().float().flatten() for tensor in tensors])


def weights(policy: Policy) -> torch.Tensor:
    return flat(list(policy.model.parameters()))


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_neox"])
def test_a_loaded_policy_has_bfloat16_weights_and_float32_positions(family: str, tmp_path: Path) -> None:
    tiny_policy(family).save(tmp_path / "model")
    policy = Policy.load(tmp_path / "model", dtype="bfloat16")
    assert {p.dtype for p in policy.model.parameters()} == {torch.bfloat16}
    floating = [buffer for buffer in policy.model.buffers() if buffer.is_floating_point()]
    assert floating
    assert {buffer.dtype for buffer in floating} == {torch.float32}
    prompts, responses = pairs(0)
    exact = rounded(tiny_policy(family)).score(prompts, responses, Sampling())
    for ours, theirs in zip(policy.score(prompts, responses, Sampling()), exact, strict=True):
        assert ours.dtype == np.float32
        # eight bits of mantissa, logits of a few units
        np.testing.assert_allclose(ours, theirs, atol=0.15)


def test_auto_is_float32_on_a_cpu(tmp_path: Path) -> None:
    tiny_policy().save(tmp_path / "model")
    assert {p.dtype for p in Policy.load(tmp_path / "model", dtype="auto").model.parameters()} == {torch.float32}


def test_steps_too_small_for_bfloat16_add_up() -> None:
    """40 steps of 2e-5 on weights of 0.2: a bfloat16 weight of that size moves by 1e-3 or not at all."""
    low, high = tiny_policy(), rounded(tiny_policy())
    low.compute_in("bfloat16")
    start = weights(low)
    ours, reference = (LocalLearner(policy, Optimizer(), Sampling()) for policy in (low, high))
    for _ in range(40):
        ours.update(batch(0), 2e-5)
        reference.update(batch(0), 2e-5)
    moved, expected = flat(ours.parameters) - start, weights(high) - start
    assert torch.cosine_similarity(moved, expected, dim=0) > 0.97
    assert float(moved.norm()) == pytest.approx(float(expected.norm()), rel=0.05)
    assert torch.equal(weights(low), flat([p.bfloat16() for p in ours.parameters]))

    naive = rounded(tiny_policy())
    naive.compute_in("bfloat16")
    optimizer = torch.optim.AdamW(naive.model.parameters(), lr=2e-5, weight_decay=0.0)
    signs = [torch.sign(p.detach().float()) for p in naive.model.parameters()]
    for _ in range(40):
        for parameter, sign in zip(naive.model.parameters(), signs, strict=True):
            parameter.grad = sign.bfloat16()
        optimizer.step()
    # what the copies are for: with steps of full size all in one direction most weights did not move
    assert (weights(naive) == start).float().mean() > 0.8


def test_gradients_are_summed_in_float32() -> None:
    """Many micro-batches, each rounded once, are as near to the float32 gradient as one: sums in bfloat16 drift off."""
    examples = batch(1, groups=60)
    norms = {}
    for name, size in (("one", 100_000), ("many", 24)):
        policy = tiny_policy()
        policy.compute_in("bfloat16")
        norms[name] = LocalLearner(policy, Optimizer(microbatch_tokens=size), Sampling()).update(examples, 0.0)[
            "grad_norm"
        ]
    exact = LocalLearner(rounded(tiny_policy()), Optimizer(), Sampling()).update(examples, 0.0)["grad_norm"]
    assert norms["one"] == pytest.approx(exact, rel=0.02)
    assert norms["many"] == pytest.approx(exact, rel=0.02)


def test_a_loaded_learner_continues_with_the_same_bytes(tmp_path: Path) -> None:
    def fresh() -> Policy:
        policy = tiny_policy("llama_tied")
        policy.compute_in("bfloat16")
        return policy

    straight = LocalLearner(fresh(), Optimizer(), Sampling())
    for seed in range(3):
        straight.update(batch(seed), 1e-4)
    (tmp_path / "model").mkdir()
    straight.save(tmp_path / "model")
    continued = LocalLearner(Policy.load(tmp_path / "model", dtype="bfloat16"), Optimizer(), Sampling())
    continued.load(tmp_path / "model")
    for seed in range(3, 6):
        assert continued.update(batch(seed), 1e-4) == straight.update(batch(seed), 1e-4)
    assert torch.equal(flat(continued.parameters), flat(straight.parameters))
    assert torch.equal(weights(continued.policy), weights(straight.policy))


def test_sampled_log_probs_are_near_those_of_a_scoring_pass() -> None:
    policy = tiny_policy("qwen3")
    policy.compute_in("bfloat16")
    prompts = [prompt(str(i), p) for i, p in enumerate(pairs(2)[0][::2])]
    rollouts = Sampler(policy).sample(prompts, 4, Sampling(max_tokens=12))
    scored = policy.score([r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], Sampling())
    difference = np.concatenate([r.logprobs - s for r, s in zip(rollouts, scored, strict=True)])
    assert np.abs(difference).mean() < 0.05
    assert abs(difference.mean()) < 0.02
