"""Tiny random transformers for the tests of the numerical core: real layouts, a fraction of a second to build."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers

from reasonloop.policy.asking import quiet
from reasonloop.policy.policy import Policy
from reasonloop.tasks.countdown.tokenizer import build_tokenizer

torch.set_num_threads(1)  # matrices this small are only slowed down by a second thread

VOCABULARY = 97
LARGEST_NUMBER = 78  # gives the Countdown tokenizer exactly VOCABULARY words
EOS = 2

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": EOS,
    "pad_token_id": 0,
}
_GROUPED: dict[str, Any] = {**_SIZES, "num_key_value_heads": 2}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {**_GROUPED, "head_dim": 8}),
    "llama_tied": ("LlamaConfig", {**_GROUPED, "head_dim": 8, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", _GROUPED),
    "qwen3": ("Qwen3Config", {**_GROUPED, "head_dim": 16, "tie_word_embeddings": True}),
    "mistral_window": ("MistralConfig", {**_GROUPED, "sliding_window": 3}),
    "gemma2_softcap": (
        "Gemma2Config",
        {
            **_GROUPED,
            "head_dim": 8,
            "sliding_window": 3,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 4.0,
            "query_pre_attn_scalar": 8,
        },
    ),
    "granite_scaled": (
        "GraniteConfig",
        {**_GROUPED, "logits_scaling": 1.7, "attention_multiplier": 0.3, "residual_multiplier": 0.6},
    ),
    "gpt_neox": ("GPTNeoXConfig", _SIZES),
    "gpt2": ("GPT2Config", {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
}


def tiny_model(family: str, seed: int = 0, **changes: Any) -> Any:
    """A random causal model of the family, float32, with logits spread widely enough to tell tokens apart."""
    quiet()
    name, options = FAMILIES[family]
    config = getattr(transformers, name)(**{**options, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
            else:  # norms near one and biases that are not zero, so that a forgotten one shows
                offset = 1.0 if "norm" in name and "bias" not in name and family != "gemma2_softcap" else 0.0
                torch.nn.init.normal_(parameter, mean=offset, std=0.2)
    return model


def tiny_policy(family: str = "llama", seed: int = 0, **changes: Any) -> Policy:
    return Policy(tiny_model(family, seed, **changes), build_tokenizer(LARGEST_NUMBER))


def tokens(rng: np.random.Generator, length: int) -> np.ndarray:
    """int32 [length], ordinary words only."""
    return rng.integers(4, VOCABULARY, length).astype(np.int32)


def pairs(seed: int, groups: int = 3, size: int = 2, longest: int = 12) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Prompts (each repeated for its group) and responses of random lengths from 1 on."""
    rng = np.random.default_rng(seed)
    prompts, responses = [], []
    for _ in range(groups):
        prompt = tokens(rng, int(rng.integers(1, longest)))
        for _ in range(size):
            prompts.append(prompt)
            responses.append(tokens(rng, int(rng.integers(1, longest))))
    return prompts, responses
