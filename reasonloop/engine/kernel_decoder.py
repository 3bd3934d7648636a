"""Decoding Llama and its like on a CPU by our own kernels (kernels.c).

torch starts some sixty operations a layer, each of which fetches from memory what the one before has just written there.
kernels.c computes all layers in one call: products on weights in panels, whose results go through bias, SiLU or sum while
they are in registers, and attention on a row's own keys. Prompts are computed here on the same panels.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int64, c_void_p
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.activations import SiLUActivation

from reasonloop.config import Sampling
from reasonloop.engine.draw import drawn
from reasonloop.engine.slot_decoder import SlotDecoder
from reasonloop.kernels import ops
from reasonloop.kernels.ops import Panels, at
from reasonloop.policy import adapters
from reasonloop.policy.attention import Scores
from reasonloop.policy.logprobs import Head
from reasonloop.policy.policy import Policy
from reasonloop.policy.slots import PrefillPlan, SlotCache

KINDS = ("llama", "mistral", "qwen2", "qwen3")
"""transformers' model types that differ in no more than what is looked at here: biases, norms of queries and keys"""
STATIC_ROTATIONS = ("default", "linear", "llama3", "yarn")
"""transformers' rotary embeddings whose angles depend on the position alone"""
ALREADY_SCALED = Scores(1.0)


class _LayerPointers(Structure):
    _fields_ = tuple(
        (name, c_void_p)
        for name in (
            *("before_attention", "qkv", "qkv_bias", "of_query", "of_key", "output", "output_bias"),
            *("before_mlp", "gate_up", "gate_up_bias", "down", "down_bias", "keys", "values"),
        )
    )


class _ModelPointers(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("layers", "hidden", "heads", "kv_heads", "dim", "inner", "length")),
        ("threads", c_int64),
        *((name, c_float) for name in ("epsilon", "head_epsilon", "scale")),
        *((name, c_void_p) for name in ("embedding", "cos", "sin", "final")),
        ("layer", POINTER(_LayerPointers)),
        *((name, c_void_p) for name in ("x", "qkv", "seen", "gated", "own")),
        ("own_size", c_int64),
    )


@dataclass(frozen=True)
class _Norm:
    """x / sqrt(mean of x squared + epsilon) * weight, in fewer passes over x than torch's `rms_norm`"""

    weight: Tensor
    epsilon: Tensor

    @classmethod
    def of(cls, module: Any) -> _Norm:
        return cls(module.weight, torch.tensor([float(module.variance_epsilon)]))

    def __call__(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = torch.addcmul(self.epsilon, length, length, value=1 / x.shape[-1]).rsqrt_()
        return torch.mul(x, scale).mul_(self.weight)


@dataclass(frozen=True)
class _Layer:
    before_attention: _Norm
    qkv: Panels
    of_query: _Norm | None
    of_key: _Norm | None
    output: Panels
    before_mlp: _Norm
    gated: Panels
    """x -> silu(gate) * up"""
    down: Panels

    @classmethod
    def of(cls, module: Any) -> _Layer:
        attention, mlp = module.self_attn, module.mlp
        norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        of_query, of_key = [_Norm.of(norm) if norm is not None else None for norm in norms]
        gate, up = mlp.gate_proj, mlp.up_proj
        return cls(
            _Norm.of(module.input_layernorm),
            _together([attention.q_proj, attention.k_proj, attention.v_proj]),
            of_query,
            of_key,
            _together([attention.o_proj]),
            _Norm.of(module.post_attention_layernorm),
            Panels(adapters.weight(gate), gate.bias, adapters.weight(up), up.bias),
            _together([mlp.down_proj]),
        )

    def pointers(self, keys: Tensor, values: Tensor) -> _LayerPointers:
        norms = {name: getattr(self, name) for name in ("before_attention", "of_query", "of_key", "before_mlp")}
        found = {name: norm.weight for name, norm in norms.items() if norm is not None}
        products = {"qkv": self.qkv, "output": self.output, "gate_up": self.gated, "down": self.down}
        for name, panels in products.items():
            found |= {name: panels.weight, f"{name}_bias": panels.bias}
        found |= {"keys": keys, "values": values}
        return _LayerPointers(**{name: at(tensor) for name, tensor in found.items()})


def _together(layers: Sequence[Any]) -> Panels:
    """Layers that have the same input, all or none of them a bias, as one product; their adapters are in it."""
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    return Panels(torch.cat([adapters.weight(layer) for layer in layers]), torch.cat(biases) if biases else None)


class KernelDecoder(SlotDecoder):
    """Works on a copy of the weights, made as they are now. See `Decoder`, and `known` for the models."""

    in_place = False

    def __init__(self, policy: Policy) -> None:
        self.base = base = policy.model.base_model
        attention = base.layers[0].self_attn
        dim = attention.head_dim
        self.heads = attention.q_proj.out_features // dim
        self.key_heads = attention.k_proj.out_features // dim
        self.half = dim // 2
        # rotate_half(x) is x rolled by half, its first half negated
        sign = torch.ones(dim)
        sign[: self.half] = -1.0
        scale = torch.ones(self.heads + self.key_heads, 1)
        scale[: self.heads] = attention.scaling
        self.scale, self.signed_scale = scale, scale * sign
        self.final = _Norm.of(base.norm)
        self.layers = [_Layer.of(module) for module in base.layers]
        head = policy.head()
        assert isinstance(head, Head)
        self._head = replace(head, project=Panels(head.weight, head.bias))
        self._model = _ModelPointers()
        self._kept: list[Any] = []
        """What the kernels have the addresses of"""
        self._bound = False

    @classmethod
    def of(cls, policy: Policy) -> KernelDecoder | None:
        """None without a compiler, and for models that the kernels don't know."""
        return cls(policy) if ops.library() is not None and known(policy) else None

    def begin(self, slots: int, length: int) -> None:
        vector = ops.library().panel_width() // 2  # rows of keys are whole vectors
        self.cache = SlotCache(slots, -(-length // vector) * vector, torch.device("cpu"), transposed=True)
        self._bound = False

    def worth_keeping(self) -> bool:
        return False

    def head(self) -> Head:
        return self._head

    def hidden(self, tokens: Tensor, positions: Tensor, plan: PrefillPlan) -> Tensor:
        rows, heads = len(tokens), self.heads + self.key_heads
        x = self.base.embed_tokens(tokens)
        cos, sin = self.base.rotary_emb(x[None], positions[None])
        cos, sin = cos[0, :, None] * self.scale, sin[0, :, None] * self.signed_scale  # [N, H + Hkv, Dh]
        for layer in self.layers:
            qkv = layer.qkv(layer.before_attention(x)).view(rows, heads + self.key_heads, -1)
            both, value = qkv[:, :heads], qkv[:, heads:]
            if layer.of_query is not None and layer.of_key is not None:
                both = torch.cat([layer.of_query(both[:, : self.heads]), layer.of_key(both[:, self.heads :])], 1)
            both = torch.addcmul(both * cos, both.roll(self.half, -1), sin)
            seen = plan.attend(both[:, : self.heads], both[:, self.heads :], value, ALREADY_SCALED)
            x.add_(layer.output(seen.reshape(rows, -1)))
            x.add_(layer.down(layer.gated(layer.before_mlp(x))))
        return self.final(x)

    def step(self, tokens: np.ndarray, positions: np.ndarray) -> Tensor:
        if not self._bound:
            self._bind()
        rows = len(tokens)
        addresses = (c_void_p(x.ctypes.data) for x in (tokens, positions))
        ops.library().step(byref(self._model), c_int64(rows), *addresses)
        return self._x[:rows]

    def sample(
        self, tokens: np.ndarray, positions: np.ndarray, uniforms: np.ndarray, sampling: Sampling
    ) -> tuple[np.ndarray, np.ndarray]:
        return drawn(self.head(), self.step(tokens, positions), uniforms, sampling)

    def _bind(self) -> None:
        """Tells the kernels where everything is; the cache has its buffers by now."""
        base, cache, threads = self.base, self.cache, torch.get_num_threads()
        slots, attended, dim = cache.slots, self.heads * 2 * self.half, 2 * self.half
        hidden, inner = base.embed_tokens.weight.shape[1], base.layers[0].mlp.down_proj.in_features
        cos, sin = base.rotary_emb(torch.zeros(1, 1, hidden), torch.arange(cache.length)[None])
        own_size = slots * hidden + cache.length
        self._x = ops.empty(slots, hidden)
        work = [ops.empty(slots, n) for n in (attended + 2 * self.key_heads * dim, attended, inner)]
        own = ops.empty(threads, own_size)
        tables = [cos[0].float().contiguous(), sin[0].float().contiguous()]
        layers = (_LayerPointers * len(self.layers))(
            *(layer.pointers(cache.keys[i], cache.values[i]) for i, layer in enumerate(self.layers))
        )
        first = self.layers[0]
        self._model = _ModelPointers(
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
        self._bound = True


def known(policy: Policy) -> bool:
    """Whether the model is one that this computes as its own modules do: in float32 on a CPU, of a kind that is known,
    and unchanged."""
    config, base = policy.model.config, policy.model.base_model
    kind = getattr(config, "model_type", "")
    if policy.device.type != "cpu" or kind not in KINDS or getattr(config, "sliding_window", None) is not None:
        return False
    if any(p.dtype != torch.float32 for p in base.parameters()):
        return False
    own = (f"transformers.models.{kind}.modeling_{kind}", "transformers.activations", "torch.nn.modules.")
    if not all(type(module).__module__.startswith(own) and _as_made(module) for module in adapters.modules(base)):
        return False
    norms = [norm for layer in base.layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
    one_epsilon = len({float(norm.variance_epsilon) for norm in (*norms, base.norm)}) == 1
    static = getattr(base.rotary_emb, "rope_type", None) in STATIC_ROTATIONS
    return one_epsilon and static and all(map(_plain, base.layers))


def _as_made(module: nn.Module) -> bool:
    """Whether nothing was put between a module's input and output."""
    return not ("forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks)


def _plain(layer: Any) -> bool:
    """Whether a layer is what `_Layer` takes it for: linear layers as they were made, full attention, SiLU."""
    attention, mlp = layer.self_attn, layer.mlp
    linear: Sequence[Any] = [
        adapters.base_layer(getattr(owner, f"{name}_proj", nn.Identity()))
        for owner, name in (*((attention, name) for name in "qkvo"), *((mlp, name) for name in ("gate", "up", "down")))
    ]
    siblings = (linear[:3], linear[4:6])
    return (
        all(type(module) is nn.Linear for module in linear)
        and all(len({module.bias is None for module in group}) == 1 for group in siblings)
        and getattr(attention, "sliding_window", None) is None
        and isinstance(mlp.act_fn, nn.SiLU | SiLUActivation)
    )
