"""Decoding steps of Llama and its like on a CPU by our own kernels (kernels.c), built with the machine's C compiler.

torch starts some thirty operations a layer, each of which fetches from memory what the one before has just written there.
kernels.c computes all layers in one call: products on weights in panels, whose results go through bias, SiLU or sum while
they are in registers, and attention on a row's own keys. Without a compiler `StraightForward` does the same in torch's
operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int64, c_void_p
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reasonloop.engine.slots import SlotCache
from reasonloop.engine.straight import StraightForward, known
from reasonloop.kernels import ops as kernels
from reasonloop.kernels.ops import Panels, at
from reasonloop.policy.logprobs import Head, Linear
from reasonloop.policy.packed import joined
from reasonloop.policy.policy import Policy

STATIC_ROTATIONS = ("default", "linear", "llama3", "yarn")
"""transformers' rotary embeddings whose angles depend on the position alone"""


class _Layer(Structure):
    _fields_ = tuple(
        (name, c_void_p)
        for name in (
            *("before_attention", "qkv", "qkv_bias", "of_query", "of_key", "output", "output_bias"),
            *("before_mlp", "gate_up", "gate_up_bias", "down", "down_bias", "keys", "values"),
        )
    )


class _Model(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("layers", "hidden", "heads", "kv_heads", "dim", "inner", "length")),
        ("threads", c_int64),
        *((name, c_float) for name in ("epsilon", "head_epsilon", "scale")),
        *((name, c_void_p) for name in ("embedding", "cos", "sin", "final")),
        ("layer", POINTER(_Layer)),
        *((name, c_void_p) for name in ("x", "qkv", "seen", "gated", "own")),
        ("own_size", c_int64),
    )


class KernelForward(StraightForward):
    """Decodes by `step`, and computes prompts by `hidden`, both on one copy of the weights, made as they are now."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        head = policy.head()
        self.head: Head = replace(head, project=Panels(head.weight, head.bias))
        self._cache: SlotCache | None = None
        self._model = _Model()
        self._kept: list[Any] = []
        """What the kernels have the addresses of"""

    @classmethod
    def of(cls, policy: Policy) -> KernelForward | None:
        """None without a compiler, and for models that the kernels don't know (`straight.known`)."""
        if not known(policy) or kernels.library() is None:
            return None
        base = policy.model.base_model
        norms = [norm for layer in base.layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
        same = {float(norm.variance_epsilon) for norm in (*norms, base.norm)}
        own_products = any("forward" in vars(module) for module in base.modules())
        rotation = getattr(base.rotary_emb, "rope_type", None)
        if len(same) != 1 or own_products or rotation not in STATIC_ROTATIONS:
            return None
        return cls(policy)

    def _together(self, layers: Sequence[nn.Linear]) -> Linear:
        return Panels(*joined(layers))

    def _gated(self, gate: nn.Linear, up: nn.Linear) -> Linear:
        return Panels(gate.weight, gate.bias, up.weight, up.bias)

    @staticmethod
    def cache(slots: int, length: int) -> SlotCache:
        """A cache laid out for `step`: keys transposed, and of whole vectors."""
        vector = kernels.library().panel_width() // 2
        return SlotCache(slots, -(-length // vector) * vector, torch.device("cpu"), transposed=True)

    def step(self, tokens: np.ndarray, positions: np.ndarray, cache: SlotCache) -> Tensor:
        """Final hidden states [B, D] of int64 [B] tokens at int64 [B] positions in the cache's slots 0..B-1, whose keys
        and values are stored there. Overwritten by the next step. The cache is one that `cache` has made."""
        if self._cache is not cache:
            self._bind(cache)
        rows = len(tokens)
        kernels.library().step(
            byref(self._model), c_int64(rows), *(c_void_p(x.ctypes.data) for x in (tokens, positions))
        )
        return self._x[:rows]

    def _bind(self, cache: SlotCache) -> None:
        base, slots, threads = self.base, cache.slots, torch.get_num_threads()
        attended, dim = self.heads * 2 * self.half, 2 * self.half
        hidden, inner = base.embed_tokens.weight.shape[1], base.layers[0].mlp.down_proj.in_features
        cos, sin = base.rotary_emb(torch.zeros(1, 1, hidden), torch.arange(cache.length)[None])
        own_size = slots * hidden + cache.length
        self._x = kernels.empty(slots, hidden)
        work = [kernels.empty(slots, n) for n in (attended + 2 * self.key_heads * dim, attended, inner)]
        own = kernels.empty(threads, own_size)
        tables = [cos[0].float().contiguous(), sin[0].float().contiguous()]
        layers = (_Layer * len(self.layers))(
            *(self._pointers(layer, cache.keys[i], cache.values[i]) for i, layer in enumerate(self.layers))
        )
        first = self.layers[0]
        self._model = _Model(
            *(len(self.layers), hidden, self.heads, self.key_heads, dim, inner),
            *(cache.length, threads, float(self.final.epsilon)),
            float(first.of_query.epsilon) if first.of_query is not None else 0.0,
            float(base.layers[0].self_attn.scaling),
            *(tensor.data_ptr() for tensor in (base.embed_tokens.weight, *tables, self.final.weight)),
            layers,
            *(tensor.data_ptr() for tensor in (self._x, *work, own)),
            own_size,
        )
        self._kept = [layers, *work, own, *tables]
        self._cache = cache

    @staticmethod
    def _pointers(layer: Any, keys: Tensor, values: Tensor) -> _Layer:
        norms = {name: getattr(layer, name) for name in ("before_attention", "of_query", "of_key", "before_mlp")}
        found = {name: norm.weight for name, norm in norms.items() if norm is not None}
        for name, panels in (
            ("qkv", layer.qkv),
            ("output", layer.output),
            ("gate_up", layer.gated),
            ("down", layer.down),
        ):
            found |= {name: panels.weight, f"{name}_bias": panels.bias}
        found |= {"keys": keys, "values": values}
        return _Layer(**{name: at(tensor) for name, tensor in found.items()})
