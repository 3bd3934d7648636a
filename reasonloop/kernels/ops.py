"""Our own kernels for float32 on CPUs (kernels.c), where they could be built (`kernels.build`).

Sampling decodes with them (`engine.kernel_decoder`), and the learner multiplies with them where they are ahead of torch's
library (`kernels.matmul`).
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int64, c_void_p
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reasonloop.kernels.build import library


def empty(*shape: int) -> Tensor:
    """Float32 on the CPU, whatever torch's defaults are."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def floats(tensor: Tensor) -> bool:
    """Whether it is what the kernels compute with: float32 on a CPU."""
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels are there, and can take these tensors."""
    return all(map(floats, tensors)) and library() is not None


def laid_out(weight: Tensor, up: Tensor | None = None) -> Tensor:
    """Panels of a weight [out, in], with `up` of two of them side by side."""
    kernels, (out, size) = library(), weight.shape
    width = kernels.panel_width()
    weight, up = weight.detach().contiguous(), up.detach().contiguous() if up is not None else None
    panels = empty(-(-out // (width // 2 if up is not None else width)), size, width)
    kernels.lay_out(at(weight), at(up), c_int64(out), c_int64(size), at(panels), c_int64(torch.get_num_threads()))
    return panels


class Panels:
    """Weights [out, in], float32, laid out as kernels.c multiplies them: x [N, in] -> [N, out].

    With `up`, a second matrix of the same shape, x -> silu(x @ weight.T) * (x @ up.T). Biases likewise.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, up: Tensor | None = None, up_bias: Tensor | None = None
    ) -> None:
        self.out, self.size = weight.shape
        self.gated = up is not None
        self.weight = laid_out(weight, up)
        self.bias: Tensor | None = None
        if bias is not None:
            self.bias = laid_out(bias[:, None], up_bias[:, None] if up_bias is not None else None)

    def __call__(self, x: Tensor, *_: Any) -> Tensor:
        x = x.contiguous()
        out = empty(len(x), self.out)
        library().multiply(
            *(at(x), c_int64(len(x)), c_int64(self.size), at(self.weight), at(self.bias), at(out)),
            *(c_int64(self.out), c_int64(self.gated), c_int64(torch.get_num_threads())),
        )
        return out


def at(tensor: Tensor | None) -> c_void_p:
    """A tensor's address. Whoever passes it on keeps the tensor."""
    return c_void_p(tensor.data_ptr() if tensor is not None else None)


class RightFactor:
    """b [K, N], float32, or with `turned` its transpose [N, K], laid out to be the right factor of products."""

    def __init__(self, b: Tensor, turned: bool = False) -> None:
        self.size, self.out = b.shape[::-1] if turned else b.shape
        self.panels = laid_out(b) if turned else self._rows(b.detach().contiguous())

    def _rows(self, b: Tensor) -> Tensor:
        kernels, width = library(), library().panel_width()
        panels = empty(-(-self.out // width), self.size, width)
        kernels.lay_rows(at(b), *map(c_int64, (self.size, self.out)), at(panels), c_int64(torch.get_num_threads()))
        return panels

    def times(self, a: Tensor, turned: bool = False, onto: Tensor | None = None) -> Tensor:
        """a [M, K] @ b, added `onto` what is in a contiguous tensor [M, N], if one is given. With `turned` a is [K, M]."""
        kernels, a, threads = library(), a.detach().contiguous(), torch.get_num_threads()
        rows = a.shape[1] if turned else a.shape[0]
        own = empty(threads * kernels.own_floats())
        c = empty(rows, self.out) if onto is None else onto
        assert c.is_contiguous()
        kernels.matmul(
            *(at(a), *map(c_int64, (turned, rows, self.size)), at(self.panels), at(c)),
            *(c_int64(self.out), c_int64(onto is not None), at(own), c_int64(threads)),
        )
        return c


def token_logprobs(
    logits: Tensor, targets: Tensor, by: float, sums: Tensor, logprobs: Tensor, entropies: Tensor
) -> None:
    """Of the rows of logits [M, V] times `by`, float32: what `token_gradients` needs of them, float32 [M, 2], log-probs of
    the targets, int64 [M] below V, and entropies, float32 [M], each into a contiguous tensor, in two passes over a row,
    the second of which finds it in the cache."""
    library().token_logprobs(
        *(at(logits), *map(c_int64, logits.shape), at(targets), c_float(by), at(sums), at(logprobs), at(entropies)),
        c_int64(torch.get_num_threads()),
    )


def token_gradients(logits: Tensor, targets: Tensor, by: float, sums: Tensor, pulls: Tensor) -> None:
    """Logits [M, V], in place, to pulls [M] times the gradient of the target's log-prob by `by` times the logits."""
    pulls = pulls.contiguous()
    library().token_gradients(
        *(at(logits), *map(c_int64, logits.shape), at(targets), c_float(by), at(sums), at(pulls)),
        c_int64(torch.get_num_threads()),
    )


class _Packed(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("segments", "heads", "kv_heads", "dim", "threads")),
        ("scale", c_float),
        *((name, POINTER(c_int64)) for name in ("segment", "context")),
        ("longest", c_int64),
        ("own", c_void_p),
        ("own_size", c_int64),
    )


class Segments:
    """Which tokens of a packed stream look at which: each segment (start, length, contexts), a context (start, length)."""

    def __init__(self, segments: Sequence[tuple[int, int, Sequence[tuple[int, int]]]]) -> None:
        first, rows = 0, []
        for start, length, contexts in segments:
            rows.append((start, length, first, len(contexts)))
            first += len(contexts)
        self.segment = np.array(rows, dtype=np.int64).reshape(-1, 4)
        pairs = [pair for _, _, contexts in segments for pair in contexts]
        self.context = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        self.longest = max((length + sum(n for _, n in contexts) for _, length, contexts in segments), default=0)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention, query [N, H, D], key and value [N, Hkv, D], float32 -> [N, H, D]. With gradients."""
        found: Tensor = _Attention.apply(query, key, value, self, scale)
        return found

    def described(self, query: Tensor, key: Tensor, scale: float, kept: list[Tensor], backward: bool) -> _Packed:
        (_, heads, dim), kv_heads = query.shape, key.shape[1]
        threads = max(1, min(torch.get_num_threads(), kv_heads * (1 if backward else len(self.segment))))
        size = library().attention_floats(c_int64(self.longest), c_int64(dim), c_int64(backward))
        kept.append(empty(threads * size))
        tables = [table.ctypes.data_as(POINTER(c_int64)) for table in (self.segment, self.context)]
        counts = (len(self.segment), heads, kv_heads, dim, threads)
        return _Packed(*counts, scale, *tables, self.longest, kept[0].data_ptr(), size)


class _Attention(torch.autograd.Function):
    """The weights are made again in the backward pass from each query's log sum of exponentials (FlashAttention 2,
    arXiv 2307.08691, section 3.1)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        out, sums, kept = torch.empty_like(query), query.new_empty(query.shape[:2]), list[Tensor]()
        described = segments.described(query, key, scale, kept, backward=False)
        library().attention(byref(described), *map(at, (query, key, value, out, sums)))
        ctx.save_for_backward(query, key, value, out, sums)
        ctx.segments, ctx.scale = segments, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        query, key, value, out, sums = ctx.saved_tensors
        pull, kept = grads[0].contiguous(), list[Tensor]()
        found = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        described = ctx.segments.described(query, key, ctx.scale, kept, backward=True)
        library().attention_backward(byref(described), *map(at, (query, key, value, out, sums, pull, *found)))
        return *found, None, None
