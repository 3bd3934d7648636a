"""RLoop around another trainer: its rollouts are imported, judged and kept as ours are, whatever happens on the way."""

from __future__ import annotations

import functools
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_fixtures import TASK, command, finish, metrics, outcome, small_recipe, start, temporary

from reasonloop.config import Recipe, load
from reasonloop.errors import InputError
from reasonloop.methods import checked_method
from reasonloop.store.experts import select_experts
from reasonloop.store.segments import TrajectoryStore, list_segments

TRAINER = shlex.join([sys.executable, str(Path(__file__).parent.parent / "fake_trainer.py")])
EXPLORE = TRAINER + " explore {model} {problems} {steps} {seed} {out}"
FINETUNE = TRAINER + " finetune {model} {experts} {out}"
STEPS, ROLLOUTS = 3, 48
"""Of an iteration"""


def argv(out: Path, *changes: str, explore: str = EXPLORE) -> list[str | Path]:
    return [
        *("run", _recipe(), "--out", out, f"explorer.command={explore}", "explorer.rollouts=verl"),
        *("rloop.vanilla=false", "rl.learning_rate=1e-4", "rl.refill_rounds=1", "eval.samples=1", "rft.epochs=1"),
        *changes,
    ]


@functools.cache
def _recipe() -> Path:
    return small_recipe(temporary())


@functools.cache
def unbroken() -> tuple[Path, str]:
    """A run of two iterations, and what it said."""
    out, log = temporary() / "outside" / "run", temporary() / "outside-log"
    assert command(argv(out, explore=EXPLORE + " --torn"), log=log) == 0, log.read_text()
    return out, log.read_text()


def kept(out: Path) -> dict[str, Any]:
    """What a run is for, without what is told of its commands and how they went."""
    found = {
        name: {key: value for key, value in content.items() if key != "depends_on"} if "evals/" in name else content
        for name, content in outcome(out).items()
        if not name.startswith(("commands/", "logs/", "metrics", "state"))
    }
    lines = [{key: value for key, value in line.items() if key != "seconds"} for line in metrics(out)]
    return found | {"metrics": lines}


def wait_for(true: Callable[[], Any]) -> None:
    late = time.monotonic() + 60
    while not true():
        assert time.monotonic() < late
        time.sleep(0.02)


def test_a_run_around_another_trainer() -> None:
    out, said = unbroken()
    store = TrajectoryStore(out / "trajectories", "run")
    for iteration in range(2):
        assert [place.step for place in list_segments(store.folder, "main", iteration)] == [0, 1, 2]
        written = [
            json.loads(line)
            for step in range(1, STEPS + 1)
            for line in (out / f"commands/main-explore-{iteration}/out/rollouts/{step}.jsonl").read_text().split("\n")
            if line.endswith("}")
        ]
        found = store.read("main", iteration)
        assert sorted(rollout.text for rollout in found) == sorted(row["output"] for row in written)
        assert sum(rollout.right for rollout in found) == sum(row["score"] == 1 for row in written) > 0
        lines = metrics(out, stage="explore", iteration=iteration)
        assert [line["rollouts"] for line in lines] == [ROLLOUTS * iteration + 16 * n for n in (1, 2, 3)]
        assert all(line["arm"] == "main" and line["seconds"] > 0 and 0 <= line["right"] <= 1 for line in lines)
        chosen = metrics(out, stage="select", iteration=iteration)[0]
        experts = select_experts(out / "trajectories", iteration=iteration, hard_threshold=1.0, seed=0)
        assert chosen["selected"] == experts.selected > 0
        assert chosen["rollouts"] == ROLLOUTS * (iteration + 1)
    assert (out / "model" / "config.json").is_file()
    assert not list(out.glob("commands/*/model"))
    assert {path.name for path in out.glob("evals/*.json")} == {"base.json", *(f"iteration-{i}-rft.json" for i in (0, 1))}
    assert "verdict and score agree on 100.0 % of 48" in said
    assert "1 torn line" in said
    assert (out / "report.html").is_file()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_in_the_second_exploration_and_continued(number: signal.Signals, tmp_path: Path) -> None:
    """The first's rollouts stay, the second command ends with the run and is called again."""
    out, log = tmp_path / "run", tmp_path / "log"
    waiting = argv(out, "explorer.resumes=true", explore=EXPLORE + " --torn --wait-at 2")
    process = start(waiting, log=log)
    second = out / "logs" / "main-explore-1.log"
    wait_for(lambda: second.exists() and "waiting" in second.read_text())
    (out / "commands" / "go-on").touch()
    os.kill(process.pid or 0, number)
    code = finish(process)
    assert code == (-number if number == signal.SIGKILL else 0), log.read_text()
    assert command(waiting, log=log) == 0, log.read_text()
    assert kept(out) == kept(unbroken()[0])


def test_what_goes_wrong_is_told_and_mended(tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    assert command(argv(out, explore=EXPLORE + " --fail-at 2"), log=log) == 1
    said = log.read_text()
    assert "CUDA out of memory" in said
    assert f"exit code 1; its output is in {out}/logs/main-explore-0.log" in said
    assert command(argv(out, explore=EXPLORE + " --layout none"), log=log) == 1
    assert "explorer.command has ended, but its rollouts can't be taken" in log.read_text()
    assert command([*argv(out, explore=EXPLORE + " --torn"), "--dry-run"], log=log) == 0
    for change in (4, 9):  # in the import of what the command, which is not run again then, has left
        code = command(argv(out, explore=EXPLORE + " --torn"), log=log, watched=out / "trajectories", kill_at=change)
        assert code == -signal.SIGKILL
    assert command(argv(out, explore=EXPLORE + " --torn"), log=log) == 0, log.read_text()
    assert kept(out) == kept(unbroken()[0])
    aside = sorted(path.name for path in (out / "commands" / "main-explore-0").glob("out.*"))
    assert aside == ["out.1", "out.2"]
    assert not list((out / "commands" / "main-explore-1").glob("out.*"))
