"""Arrays on their way to a device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def sent(array: np.ndarray, device: torch.device | str) -> Tensor:
    """The array on the device. From page-locked memory: nobody waits until a GPU has done what it was told before."""
    tensor = torch.from_numpy(array)
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
