"""Copies of a module tree."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor


def copied(model: Any, memo: dict[int, Any] | None = None) -> Any:
    """A deep copy. `memo`: what the copy has in the place of parameters and buffers, by their ids.

    Families that keep what they computed last in their modules (RecurrentGemma its states) let go of the graph that it came
    from, which can't be copied.
    """
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                vars(module)[name] = value.detach()
    return copy.deepcopy(model, memo)
