"""AdamW as the recipe's `[optimizer]` has it: torch's own, or bitsandbytes' with moments of 8 bits or in paged memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

from reasonloop.config import Optimizer
from reasonloop.errors import InputError


def adamw(parameters: Sequence[torch.nn.Parameter], options: Optimizer) -> torch.optim.Optimizer:
    """Over float32 parameters; the learning rate is set at each step. Raises InputError where bitsandbytes is asked for and
    isn't there, or what it offloads to."""
    common: dict[str, Any] = {"lr": 0.0, "betas": options.betas, "weight_decay": options.weight_decay}
    check_optimizer(options, parameters[0].device.type if parameters else "cpu")
    if options.state == "float32" and not options.offload:
        return torch.optim.AdamW(parameters, fused=True, **common)
    bitsandbytes = _library()
    bits = 8 if options.state == "8bit" else 32
    made: torch.optim.Optimizer = bitsandbytes.optim.AdamW(
        parameters, optim_bits=bits, is_paged=options.offload, **common
    )
    return made


def step(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter], rate: float) -> None:
    """One step at this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    torch.autograd.graph.increment_version(parameters)  # bitsandbytes changes them behind torch's back


def restore(optimizer: Any, state: dict[str, Any]) -> None:
    """Takes over a state that was saved. Moments of paged memory are in such again: a copy of one only says so."""
    optimizer.load_state_dict(state)
    for parameter, own in optimizer.state.items():
        for name in ("state1", "state2"):
            if getattr(own.get(name), "is_paged", False):
                kept, own[name] = own[name], optimizer.get_state_buffer(parameter, dtype=own[name].dtype)
                own[name].copy_(kept)


def _library() -> Any:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # of what it lacks for things that aren't used here
    import bitsandbytes

    return bitsandbytes


def check_optimizer(options: Optimizer, device: str) -> None:
    """Raises InputError unless the optimizer that is asked for is here, and works on the device."""
    asked = 'optimizer.state = "8bit"' if options.state == "8bit" else "optimizer.offload = true"
    if options.offload and device != "cuda":
        raise InputError(
            f"optimizer.offload = true: moves a GPU's memory, and the model runs on {device}; expected false"
        )
    if options.state == "float32" and not options.offload:
        return
    try:
        _library()
    except Exception as error:  # not installed, or its libraries can't be loaded
        raise InputError(
            f"{asked}: bitsandbytes can't be imported ({error}); expected it after: pip install 'reasonloop[optim]'"
        ) from None
