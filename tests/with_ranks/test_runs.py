"""Whole runs by several ranks: the rollouts of one process, ranks that die or stop, and other numbers of them to go on."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from processes import all_well, run_ranks, said
from run_fixtures import command, finish, metrics, outcome, small_recipe

from reasonloop.files import read_object
from reasonloop.kernels import ops
from reasonloop.records import Rollout
from reasonloop.store.segments import TrajectoryStore

TIMEOUT = 6
"""Seconds until a rank that says nothing is lost, here"""
KEYS = ("problem_id", "sample", "text", "verdict", "reward", "version", "finish")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    for name, text in OURS.items():
        (folder / f"{name}.py").write_text(text)
    return small_recipe(folder)


@pytest.fixture(scope="module")
def alone(recipe: Path) -> Path:
    out = recipe.parent / "alone"
    assert command(["run", recipe, "--out", out], log=recipe.parent / "alone.log") == 0
    return out


@pytest.fixture(scope="module")
def by_two(recipe: Path) -> Path:
    out, log = recipe.parent / "two", recipe.parent / "two.log"
    all_well(run_ranks(2, ["run", recipe, "--out", out], log=log), log)
    return out


def rollouts(out: Path, branch: str = "main", iteration: int | None = None) -> list[Rollout]:
    return TrajectoryStore(out / "trajectories", out.name).read(branch, iteration)


def test_rollouts_are_those_of_one_process(alone: Path, by_two: Path) -> None:
    """Of a whole first step, whose policies are equal to the bit."""
    ours, theirs = ([r for r in rollouts(out, iteration=0) if r.place.step == 0] for out in (by_two, alone))
    assert len(ours) == 16
    for one, other in zip(ours, theirs, strict=True):
        assert [getattr(one, key) for key in KEYS] == [getattr(other, key) for key in KEYS]
        assert np.array_equal(one.response_tokens, other.response_tokens)
        if ops.library() is not None:
            assert np.array_equal(one.logprobs, other.logprobs)
    base, bases = (read_object(out / "evals" / "base.json") for out in (by_two, alone))
    assert base["problems"] == bases["problems"]


def test_updates_are_those_of_one_process(alone: Path, by_two: Path) -> None:
    ours, theirs = (metrics(out, stage="explore", branch="main", iteration=0)[0] for out in (by_two, alone))
    for name in ("grad_norm", "entropy", "k1", "clip_fraction", "reward", "learning_rate"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-6), name


def test_a_run_ends_as_any_other(alone: Path, by_two: Path) -> None:
    assert {*outcome(by_two)} == {*outcome(alone)}
    log = by_two.with_name("two.log")
    assert said(log, 0).startswith("rft") or "Held-out results" in said(log, 0)
    assert said(log, 1) == ""


def until(out: Path, lines: int, processes: list[BaseProcess], log: Path) -> None:
    """Until the run has written so many lines of metrics."""
    began = time.monotonic()
    while not (out / "metrics.jsonl").is_file() or len(metrics(out)) < lines:
        assert all(process.is_alive() for process in processes), "\n".join(map(str, (said(log, 0), said(log, 1))))
        assert time.monotonic() - began < 60
        time.sleep(0.02)


def lost(processes: list[BaseProcess], log: Path, rank: int) -> str:
    """Rank 0 has said in a line which one was lost; all have ended."""
    assert finish(processes[0], 40) == 1
    for process in processes:
        finish(process, 40) if process.pid is not None else None
    told = [line for line in said(log, 0).splitlines() if line.startswith("reasonloop: ")]
    assert len(told) == 1, said(log, 0)
    assert "Traceback" not in said(log, 0)
    assert told[0].startswith(f"reasonloop: rank {rank} (process {processes[rank].pid} on ")
    assert told[0].endswith("; nothing that was stored is lost; the same command goes on")
    return told[0]


def test_a_rank_that_is_killed_at_any_change_of_a_file_loses_nothing(recipe: Path, by_two: Path) -> None:
    """Rank 0 in whatever it writes, rank 1 in its shards of a checkpoint: with as many ranks it ends with the same bytes."""
    out, rng = recipe.parent / "changes" / "two", np.random.default_rng(int(os.environ.get("SEED", "0")))
    argv = ["run", recipe, "--out", out]
    for turn, killed in enumerate((1, 0, 1, 0)):
        log = recipe.parent / f"change-{turn}"
        at = int(rng.integers(1, 12) if killed else rng.integers(20, 200))
        processes = run_ranks(2, argv, log=log, watched=out, killed=killed, kill_at=at)
        codes = [finish(process, 60) for process in processes]
        assert (codes[killed], codes[1 - killed]) == (-signal.SIGKILL, 1), said(log, 0)
        if killed:
            lost(processes, log, 1)
    log = recipe.parent / "changes.log"
    all_well(run_ranks(2, argv, log=log), log)
    assert outcome(out) == outcome(by_two)


def test_a_run_outlives_its_ranks(recipe: Path, alone: Path, tmp_path: Path) -> None:
    """One after the other: killed, stopped, asked to stop, with other numbers of ranks; every rollout is there."""
    out, rng = tmp_path / "run", np.random.default_rng(int(os.environ.get("SEED", "0")))
    argv = ["run", recipe, f"ranks.timeout={TIMEOUT}", "--out", out]

    log = tmp_path / "killed"
    processes = run_ranks(2, argv, log=log)
    until(out, 3 + int(rng.integers(3)), processes, log)
    time.sleep(float(rng.uniform(0, 0.3)))
    processes[1].kill()
    assert "has died" in lost(processes, log, 1)

    log = tmp_path / "stopped"
    processes = run_ranks(3, argv, log=log)
    until(out, len(metrics(out)) + 1, processes, log)
    time.sleep(float(rng.uniform(0, 0.3)))
    os.kill(processes[2].pid or 0, signal.SIGSTOP)
    began = time.monotonic()
    try:
        assert finish(processes[0], 40) == 1
        assert time.monotonic() - began < TIMEOUT + 15
    finally:
        os.kill(processes[2].pid or 0, signal.SIGCONT)
    assert f"has said nothing for {TIMEOUT} s" in lost(processes, log, 2)

    log = tmp_path / "asked"
    processes = run_ranks(2, argv, log=log)
    until(out, len(metrics(out)) + 1, processes, log)
    for process in processes:  # as torchrun does it
        process.terminate()
    assert finish(processes[0]) == 1
    assert f"stopped; the same command goes on with {out}" in said(log, 0)
    assert finish(processes[1]) == 0

    log = tmp_path / "dead"
    processes = run_ranks(2, argv, log=log)
    until(out, len(metrics(out)) + 1, processes, log)
    processes[0].kill()
    assert finish(processes[1], 40) == 1
    assert said(log, 1) == ""

    assert command(argv, log=tmp_path / "last") == 0
    assert "ranks: 2 when it began, 1 now" in (tmp_path / "last").read_text()
    whole(out, alone)


def whole(out: Path, alone: Path) -> None:
    """Every rollout that an unbroken run has is there once, and the same ones where the policy was the same."""
    assert {*outcome(out)} == {*outcome(alone)}
    for branch in ("main", "vanilla"):
        places = [
            [(r.place.iteration, r.place.step, r.problem_id, r.sample) for r in rollouts(run, branch)]
            for run in (out, alone)
        ]
        assert sorted(places[0]) == sorted(places[1])
        assert len({*places[0]}) == len(places[0])
    lines = [[(line["stage"], line.get("step")) for line in metrics(run)] for run in (out, alone)]
    assert lines[0] == lines[1]


OURS = {
    "plain": "def reinforce(logprobs, log_ratio, targets):\n    return -targets.advantage * logprobs\n",
    "raising": """
import os
def reinforce(logprobs, log_ratio, targets):
    if os.environ.get("RANK") == "1":
        raise ValueError("it is Saturday")
    return -targets.advantage * logprobs
""",
    "drifting": """
import os
from reasonloop.learner.fsdp import FsdpLearner
def reinforce(logprobs, log_ratio, targets):
    return -targets.advantage * logprobs
gather = FsdpLearner.gather
def drifting(self):
    gather(self)
    next(self.policy.model.parameters()).data[0, 0] += 1e-3
if os.environ.get("RANK") == "1":
    FsdpLearner.gather = drifting
""",
}
"""Objectives of a user's own, the last two with faults on one rank"""
FAULTS = {
    "raising": "ValueError: it is Saturday; nothing that was stored is lost; the same command goes on",
    "drifting": "has other weights than rank 0 after version 1 was loaded; nothing was sampled or learned with them",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_rank_s_fault_is_told(fault: str, recipe: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    argv = ["run", recipe, "method=rl", f"rl.objective={fault}:reinforce", "--out", tmp_path / "run"]
    processes = run_ranks(2, argv, log=log)
    assert finish(processes[0], 60) == 1
    finish(processes[1], 60)
    (told,) = [line for line in said(log, 0).splitlines() if line.startswith("reasonloop: ")]
    assert told.startswith(f"reasonloop: rank 1 (process {processes[1].pid} on ")
    assert FAULTS[fault] in told


BESIDE = {
    "half": [
        "model.dtype=bfloat16",
        "model.gradient_checkpointing=true",
        "rl.objective=plain:reinforce",
        "rl.kl_coef=0.01",
        "rl.probe_every=2",
    ],
    "adapters": ["lora.rank=2", "rl.objective=ppo", "ppo.warmup_steps=1", "rl.kl_coef=0.01", "rl.kl_in=reward"],
}


@pytest.mark.parametrize("kind", BESIDE)
def test_with(kind: str, recipe: Path, tmp_path: Path) -> None:
    """Adapters, a critic, a reference, rounded weights: as with one process; stopped, and on with more ranks."""
    alone, out, log = tmp_path / "alone", tmp_path / "run", tmp_path / "log"
    argv = ["run", recipe, "rloop.iterations=1", "rloop.vanilla=false", "eval.samples=1", *BESIDE[kind], "--out"]
    assert command([*argv, alone], log=tmp_path / "alone.log") == 0
    processes = run_ranks(2, [*argv, out], log=log)
    until(out, 2, processes, log)
    processes[0].terminate()
    assert [finish(process) for process in processes] == [1, 0], said(log, 0)
    log = tmp_path / "on"
    all_well(run_ranks(3, [*argv, out], log=log), log)
    ours, theirs = (metrics(run, stage="explore") for run in (out, alone))
    assert [line["step"] for line in ours] == [line["step"] for line in theirs] == [0, 1, 2]
    close = 0.05 if kind == "half" else 1e-4
    for name in ("grad_norm", "entropy", "kl", "reward", *(["critic_grad_norm"] if kind == "adapters" else [])):
        assert ours[0][name] == pytest.approx(theirs[0][name], rel=close, abs=1e-5), name
    assert {*outcome(out)} == {*outcome(alone)}


def test_other_commands_are_refused(tmp_path: Path) -> None:
    log = tmp_path / "log"
    codes = [finish(process) for process in run_ranks(2, ["doctor"], log=log)]
    assert codes == [2, 0]
    assert said(log, 0).count("\n") == 1
    assert "expected this one without torchrun" in said(log, 0)


def test_what_ranks_can_t_do_is_refused(recipe: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = run_ranks(2, ["run", recipe, "optimizer.state=8bit", "--out", tmp_path / "run"], log=log)
    assert finish(processes[0]) == 2
    processes[1].terminate()  # as torchrun does it
    finish(processes[1])
    assert said(log, 0).count("\n") == 1
    assert 'optimizer.state = "8bit": not with several ranks' in said(log, 0)
    assert not (tmp_path / "run").exists()
