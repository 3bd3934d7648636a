"""Attention over packed streams by our kernels, against dense attention in float64 (products: test_matmul.py)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from reasonloop.config import Sampling
from reasonloop.kernels import ops as kernels
from reasonloop.kernels.ops import Segments
from reasonloop.policy.attention import PackedPlan, Scores, Segment
from reasonloop.policy.logprobs import Head, target_logprobs

# a beginning that all share, prompts behind it, responses behind both; lengths around the kernels' blocks; a foreign segment
STREAM = [
    (0, 5, ()),
    (5, 70, ((0, 5),)),
    (75, 1, ((0, 5), (5, 70))),
    (76, 130, ((0, 5), (5, 70))),
    (206, 49, ((0, 5), (5, 70))),
    (255, 48, ()),
    (303, 33, ((255, 48),)),
]
TOKENS = 336


@pytest.fixture(autouse=True)
def compiled() -> None:
    if kernels.library() is None:
        pytest.skip("there is no C compiler")


def dense(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """The same, all pairs of tokens at once, in the tensors' own precision."""
    mask = torch.zeros(TOKENS, TOKENS, dtype=torch.bool)
    for start, length, contexts in STREAM:
        rows = slice(start, start + length)
        mask[rows, rows] = torch.ones(length, length).tril().bool()
        for first, count in contexts:
            mask[rows, first : first + count] = True
    share = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(share, 1), value.repeat_interleave(share, 1)
    scores = torch.einsum("qhd,khd->hqk", query, key) * scale
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~mask, -torch.inf).softmax(-1), value)


@pytest.mark.parametrize("dim", [2, 16, 20, 32, 40, 64])
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 2), (6, 2), (3, 3)])
def test_attention_and_its_gradients_are_those_of_dense_float64(heads: int, kv_heads: int, dim: int) -> None:
    torch.manual_seed(0)
    sizes = ((TOKENS, heads, dim), (TOKENS, kv_heads, dim), (TOKENS, kv_heads, dim))
    given = [torch.randn(size).requires_grad_() for size in sizes]
    exact = [x.detach().double().requires_grad_() for x in given]
    scale = dim**-0.5 * 1.3
    found, expected = Segments(STREAM).attend(*given, scale), dense(*exact, scale)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    pull = torch.randn_like(found)
    mine = torch.autograd.grad(found, given, pull)
    for own, theirs in zip(mine, torch.autograd.grad(expected, exact, pull.double()), strict=True):
        torch.testing.assert_close(own.double(), theirs, rtol=1e-4, atol=2e-5)


def test_large_scores_neither_overflow_nor_blur() -> None:
    """One key far ahead of all others, as a confident head has it: its value, exactly, and finite gradients."""
    query, key = torch.zeros(TOKENS, 1, 16), torch.zeros(TOKENS, 1, 16)
    query[..., 0] = 300.0
    key[[0, 255], :, 0] = 300.0
    value = torch.randn(TOKENS, 1, 16).requires_grad_()
    query.requires_grad_()
    found = Segments(STREAM).attend(query, key, value, 1.0)
    heads = torch.where(torch.arange(TOKENS) < 255, 0, 255)
    torch.testing.assert_close(found, value[heads])
    found.sum().backward()
    assert query.grad is not None
    assert bool(torch.isfinite(query.grad).all())


def test_what_is_not_a_number_stays_in_its_own_sequence() -> None:
    query, key, value = (torch.randn(TOKENS, 2, 16) for _ in range(3))
    value[80] = torch.nan
    found = Segments(STREAM).attend(query, key, value, 0.25)
    assert bool(torch.isfinite(found[:76]).all())
    assert bool(torch.isnan(found[80:206]).all())
    assert bool(torch.isfinite(found[206:]).all())


def test_the_same_bits_with_any_number_of_threads() -> None:
    torch.manual_seed(1)
    given = [torch.randn(TOKENS, heads, 24).requires_grad_() for heads in (6, 3, 3)]
    pull, before, found = torch.randn(TOKENS, 6, 24), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            out = Segments(STREAM).attend(*given, 0.2)
            found.append([out, *torch.autograd.grad(out, given, pull)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_single_token_sees_itself() -> None:
    value = torch.randn(1, 2, 8)
    found = Segments([(0, 1, ())]).attend(torch.randn(1, 4, 8), torch.randn(1, 2, 8), value, 1.0)
    assert torch.equal(found, value.repeat_interleave(2, 1))
    assert np.array_equal(Segments([]).segment, np.zeros((0, 4)))


@pytest.mark.parametrize("spread", [0.1, 3.0, 40.0])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.4])
@pytest.mark.parametrize("vocabulary", [1, 2, 97, 1000])
def test_log_probs_entropies_and_gradients_are_those_of_float64(
    vocabulary: int, temperature: float, spread: float
) -> None:
    """From nearly uniform to nearly certain, with a bias and a scale."""
    torch.manual_seed(2)
    hidden, weight = torch.randn(29, 12).requires_grad_(), (spread * torch.randn(vocabulary, 12)).requires_grad_()
    bias, targets = torch.randn(vocabulary).requires_grad_(), torch.randint(0, vocabulary, (29,))
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight, bias)]
    sampling = Sampling(temperature=temperature)
    found, entropies = target_logprobs(hidden, Head(weight, bias, scale=0.8), targets, sampling)
    logits = (exact[0] @ exact[1].t() + exact[2]) * 0.8 / temperature
    every = logits.log_softmax(-1)
    tolerance = 1e-5 * max(1.0, spread)
    expected = every.gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=tolerance)
    torch.testing.assert_close(entropies.double(), -(every.exp() * every).sum(-1), rtol=1e-4, atol=tolerance)
    pull = torch.randn(29)
    mine = torch.autograd.grad(found, (hidden, weight, bias), pull)
    for own, theirs in zip(mine, torch.autograd.grad(expected, exact, pull.double()), strict=True):
        torch.testing.assert_close(own.double(), theirs, rtol=1e-4, atol=10 * tolerance)


def test_a_token_that_cannot_come_counts_for_nothing_and_one_that_is_no_number_shows() -> None:
    weight, bias = torch.randn(50, 4), torch.zeros(50)
    bias[7] = -torch.inf
    hidden, targets = torch.randn(3, 4), torch.tensor([0, 1, 2])
    found, entropies = target_logprobs(hidden, Head(weight, bias), targets, Sampling())
    kept = [i for i in range(50) if i != 7]
    expected, expected_entropies = target_logprobs(hidden, Head(weight[kept], bias[kept]), targets, Sampling())
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(entropies, expected_entropies)
    for bad in (torch.nan, torch.inf):
        bias[7] = bad
        assert bool(torch.isnan(target_logprobs(hidden, Head(weight, bias), targets, Sampling())[0]).all())


def test_a_certain_token_has_no_gradient_at_a_small_temperature() -> None:
    """The log-prob's slope is a thousand there, and the sum of exponentials as large as 25,000 in its exponent."""
    hidden, weight = torch.tensor([[25.0]]).requires_grad_(), torch.tensor([[1.0], [0.9], [-1.0]])
    found, _ = target_logprobs(hidden, Head(weight), torch.tensor([0]), Sampling(temperature=0.001))
    (pull,) = torch.autograd.grad(found.sum(), hidden)
    assert found.tolist() == [0.0]
    assert pull.tolist() == [[0.0]]


@pytest.mark.parametrize("target", [97, -1])
def test_a_target_beyond_the_vocabulary_is_an_error(target: int) -> None:
    with pytest.raises(IndexError, match="expected 0 to 96"):
        target_logprobs(torch.randn(2, 12), Head(torch.randn(97, 12)), torch.tensor([3, target]), Sampling())


@pytest.mark.parametrize("sizes", [(4, 16, 2), (3, 24, 2)])
def test_sizes_that_do_not_match_are_refused(sizes: tuple[int, int, int]) -> None:
    heads, dim, kv_heads = sizes
    query, key, value = torch.randn(9, heads, dim), torch.randn(9, kv_heads, 24), torch.randn(9, kv_heads, 24)
    with pytest.raises(NotImplementedError, match="other sizes than its keys"):
        PackedPlan([Segment(0, 4), Segment(4, 5)]).attend(query, key, value, Scores(0.3))


@pytest.mark.parametrize("with_sinks", [False, True])
@pytest.mark.parametrize("width", [16, 24, 40])
@pytest.mark.parametrize("window", [None, 3])
def test_values_of_another_size_and_sinks_are_plain_attention(width: int, with_sinks: bool, window: int | None) -> None:
    """As multi-head latent attention and GPT-OSS have them; gradients, too, and those of the sinks."""
    torch.manual_seed(4)
    tensors = [torch.randn(14, 4, 24), torch.randn(14, 2, 24), torch.randn(14, 2, width), torch.randn(4)]
    query, key, value, sinks = (tensor.requires_grad_() for tensor in tensors)
    plan = PackedPlan([Segment(0, 4), Segment(4, 5), Segment(9, 5, ((4, 5),))])
    found = plan.attend(query, key, value, Scores(0.3, window, sinks=sinks if with_sinks else None))
    pull = torch.randn_like(found)
    used = (query, key, value, *([sinks] if with_sinks else []))
    gradients = torch.autograd.grad((found * pull).sum(), used)

    place = torch.tensor([*range(4), *range(10)])
    distance = place[:, None] - place[None, :]
    same = (torch.arange(14) < 4)[:, None] == (torch.arange(14) < 4)[None, :]
    visible = same & (distance >= 0) & (distance < (window or 99))
    keys, values = (x.repeat_interleave(2, 1) for x in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, keys) * 0.3
    scores = scores.masked_fill(~visible, -torch.inf)
    if with_sinks:
        scores = torch.cat([scores, sinks[:, None, None].expand(-1, 14, 1)], -1)
    expected = torch.einsum("hqk,khd->qhd", scores.softmax(-1)[..., :14], values)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    for ours, theirs in zip(gradients, torch.autograd.grad((expected * pull).sum(), used), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_torchs_defaults_are_not_the_kernels() -> None:
    torch.manual_seed(3)
    x, weight = torch.randn(7, 12), torch.randn(33, 12)
    expected = [kernels.Panels(weight)(x), kernels.RightFactor(weight, turned=True).times(x)]
    torch.set_default_dtype(torch.float64)
    try:
        found = [kernels.Panels(weight)(x), kernels.RightFactor(weight, turned=True).times(x)]
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
