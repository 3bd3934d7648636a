"""Packed streams by flash attention: its semantics on a CPU (tests/flash_attention.py), and what is done when it's wrong."""

from __future__ import annotations

import inspect
from typing import Any

import flash_attention
import numpy as np
import pytest
import torch
from flash_attention import varlen_attn
from sampler import Sampler, prompt
from tiny_models import pairs, tiny_policy
from torch import Tensor

from reasonloop.config import Sampling
from reasonloop.kernels import ops as kernels
from reasonloop.policy import varlen

CPU = torch.device("cpu")


def aligned_to_the_top_left(query: Tensor, key: Tensor, value: Tensor, *ends: Any, **options: Any) -> Tensor:
    """As `scaled_dot_product_attention(is_causal=True)` has it: query t sees the keys up to t."""
    q_ends, k_ends = ends[:2]
    lengths = q_ends.diff()
    index = torch.cat([torch.arange(int(k), int(k + n)) for k, n in zip(k_ends, lengths, strict=False)])
    return varlen_attn(query, key[index], value[index], q_ends, q_ends, *ends[2:], **options)


@pytest.mark.parametrize("window", [None, 1, 5])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_check_of_the_kernel_knows_right_from_wrong(
    window: int | None, kv_heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(varlen, "attention", varlen_attn)
    assert varlen.disagreement(CPU, torch.float32, 4, kv_heads, 8, window) < 1e-5
    assert varlen.disagreement(CPU, torch.bfloat16, 4, kv_heads, 8, window) < varlen.TOLERANCE
    monkeypatch.setattr(varlen, "attention", aligned_to_the_top_left)
    assert varlen.disagreement(CPU, torch.float32, 4, kv_heads, 8, window) > 0.1
    monkeypatch.setattr(
        varlen, "attention", lambda *args, **options: varlen_attn(*args, **options | {"window_size": (2, 0)})
    )
    assert varlen.disagreement(CPU, torch.float32, 4, kv_heads, 8, window) > 0.1


def test_a_wrong_or_missing_kernel_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "attention", aligned_to_the_top_left)
    varlen.sound.cache_clear()
    with pytest.warns(UserWarning, match=r"its numbers differ by .*: attention in padded chunks"):
        assert not varlen.sound(CPU, torch.float32, 4, 2, 8, False)

    def missing(*args: Any, **options: Any) -> Tensor:
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.\nmore")

    monkeypatch.setattr(varlen, "attention", missing)
    with pytest.warns(UserWarning, match=r"\(FlashAttention only supports Ampere GPUs or newer\.\)") as told:
        assert not any(varlen.sound(CPU, torch.float32, 4, 2, 16, False) for _ in range(2))
    assert len(told) == 1
    varlen.sound.cache_clear()


def test_both_signatures_of_torch_are_called_rightly(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch 2.11 to 2.12 and later; the one that is installed takes what it is given."""
    import torch.nn.attention.varlen as torchs

    seen: list[dict[str, Any]] = []

    def old(*args: Any, scale: float | None = None, window_size: tuple[int, int] = (-1, -1)) -> Tensor:
        seen.append({"scale": scale, "window_size": window_size})
        return args[0]

    def new(*args: Any, enable_gqa: bool = False, **options: Any) -> Tensor:
        seen.append({**options, "enable_gqa": enable_gqa})
        return args[0]

    query, key = torch.zeros(3, 4, 8), torch.zeros(3, 2, 8)
    ends = torch.tensor([0, 3], dtype=torch.int32)
    parameters = inspect.signature(torchs.varlen_attn).parameters
    for function in (old, new):
        monkeypatch.setattr(torchs, "varlen_attn", function)
        varlen.attention(query, key, key, ends, ends, 3, 3, scale=0.5, window_size=(-1, 0))
    assert seen == [
        {"scale": 0.5, "window_size": (-1, 0)},
        {"scale": 0.5, "window_size": (-1, 0), "enable_gqa": True},
    ]
    assert {"scale", "window_size"} <= parameters.keys()


def test_nothing_is_gathered_without_a_shared_prompt() -> None:
    tables = varlen.Tables([(0, 4, ()), (4, 3, ())], "cpu")
    assert len(tables.places) == 0
    with pytest.raises(ValueError, match="a segment starts at 5; expected 4"):
        varlen.Tables([(0, 4, ()), (5, 3, ())], "cpu")


@pytest.mark.parametrize("family", ["qwen3", "mistral_window"])
def test_prompts_are_computed_by_it_too(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, sampling = tiny_policy(family), Sampling(max_tokens=8)
    asked = [prompt(str(i), p) for i, p in enumerate(pairs(2, groups=4, longest=30)[0][::2])]
    expected = Sampler(policy).sample(asked, 3, sampling)
    monkeypatch.setattr(kernels, "library", lambda: None)
    calls = flash_attention.on_a_cpu(monkeypatch)
    got = Sampler(policy).sample(asked, 3, sampling)
    assert len(calls) == policy.model.config.num_hidden_layers
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.response_tokens.tolist() == theirs.response_tokens.tolist()
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, rtol=0, atol=1e-5)
