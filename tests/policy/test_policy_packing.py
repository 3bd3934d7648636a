"""Packed streams of many model families against the model's own eager forward pass in float64, row by row."""

from __future__ import annotations

import re
from typing import Any

import flash_attention
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import FAMILIES, LARGEST_NUMBER, build_tokenizer, pairs, tiny_model, tiny_policy, tokens

from reasonloop.config import Sampling
from reasonloop.errors import InputError
from reasonloop.kernels import ops as kernels
from reasonloop.policy import attention, check
from reasonloop.policy.attention import PackedPlan, Scores
from reasonloop.policy.check import check_packing, rounding
from reasonloop.policy.finite import NotFinite
from reasonloop.policy.logprobs import Head, target_logprobs, truncation_mask
from reasonloop.policy.policy import Policy
from reasonloop.policy.stream import pack, split_by_tokens


def eager_logprobs(model: Any, prompt: np.ndarray, response: np.ndarray) -> torch.Tensor:
    """[T] float64: one sequence alone through transformers' own eager attention."""
    ids = torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64))
    logits = model(input_ids=ids[None], use_cache=False).logits[0, len(prompt) - 1 : -1].double()
    return torch.log_softmax(logits, -1)[torch.arange(len(response)), ids[len(prompt) :]]


def eager_model(family: str, seed: int) -> Any:
    model = tiny_model(family, seed).double()
    model.set_attn_implementation("eager")
    return model.eval()


@pytest.mark.parametrize("way", ["kernels", "masks", "flash"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_scores_and_differentiates_as_eager_does(
    family: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By our kernels, with masks, and by what flash attention does on GPUs."""
    if way != "kernels":
        monkeypatch.setattr(kernels, "library", lambda: None)
    calls = flash_attention.on_a_cpu(monkeypatch) if way == "flash" else []
    policy, eager = tiny_policy(family, seed=1), eager_model(family, seed=1)
    prompts, responses = pairs(2, groups=3, size=3, longest=20)
    stream = pack(prompts, responses)
    hidden = policy.hidden(stream.tokens, stream.positions, stream.plan)[stream.predict_from]
    got, _ = target_logprobs(hidden, policy.head(), stream.targets, Sampling())
    assert bool(calls) == (way == "flash" and family != "gemma2_softcap")
    expected = torch.cat([eager_logprobs(eager, p, r) for p, r in zip(prompts, responses, strict=True)])
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-5)
    weights = torch.linspace(-1, 1, len(got), dtype=torch.float64) / len(got)
    (got * weights.float()).sum().backward()
    (expected * weights).sum().backward()
    references = dict(eager.named_parameters())
    for name, parameter in policy.model.named_parameters():
        # GPT-2 has no gradient at positions and GPT-NeoX none at weights that no token used: zeros either way
        zero = torch.zeros_like(references[name])
        gradient = zero if parameter.grad is None else parameter.grad.double()
        expected_gradient = zero if references[name].grad is None else references[name].grad
        torch.testing.assert_close(
            gradient, expected_gradient, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("family", ["gemma2_softcap", "mistral_window"])
def test_an_ordinary_forward_pass_keeps_softcap_and_window(family: str) -> None:
    """`generate` and padded batches run on the same attention function, without a plan."""
    policy, eager = tiny_policy(family, seed=1), eager_model(family, seed=1)
    rng = np.random.default_rng(0)
    ids = torch.from_numpy(rng.integers(4, 97, (2, 11)))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0  # left padding
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        got = policy.model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        alone = [eager(input_ids=ids[:1, 4:]).logits[0], eager(input_ids=ids[1:]).logits[0]]
        generated = policy.model.generate(input_ids=ids[1:], max_new_tokens=6, do_sample=False)[0]
        continued = eager(input_ids=generated[None]).logits[0, 10:-1].argmax(-1)
    torch.testing.assert_close(got[0, 4:].double(), alone[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(got[1].double(), alone[1], rtol=0, atol=1e-5)
    stop = (generated[11:] == policy.codec.tokenizer.eos_token_id).tolist()
    assert generated[11:].tolist() == continued.tolist() or any(stop)


@pytest.mark.parametrize("family", ["mistral_window", "gemma2_softcap"])
def test_unequal_lengths_behind_a_window_give_finite_gradients(family: str) -> None:
    """A padded query further behind its row's end than the window is wide sees nothing; that must not become NaN."""
    policy = tiny_policy(family, seed=1)
    rng = np.random.default_rng(0)
    prompts = [tokens(rng, 30), tokens(rng, 2)]
    responses = [tokens(rng, 2), tokens(rng, 16)]
    stream = pack(prompts, responses)
    hidden = policy.hidden(stream.tokens, stream.positions, stream.plan)[stream.predict_from]
    logprobs, _ = target_logprobs(hidden, policy.head(), stream.targets, Sampling())
    logprobs.sum().backward()
    assert torch.isfinite(logprobs).all()
    assert all(bool(torch.isfinite(p.grad).all()) for p in policy.model.parameters() if p.grad is not None)


UNFIT = {
    "convolution": lambda: transformers.Lfm2Config(
        vocab_size=97,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        layer_types=["conv", "full_attention"],
    ),
    "recurrence": lambda: transformers.MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2),
    "alibi": lambda: transformers.BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", sorted(UNFIT))
def test_architectures_that_cannot_be_packed_take_the_plain_path(architecture: str, dtype: str, tmp_path: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = UNFIT[architecture]()
        config.initializer_range = 0.3  # what a layer leaks has to be visible
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    build_tokenizer(LARGEST_NUMBER).save_pretrained(tmp_path / "model")
    policy = Policy.load(tmp_path / "model", "cpu", dtype)
    assert policy.path == "plain"
    reasons = {"convolution": "mixes neighbours", "recurrence": "attention interface", "alibi": "attention interface"}
    assert reasons[architecture] in policy.reason


@pytest.mark.parametrize("family", [*sorted(FAMILIES), "mixture of experts"])
def test_families_pass_the_check_in_half_precision_too(family: str) -> None:
    """Their logits differ by far less than what rounding may do, and a neighbour changes none of them by a bit."""
    policy = mixture() if family == "mixture of experts" else tiny_policy(family, seed=1)
    policy.compute_in("bfloat16")
    check_packing(policy.scorer, policy.vocabulary, family)
    assert rounding(policy.model) == pytest.approx(2 * 2**-7 * 3**0.5)


def mixture() -> Policy:
    config = transformers.Qwen3MoeConfig(
        vocab_size=97,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Policy(transformers.AutoModelForCausalLM.from_config(config), build_tokenizer(LARGEST_NUMBER))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_layer_that_hardly_mixes_neighbours_is_told_from_rounding(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a model's layers do before it is trained: by less than what half precision rounds."""
    monkeypatch.setattr(check, "_convolution", lambda model: "")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(UNFIT["convolution"]())
    model.to(getattr(torch, dtype))
    policy = Policy(model, build_tokenizer(LARGEST_NUMBER))
    assert policy.path == "plain"
    assert re.search(r"a sequence changes the logits of another by 0\.00", policy.reason)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_mask_that_says_more_than_causality_is_no_rounding(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that packed streams don't know of."""
    policy = tiny_policy("mistral_window", seed=1)
    policy.compute_in(dtype)
    monkeypatch.setattr(attention, "Scores", lambda scale, window, *more: Scores(scale, None, *more))
    with pytest.raises(InputError, match="of their spread from its own forward pass"):
        check_packing(policy.scorer, policy.vocabulary, "windowless")


lengths = st.lists(st.tuples(st.integers(1, 40), st.lists(st.integers(1, 40), min_size=1, max_size=4)), max_size=5)


@settings(max_examples=15)
@given(groups=lengths.filter(bool), chunk=st.sampled_from([0, 1, 200, 4_000_000]), data=st.randoms())
def test_score_does_not_depend_on_company_order_or_chunks(policy: Policy, groups: Any, chunk: int, data: Any) -> None:
    """In chunks, and (0) by our kernels, which have none."""
    rng = np.random.default_rng(data.randrange(1 << 30))
    prompts, responses = [], []
    for prompt_length, response_lengths in groups:
        prompt = tokens(rng, prompt_length)
        for length in response_lengths:
            prompts.append(prompt)
            responses.append(tokens(rng, length))
    order = list(range(len(prompts)))
    data.shuffle(order)
    with pytest.MonkeyPatch.context() as patch:
        if chunk:
            patch.setattr(kernels, "library", lambda: None)
            patch.setattr(PackedPlan, "CHUNK_SCORES", chunk)
        together = policy.score([prompts[i] for i in order], [responses[i] for i in order], Sampling())
    for place, i in enumerate(order):
        alone = policy.score([prompts[i]], [responses[i]], Sampling())[0]
        np.testing.assert_allclose(together[place], alone, rtol=0, atol=1e-5)


@given(groups=lengths, limit=st.integers(1, 200), data=st.randoms())
def test_split_is_a_partition_that_keeps_to_the_limit(groups: Any, limit: int, data: Any) -> None:
    prompts, responses = [], []
    for number, (prompt_length, response_lengths) in enumerate(groups):
        for length in response_lengths:
            prompts.append(np.full(prompt_length, number, np.int32))
            responses.append(np.zeros(length, np.int32))
    order = list(range(len(prompts)))
    data.shuffle(order)
    prompts, responses = [prompts[i] for i in order], [responses[i] for i in order]
    parts = split_by_tokens(prompts, responses, limit)
    assert sorted(i for part in parts for i in part) == list(range(len(prompts)))
    for part in parts:
        size = len(pack([prompts[i] for i in part], [responses[i] for i in part]).tokens)
        assert len(part) == 1 or size <= limit


def test_a_stream_holds_each_prompt_once_and_no_last_token() -> None:
    prompt, other = np.array([5, 6, 7], np.int32), np.array([5, 6], np.int32)
    stream = pack([prompt, other, prompt], [np.array(r, np.int32) for r in ([8, 9], [10], [11, 12, 13])])
    assert stream.tokens.tolist() == [5, 6, 7, 5, 6, 8, 11, 12]
    assert stream.positions.tolist() == [0, 1, 2, 0, 1, 3, 3, 4]
    assert stream.targets.tolist() == [8, 9, 10, 11, 12, 13]
    assert stream.predict_from.tolist() == [2, 5, 4, 2, 6, 7]


SAMPLINGS = [
    Sampling(top_k=5),
    Sampling(top_p=0.7),
    Sampling(min_p=0.2),
    Sampling(temperature=0.7, top_k=20, top_p=0.9, min_p=0.05),
    Sampling(temperature=1.5, top_k=3, top_p=0.5),
    Sampling(top_k=1),
]


def brute_force_keep(logits: np.ndarray, sampling: Sampling) -> set[int]:
    """Tokens that may be sampled, one after another as the filters are published; `logits` are tempered already."""
    probs = np.exp(logits - logits.max())
    kept = sorted(range(len(logits)), key=lambda i: -probs[i])
    if sampling.top_k:
        kept = kept[: sampling.top_k]
    if sampling.top_p < 1:
        total, mass, nucleus = sum(probs[i] for i in kept), 0.0, []
        for i in kept:
            nucleus.append(i)
            mass += probs[i] / total
            if mass >= sampling.top_p:
                break
        kept = nucleus
    return {i for i in kept if probs[i] >= sampling.min_p * probs.max()}


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_truncation_keeps_what_the_definitions_keep(sampling: Sampling) -> None:
    logits = torch.from_numpy(np.random.default_rng(4).normal(scale=2, size=(40, 60)).astype(np.float32))
    logits /= sampling.temperature
    keep = truncation_mask(logits, sampling)
    assert keep is not None
    for row, kept in zip(logits.double().numpy(), keep, strict=True):
        assert set(kept.nonzero().flatten().tolist()) == brute_force_keep(row, sampling)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_gradients_of_truncated_softcapped_heads(sampling: Sampling, softcap: float | None) -> None:
    """The hand-written backward pass against autograd in float64, with bias, scale and soft cap."""
    rng = np.random.default_rng(8)
    hidden, weight, bias = (rng.normal(size=shape) for shape in [(9, 6), (30, 6), (30,)])
    leaves = [torch.tensor(x, dtype=torch.float32, requires_grad=True) for x in (hidden, weight, bias)]
    head = Head(leaves[1], leaves[2], scale=0.8, softcap=softcap)
    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
    logits = (doubles[0] @ doubles[1].T + doubles[2]) * 0.8
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    logits = logits / sampling.temperature
    keep = torch.zeros_like(logits, dtype=torch.bool)
    for row, kept in enumerate(keep):
        kept[list(brute_force_keep(logits[row].detach().numpy(), sampling))] = True
    targets = torch.tensor([rng.choice(kept.nonzero().flatten().numpy()) for kept in keep])
    table = torch.log_softmax(logits.masked_fill(~keep, float("-inf")), -1)
    expected = table[torch.arange(9), targets]
    got, entropies = target_logprobs(leaves[0], head, targets, sampling)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-5)
    entropy = -(table.exp() * table.masked_fill(~keep, 0.0)).sum(-1)
    torch.testing.assert_close(entropies.double(), entropy, rtol=0, atol=1e-5)
    outer = torch.from_numpy(rng.normal(size=9))
    (got * outer.float()).sum().backward()
    for leaf, reference in zip(leaves, torch.autograd.grad((expected * outer).sum(), doubles), strict=True):
        torch.testing.assert_close(leaf.grad.double(), reference, rtol=1e-4, atol=1e-5)


def test_a_policy_made_of_objects_is_checked_as_a_loaded_one_is() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(UNFIT["recurrence"]())
    policy = Policy(model, build_tokenizer(LARGEST_NUMBER))
    assert policy.path == "plain"
    assert Policy(policy.model, policy.codec.tokenizer).path == "plain"
    broken = tiny_model("llama")
    with torch.no_grad():
        next(broken.parameters())[0, 0] = torch.nan
    with pytest.raises(NotFinite, match="are not finite"):
        Policy(broken, build_tokenizer(LARGEST_NUMBER))
