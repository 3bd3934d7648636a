"""Weights laid out for decoding on a CPU.

A matrix product with few rows spends its time on fetching the weights in the order that the processor wants them in.
oneDNN can put them in that order once, for all the products of a sampling call: SmolLM2's layers take 1.4 times as long
without at 64 rows, and 2.4 times at 4 (benchmarks/results/packed.json). torch's compiler does the same with weights that
don't change; here they change between calls, so that they are laid out anew for each, which takes as long as a few steps.

Layers that multiply the same input (queries, keys and values; gate and up) become one product: their copies lie one below
the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from reasonloop.kernels import ops as kernels
from reasonloop.policy.logprobs import Head, Linear
from reasonloop.policy.policy import Policy

WORTH = 100_000
"""Elements of a weight from which on it is laid out: a smaller one stays in the cache as it is, and oneDNN takes longer to
start a product."""
SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""transformers' names of layers that are given the same input, one after another"""


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
    changed: list[nn.Linear] = []

    try:
        for layers in _families(policy.model.base_model):
            for layer, product in zip(layers, packed_siblings(layers), strict=True):
                layer.forward = product  # type: ignore[method-assign]
                changed.append(layer)
        yield replace(head, project=packed_linear(head.weight, head.bias)) if _worthwhile(head.weight) else head
    finally:
        for layer in changed:
            vars(layer).pop("forward", None)


def _families(model: nn.Module) -> list[list[nn.Linear]]:
    """The layers to lay out, those that multiply the same input together, each once."""
    found: list[list[nn.Linear]] = []
    taken: set[nn.Module] = set()
    for module in model.modules():
        for names in SIBLINGS:
            family: list[Any] = [getattr(module, name, None) for name in names]
            if all(map(_worthwhile_layer, family)) and len({layer.bias is None for layer in family}) == 1:
                found.append(family)
                taken.update(family)
        if isinstance(module, nn.Linear) and _worthwhile_layer(module) and module not in taken:
            found.append([module])
    return found


def _worthwhile_layer(module: Any) -> bool:
    return type(module) is nn.Linear and _worthwhile(module.weight) and "forward" not in vars(module)


def _worthwhile(weight: Tensor) -> bool:
    return weight.dtype == torch.float32 and weight.numel() >= WORTH


class _Siblings:
    """Layers that have the same input size, all or none of them a bias, as one product on a laid out copy."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self.multiply = packed_linear(*joined(layers))
        self._sizes = [layer.out_features for layer in layers]
        self._found: dict[int, Tensor] = {}
        self._given: list[Tensor] = []

    def part(self, which: int, x: Tensor) -> Tensor:
        """One layer's share. The product of all is computed when one of them is given an input, and handed out to the
        others that are given the very same tensor."""
        if not self._given or self._given[0] is not x or which not in self._found:
            self._given[:] = [x]
            self._found.update(enumerate(self.multiply(x).split(self._sizes, -1)))
        mine = self._found.pop(which)
        if not self._found:
            self._given.clear()  # nothing is kept alive longer than it is needed
        return mine


def joined(layers: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Weights and biases, one below the other."""
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    return torch.cat([layer.weight.detach() for layer in layers]), torch.cat(biases) if biases else None


def packed_siblings(layers: Sequence[nn.Linear]) -> list[Linear]:
    """A product for each of the layers, which have the same input size, all or none of them a bias."""
    if len(layers) == 1:
        return [packed_linear(layers[0].weight, layers[0].bias)]
    siblings = _Siblings(layers)
    return [partial(siblings.part, which) for which in range(len(layers))]


def together(layers: Sequence[nn.Linear]) -> Linear:
    """x -> the products of layers that have the same input size, side by side, as sampling computes them now: within
    `packed_weights` those that it has made; of small layers, which it leaves alone, one on a copy of their weights.
    """
    made = [vars(layer).get("forward") for layer in layers]
    if len(layers) == 1:
        return made[0] or layers[0]
    owners = {getattr(getattr(product, "func", None), "__self__", None) for product in made}
    if len(owners) == 1 and isinstance(owner := owners.pop(), _Siblings):
        return owner.multiply
    if any(made):
        return lambda x: torch.cat([layer(x) for layer in layers], -1)
    weight, bias = joined(layers)
    return partial(nn.functional.linear, weight=weight, bias=bias)


def packed_linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """x -> x @ weight.T + bias, for float32 [..., in]. `weight` [out, in] is copied."""
    multiply = torch.ops.mkldnn._linear_pointwise.default
    with torch.no_grad():
        laid_out = torch.ops.mkldnn._reorder_linear_weight(weight.detach())

    def linear(x: Tensor, *_: Any) -> Tensor:
        return multiply(x, laid_out, bias, "none", [], "")

    return linear


def product_of(weight: Tensor) -> Linear:
    """x -> x @ weight.T as sampling computes it: laid out where that is possible and worth it."""
    if kernels.usable(weight):
        return kernels.Panels(weight)
    if weight.device.type == "cpu" and _worthwhile(weight) and available():
        return packed_linear(weight, None)
    return partial(nn.functional.linear, weight=weight)


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
