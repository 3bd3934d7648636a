"""Matrix products of the learner on CPUs whose vectors are wider than torch's library for products takes them to be.

torch multiplies float32 matrices with MKL, which has AVX-512 for Intel's processors alone: on others it computes in halves.
Our own kernels take what the processor has, and where there is no compiler oneDNN, which is in torch too. On an AMD EPYC of
the fifth generation that is twice as fast (benchmarks/results/matmul.json). Which of them multiplies follows from the
machine, never from a measurement: a run that goes on must round as it did before.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from reasonloop.kernels import ops as kernels
from reasonloop.machine import processor

WORTH = 1 << 20
"""Multiplications from which on a product is worth the microseconds that it takes longer to start"""


@cache
def wide() -> bool:
    """Whether the processor has wider vectors than MKL multiplies float32 with."""
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return (
        both and torch.backends.cpu.get_cpu_capability().startswith("AVX512") and _vendor() not in ("", "GenuineIntel")
    )


def _vendor() -> str:
    """The processor's maker as it names itself; empty where that can't be read."""
    return processor.field("vendor_id")


def multiply(
    a: Tensor, b: Tensor, a_turned: bool = False, b_turned: bool = False, onto: Tensor | None = None
) -> Tensor:
    """a [M, K] @ b [K, N], added `onto` what is in a contiguous tensor [M, N], if one is given. What is `turned` is given as
    its transpose, [K, M] and [N, K]."""
    if a.numel() * b.shape[0 if b_turned else 1] < WORTH or not _wide_floats(a, b):
        left, right = a.t() if a_turned else a, b.t() if b_turned else b
        return left @ right if onto is None else onto.addmm_(left, right)
    if kernels.library() is not None:
        return kernels.RightFactor(b, b_turned).times(a, a_turned, onto)
    left, right = a.t() if a_turned else a, b if b_turned else b.t()
    found = torch.ops.mkldnn._linear_pointwise.default(left, right, None, "none", [], "")
    return found if onto is None else onto.add_(found)


def _wide_floats(*factors: Tensor) -> bool:
    return all(map(kernels.floats, factors)) and wide()


def right_factor(b: Tensor, turned: bool = False) -> Callable[[Tensor], Tensor]:
    """a [M, K] -> a @ b, for several a; with `turned` b is given as its transpose. What can be done once is done now."""
    if b.numel() >= WORTH and _wide_floats(b) and kernels.library() is not None:
        return kernels.RightFactor(b, turned).times
    return partial(_times, b=b, turned=turned)


def _times(a: Tensor, b: Tensor, turned: bool) -> Tensor:
    return multiply(a, b, b_turned=turned)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        out = multiply(x.reshape(-1, x.shape[-1]), weight, b_turned=True)
        return (out if bias is None else out.add_(bias)).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        d_out = grads[0].reshape(-1, weight.shape[0])
        d_x = multiply(d_out, weight).view(x.shape) if ctx.needs_input_grad[0] else None
        d_weight = multiply(d_out, x.reshape(-1, x.shape[-1]), a_turned=True) if ctx.needs_input_grad[1] else None
        return d_x, d_weight, d_out.sum(0) if ctx.needs_input_grad[2] else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., K] @ weight.T [K, N] + bias"""
    if x.numel() * weight.shape[0] >= WORTH and _wide_floats(x, weight):
        return _Linear.apply(x, weight, bias)
    return nn.functional.linear(x, weight, bias)


class _WideMatmul(TorchFunctionMode):
    """Inside, every `torch.nn.functional.linear` multiplies as `linear` does, whatever layer calls it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.linear:
            return linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def wide_matmul(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, a model's linear layers multiply as `linear` does, where this thread's products are on such a CPU."""
    return _WideMatmul() if device.type == "cpu" and wide() else nullcontext()
