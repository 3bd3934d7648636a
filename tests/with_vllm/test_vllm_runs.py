"""A whole RLoop run of the bundled model with vLLM: killed, gone on with, left by an engine that dies, and finished."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_fixtures import metrics

from reasonloop.store.segments import TrajectoryStore

OPTIONS = (
    "engine.name=vllm engine.kv_gib=0.2 engine.slots=64 rloop.iterations=2 rl.steps=3 rl.problems_per_step=8 "
    "rl.group_size=4 rl.probe_every=2 task.probe=8 eval.samples=4 eval.problems=8 eval.probe_samples=1 "
    "rft.epochs=1 rloop.hard_threshold=1 checkpoint_seconds=0 sampling.top_p=0.95"
).split()
DYING = """
import sys
from vllm.v1.engine.llm_engine import LLMEngine
step, left = LLMEngine.step, iter(range(400))
def dying(self):
    if next(left, None) is None:
        raise RuntimeError("EngineCore died")
    return step(self)
LLMEngine.step = dying
from reasonloop.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.timeout(900)
def test_a_run_that_is_killed_and_whose_engine_dies_goes_on_to_its_end(tmp_path: Path) -> None:
    out = tmp_path / "run"
    argv = ["run", "quickstart", *OPTIONS, "--out", str(out)]
    killed = subprocess.Popen([sys.executable, "-m", "reasonloop", *argv], stderr=(tmp_path / "log").open("w"))
    began = time.monotonic()
    while not (out / "metrics.jsonl").is_file() or not metrics(out, stage="explore"):
        assert killed.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() - began < 280
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL

    dead = subprocess.run([sys.executable, "-c", DYING, *argv], capture_output=True, text=True)
    assert dead.returncode == 1, dead.stderr
    told = [line for line in dead.stderr.splitlines() if "EngineCore died" in line]
    assert len(told) == 1
    assert (
        "engine vllm has died while it sampled: RuntimeError: EngineCore died; nothing that was stored is lost"
        in told[0]
    )
    assert "Traceback" not in dead.stderr
    assert dead.stdout == ""

    whole = subprocess.run([sys.executable, "-m", "reasonloop", *argv], capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.startswith("Held-out results")
    assert "vllm" not in whole.stdout.replace(str(out), "")
    assert "engine vllm: a run that is stopped and goes on may sample other rollouts" in whole.stderr
    steps = metrics(out, stage="explore", branch="main")
    assert [(line["iteration"], line["step"]) for line in steps] == [(i, k) for i in range(2) for k in range(3)]
    assert all(line["engine_mismatch"] < 1e-4 for line in steps)
    assert all(abs(line["importance"] - 1) < 1e-4 for line in steps if line["groups_used"])
    assert metrics(out, stage="probe")
    stored = TrajectoryStore(out / "trajectories", "run").read("main")
    assert len(stored) == 2 * 3 * 8 * 4
    versions = {(r.iteration, r.step): r.version for r in stored}
    assert all(versions[i, 0] == 0 for i in range(2))
    assert all(0 <= versions[i, k] <= k for i, k in versions)
    assert (out / "model" / "config.json").is_file()
