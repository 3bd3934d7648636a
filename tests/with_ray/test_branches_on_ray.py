"""Explorations side by side on several nodes, whatever dies on the way: the same bytes as one after the other, here."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from run_fixtures import command, finish, metrics, outcome, small_recipe, start, temporary

from reasonloop.store.segments import TrajectoryStore

HERE = Path(__file__).parent
TROUBLE = Path(os.environ["TROUBLE"])
OPTIONS = [
    *("rl.steps=6", "rl.reward=trouble:reward", "scale.branches=3", "rloop.vanilla=false", "rft.epochs=1"),
    *("eval.samples=2", "rl.probe_every=2", "rl.kl_coef=0.05"),
]
ON_RAY = ("tries", "sent_bytes", "received_bytes")

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        found.add_node(num_cpus=1)
    yield found
    found.shutdown()
    shutil.rmtree(TROUBLE, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_trouble() -> None:
    for path in TROUBLE.iterdir():
        path.unlink()


@functools.cache
def recipe() -> Path:
    return small_recipe(temporary())


def argv(out: Path, *options: str) -> list[str | Path]:
    return ["run", recipe(), *OPTIONS, *options, "--out", out]


@functools.cache
def in_turn(iterations: int) -> dict[str, Any]:
    folder = temporary() / f"in-turn-{iterations}"
    folder.mkdir()
    asked = argv(folder / "run", f"rloop.iterations={iterations}")
    assert command(asked, log=folder / "log", cwd=HERE) == 0, (folder / "log").read_text()
    return of_branches(folder / "run")


def of_branches(out: Path) -> dict[str, Any]:
    """What must be the same wherever branches are made."""
    found = outcome(out)
    for line in found["metrics.jsonl"]:
        for key in ON_RAY:
            line.pop(key, None)
    return found


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []


def until(condition: Callable[[], bool], log: Path, seconds: float = 120) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, log.read_text()
        time.sleep(0.05)


def ended(log: Path) -> str:
    """Our last line: Ray's own may come behind it."""
    return [line for line in log.read_text().splitlines() if line.startswith("reasonloop: ")][-1]


def begun_again(log: Path) -> set[str]:
    return set(re.findall(r"^(branch \S+ iteration \d+).*; begun again, \d of 3$", log.read_text(), re.MULTILINE))


def done(out: Path, name: str) -> bool:
    return (out / "checkpoints" / name / "stage.json").is_file()


def test_a_node_is_removed_and_a_worker_killed(cluster: Cluster, tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    (TROUBLE / "main.2-0-1").write_text("wait")
    (TROUBLE / "main.1-1-0").write_text("die")
    running = start(argv(out, f"scale.address={cluster.address}", "rloop.iterations=2"), log=log, cwd=HERE)
    waiting = TROUBLE / "main.2-0-1.waiting"
    until(lambda: waiting.is_file() and bool(waiting.read_text()), log)
    lost = next(node for node in cluster.list_all_nodes() if node.node_id == waiting.read_text())
    cluster.remove_node(lost, allow_graceful=False)
    cluster.add_node(num_cpus=1)
    until(lambda: "branch main.2, iteration 1" in begun_again(log), log)  # a worker outlives its node for a moment
    (TROUBLE / "main.2-0-1").unlink()
    assert finish(running, 240) == 0, log.read_text()
    assert_same(of_branches(out), in_turn(2))
    assert begun_again(log) >= {"branch main.2, iteration 1", "branch main.1, iteration 2"}
    lines = metrics(out, stage="branches")
    assert [line["left_behind"] for line in lines] == [0, 0]
    assert all(line["tries"] > 3 for line in lines)


def test_the_driver_is_killed_and_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    asked = argv(out, f"scale.address={cluster.address}", "rloop.iterations=1")
    (TROUBLE / "main.3-0-1").write_text("wait")
    running = start(asked, log=log, cwd=HERE)
    until(lambda: (TROUBLE / "main.3-0-1.waiting").is_file() and done(out, "main.2-explore-0"), log)
    assert running.pid is not None
    os.kill(running.pid, signal.SIGKILL)
    assert finish(running) == -signal.SIGKILL
    (TROUBLE / "main.3-0-1").unlink()
    assert command(asked, log=log, cwd=HERE) == 0, log.read_text()
    processes: dict[str, set[str]] = {}
    for line in (TROUBLE / "seen").read_text().splitlines():
        step, process = line.split()
        processes.setdefault(step, set()).add(process)
    made = {step: len(own) for step, own in processes.items()}
    assert made["main.2-0-0"] == made["main.2-0-1"] == 1  # a branch that is done isn't made again
    assert made["main.3-0-0"] == 2
    assert_same(of_branches(out), in_turn(1))


def test_an_error_of_the_recipes_own_ends_the_run_with_its_branch(cluster: Cluster, tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    (TROUBLE / "main.2-0-1").write_text("raise")
    asked = argv(out, f"scale.address={cluster.address}", "rloop.iterations=1")
    assert command(asked, log=log, cwd=HERE) == 1
    last = ended(log)
    assert "branch main.2, iteration 1" in last
    assert "broken on purpose" in last
    assert "begun again" not in log.read_text()


def test_a_worker_that_keeps_dying_is_named(cluster: Cluster, tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    (TROUBLE / "main.1-0-1").write_text("die always")
    asked = argv(out, f"scale.address={cluster.address}", "rloop.iterations=1", "scale.retries=1")
    assert command(asked, log=log, cwd=HERE) == 1
    last = ended(log)
    assert "branch main.1, iteration 1" in last
    assert "its worker has died 2 times" in last
    (TROUBLE / "main.1-0-1").unlink()
    assert command(argv(out, "rloop.iterations=1"), log=log, cwd=HERE) == 0, log.read_text()  # and goes on without Ray
    assert_same(of_branches(out), in_turn(1))


def test_a_late_branch_is_left_behind_and_counted(cluster: Cluster, tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    (TROUBLE / "main.2-0-1").write_text("wait")
    asked = argv(out, f"scale.address={cluster.address}", "rloop.iterations=1", "scale.deadline=30")
    assert command(asked, log=log, cwd=HERE) == 0, log.read_text()
    assert "left behind: 16 of 32 rollouts came in, and count" in log.read_text()
    (line,) = metrics(out, stage="branches")
    assert (line["branches"], line["left_behind"], line["rollouts"]) == (3, 1, 80)
    (chosen,) = metrics(out, stage="select")
    assert chosen["seen"] == chosen["rollouts"] == 80
    stored = Counter(rollout.branch for rollout in TrajectoryStore(out / "trajectories", "run").read("main"))
    assert stored == {"main.1": 32, "main.2": 16, "main.3": 32}


def test_where_there_is_no_cluster(tmp_path: Path) -> None:
    ray.shutdown()
    log = tmp_path / "log"
    assert command(argv(tmp_path / "run", "scale.address=127.0.0.1:1"), log=log, cwd=HERE) == 2
    assert "no Ray cluster can be reached" in log.read_text()
    assert not (tmp_path / "run").exists()
