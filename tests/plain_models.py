"""Tiny random models that can't be packed: what is in their layers beside attention, or instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tiny_models import EOS, LARGEST_NUMBER, VOCABULARY

from reasonloop.policy.asking import quiet
from reasonloop.records import Problem, Rollout
from reasonloop.tasks.countdown.tokenizer import build_tokenizer

_ENDS: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": 0}
_SIZES: dict[str, Any] = {
    **_ENDS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
_STATES: dict[str, Any] = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}

PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "convolution": ("Lfm2Config", {**_SIZES, "num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]}),
    "recurrence": ("MambaConfig", {**_ENDS, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 2}),
    "a state beside attention, a scaled head": (
        "FalconH1Config",
        {**_SIZES, **_STATES, "num_key_value_heads": 2, "head_dim": 8, "mamba_d_ssm": 64, "lm_head_multiplier": 0.5},
    ),
    "a cache that is told positions": (
        "BambaConfig",
        {**_SIZES, **_STATES, "num_key_value_heads": 2, "attn_layer_indices": [1], "mamba_expand": 2},
    ),
    "alibi": ("BloomConfig", {**_ENDS, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "parallel": ("FalconConfig", {**_SIZES, "new_decoder_architecture": False, "multi_query": True, "alibi": False}),
    "local attention": (
        "GPTNeoConfig",
        {
            **_ENDS,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 8,
            "max_position_embeddings": 256,
        },
    ),
    "no cache at all": (
        "OpenAIGPTConfig",
        {**_ENDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    ),
}
PACKED: dict[str, tuple[str, dict[str, Any]]] = {
    "sinks": (
        "GptOssConfig",
        {
            **_SIZES,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"],
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
    ),
    "values narrower than keys": (
        "YoutuConfig",
        {
            **_SIZES,
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 6,
        },
    ),
}
"""What our own attention has, to be held to the same"""
CACHELESS = ("no cache at all",)


def save_plain(kind: str, folder: Path, seed: int = 0) -> Path:
    """The folder with a random model of the kind, with logits spread widely enough to tell tokens apart."""
    quiet()
    name, options = (PLAIN | PACKED)[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**options))
        for parameter in model.parameters():
            if parameter.dim() > 1 or kind == "sinks":
                torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    build_tokenizer(LARGEST_NUMBER).save_pretrained(folder)
    return folder


def brief(problem: Problem, rollout: Rollout) -> float:
    """A reward that a random model has, too."""
    return 1 / len(rollout.response_tokens) + float(rollout.response_tokens[0]) / 1000
