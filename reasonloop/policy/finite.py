"""Whether a model's weights are numbers: one that isn't spreads to all logits, and looks like a fault of anything else."""

from __future__ import annotations

import math
from typing import Any

import torch

from reasonloop.errors import InputError


class NotFinite(InputError):
    """A model with NaN or infinities."""


def check_finite(model: Any, name: str) -> None:
    """Raises NotFinite with the first of its tensors that has one. Reads each weight once."""
    for tensor, weight in model.named_parameters():
        values = weight.detach()
        if math.isfinite(float(values.sum(dtype=torch.float32))):  # which anything that isn't finite makes so, too
            continue
        if count := int((~values.isfinite()).sum()):
            raise NotFinite(
                f"model {name}: {count:,} of the {values.numel():,} weights in {tensor} are not finite (NaN or infinity); "
                "expected numbers: its training has diverged, or its files are damaged"
            )
