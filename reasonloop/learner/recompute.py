"""Gradient checkpointing: the backward pass computes the activations of each layer again instead of keeping them.

transformers' own is bound to train mode, in which models drop out, jitter and route at random, each family in its own ways:
another policy than the one that was sampled. Here the model stays in evaluation mode, and any family's layers can do it,
also those that transformers has no checkpointing for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import lru_cache, partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from reasonloop.errors import InputError
from reasonloop.kernels.matmul import wide_matmul


def recompute(model: nn.Module) -> None:
    """Its layers keep their inputs alone for the backward pass from now on. Weights, names and what it computes stay.

    Raises InputError for a model whose layers are not to be found.
    """
    layers = list(_layers(model))
    if not layers:
        raise InputError(
            f"model.gradient_checkpointing: {type(model).__name__} has no list of layers to compute again; expected false"
        )
    for layer in layers:
        if not getattr(layer, "recomputed", False):
            kind: Any = type(layer)
            layer.__class__ = _recomputed(kind)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost lists of modules, but for those that are a single operation."""
    for child in module.children():
        members = list(child) if isinstance(child, nn.ModuleList) else []
        if any(isinstance(member, nn.ModuleList | nn.ModuleDict) for member in members) or not members:
            yield from _layers(child)
        else:
            yield from (layer for layer in members if next(layer.children(), None) is not None)


@lru_cache
def _recomputed(kind: type) -> type:
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return kind.forward(self, *args, **kwargs)  # type: ignore[attr-defined]
        return checkpoint(
            partial(kind.forward, self, **kwargs),  # type: ignore[attr-defined]
            *args,
            use_reentrant=False,
            preserve_rng_state=False,  # nothing is random
            # what is computed again must multiply as it did at first
            context_fn=lambda: (nullcontext(), wide_matmul(next(self.parameters()).device)),
        )

    return type(kind.__name__, (kind,), {"forward": forward, "recomputed": True, "__module__": kind.__module__})
