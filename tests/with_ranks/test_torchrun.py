"""torchrun itself: a rank that dies, Ctrl-C, and on without it to the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_fixtures import command, metrics, small_recipe

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "reasonloop"]


def until(out: Path, lines: int, process: subprocess.Popen[str], log: Path) -> None:
    began = time.monotonic()
    while not (out / "metrics.jsonl").is_file() or len(metrics(out)) < lines:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() - began < 200
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sorted(int(child) for child in found)


@pytest.mark.timeout(600)
def test_a_rank_dies_then_ctrl_c_then_the_end(tmp_path: Path) -> None:
    out, argv = tmp_path / "run", [*TORCHRUN, "run", str(small_recipe(tmp_path)), "--out", str(tmp_path / "run")]

    log = tmp_path / "died"
    process = subprocess.Popen(argv, stderr=log.open("w"), text=True)
    until(out, 2, process, log)
    rank_1 = children(process.pid)[1]
    os.kill(rank_1, signal.SIGKILL)
    assert process.wait(60) == 1
    told = [line for line in log.read_text().splitlines() if line.startswith("reasonloop: ")]
    assert len(told) == 1, log.read_text()
    assert re.match(rf"reasonloop: rank 1 \(process {rank_1} on \S+\) has died: .*; the same command goes on$", told[0])

    log = tmp_path / "asked"
    process = subprocess.Popen(argv, stderr=log.open("w"), text=True)
    until(out, len(metrics(out)) + 1, process, log)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    assert f"reasonloop: stopped; the same command goes on with {out}" in log.read_text()

    log = tmp_path / "ended"
    assert command(argv[argv.index("run") :], log=log) == 0
    assert "Held-out results" in log.read_text()
    assert (out / "model" / "config.json").is_file()
