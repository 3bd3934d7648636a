"""The forward pass of Llama and its like while sampling on a CPU, in few operations.

transformers' modules make some sixty small operations of a layer, and with few rows starting them takes as long as the
products do. Here the same layer is some thirty: queries, keys and values from one product and rotated together, the scale
of the scores within the rotation, sums in place. `engine.kernel_forward` goes further where there is a C compiler. Scoring
and training go through transformers' modules, and so do models of other kinds (benchmarks/ideas.py measures it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import SiLUActivation

from reasonloop.policy.attention import Plan, Scores
from reasonloop.policy.logprobs import Linear
from reasonloop.policy.packed import together
from reasonloop.policy.policy import Policy

KINDS = ("llama", "mistral", "qwen2", "qwen3")
"""transformers' model types that differ in no more than what is looked at here: biases, norms of queries and keys"""
ALREADY_SCALED = Scores(1.0)


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
    qkv: Linear
    of_query: _Norm | None
    of_key: _Norm | None
    output: Linear
    before_mlp: _Norm
    gated: Linear
    """x -> silu(gate) * up"""
    down: Linear


class StraightForward:
    """Made for one call of `sample`, within `packed_weights`, whose products it uses. See `known`."""

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
        self.layers = [self._layer(module) for module in base.layers]

    @classmethod
    def of(cls, policy: Policy) -> StraightForward | None:
        """None where transformers' own modules have to do it."""
        return cls(policy) if known(policy) else None

    def _layer(self, module: Any) -> _Layer:
        attention, mlp = module.self_attn, module.mlp
        norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        of_query, of_key = [_Norm.of(norm) if norm is not None else None for norm in norms]
        return _Layer(
            _Norm.of(module.input_layernorm),
            self._together([attention.q_proj, attention.k_proj, attention.v_proj]),
            of_query,
            of_key,
            self._together([attention.o_proj]),
            _Norm.of(module.post_attention_layernorm),
            self._gated(mlp.gate_proj, mlp.up_proj),
            self._together([mlp.down_proj]),
        )

    def _together(self, layers: Sequence[nn.Linear]) -> Linear:
        return together(layers)

    def _gated(self, gate: nn.Linear, up: nn.Linear) -> Linear:
        both = together([gate, up])

        def gated(x: Tensor) -> Tensor:
            opened, risen = both(x).chunk(2, -1)
            return F.silu(opened).mul_(risen)

        return gated

    def hidden(self, tokens: Tensor, positions: Tensor, plan: Plan) -> Tensor:
        """What `Policy.hidden` computes: final hidden states of a packed stream, int64 [N], int64 [N] -> [N, D]."""
        rows, heads = len(tokens), self.heads + self.key_heads
        x = self.base.embed_tokens(tokens)
        cos, sin = self.base.rotary_emb(x[None], positions[None])
        cos, sin = cos[0, :, None] * self.scale, sin[0, :, None] * self.signed_scale  # [N, H + Hkv, Dh]
        for index, layer in enumerate(self.layers):
            qkv = layer.qkv(layer.before_attention(x)).view(rows, heads + self.key_heads, -1)
            both, value = qkv[:, :heads], qkv[:, heads:]
            if layer.of_query is not None and layer.of_key is not None:
                both = torch.cat([layer.of_query(both[:, : self.heads]), layer.of_key(both[:, self.heads :])], 1)
            both = torch.addcmul(both * cos, both.roll(self.half, -1), sin)
            seen = plan.attend(index, both[:, : self.heads], both[:, self.heads :], value, ALREADY_SCALED)
            x.add_(layer.output(seen.reshape(rows, -1)))
            x.add_(layer.down(layer.gated(layer.before_mlp(x))))
        return self.final(x)


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
    as_made = all(type(module).__module__.startswith(own) and _as_made(module) for module in base.modules())
    return as_made and all(map(_plain, base.layers))


def _as_made(module: nn.Module) -> bool:
    """Whether nothing was put between a module's input and output; a linear layer's product may be another one."""
    own_forward = "forward" in vars(module) and type(module) is not nn.Linear
    return not (own_forward or module._forward_hooks or module._forward_pre_hooks)


def _plain(layer: Any) -> bool:
    """Whether a layer is what `_layer` takes it for: linear layers as they were made, full attention, SiLU."""
    attention, mlp = layer.self_attn, layer.mlp
    linear: Sequence[Any] = (
        *(getattr(attention, f"{name}_proj", None) for name in "qkvo"),
        *(getattr(mlp, f"{name}_proj", None) for name in ("gate", "up", "down")),
    )
    siblings = (linear[:3], linear[4:6])
    return (
        all(type(module) is nn.Linear for module in linear)
        and all(len({module.bias is None for module in group}) == 1 for group in siblings)
        and getattr(attention, "sliding_window", None) is None
        and isinstance(mlp.act_fn, nn.SiLU | SiLUActivation)
    )
