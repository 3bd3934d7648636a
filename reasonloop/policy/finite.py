"""Whether a model's weights are numbers: one that isn't spreads to all logits, and looks like a fault of anything else."""

from __future__ import annotations

import math
from typing import Any

import torch

from reasonloop.errors import InputError


class NotFinite(InputError):
    """A model with NaN or infinities."""


def check_finite(model: Any, name: str) -> None:
    """Raises NotFinite with what is wrong with the first such tensor of a model's."""
    if found := overflow(model):
        raise NotFinite(f"model {name}: {found}; expected numbers: its training has diverged, or its files are damaged")


def overflow(model: Any) -> str:
    """What is wrong with the first of a model's tensors that has NaN or infinity, or weights so large that norms of layers
    have; empty where all are well. Reads each weight once."""
    for tensor, weight in model.named_parameters():
        values = weight.detach()
        if math.isfinite(float(torch.linalg.vector_norm(values, dtype=torch.float32))):
            continue
        if count := int((~values.isfinite()).sum()):
            return f"{count:,} of the {values.numel():,} weights in {tensor} are not finite (NaN or infinity)"
        return f"the weights in {tensor} are too large for float32 ({float(values.abs().max()):.2g})"
    return ""
