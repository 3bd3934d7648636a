"""The ranks of a run, assembled: torch.distributed between all of them, and a channel from rank 0 to each other one."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener
from typing import Any

from reasonloop.config import Recipe
from reasonloop.errors import InputError, RunError, first_line
from reasonloop.machine.launch import Launch, launched
from reasonloop.machine.threads import wait_briefly
from reasonloop.ranks.channel import Leader, Line, Other
from reasonloop.ranks.meeting import meet
from reasonloop.version import VERSION

EXCHANGE = timedelta(minutes=10)
"""Most that ranks wait for one another at the start, and in an exchange; one that says nothing is noticed before"""


@contextmanager
def assembled(recipe: Recipe) -> Iterator[Leader | None]:
    """Rank 0's end of the run's ranks, until the block is left; None for a process that is alone. Raises InputError for a
    recipe that can't be run by several."""
    launch = launched()
    if launch.world == 1:
        yield None
        return
    wait_briefly()
    check_recipe(recipe, launch)
    leader = _lead(launch, recipe.ranks.timeout)
    try:
        yield leader
    finally:
        leader.end()
        if not leader.lost:
            _leave_group()


def check_recipe(recipe: Recipe, launch: Launch) -> None:
    """Raises InputError for what several ranks can't do."""
    options = recipe.optimizer
    if options.state != "float32" or options.offload:
        asked = 'optimizer.state = "8bit"' if options.state != "float32" else "optimizer.offload = true"
        raise InputError(
            f"{asked}: not with several ranks, which share the optimizer's state already; expected it unset, or no "
            "torchrun"
        )
    if recipe.engine.name == "vllm":
        raise InputError("engine.name = 'vllm': not with several ranks yet; expected 'native', or no torchrun")
    if recipe.scale.vary:
        raise InputError("scale.vary: not with several ranks; expected it unset, or no torchrun")
    import torch

    gpus = torch.cuda.device_count() if recipe.model.device != "cpu" and torch.cuda.is_available() else 0
    if 0 < gpus < launch.local_world:
        raise InputError(
            f"torchrun has started {launch.local_world} ranks on a machine where torch sees {gpus} GPUs; expected "
            f"--nproc-per-node {gpus} at most, or model.device = 'cpu'"
        )


def follow() -> int:
    """What a rank but the first does: whatever rank 0 says. Its exit code. Raises RunError where it can't reach it."""
    wait_briefly()
    from reasonloop.policy.asking import quiet
    from reasonloop.ranks.worker import Worker

    quiet()
    line = _join(launched())
    for number in (signal.SIGINT, signal.SIGTERM):  # rank 0 is asked to stop, and tells when
        signal.signal(number, signal.SIG_IGN)
    try:
        line.serve(Worker(line))
    except (EOFError, ConnectionError):  # rank 0 has gone, and has said why
        return 1
    except (InputError, RunError) as error:
        line.fail(str(error))
        return 1
    except BaseException as error:
        others = isinstance(error, RuntimeError) and _of_an_exchange(error)
        if not others and not isinstance(error, MemoryError | OSError):
            traceback.print_exc()
        line.fail(f"{type(error).__name__}: {first_line(error)}", others)
        return 1
    _leave_group()
    return 0


def _of_an_exchange(error: RuntimeError) -> bool:
    """Whether it is of torch.distributed: another rank has gone, or is late."""
    import torch.distributed as dist

    text = str(error).lower()
    return isinstance(error, dist.DistError) or "gloo" in text or "nccl" in text or "connection" in text


def _lead(launch: Launch, timeout: float) -> Leader:
    import torch.distributed as dist

    _open_group()
    key = secrets.token_bytes(32)
    address = "127.0.0.1" if launch.world == launch.local_world else ""
    with Listener((address, 0), backlog=2 * launch.world, authkey=key) as listener:
        dist.broadcast_object_list([address or os.environ["MASTER_ADDR"], listener.address[1], key, timeout])
        work: dict[int, tuple[Any, str]] = {}
        life: dict[int, tuple[Any, str]] = {}
        while len(work) + len(life) < 2 * (launch.world - 1):
            try:
                connection = listener.accept()
            except (AuthenticationError, OSError):  # somebody else's
                continue
            rank, kind, where, versions = connection.recv()
            if versions != _versions():
                raise RunError(f"rank {rank} ({where}) has {versions}, rank 0 has {_versions()}; expected the same")
            (work if kind == "work" else life)[rank] = connection, where
    return Leader([Other(rank, where, work[rank][0], life[rank][0]) for rank, (_, where) in work.items()], timeout)


def _join(launch: Launch) -> Line:
    import torch.distributed as dist

    _open_group()
    told: list[Any] = [None] * 4
    dist.broadcast_object_list(told)
    host, port, key, timeout = told
    where = f"process {os.getpid()} on {socket.gethostname()}"
    ends = []
    for kind in ("work", "life"):
        try:
            ends.append(Client((host, port), authkey=key))
            ends[-1].send((launch.rank, kind, where, _versions()))
        except OSError as error:
            raise RunError(f"rank {launch.rank} ({where}) can't reach rank 0 at {host}:{port}: {error}") from error
    return Line(launch.rank, ends[0], ends[1], timeout)


def _versions() -> str:
    import torch

    return f"reasonloop {VERSION}, torch {torch.__version__}"


def _open_group() -> None:
    import torch
    import torch.distributed as dist

    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(launched().local_rank % torch.cuda.device_count())
    try:
        store, rank, world = next(dist.rendezvous("env://", timeout=EXCHANGE))
        store = meet(store, rank, world, EXCHANGE)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=EXCHANGE)
    except (RuntimeError, ValueError) as error:
        raise RunError(f"ranks can't find one another: {first_line(error)}") from error


def _leave_group() -> None:
    import torch.distributed as dist

    dist.destroy_process_group()
