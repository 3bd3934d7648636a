"""Tiny random models of every causal family that transformers has: each configuration class, shrunk, and variants."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 97
LAYERS, HEADS, KEY_HEADS, HEAD, WIDTH, INNER = 4, 4, 2, 8, 32, 48

SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "text_vocab_size"), VOCABULARY),
    **dict.fromkeys(
        ("hidden_size", "n_embd", "d_model", "dim", "embed_dim", "word_embed_proj_dim", "embedding_size"), WIDTH
    ),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_blocks", "encoder_layers"),
        LAYERS,
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "encoder_attention_heads"),
        HEADS,
    ),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), KEY_HEADS),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "n_inner", "dff", "ffn_hidden_size"), INNER),
    **dict.fromkeys(("head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "global_head_dim", "d_kv"), HEAD),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "context_length", "n_ctx"), 256),
    **dict.fromkeys(
        ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts"), 4
    ),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts", "moe_num_experts_per_tok"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 24),
    **dict.fromkeys(("expert_ffn_hidden_size", "moe_shared_expert_intermediate_size", "dense_intermediate_size"), 24),
    **dict.fromkeys(("intermediate_size_mlp", "expert_intermediate_size", "prefix_dense_intermediate_size"), 24),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "num_expert_group", "num_shared_experts"), 1),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "o_lora_rank"), 16),
    **dict.fromkeys(("v_head_dim", "rotary_dim"), HEAD),
    **dict.fromkeys(("sliding_window", "window_size", "attention_window_size", "attention_chunk_size"), 16),
    **dict.fromkeys(("local_attention", "sliding_window_size", "keep_window_size", "index_topk"), 16),
    **dict.fromkeys(("index_topk_blocks", "index_local_blocks"), 1),
    **dict.fromkeys(
        ("index_n_heads", "index_num_heads"), 16
    ),  # with few, scores of 0 tie, and a choice among them is none
    **dict.fromkeys(("index_head_dim", "index_block_size"), 16),
    **dict.fromkeys(("mamba_d_state", "mamba_d_head", "state_size", "ssm_state_size", "mamba_head_dim"), 8),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "n_mamba_heads"), 8),
    **dict.fromkeys(("mamba_n_groups", "n_groups", "n_mamba_groups", "mamba_ngroups"), 1),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("mamba_expand", "expand"), 2),
    **dict.fromkeys(("time_step_rank", "mamba_dt_rank", "first_k_dense_replace"), 1),
    **dict.fromkeys(("hidden_size_per_layer_input", "laurel_rank", "altup_num_inputs"), 4),
    **dict.fromkeys(("lru_width", "query_pre_attn_scalar"), WIDTH),
    **dict.fromkeys(("chunk_size", "mamba_chunk_size", "log_scaling_n_floor", "floor_scale"), 16),
    **dict.fromkeys(("linear_head_dim", "swa_head_dim", "dim_head", "pronunciation_embed_dim", "shape_embed_dim"), 8),
    **dict.fromkeys(("dim_ff", "d_inner", "shared_experts_intermediate_size", "rel_extent"), INNER),
    **dict.fromkeys(("unpadded_vocab_size", "shape_vocab_size", "pronunciation_vocab_size"), VOCABULARY),
    "vocab_size_per_layer_input": VOCABULARY,
    "max_window_layers": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
"""What the configuration classes call their sizes"""

_PLAIN: dict[str, Any] = {"head_dim": HEAD}
_ROPE = {"rope_theta": 10000.0}
_LONGROPE = {
    **_ROPE,
    "rope_type": "longrope",
    "short_factor": [1.0] * 4,
    "long_factor": [1.0, 2.0, 3.0, 4.0],
    "original_max_position_embeddings": 64,
    "factor": 4.0,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, one key head, biases": ("llama", {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True}),
    "llama, llama3 rope": (
        "llama",
        {
            "rope_parameters": {
                **_ROPE,
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "llama, yarn": (
        "llama",
        {"rope_parameters": {**_ROPE, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    ),
    "llama, linear rope": ("llama", {"rope_parameters": {**_ROPE, "rope_type": "linear", "factor": 2.0}}),
    "llama, dynamic rope": ("llama", {"rope_parameters": {**_ROPE, "rope_type": "dynamic", "factor": 2.0}}),
    "llama, LongRoPE": ("llama", {"rope_parameters": _LONGROPE}),
    "phi3, LongRoPE": (
        "phi3",
        {"rope_parameters": {**_LONGROPE, "partial_rotary_factor": 1.0}, "original_max_position_embeddings": 64},
    ),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "mixtral, no window": ("mixtral", {"sliding_window": None}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2, window": ("qwen2", {"use_sliding_window": True, "sliding_window": 16}),
    "qwen3, window": ("qwen3", {"use_sliding_window": True, "sliding_window": 16, "tie_word_embeddings": True}),
    "qwen2_moe, window": ("qwen2_moe", {"use_sliding_window": True, "sliding_window": 16}),
    "phimoe, no window": ("phimoe", {"sliding_window": None}),
    "phi3, no window": ("phi3", {"sliding_window": None}),
    "starcoder2, no window": ("starcoder2", {"sliding_window": None}),
    "smollm3, window": ("smollm3", {"use_sliding_window": True, "sliding_window": 16}),
    "gemma2, no caps": ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "olmo, clipped": ("olmo", {"clip_qkv": 0.5}),
    "opt, projections": ("opt", {"word_embed_proj_dim": 16}),
    "falcon, new decoder": ("falcon", {"new_decoder_architecture": True}),
    "falcon, alibi": ("falcon", {"alibi": True}),
    "lfm2, attention alone": ("lfm2", {"layer_types": ["full_attention"] * LAYERS}),
    "deepseek_v3, values as wide as keys": ("deepseek_v3", {"v_head_dim": 16}),
    "deepseek_v32, values as wide as keys": ("deepseek_v32", {"v_head_dim": 16}),
    "glm_moe_dsa, values as wide as keys": ("glm_moe_dsa", {"v_head_dim": 16}),
    "glm4_moe_lite, values as wide as keys": ("glm4_moe_lite", {"v_head_dim": 16}),
    "gemma3n_text, shared keys": ("gemma3n_text", {"num_kv_shared_layers": 2}),
    "gemma4_text, shared keys": ("gemma4_text", {"num_kv_shared_layers": 2}),
    "mixtral, jitter": ("mixtral", {"router_jitter_noise": 0.1}),
}
"""(model type, what it has beside its sizes)"""

_MLA = dict.fromkeys(("num_key_value_heads", "num_attention_heads"), HEADS)
_DOTS3 = {
    **_MLA,
    **{f"swa_{name}": HEADS for name in _MLA},
    "swa_q_lora_rank": 16,
    "swa_kv_lora_rank": 16,
    "swa_head_dim": 16,
    "swa_qk_nope_head_dim": 8,
    "swa_v_head_dim": 8,
    "head_dim": 16,
}
OWN: dict[str, dict[str, Any]] = {
    "diffllama": {"attention_dropout": 0.0},
    "longcat_flash": {"head_dim": HEAD},
    "dots3_note_text": _DOTS3,
    "dots3_note": _DOTS3,
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n": {"num_kv_shared_layers": 0},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gemma4_text": {"num_kv_shared_layers": 0},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8},
    "zamba": {"attention_head_dim": 16, "attention_hidden_size": 64},
    "zamba2": {"attention_head_dim": 16, "attention_hidden_size": 64},
    "zaya": {"num_experts_per_tok": 1},
    "reformer": {"axial_pos_shape": [16, 16], "axial_pos_embds_dim": [16, 16]},
}
"""What a model type needs to be this small"""
LEFT_OUT = {
    "blt": "patches of bytes by a second model",
    "cohere_compass_text": "its configuration's defaults give no model",
    "dbrx": "its configuration's defaults give no model",
    "emu3": "images and text in one configuration",
    "gemma4_assistant": "drafts for another model",
    "git": "images",
    "mllama": "images",
    "musicgen": "sound",
    "musicgen_melody": "sound",
    "phi4_multimodal": "images and sound",
    "plbart": "an encoder and a decoder",
    "qwen4_exp": "its configuration's defaults give no model",
    "qwen4_exp_text": "its configuration's defaults give no model",
    "whisper": "sound",
    "xmod": "a language is chosen by hand",
}
"""Families that aren't built here, and what they are for"""


def names() -> list[str]:
    """Every causal family, and the variants."""
    return sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *VARIANTS} - LEFT_OUT.keys())


def config_of(name: str) -> Any:
    """The small configuration of a family or variant, dropout and jitter as in training."""
    kind, changes = VARIANTS.get(name, (name, {}))
    made = CONFIG_MAPPING[kind]
    default = made()
    text = default.get_text_config()
    options = {**_shrunk(text), **OWN.get(kind, {}), **changes}
    if "use_sliding_window" in changes:  # which layers have one follows from that
        options.pop("layer_types", None)
    return type(text)(**options)


def _shrunk(config: Any) -> dict[str, Any]:
    known = {*vars(config), *getattr(config, "attribute_map", {})}
    found = {name: value for name, value in SIZES.items() if name in known}
    found |= {name: 0.1 for name, value in vars(config).items() if isinstance(value, float) and "drop" in name}
    if "qk_rope_head_dim" in known:  # heads have the sizes of their parts
        found.pop("head_dim", None)
        found["num_key_value_heads"] = HEADS
    if "is_decoder" in known:
        found["is_decoder"] = True
    layers = next((v for n in ("num_hidden_layers", "n_layer", "num_layers") if (v := getattr(config, n, None))), 0)
    for name, value in vars(config).items():
        if isinstance(value, list) and layers and len(value) == layers and name not in found:
            kinds = list(dict.fromkeys(map(str, value)))
            firsts = [value[list(map(str, value)).index(kind)] for kind in kinds]
            found[name] = (firsts * LAYERS)[:LAYERS]
    return found


def made(config: Any, spread: float = 0.25) -> Any:
    """A random model, its weights spread widely enough that a mistake is nats and not rounding."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=spread)
    return model.float().eval()
