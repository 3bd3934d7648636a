"""RLoop around TRL's GRPOTrainer, as examples/grpo_with_trl.toml has it: killed in its second exploration, and continued."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from run_fixtures import metrics

from reasonloop.config import load
from reasonloop.policy.loading import load_model
from reasonloop.store.segments import TrajectoryStore, list_segments

ROOT = Path(__file__).parent.parent.parent
STEPS, PROBLEMS, RESPONSES = 5, 8, 8


@pytest.mark.timeout(600)
def test_two_iterations_killed_in_the_second_exploration_and_continued(tmp_path: Path) -> None:
    recipe, out, log = ROOT / "examples" / "grpo_with_trl.toml", tmp_path / "run", tmp_path / "log"
    command = load(recipe).explorer.command.replace("python ", f"{sys.executable} ", 1) + " --save-every 2"
    tuner = (
        "trl sft --model_name_or_path {model} --dataset_name {experts} --num_train_epochs {epochs} --output_dir {out}"
    )
    page = (ROOT / "docs" / "on-your-cluster.md").read_text(encoding="utf-8")
    assert f'command = "{tuner}"' in page
    tuner = f"{Path(sys.executable).parent}/{tuner} --use_cpu --report_to none --learning_rate 1e-4"
    argv = [
        *(sys.executable, "-m", "reasonloop", "run", str(recipe), "--out", str(out), f"explorer.command={command}"),
        *(f"rl.steps={STEPS}", f"rl.problems_per_step={PROBLEMS}", f"rl.group_size={RESPONSES}", "threads=1"),
        *("task.train=256", "task.test=16", "eval.samples=2", "rft.epochs=1"),
        *("rft.learning_rate=3e-4", f"finetuner.command={tuner}"),
    ]
    second = out / "commands" / "main-explore-1" / "out"
    with log.open("w") as file:
        process = subprocess.Popen(argv, cwd=ROOT, stdout=file, stderr=file)
        late = time.monotonic() + 400
        while not (second / "checkpoint-2" / "trainer_state.json").exists() and process.poll() is None:
            assert time.monotonic() < late
            time.sleep(0.05)
        assert process.poll() is None, log.read_text()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (second.parent / "done").exists()
        assert subprocess.run(argv, cwd=ROOT, stdout=file, stderr=file).returncode == 0, log.read_text()

    store = TrajectoryStore(out / "trajectories", "run")
    for iteration in range(2):
        files = sorted((out / f"commands/main-explore-{iteration}/out/completions").glob("*.parquet"))
        assert len(files) == STEPS
        rows = [row for path in files for row in pq.read_table(path).to_pylist()]
        found = store.read("main", iteration)
        assert len(found) == STEPS * PROBLEMS * RESPONSES == len(rows)  # nothing lost, nothing twice
        assert [place.step for place in list_segments(store.folder, "main", iteration)] == [*range(STEPS)]
        assert Counter(rollout.text for rollout in found) == Counter(row["completion"] for row in rows)
        assert sum(rollout.right for rollout in found) == sum(row["right"] for row in rows) > 0
        trained_on = metrics(out, stage="select", iteration=iteration)[0]["trained_on"]
        assert metrics(out, stage="rft", iteration=iteration)[0]["examples"] == trained_on > 0
    said = log.read_text()
    assert "verdict and score agree on 100.0 %" in said
    assert not (second.parent / "out.1").exists()  # TRL went on from its checkpoint
    assert len(metrics(out, stage="eval")) == 3
    load_model(out / "model")
