"""Branches of several ranks each: where torchrun has started the run on several devices, a branch on Ray has as many."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from run_fixtures import metrics, small_recipe

from reasonloop.store.segments import TrajectoryStore

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "reasonloop", "run"]
OPTIONS = ["scale.branches=2", "rl.steps=4", "rloop.iterations=1", "rloop.vanilla=false", "eval.samples=2"]


@pytest.mark.timeout(600)
def test_branches_of_two_ranks_are_those_made_in_turn_by_two(tmp_path: Path) -> None:
    recipe = str(small_recipe(tmp_path))
    for name, address in (("in-turn", ""), ("on-ray", "local")):
        argv = [*TORCHRUN, recipe, *OPTIONS, f"scale.address={address}", "--out", str(tmp_path / name / "run")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        assert "otherwise" not in done.stderr
    first, second = (tmp_path / name / "run" for name in ("in-turn", "on-ray"))
    stored = [TrajectoryStore(out / "trajectories", "run").read() for out in (first, second)]
    assert {one.place.branch for one in stored[0]} == {"main.1", "main.2"}
    assert [(one.place, one.response_tokens.tolist(), one.logprobs.tolist()) for one in stored[0]] == [
        (one.place, one.response_tokens.tolist(), one.logprobs.tolist()) for one in stored[1]
    ]
    assert (first / "model/model.safetensors").read_bytes() == (second / "model/model.safetensors").read_bytes()
    (whole,) = metrics(second, stage="branches")
    assert (whole["tries"], whole["left_behind"]) == (2, 0)
