"""What begins beyond a check's few tokens, what only slots do and what masks alone say: seen when a model is loaded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sampler import Sampler, of_slots, prompt
from tiny_models import LARGEST_NUMBER, VOCABULARY, build_tokenizer, tiny_model, tokens

from reasonloop.config import Optimizer, Sampling
from reasonloop.errors import InputError
from reasonloop.learner.batch import Example
from reasonloop.learner.local import LocalLearner
from reasonloop.policy.masks import MASK_WINDOW
from reasonloop.policy.policy import Policy
from reasonloop.policy.reach import shortened
from reasonloop.policy.rotary import Rope
from reasonloop.policy.stream import pack

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts_per_tok": 2}
LATENT = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "a window that only the mask knows": ("PhimoeConfig", {"num_local_experts": 4, "sliding_window": 16, **EXPERTS}),
    "one in some layers": (
        "Qwen2MoeConfig",
        {
            "num_hidden_layers": 3,
            "num_experts": 4,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 24,
            "use_sliding_window": True,
            "sliding_window": 16,
            "max_window_layers": 1,
            **EXPERTS,
        },
    ),
    "layers that attend twice": ("DiffLlamaConfig", {}),
    "layers that run again": ("HrmTextConfig", {"head_dim": 8}),
    "an indexer": (
        "GlmMoeDsaConfig",
        {
            "num_key_value_heads": 4,
            "moe_intermediate_size": 24,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "n_shared_experts": 1,
            **LATENT,
            **EXPERTS,
            "index_topk": 16,
            "index_n_heads": 16,
            "index_head_dim": 16,
        },
    ),
}
PLAIN = {"an indexer"}
"""Those that packed streams can't be"""
LENGTHS, TOKENS = (3, 20, 50), 24


def saved(folder: Path, config: Any, spread: float = 0.25) -> Path:
    """A random model of this configuration, its weights wide enough that mistakes show."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=spread)
    model.save_pretrained(folder)
    build_tokenizer(LARGEST_NUMBER).save_pretrained(folder)
    return folder


def made(kind: str, **changes: Any) -> Any:
    name, options = FAMILIES[kind]
    return named(name)(**{**SIZES, **options, **changes})


def named(name: str) -> Any:
    """A configuration class; older versions of transformers have fewer of them."""
    found = getattr(transformers, name, None)
    if found is None:
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    return found


@lru_cache(maxsize=1)
def by_itself(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def alone(folder: Path, prompt_tokens: np.ndarray, response: np.ndarray) -> np.ndarray:
    """float32 [T]: log-probs by transformers' own forward pass of one sequence, in transformers' own attention. The last
    token predicts nothing, and is no input."""
    ids = torch.from_numpy(np.concatenate([prompt_tokens, response]).astype(np.int64))
    with torch.inference_mode():
        logits = by_itself(folder)(input_ids=ids[None, :-1], use_cache=False).logits[0, len(prompt_tokens) - 1 :]
    return torch.log_softmax(logits, -1).gather(1, ids[len(prompt_tokens) :, None])[:, 0].numpy()


@pytest.mark.parametrize("kind", FAMILIES)
def test_sampled_and_scored_beyond_every_reach_is_what_the_model_computes_alone(kind: str, tmp_path: Path) -> None:
    policy = Policy.load(saved(tmp_path / "model", made(kind)), "cpu")
    assert policy.path == ("plain" if kind in PLAIN else "packed"), policy.reason
    rng = np.random.default_rng(0)
    prompts = [prompt(f"p{n}", tokens(rng, n)) for n in LENGTHS]
    sampling = Sampling(max_tokens=TOKENS)
    rollouts = Sampler(policy, of_slots(2)).sample(prompts, 1, sampling, lengths=np.full(len(prompts), TOKENS))
    scored = policy.score([r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], sampling)
    for rollout, found in zip(rollouts, scored, strict=True):
        expected = alone(tmp_path / "model", rollout.prompt_tokens, rollout.response_tokens)
        np.testing.assert_allclose(rollout.logprobs, expected, rtol=0, atol=2e-4)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_window_shows_before_anything_is_trained_and_in_any_type(dtype: str, tmp_path: Path) -> None:
    """When logits hardly depend on what is seen: the mask is looked at, and not what comes of it."""
    kind = "one in some layers"
    policy = Policy.load(saved(tmp_path / "model", made(kind), spread=0.002), "cpu", dtype)
    windows = [vars(layer.self_attn).get(MASK_WINDOW) for layer in policy.model.model.layers]
    kinds = policy.model.config.layer_types
    assert windows == [16 if kind == "sliding_attention" else None for kind in kinds]
    assert len(set(kinds)) == 2


def test_a_head_with_more_to_it_than_a_matrix_is_not_packed(tmp_path: Path) -> None:
    """A scale of each token that is one at first, and is trained: no check of logits could see it."""
    policy = Policy.load(saved(tmp_path / "model", named("DoryConfig")(**SIZES, head_dim=8)), "cpu")
    assert (policy.path, policy.reason) == ("plain", "its head (DoryLMHead) is more than a matrix")
    stream = pack([np.arange(4, 9, dtype=np.int32)], [np.arange(9, 12, dtype=np.int32)])
    policy.scorer(stream, Sampling()).logprobs.sum().backward()
    assert policy.model.lm_head.logit_scale.grad.abs().max() > 0


def test_positions_that_leave_out_padding_tokens_are_counted_as_the_model_does(tmp_path: Path) -> None:
    """RoBERTa's begin behind the padding token's id, and don't count such a token wherever it stands."""
    config = transformers.RobertaConfig(**{**SIZES, "pad_token_id": 0}, is_decoder=True, type_vocab_size=1)
    policy = Policy.load(saved(tmp_path / "model", config), "cpu")
    response = np.array([5, 6, 0, 7, 8, 9], np.int32)
    asked = np.arange(4, 9, dtype=np.int32)
    (scored,) = policy.score([asked], [response], Sampling())
    np.testing.assert_allclose(scored, alone(tmp_path / "model", asked, response), rtol=0, atol=5e-5)
    for rollout in Sampler(policy, of_slots(2)).sample([prompt("p", asked)], 3, Sampling(max_tokens=20)):
        expected = alone(tmp_path / "model", rollout.prompt_tokens, rollout.response_tokens)
        np.testing.assert_allclose(rollout.logprobs, expected, rtol=0, atol=5e-5)


def test_a_model_that_transformers_computes_in_two_ways_is_refused(tmp_path: Path) -> None:
    """Falcon with ALiBi: the bias is added once by one of its attentions, and twice by another."""
    config = transformers.FalconConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True
    )
    with pytest.raises(InputError, match="other logits with attention 'eager' than with 'sdpa'"):
        Policy.load(saved(tmp_path / "model", config), "cpu")


def test_numbers_are_shortened_for_the_check_alone() -> None:
    model = tiny_model("gemma2_softcap", sliding_window=4096)
    layers = [layer.self_attn.sliding_window for layer in model.model.layers]
    with shortened(model) as reaches:
        assert reaches.names == {"sliding_window": 4096}
        assert model.config.sliding_window == 4
        assert {layer.self_attn.sliding_window for layer in model.model.layers} == {None, 4}
        assert [reaches.real(window) for window in (4, None)] == [4096, None]
    assert model.config.sliding_window == 4096
    assert [layer.self_attn.sliding_window for layer in model.model.layers] == layers


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [1.0, 2.0, 3.0, 4.0],
    "original_max_position_embeddings": 64,
    "factor": 4.0,
}


@pytest.fixture(scope="module")
def longrope(tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Path]:
    config = transformers.LlamaConfig(**SIZES, head_dim=8, rope_parameters=LONGROPE)
    folder = saved(tmp_path_factory.mktemp("longrope") / "model", config)
    return Policy.load(folder, "cpu"), folder


def test_longrope_turns_each_sequence_by_its_own_length(longrope: tuple[Policy, Path]) -> None:
    """Beside longer ones, behind the same prompt and across the original length, where the whole of it is turned."""
    policy, folder = longrope
    rng = np.random.default_rng(0)
    prompts = [tokens(rng, n) for n in (10, 90, 50, 50, 64)]
    prompts[3] = prompts[2]
    responses = [tokens(rng, n) for n in (20, 20, 10, 40, 1)]
    for i, scored in enumerate(policy.score(prompts, responses, Sampling())):
        np.testing.assert_allclose(scored, alone(folder, prompts[i], responses[i]), rtol=0, atol=5e-5)


def test_longrope_samples_the_same_beside_a_long_neighbour(longrope: tuple[Policy, Path]) -> None:
    policy, folder = longrope
    rng = np.random.default_rng(0)
    short, long = prompt("short", tokens(rng, 10)), prompt("long", tokens(rng, 90))
    sampling = Sampling(max_tokens=20)
    few = Sampler(policy, of_slots(2)).sample([short], 2, sampling)
    many = Sampler(policy, of_slots(2)).sample([short, long], 2, sampling)
    assert [r.response_tokens.tolist() for r in few] == [r.response_tokens.tolist() for r in many[:2]]
    for rollout in many:
        expected = alone(folder, rollout.prompt_tokens, rollout.response_tokens)
        np.testing.assert_allclose(rollout.logprobs, expected, rtol=0, atol=5e-5)


def test_a_response_across_the_original_length_is_refused(longrope: tuple[Policy, Path]) -> None:
    policy, _ = longrope
    asked = [prompt("p", tokens(np.random.default_rng(0), 50))]
    Sampler(policy).sample(asked, 1, Sampling(max_tokens=15))  # the last token is never an input
    with pytest.raises(InputError, match=r"50 tokens, and sampling.max_tokens = 16: LongRoPE .* more than 64"):
        Sampler(policy).sample(asked, 1, Sampling(max_tokens=16))


def test_what_turns_by_length_is_read_of_every_kind_of_configuration() -> None:
    assert Rope.of(transformers.LlamaConfig(**SIZES)) == Rope()
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    assert Rope.of(transformers.LlamaConfig(**SIZES, rope_parameters=dynamic)) == Rope(most=256)
    assert "beyond 256" in Rope(most=256).beyond(200, 58)
    assert Rope(most=256).beyond(200, 57) == ""
    kinds = {"full_attention": LONGROPE, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
    assert Rope.of(transformers.Gemma3TextConfig(**SIZES, rope_parameters=kinds)) == Rope(original=64)


DROPPING: dict[str, Any] = {
    "functional dropout": lambda: transformers.Starcoder2Config(
        **SIZES, residual_dropout=0.5, embedding_dropout=0.5, attention_dropout=0.5
    ),
    "experts chosen at random": lambda: made("a window that only the mask knows", router_jitter_noise=0.5),
    "dropout in modules": lambda: transformers.PersimmonConfig(**SIZES, attention_dropout=0.5, hidden_dropout=0.5),
    "no checkpointing in transformers": lambda: transformers.CTRLConfig(
        vocab_size=VOCABULARY, n_embd=32, dff=48, n_layer=2, n_head=4, n_positions=256, resid_pdrop=0.5, embd_pdrop=0.5
    ),
}


@pytest.mark.parametrize("kind", DROPPING)
def test_gradient_checkpointing_computes_the_policy_that_was_sampled(kind: str, tmp_path: Path) -> None:
    policy = Policy.load(saved(tmp_path / "model", DROPPING[kind]()), "cpu")
    rng = np.random.default_rng(0)
    rollouts = Sampler(policy).sample([prompt(f"p{n}", tokens(rng, n)) for n in (3, 9)], 2, Sampling(max_tokens=10))
    examples = [
        Example(
            *(r.prompt_tokens, r.response_tokens),
            policy_weight=np.full(r.length, 0.01),
            advantage=np.ones(r.length),
            behaviour=r.logprobs,
        )
        for r in rollouts
    ]
    plain = LocalLearner(policy.copy(), Optimizer(), Sampling()).update(examples, 1e-3)
    found = LocalLearner(policy, Optimizer(), Sampling(), checkpointing=True).update(examples, 1e-3)
    assert abs(found["k1"]) < 1e-5
    assert found["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-4)
