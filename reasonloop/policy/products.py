"""Matrix products of the learner on CPUs whose vectors are wider than torch's library for products takes them to be.

torch multiplies float32 matrices with MKL, which has AVX-512 for Intel's processors alone: on others it computes in halves.
oneDNN, which is in torch too, takes what the processor has. On an AMD EPYC of the fifth generation that is 2.2 times as fast
(benchmarks/results/products.json). Which of them multiplies follows from the processor, never from a measurement: a run that
goes on must round as it did before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WORTH = 1 << 20
"""Multiplications from which on a product goes to oneDNN: starting one there takes ten microseconds longer"""


@cache
def wide() -> bool:
    """Whether oneDNN multiplies float32 with wider vectors here than MKL does."""
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return (
        both and torch.backends.cpu.get_cpu_capability().startswith("AVX512") and _vendor() not in ("", "GenuineIntel")
    )


def _vendor() -> str:
    """The processor's maker as it names itself; empty where that can't be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")


def product(a: Tensor, b: Tensor) -> Tensor:
    """a [M, K] @ b.T [K, N] -> [M, N]"""
    if _for_onednn(a, b):
        return torch.ops.mkldnn._linear_pointwise.default(a, b, None, "none", [], "")
    return a @ b.t()


def _for_onednn(a: Tensor, b: Tensor) -> bool:
    floats = a.dtype == b.dtype == torch.float32 and a.device.type == "cpu"
    return floats and a.numel() * b.shape[0] >= WORTH and wide()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        flat = x.reshape(-1, x.shape[-1])
        out = torch.ops.mkldnn._linear_pointwise.default(flat, weight, bias, "none", [], "")
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        d_out = grads[0].reshape(-1, weight.shape[0])
        d_x = product(d_out, weight.t()).view(x.shape) if ctx.needs_input_grad[0] else None
        d_weight = product(d_out.t(), x.reshape(-1, x.shape[-1]).t()) if ctx.needs_input_grad[1] else None
        return d_x, d_weight, d_out.sum(0) if ctx.needs_input_grad[2] else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., K] @ weight.T [K, N] + bias"""
    if _for_onednn(x, weight):
        return _Linear.apply(x, weight, bias)
    return nn.functional.linear(x, weight, bias)


@contextmanager
def wide_products(model: Any) -> Iterator[None]:
    """Inside, the linear layers of a transformers model multiply as `linear` does."""
    layers: list[nn.Linear] = []
    if model.device.type == "cpu" and wide():
        layers = [m for m in model.base_model.modules() if type(m) is nn.Linear and "forward" not in vars(m)]
    try:
        for layer in layers:
            layer.forward = partial(linear, weight=layer.weight, bias=layer.bias)  # type: ignore[method-assign]
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)
