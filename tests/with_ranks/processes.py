"""Ranks as processes, started as torchrun starts them but forked: importing torch takes longer than a test."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from run_fixtures import finish, kill_at_change, server


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def ranks(world: int, target: Callable[..., Any], *arguments: Any, log: Path) -> list[BaseProcess]:
    """`target(*arguments)` in each of `world` processes; rank r's output goes to `log` with r behind its name."""
    port = free_port()
    started = []
    for rank in range(world):
        process = server().Process(
            target=_as_rank, args=(rank, world, port, str(log.with_suffix(f".{rank}")), target, arguments)
        )
        process.start()
        started.append(process)
    return started


def run_ranks(
    world: int,
    argv: Sequence[str | Path],
    *,
    log: Path,
    watched: Path | None = None,
    killed: int = 0,
    kill_at: int = 0,
) -> list[BaseProcess]:
    """`reasonloop ARGV` by so many ranks. Rank `killed` kills itself with SIGKILL just before its `kill_at`-th change to a
    file in `watched`, if it comes to so many."""
    return ranks(world, command, [str(part) for part in argv], str(watched or ""), killed, kill_at, log=log)


def all_well(processes: Sequence[BaseProcess], log: Path, seconds: float = 120) -> None:
    codes = [finish(process, seconds) for process in processes]
    assert codes == [0] * len(codes), "\n".join(said(log, rank) for rank in range(len(codes)))


def said(log: Path, rank: int) -> str:
    return log.with_suffix(f".{rank}").read_text()


def command(argv: list[str], watched: str, killed: int, kill_at: int) -> None:
    if kill_at and os.environ["RANK"] == str(killed):
        kill_at_change(Path(watched), kill_at)
    from reasonloop.cli import main

    sys.exit(main(argv))


def _as_rank(
    rank: int, world: int, port: int, log: str, target: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    target(*arguments)
