"""A policy in several processes: the weights lie in memory that all of them map, everything else is a pickle.

What a learner changes in place, the others see at their next forward pass; nothing is copied again.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
from typing import Any

import torch

from reasonloop.policy.policy import Policy

_ALIGNMENT = 64


def share(policy: Policy) -> tuple[int, bytes]:
    """Moves the policy's parameters, in place, to memory that other processes can map: its descriptor, and the pickle
    for `attach`. The caller closes the descriptor; the memory lives as long as a process has it mapped. Linux only.

    Raises OSError where there is no room.
    """
    parameters = list(policy.model.parameters())  # tied ones once
    places, total = _places(parameters)
    descriptor = os.memfd_create("reasonloop-weights")
    try:
        os.posix_fallocate(descriptor, 0, total)  # a lack of memory shows here, not as a fault at some later write
        memory = mmap.mmap(descriptor, total)
    except OSError:
        os.close(descriptor)
        raise
    with torch.no_grad():
        for parameter, place in zip(parameters, places, strict=True):
            view = _view(memory, parameter, place)
            view.copy_(parameter)
            parameter.data = view
    policy.placement = object()
    body = io.BytesIO()
    pickle.dump([(tuple(parameter.shape), parameter.dtype) for parameter in parameters], body)
    pickler = _Pickler(body, protocol=pickle.HIGHEST_PROTOCOL)
    pickler.known = {id(parameter): i for i, parameter in enumerate(parameters)}
    pickler.dump(policy)
    return descriptor, body.getvalue()


def attach(descriptor: int, body: bytes) -> Policy:
    """The policy that `share` has given away, on the same memory; it takes no gradients. Closes the descriptor."""
    source = io.BytesIO(body)
    shapes = pickle.load(source)
    empty = [torch.empty(shape, dtype=dtype, device="meta") for shape, dtype in shapes]
    places, total = _places(empty)
    memory = mmap.mmap(descriptor, total)
    os.close(descriptor)
    unpickler = _Unpickler(source)
    unpickler.parameters = [
        torch.nn.Parameter(_view(memory, like, place), requires_grad=False)
        for like, place in zip(empty, places, strict=True)
    ]
    policy: Policy = unpickler.load()
    return policy


def _places(tensors: list[Any]) -> tuple[list[int], int]:
    """Where each tensor begins, in bytes, and how many there are together."""
    places, end = [], 0
    for tensor in tensors:
        places.append(end)
        end += -(-tensor.numel() * tensor.element_size() // _ALIGNMENT) * _ALIGNMENT
    return places, max(end, _ALIGNMENT)


def _view(memory: mmap.mmap, like: torch.Tensor, place: int) -> torch.Tensor:
    # a storage of its own each, as transformers' saving expects of parameters that aren't tied
    return torch.frombuffer(memory, dtype=like.dtype, count=like.numel(), offset=place).view(like.shape)


class _Pickler(pickle.Pickler):
    known: dict[int, int]

    def persistent_id(self, obj: Any) -> int | None:
        return self.known.get(id(obj)) if isinstance(obj, torch.nn.Parameter) else None


class _Unpickler(pickle.Unpickler):
    parameters: list[torch.nn.Parameter]

    def persistent_load(self, pid: Any) -> torch.nn.Parameter:
        return self.parameters[pid]
