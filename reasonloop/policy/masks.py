"""What a model's own masks let each token see, by layer: what attention is told, and what the mask alone says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

MASK_WINDOW = "mask_window"
"""Attribute of an attention module: the window that its masks have, where it passes another one or none"""


@dataclass(frozen=True)
class Call:
    """One call of attention on a row of N tokens."""

    module: nn.Module
    window: int | None
    """What it was told"""
    mask: Tensor | None
    """bool [N, N], True where a query (row) sees a key; None: causal"""
    more: str = ""
    """What its mask says beside that"""

    def band(self) -> int | None:
        """The sliding window that the mask is; None where it is causal. Raises ValueError for another mask."""
        if self.mask is None:
            return None
        length = len(self.mask)
        place = torch.arange(length, device=self.mask.device)
        distance = place[:, None] - place
        window = int(self.mask[-1].sum())
        if not torch.equal(self.mask, (distance >= 0) & (distance < window)):
            raise ValueError("neither causal nor a window")
        return window if window < length else None


@dataclass
class Watch:
    """In the place of a plan: sees what reaches attention in an ordinary forward pass of one row."""

    calls: list[Call] = field(default_factory=list)

    def see(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, window: int | None
    ) -> Tensor:
        """query [1, H, N, D], key [1, Hkv, N, D], value [1, Hkv, N, Dv] -> [1, N, H, Dv], each token's own value."""
        visible, more = _visible(module, mask, query.shape[2])
        self.calls.append(Call(module, window, visible, more))
        return value.repeat_interleave(query.shape[1] // value.shape[1], 1).transpose(1, 2).contiguous()


def _visible(module: nn.Module, mask: Any, length: int) -> tuple[Tensor | None, str]:
    """bool [N, N] of a mask as transformers' attention functions take it, and what more it says."""
    if mask is None:
        if getattr(module, "is_causal", True):
            return None, ""
        return torch.ones(length, length, dtype=torch.bool), ""
    mask = mask[0, :, :length, :length]
    visible = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    if mask.dtype != torch.bool and bool((mask[visible] != 0).any()):
        return None, "adds a bias to the scores of its attention"
    if bool((visible != visible[:1]).any()):
        return None, "lets each of its heads see other tokens"
    return visible[0], ""


def own_window(module: nn.Module, told: int | None) -> int | None:
    """The window of an attention module's masks, which may be another one than its attention function is told."""
    found: int | None = vars(module).get(MASK_WINDOW, told)
    return found
