"""Llama, Qwen2 and Qwen3 written plainly in float64 from a state dict: the reference that log-probs are held against.

Nothing is shared with the code under test or with transformers' modelling files; sources are the papers: RMSNorm (arXiv
1910.07467), RoPE (2104.09864, in the half-split layout of the released weights), GQA (2305.13245), SwiGLU (2002.05202).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Reference:
    """One model's weights in float64. `weights` are leaves that autograd differentiates with respect to."""

    def __init__(self, model: Any) -> None:
        config = model.config
        self.layers: int = config.num_hidden_layers
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.eps: float = config.rms_norm_eps
        self.theta: float = config.rope_parameters["rope_theta"]
        self.tied: bool = config.tie_word_embeddings
        self.weights: dict[str, Tensor] = {
            name: value.detach().double().clone().requires_grad_()
            for name, value in model.state_dict().items()
            if not (self.tied and name == "lm_head.weight")
        }

    def logits(self, ids: list[int]) -> Tensor:
        """One sequence alone, [T] -> [T, V]."""
        x = self.weights["model.embed_tokens.weight"][torch.tensor(ids)]
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            x = x + self._attention(self._norm(x, prefix + "input_layernorm"), prefix + "self_attn.")
            x = x + self._swiglu(self._norm(x, prefix + "post_attention_layernorm"), prefix + "mlp.")
        head = self.weights["model.embed_tokens.weight" if self.tied else "lm_head.weight"]
        return self._norm(x, "model.norm") @ head.T

    def log_distribution(self, prompt: list[int], response: list[int], temperature: float = 1.0) -> Tensor:
        """[T, V]: the log-probs of all tokens at every place of the response."""
        logits = self.logits([*prompt, *response])[len(prompt) - 1 : -1]
        return torch.log_softmax(logits / temperature, dim=-1)

    def logprobs(self, prompt: list[int], response: list[int], temperature: float = 1.0) -> Tensor:
        """[T]: the log-probs of the response's tokens."""
        table = self.log_distribution(prompt, response, temperature)
        return table[torch.arange(len(response)), torch.tensor(response)]

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.weights[name + ".weight"]

    def _linear(self, x: Tensor, name: str) -> Tensor:
        y = x @ self.weights[name + ".weight"].T
        return y + self.weights[name + ".bias"] if name + ".bias" in self.weights else y

    def _swiglu(self, x: Tensor, prefix: str) -> Tensor:
        gate = self._linear(x, prefix + "gate_proj")
        return self._linear(gate * torch.sigmoid(gate) * self._linear(x, prefix + "up_proj"), prefix + "down_proj")

    def _attention(self, x: Tensor, prefix: str) -> Tensor:
        length = len(x)
        q = self._linear(x, prefix + "q_proj").view(length, self.heads, self.dim)
        k = self._linear(x, prefix + "k_proj").view(length, self.kv_heads, self.dim)
        v = self._linear(x, prefix + "v_proj").view(length, self.kv_heads, self.dim)
        if prefix + "q_norm.weight" in self.weights:
            q, k = self._norm(q, prefix + "q_norm"), self._norm(k, prefix + "k_norm")
        q, k = self._rotate(q), self._rotate(k)
        outputs = []
        for head in range(self.heads):
            shared = head * self.kv_heads // self.heads
            scores = q[:, head] @ k[:, shared].T / self.dim**0.5
            scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
            outputs.append(torch.softmax(scores, -1) @ v[:, shared])
        return self._linear(torch.cat(outputs, -1), prefix + "o_proj")

    def _rotate(self, x: Tensor) -> Tensor:
        """[T, H, D], the token at place t turned by angles t * theta^(-2i / D)."""
        half = self.dim // 2
        frequencies = self.theta ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.arange(len(x), dtype=torch.float64)[:, None, None] * frequencies
        first, second = x[..., :half], x[..., half:]
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
