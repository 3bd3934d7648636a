"""A number that tells weights apart: the same for the same bits, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from reasonloop.policy.policy import Policy

ROW = 1024
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.inference_mode()
def digest(policy: Policy) -> int:
    """Of all weights, their order included: 64 bits, sums that overflow alike everywhere."""
    found = [_of(parameter) * (2 * i + 1) for i, parameter in enumerate(policy.model.parameters())]
    return int(torch.stack(found).sum())


def _of(tensor: Tensor) -> Tensor:
    """int64 scalar on the CPU"""
    bits = tensor.detach().contiguous().view(-1).view(BITS[tensor.element_size()])
    whole = len(bits) // ROW * ROW
    sums = [bits[:whole].view(-1, ROW).sum(1, dtype=torch.int64), bits[whole:].sum(dtype=torch.int64)[None]]
    rows = torch.cat(sums)
    return (rows * torch.arange(1, 2 * len(rows), 2, device=rows.device)).sum().cpu()
