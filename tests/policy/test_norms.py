"""RMS norms as one operation: the model computes what it did, and learns it."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import FAMILIES, pairs, tiny_policy

from reasonloop.config import Sampling
from reasonloop.policy import norms

FUSED = {"llama": 5, "llama_tied": 5, "qwen2": 5, "qwen3": 9, "mistral_window": 5, "granite_scaled": 5}
"""Norms of two layers and the last one; with norms of queries and keys four more"""


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_fused_model_computes_and_learns_the_same(family: str) -> None:
    policy = tiny_policy(family)
    fused = policy.copy()
    assert norms.fuse(fused.model) == FUSED.get(family, 0)
    assert norms.fuse(fused.copy().model) == 0
    assert fused.model.state_dict().keys() == policy.model.state_dict().keys()
    ids = torch.from_numpy(pairs(0)[1][0].astype("int64"))[None]
    gradients = []
    for model in (policy.model, copy.deepcopy(fused.model)):
        logits = model(input_ids=ids, use_cache=False).logits
        logits.square().mean().backward()
        gradients.append([logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_sampled_and_scored_log_probs_agree() -> None:
    policy = tiny_policy("qwen3")
    prompts, responses = pairs(1)
    expected = policy.score(prompts, responses, Sampling())
    norms.fuse(policy.model)
    for ours, theirs in zip(policy.score(prompts, responses, Sampling()), expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), torch.from_numpy(theirs), rtol=0, atol=1e-5)
