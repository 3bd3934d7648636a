"""Weights laid out for decoding on a CPU.

A matrix product with few rows spends its time on fetching the weights in the order that the processor wants them in.
oneDNN can put them in that order once, for all the products of a sampling call: SmolLM2's layers take 1.4 times as long
without at 64 rows, and 2.4 times at 4 (benchmarks/results/packed.json). torch's compiler does the same with weights that
don't change; here they change between calls, so that they are laid out anew for each, which takes as long as a few steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from reasonloop.policy.logprobs import Head, Linear
from reasonloop.policy.policy import Policy

WORTH = 100_000
"""Elements of a weight from which on it is laid out: a smaller one stays in the cache as it is, and oneDNN takes longer to
start a product."""


@contextmanager
def packed_weights(policy: Policy) -> Iterator[Head]:
    """Inside, the policy's linear layers multiply with a laid out copy of their weights, as they are now; yields its head,
    which does too. Nothing else changes, and outside all is as before. Only for float32 on CPUs with oneDNN; elsewhere
    this does nothing.
    """
    head = policy.head()
    if policy.device.type != "cpu" or not available():
        yield head
        return
    layers = [
        module
        for module in policy.model.base_model.modules()
        if type(module) is nn.Linear and _worthwhile(module.weight) and "forward" not in vars(module)
    ]
    try:
        for layer in layers:
            layer.forward = packed_linear(layer.weight, layer.bias)  # type: ignore[method-assign]
        yield replace(head, project=packed_linear(head.weight, head.bias)) if _worthwhile(head.weight) else head
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _worthwhile(weight: Tensor) -> bool:
    return weight.dtype == torch.float32 and weight.numel() >= WORTH


def packed_linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """x -> x @ weight.T + bias, for float32 [..., in]. `weight` [out, in] is copied."""
    multiply = torch.ops.mkldnn._linear_pointwise.default
    with torch.no_grad():
        laid_out = torch.ops.mkldnn._reorder_linear_weight(weight.detach())

    def linear(x: Tensor, *_: Any) -> Tensor:
        return multiply(x, laid_out, bias, "none", [], "")

    return linear


@cache
def available() -> bool:
    """Whether this torch has the operations, which are its compiler's own, and they do what they are here for."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight, bias = torch.ones(3, 8), torch.arange(80.0).view(10, 8), torch.ones(10)
    try:
        with torch.inference_mode():
            return torch.allclose(packed_linear(weight, bias)(x), nn.functional.linear(x, weight, bias))
    except (RuntimeError, AttributeError, TypeError, NotImplementedError):
        return False
