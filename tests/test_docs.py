"""What the documentation shows works as it stands there."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from run_fixtures import TASK, metrics, small_recipe, weak_model

from reasonloop.cli import main
from reasonloop.records import Verdict
from reasonloop.store.schema import SCHEMA
from reasonloop.store.segments import TrajectoryStore

DOCS = Path(__file__).parent.parent / "docs"
PAGE = "\n".join((DOCS / name).read_text(encoding="utf-8") for name in ("your-own.md", "your-method.md"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every file of the pages in it."""
    for language, text in re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL):
        name = text.split("\n", 1)[0].rpartition("# ")[2]
        assert name.endswith({"toml": ".toml", "python": ".py"}[language])
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("multiples", "partial", "my_rewards", "effort", "training", "polished"):
        sys.modules.pop(name, None)


def test_a_task_and_a_judge_of_ones_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "check", "multiples:Multiples"]) == 0
    small = ["method=rl", "rl.steps=1", "rl.problems_per_step=4", "rl.group_size=2", "eval.samples=1"]
    small.append(f"model.path={weak_model()}")
    judged = ["exploration.form=judge", "exploration.judge.model=effort:distinct_words"]
    assert main(["run", "my.toml", *small, *judged, "--out", "run"]) == 0
    (line,) = metrics(here / "run", stage="explore")
    assert line["judge_failures"] == 0
    assert line["alpha"] == 0.8


def test_problems_of_reasoning_gym(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("reasoning_gym")
    sizes = [
        "task.train=8",
        "task.probe=2",
        "task.test=4",
        "task.format=plain",
        f"model.path={weak_model()}",
        "sampling.max_tokens=24",
    ]
    assert main(["run", "gym.toml", *sizes, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert 'dataset = "chain_sum"' in told
    assert "max_digits = 2" in told


SMALL = (
    "method=rl",
    "rl.steps=1",
    "rl.problems_per_step=4",
    "rl.group_size=4",
    "eval.samples=2",
    "sampling.max_tokens=14",
)


def test_partial_credit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.findall(r"task\.name=partial:\w+", PAGE)
    assert (
        main(["run", "my.toml", *SMALL, *shown, "eval.samples=16", f"model.path={weak_model()}", "--out", "run"]) == 0
    )
    assert " score " in capsys.readouterr().out
    rollouts = TrajectoryStore(here / "run" / "trajectories", "run").read()
    assert {r.reward for r in rollouts if r.score is not None} == {0.5}
    assert all(r.verdict is Verdict.WRONG for r in rollouts if r.score is not None)


def test_rewards_and_stop_strings(here: Path) -> None:
    task = [f"task.{key}={json.dumps(value)}" for key, value in TASK.items()]
    assert '`sampling.stop = ["</answer>"]`' in PAGE  # of a tokenizer that has such text; this one has words
    stop = "sampling.stop=['; yes answer']"
    assert main(["run", "rewarded.toml", *SMALL, *task, stop, f"model.path={weak_model()}", "--out", "run"]) == 0
    rollouts = TrajectoryStore(here / "run" / "trajectories", "run").read()
    for r in rollouts:
        assert r.reward_parts == {"outcome": float(r.right), "format": 0.0, "brevity": -len(r.text.split()) / 100}
        assert r.reward == pytest.approx(r.right + 0.1 * r.reward_parts["brevity"])
    assert any(r.finish == "stop" and r.text.endswith("; yes answer") for r in rollouts)
    (line,) = metrics(here / "run", stage="explore")
    assert line["reward_parts"].keys() == {"outcome", "format", "brevity"}
    assert line["reward_failures_format"] == 0


def test_an_objective_an_advantage_and_a_reward_of_ones_own(here: Path) -> None:
    small = ["rl.steps=2", "rl.problems_per_step=8", "rl.group_size=4", "rl.learning_rate=1e-2", "eval.samples=1"]
    shown = re.findall(r"rl\.\w+=training:\w+", PAGE)
    assert len(shown) == 3
    task = ["task.name=countdown", *(f"task.{key}={json.dumps(value)}" for key, value in TASK.items() if key != "name")]
    (here / "my.toml").write_text('method = "rl"\n')
    model = [f"model.path={weak_model()}", "sampling.max_tokens=14"]
    assert main(["run", "my.toml", *model, *task, *small, *shown, "--out", "run"]) == 0
    lines = metrics(here / "run", stage="explore")
    assert any(line.get("grad_norm", 0) > 0 for line in lines)
    paid = [(line["reward"], line["right"]) for line in lines if line["right"] > 0]
    assert paid
    assert all(0 < reward < right for reward, right in paid)  # right ones, less the longer they are


def test_a_method_of_ones_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "my.toml").write_text(small_recipe(here).read_text())
    own = ["method=polished:METHOD", "rloop.vanilla=false", "rl.steps=2"]
    assert main(["run", "my.toml", *own, "--dry-run", "--out", "run"]) == 0
    planned = capsys.readouterr().out
    assert planned.count("polished: RL (dapo) from") == 2
    assert "polished: RFT from" in planned
    assert main(["run", "my.toml", *own, "--out", "run"]) == 0
    made = json.loads((here / "run" / "evals" / "polished.json").read_text())
    assert (made["product"], made["rollouts"]) == (True, 2 * 2 * 4 * 4)
    assert "RLoop, polished" in (here / "run" / "report.html").read_text()


def test_every_column_of_the_store_is_described() -> None:
    table = PAGE[PAGE.index("| column |") :].split("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines()[2:]]
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == {*SCHEMA.names, "response_hash"}
