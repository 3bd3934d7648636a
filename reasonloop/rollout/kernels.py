"""Decoding steps of Llama and its like on a CPU by our own kernels (decode.c), built with the machine's C compiler.

torch starts some thirty operations a layer, each of which fetches from memory what the one before has just written there.
decode.c computes all layers in one call: products on weights in panels, whose results go through bias, SiLU or sum while
they are in registers, and attention on a row's own keys. Without a compiler `StraightForward` does the same in torch's
operations.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int64, c_void_p
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reasonloop.policy.logprobs import Head, Linear
from reasonloop.policy.packed import joined
from reasonloop.policy.policy import Policy
from reasonloop.rollout.cache import SlotCache
from reasonloop.rollout.straight import StraightForward, known

SOURCE = Path(__file__).with_name("decode.c")
FLAGS = (
    *("-O3", "-march=native", "-mprefer-vector-width=512", "-fopenmp", "-fPIC", "-shared", "-std=gnu11"),
    *("-fno-math-errno", "-fno-trapping-math"),
)
"""No fast-math: infinities and NaN stay what they are, since a diverged policy has to show."""
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
        *(
            (name, c_int64)
            for name in ("layers", "vocabulary", "hidden", "heads", "kv_heads", "dim", "inner", "length")
        ),
        ("threads", c_int64),
        *((name, c_float) for name in ("epsilon", "head_epsilon", "scale")),
        *((name, c_void_p) for name in ("embedding", "cos", "sin", "final")),
        ("layer", POINTER(_Layer)),
        *((name, c_void_p) for name in ("x", "qkv", "seen", "gated", "own")),
        ("own_size", c_int64),
    )


@cache
def library() -> Any:
    """decode.c, built for this processor and kept in the user's cache; None where that can't be done.

    The cache's name tells source, compiler, flags and processor, so that machines may share a home folder.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or platform.system() != "Linux":
        return None
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
        told = [SOURCE.read_bytes(), version, " ".join(FLAGS).encode(), _processor().encode()]
        name = f"decode-{hashlib.sha256(b'|'.join(told)).hexdigest()[:16]}.so"
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reasonloop"
        if not (folder / name).is_file():
            _build(compiler, folder / name)
        loaded = ctypes.CDLL(str(folder / name))
        loaded.panel_width.restype = c_int64
    except (OSError, RuntimeError, subprocess.SubprocessError, AttributeError):
        return None
    return loaded


def _build(compiler: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(".so", "decode-", target.parent)
    os.close(descriptor)
    try:
        subprocess.run(
            [compiler, *FLAGS, str(SOURCE), "-o", partial, "-lm"], capture_output=True, check=True, timeout=120
        )
        os.chmod(partial, 0o755)
        os.replace(partial, target)  # several processes may build it at once: each its own, and they are alike
    finally:
        Path(partial).unlink(missing_ok=True)


def _processor() -> str:
    """What -march=native depends on."""
    lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    told = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU implementer", "CPU part")
    return platform.machine() + "|".join(dict.fromkeys(line for line in lines if line.partition("\t")[0] in told))


class Panels:
    """Weights [out, in], float32, laid out as decode.c multiplies them: x [N, in] -> [N, out].

    With `up`, a second matrix of the same shape, x -> silu(x @ weight.T) * (x @ up.T). Biases likewise.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, up: Tensor | None = None, up_bias: Tensor | None = None
    ) -> None:
        self.out, self.size = weight.shape
        self.gated = up is not None
        self.weight = self._lay_out(weight, up)
        self.bias: Tensor | None = None
        if bias is not None:
            self.bias = self._lay_out(bias[:, None], up_bias[:, None] if up_bias is not None else None)

    @staticmethod
    def _lay_out(weight: Tensor, up: Tensor | None) -> Tensor:
        kernels, (out, size) = library(), weight.shape
        width = kernels.panel_width()
        weight, up = weight.detach().contiguous(), up.detach().contiguous() if up is not None else None
        panels = torch.empty(-(-out // (width // 2 if up is not None else width)), size, width)
        kernels.lay_out(
            _at(weight), _at(up), c_int64(out), c_int64(size), _at(panels), c_int64(torch.get_num_threads())
        )
        return panels

    def __call__(self, x: Tensor, *_: Any) -> Tensor:
        x = x.contiguous()
        out = torch.empty(len(x), self.out)
        library().multiply(
            *(_at(x), c_int64(len(x)), c_int64(self.size), _at(self.weight), _at(self.bias), _at(out)),
            *(c_int64(self.out), c_int64(self.gated), c_int64(torch.get_num_threads())),
        )
        return out


def _at(tensor: Tensor | None) -> c_void_p:
    return c_void_p(tensor.data_ptr() if tensor is not None else None)


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
        if not known(policy) or library() is None:
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
        vector = library().panel_width() // 2
        return SlotCache(slots, -(-length // vector) * vector, torch.device("cpu"), transposed=True)

    def step(self, tokens: np.ndarray, positions: np.ndarray, cache: SlotCache) -> Tensor:
        """Final hidden states [B, D] of int64 [B] tokens at int64 [B] positions in the cache's slots 0..B-1, whose keys
        and values are stored there. Overwritten by the next step. The cache is one that `cache` has made."""
        if self._cache is not cache:
            self._bind(cache)
        rows = len(tokens)
        library().step(byref(self._model), c_int64(rows), *(c_void_p(x.ctypes.data) for x in (tokens, positions)))
        return self._x[:rows]

    def _bind(self, cache: SlotCache) -> None:
        base, slots, threads = self.base, cache.slots, torch.get_num_threads()
        attended, dim = self.heads * 2 * self.half, 2 * self.half
        hidden, inner = base.embed_tokens.weight.shape[1], base.layers[0].mlp.down_proj.in_features
        cos, sin = base.rotary_emb(torch.zeros(1, 1, hidden), torch.arange(cache.length)[None])
        own_size = slots * hidden + -(-self.heads // self.key_heads) * cache.length
        self._x = torch.empty(slots, hidden)
        work = [torch.empty(slots, n) for n in (attended + 2 * self.key_heads * dim, attended, inner)]
        own = torch.empty(threads, own_size)
        tables = [cos[0].float().contiguous(), sin[0].float().contiguous()]
        layers = (_Layer * len(self.layers))(
            *(self._pointers(layer, cache.keys[i], cache.values[i]) for i, layer in enumerate(self.layers))
        )
        first = self.layers[0]
        self._model = _Model(
            *(len(self.layers), len(base.embed_tokens.weight), hidden, self.heads, self.key_heads, dim, inner),
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
        return _Layer(**{name: _at(tensor) for name, tensor in found.items()})
