"""What a learner needs to go on, written and read by several processes, each its shards: torch.distributed.checkpoint's
folder, for any number of processes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from reasonloop.errors import RunError
from reasonloop.files import TRAINER_SHARDS
from reasonloop.learner import optimizers

VISIBLE_SECONDS = 30.0
"""Until a folder that rank 0 has made is there for the others, on a disk of several machines"""
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""AdamW's state of a parameter; a step is one number"""


def save(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    folder: Path,
    *,
    copies: bool,
    group: dist.ProcessGroup,
) -> None:
    """By all processes of the group at the same time, into an existing folder. `copies`: the parameters, too. Raises
    RunError where the folder isn't there for this process."""
    began = time.monotonic()
    while not folder.is_dir():  # else it would be made here, on a disk of this machine alone
        if time.monotonic() - began > VISIBLE_SECONDS:
            raise RunError(f"{folder} isn't there: the run's folder must be on a disk that all ranks see")
        time.sleep(0.1)
    tensors: dict[str, Tensor] = {"parameters": torch.tensor(len(parameters))}
    for i, parameter in enumerate(parameters):
        own = optimizer.state.get(parameter, {})
        tensors |= {f"{i}.{name}": own[name] for name in MOMENTS if name in own}
        if copies:
            tensors[f"{i}.copy"] = parameter.detach()
    dcp.save(tensors, checkpoint_id=folder / TRAINER_SHARDS, process_group=group)


def load(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    folder: Path,
    *,
    copies: bool,
    group: dist.ProcessGroup | None = None,
) -> None:
    """What `save` wrote, however many processes that were; `group`: None for a process that is alone."""
    path = folder / TRAINER_SHARDS
    there = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    found: dict[str, Tensor] = {}
    for i, parameter in enumerate(parameters):
        for name in (*MOMENTS, *(["copy"] if copies else [])):
            if f"{i}.{name}" in there:
                found[f"{i}.{name}"] = torch.zeros(()) if name == "step" else torch.zeros_like(parameter.detach())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # it is meant
        dcp.load(found, checkpoint_id=path, process_group=group, no_dist=group is None)
    take(optimizer, parameters, found)


def take(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], found: dict[str, Tensor]) -> None:
    """The optimizer's state and the parameters, from tensors by name as `save` has them: shards, or whole ones that each
    process cuts its own from."""
    state: dict[int, dict[str, Tensor]] = {}
    for i, parameter in enumerate(parameters):
        own = {name: found[f"{i}.{name}"] for name in MOMENTS if f"{i}.{name}" in found}
        if own:
            state[i] = {name: value if name == "step" else cut(value, parameter) for name, value in own.items()}
        if f"{i}.copy" in found:
            with torch.no_grad():
                parameter.copy_(cut(found[f"{i}.copy"], parameter))
    optimizers.restore(optimizer, {"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def cut(value: Tensor, like: Tensor) -> Tensor:
    """This process's shard of a whole tensor, where `like` is one."""
    if isinstance(like, DTensor) and not isinstance(value, DTensor):
        on = value.to(like.device)
        return distribute_tensor(on, like.device_mesh, like.placements, src_data_rank=None)
    return value


def of_local(state: dict[str, Any]) -> dict[str, Tensor]:
    """A `LocalLearner`'s state by name as `save` has it."""
    found = {f"{i}.{name}": own[name] for i, own in state["optimizer"]["state"].items() for name in MOMENTS}
    return found | {f"{i}.copy": copy for i, copy in enumerate(state["copies"])}
