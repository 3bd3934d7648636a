"""A run that was killed, however often and wherever, and continued by the same command is the run that was not."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random

import pytest
from run_fixtures import command, finish, metrics, outcome, small_recipe, start, temporary

PLANS = {
    "rloop": [],
    "rloop, checkpoints far apart, refills": ["checkpoint_seconds=1e9", "rl.refill_rounds=1", "rft.epochs=3"],
    "rloop, weighted, from the explored policy": [
        "rloop.weighted=true",
        "rloop.reinitialise_from=explored",
        "rl.probe_every=2",
        "rl.schedule=linear",
        "rl.steps=2",
        "eval.explored=false",
    ],
    "rl, KL in the loss": ["method=rl", "rl.kl_coef=0.1", "rl.updates_per_step=2", "rl.refill_rounds=1"],
    "rl, KL in the reward, checkpoints far apart": [
        *("method=rl", "rl.kl_coef=0.1", "rl.kl_in=reward", "rl.updates_per_step=2"),
        *("checkpoint_seconds=1e9", "rl.probe_every=1", "rl.steps=4"),
    ],
    "rl after sft": ["method=rl", "sft.before=true", "rl.steps=2", "optimizer.microbatch_tokens=64"],
    "rlsp, ppo": [
        *("method=rlsp", "rl.objective=ppo", "rl.kl_coef=0.1", "rl.kl_in=reward", "rl.epochs=2", "ppo.warmup_steps=1"),
        *("exploration.form=length", "exploration.alpha=0.8", "exploration.length_scale=4", "rlsp.vanilla=true"),
        *("rl.steps=2", "eval.samples=2"),
    ],
    "rlsp, novelty, checkpoints far apart": [
        *("method=rlsp", "sft.before=false", "rl.objective=ppo", "rl.updates_per_step=2"),
        *("exploration.form=novelty", "exploration.alpha=0.8", "checkpoint_seconds=1e9", "rl.skip_solved=true"),
        *("rl.problems_per_step=2", "rl.steps=5", "eval.samples=2"),
    ],
    "rloop, what is solved left out": [
        *("rl.skip_solved=true", "rl.problems_per_step=2", "rl.steps=4", "rft.epochs=1", "rloop.vanilla=false"),
        *("eval.samples=1", "eval.explored=false"),
    ],
    "rloop, adapters, KL, the baseline beside it": [
        *("lora.rank=2", "lora.rft.rank=3", "rl.kl_coef=0.1", "rl.probe_every=1", "rl.keep_best=true"),
        *("rl.steps=2", "eval.samples=1", "eval.explored=false", "rft.epochs=1"),
    ],
    "rloop, branches, adapters": [
        *("scale.branches=2", "scale.vary=[[],['rl.objective=grpo']]", "lora.rl.rank=2", "rl.probe_every=1"),
        *("eval.samples=1", "rft.epochs=1", "rloop.vanilla=false"),
    ],
    "sft": ["method=sft"],
    "sft, checkpoints far apart": ["method=sft", "checkpoint_seconds=1e9"],
}


class Case:
    """One plan in a folder of its own. The run folder's name is part of what the store holds: it is `run` everywhere."""

    def __init__(self, plan: str, folder: Path) -> None:
        self.folder, self.out, self.log = folder, folder / "run", folder / "log"
        self.argv = ["run", _recipe(), *PLANS[plan], "--out", self.out]
        folder.mkdir(exist_ok=True)

    def kill_at(self, change: int, below: str = "") -> bool:
        """Works on the run until its `change`-th change to a file (whose path in it begins with `below`); False if it came
        to its end."""
        code = command(self.argv, log=self.log, watched=self.out / below, kill_at=change)
        assert code in (0, -signal.SIGKILL), self.log.read_text()
        return code != 0

    def complete(self) -> dict[str, object]:
        assert command(self.argv, log=self.log) == 0, self.log.read_text()
        return outcome(self.out)


@functools.cache
def _recipe() -> Path:
    return small_recipe(temporary())


@functools.cache
def unbroken(plan: str) -> dict[str, object]:
    case = Case(plan, temporary() / f"unbroken-{list(PLANS).index(plan)}")
    return case.complete()


def assert_same(found: dict[str, object], expected: dict[str, object]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []


@pytest.mark.parametrize("plan", PLANS)
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(plan: str, tmp_path: Path) -> None:
    """Each process dies a little later than the one before, counted from its own start: at the recovery of what that one
    left, in the stage's work, in a checkpoint's files and between its renames."""
    case, random = Case(plan, tmp_path), Random(plan)
    change = 0
    for _ in range(9):
        change += random.randint(1, 40)
        if not case.kill_at(change):
            break
    assert_same(case.complete(), unbroken(plan))


@pytest.mark.parametrize("change", [2, 4, 5, 6])
def test_killed_as_the_folder_is_made(change: int, tmp_path: Path) -> None:
    case = Case("sft", tmp_path)
    assert case.kill_at(change)
    assert_same(case.complete(), unbroken("sft"))


def test_killed_as_the_product_is_delivered_and_the_checkpoints_go(tmp_path: Path) -> None:
    plan = "rl after sft"
    case = Case(plan, tmp_path)
    for change in (1, 3, 8):  # the partial folder, a link in it, and thereabouts its renaming
        assert case.kill_at(change, below="model")
    for change in (1, 2, 9):  # weights of one stage, weights of the next
        assert case.kill_at(change, below="checkpoints/main-")
        assert (case.out / "model" / "config.json").is_file()
    assert_same(case.complete(), unbroken(plan))
    assert {path.name for path in (case.out / "checkpoints").rglob("*") if path.is_file()} == {"stage.json"}


def test_a_run_that_an_earlier_version_began_goes_on(tmp_path: Path) -> None:
    """It doesn't know today's options, and has left the trainer's state of a stage that is done."""
    plan = "rl after sft"
    case = Case(plan, tmp_path)
    done = case.out / "checkpoints" / "main-sft-0"
    assert case.kill_at(1, below="checkpoints/main-explore")
    (done / "trainer.pt").write_bytes(b"left")
    config = case.out / "config.toml"
    config.write_text(config.read_text().replace("keep_checkpoints = false\n", ""))
    assert_same(case.complete(), unbroken(plan))


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """Not at a change of a file, but by the clock: also within the native code that writes weights and segments."""
    plan = "rloop, checkpoints far apart, refills"
    case, random = Case(plan, tmp_path), Random(0)
    for _ in range(5):
        process = start(case.argv, log=case.log)
        process.join(random.uniform(0.3, 1.5))
        process.kill()
        assert finish(process) in (0, -signal.SIGKILL)
    assert_same(case.complete(), unbroken(plan))


def test_torn_lines_are_written_again(tmp_path: Path) -> None:
    """What a machine that lost its power leaves: files that end in the middle of a line."""
    plan = "rl, KL in the reward, checkpoints far apart"
    case = Case(plan, tmp_path)
    assert case.kill_at(5, below="trajectories")
    path = case.out / "metrics.jsonl"
    assert len(metrics(case.out, stage="explore")) > 0
    path.write_bytes(path.read_bytes()[:-30])
    assert_same(case.complete(), unbroken(plan))


def test_an_evaluation_goes_on_behind_its_last_whole_block(tmp_path: Path) -> None:
    """With so many samples a block is 3 problems; a torn second block is sampled again, and from its own first problem."""
    case = Case("sft", tmp_path)
    case.argv[-2:-2] = ["eval.samples=1024"]
    expected = Case("sft", tmp_path / "expected")
    expected.argv[-2:-2] = ["eval.samples=1024"]
    whole = expected.complete()
    partial = case.out / "evals" / "base.partial"
    for change in range(8, 40):
        assert case.kill_at(change)
        if partial.is_file() and partial.read_text().count("\n") == 3:
            break
    else:
        pytest.fail("no process was killed between the first evaluation's blocks")
    rows = partial.read_text()
    partial.write_text(rows + rows.splitlines()[0] + "\n" + '{"id": "countdo')
    assert_same(case.complete(), whole)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    case = Case("sft", tmp_path)
    case.complete()
    before = {path: path.stat().st_mtime_ns for path in case.out.rglob("*") if path.is_file()}
    assert_same(case.complete(), unbroken("sft"))
    changed = [path.name for path, at in before.items() if path.stat().st_mtime_ns != at]
    assert set(changed) <= {"report.html", ".lock"}
    assert "SFT" in case.log.read_text()


def test_a_run_may_be_moved_and_continued_from_elsewhere(tmp_path: Path) -> None:
    """Nothing in the run folder remembers where it was, or which directory the command was given in."""
    plan = "rl after sft"
    case = Case(plan, tmp_path / "first")
    relative = [*case.argv[:-1], "run"]
    assert command(relative, log=case.log, watched=Path("run"), kill_at=10**6, cwd=case.folder) == 0
    moved = Case(plan, tmp_path / "second")
    for name in ("state.json", "report.html"):
        (case.out / name).unlink()
    os.rename(case.out, moved.out)
    assert_same(moved.complete(), unbroken(plan))


def test_another_machine_is_said(tmp_path: Path) -> None:
    case = Case("sft", tmp_path)
    case.complete()
    file = case.out / "config.toml"
    file.write_text(re.sub(r'(?m)^(kernels|torch) = ".*"$', r'\1 = "another"', file.read_text()))
    state = json.loads((case.out / "state.json").read_text())
    (case.out / "state.json").write_text(json.dumps(state | {"stage": "start"}))
    case.complete()
    assert "it may end with other bytes than an unbroken run (kernels: another when it began, " in case.log.read_text()
    assert "; torch: another when it began, 2." in case.log.read_text()


# stopping


def wait_for(process: BaseProcess, condition: Callable[[], bool]) -> bool:
    """Whether the condition came true while the process was at work."""
    until = time.monotonic() + 60
    while not condition():
        process.join(0.005)
        if process.exitcode is not None:
            return condition()
        assert time.monotonic() < until, "it did not come to pass"
    return True


def _in_exploration(case: Case) -> bool:
    path = case.out / "metrics.jsonl"
    return path.is_file() and '"explore"' in path.read_text()


LONG = "rl, KL in the reward, checkpoints far apart"


def long_case(folder: Path) -> Case:
    """Long enough to be found at work, without a checkpoint of its own accord before the end."""
    case = Case(LONG, folder)
    case.argv[-2:-2] = ["rl.steps=5000", "rl.probe_every=5"]
    return case


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_a_checkpoint(number: signal.Signals, tmp_path: Path) -> None:
    case = long_case(tmp_path)
    process = start(case.argv, log=case.log)
    assert wait_for(process, lambda: _in_exploration(case))
    os.kill(process.pid or 0, number)
    assert finish(process) == 1
    said = case.log.read_text()
    assert "stopping after the next checkpoint" in said
    assert said.splitlines()[-1] == f"reasonloop: stopped; the same command goes on with {case.out}"
    assert "Traceback" not in said
    state = json.loads((case.out / "state.json").read_text())
    at = json.loads((case.out / "checkpoints" / "main-explore-0" / "stage.json").read_text())
    assert state["stage"] == "main-explore-0"
    assert state["step"] == at["step"] == len(metrics(case.out, stage="explore")) > 0
    assert not at["done"]


def test_a_stopped_run_goes_on_to_the_same_end(tmp_path: Path) -> None:
    case = Case(LONG, tmp_path)
    for _ in range(3):
        process = start(case.argv, log=case.log)
        begun = case.out / "evals" / "base.json"
        wait_for(process, begun.is_file)
        if process.exitcode is None:
            os.kill(process.pid or 0, signal.SIGTERM)
        assert finish(process) in (0, 1, -signal.SIGTERM)  # minus: before or after the work that can be stopped
    assert_same(case.complete(), unbroken(LONG))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(number: signal.Signals, tmp_path: Path) -> None:
    case = long_case(tmp_path)
    case.argv[-2:-2] = ["sampling.max_tokens=40", "sampling.temperature=20.0", "rl.group_size=1000", "rl.steps=2"]
    process = start(case.argv, log=case.log)
    assert wait_for(process, (case.out / "evals" / "base.json").is_file)
    time.sleep(0.5)  # behind the evaluation is a place to stop at; the first step takes seconds
    os.kill(process.pid or 0, number)
    assert wait_for(process, lambda: "stopping after" in case.log.read_text())
    os.kill(process.pid or 0, number)
    assert finish(process) == 1
    assert case.log.read_text().splitlines()[-1].startswith("reasonloop: stopped at once")
    assert not (case.out / "checkpoints" / "main-explore-0").exists()


def test_a_run_has_one_process(tmp_path: Path) -> None:
    case, other = long_case(tmp_path), tmp_path / "other-log"
    process = start(case.argv, log=case.log)
    try:
        assert wait_for(process, lambda: _in_exploration(case))
        assert command(case.argv, log=other) == 2
    finally:
        process.kill()
        process.join()
    assert other.read_text().splitlines() == [f"reasonloop: --out {case.out}: another process is working on this run"]


def test_steps_behind_the_checkpoint_do_not_count(tmp_path: Path) -> None:
    """A resumed exploration that isn't repeated to the bit may have fewer steps than its first try: what lies behind them
    is taken back."""
    plan = "rl, KL in the reward, checkpoints far apart"
    case = Case(plan, tmp_path)
    assert case.kill_at(5, below="trajectories")
    segments = case.out / "trajectories"
    (segments / "main-i000-s00099.parquet").write_bytes((segments / "main-i000-s00000.parquet").read_bytes())
    assert_same(case.complete(), unbroken(plan))
