"""Partial credit: a verifier's score is the reward, and the verdict stays what everything else counts."""

from __future__ import annotations

import io
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from run_fixtures import TASK, command, metrics, outcome, small_recipe

from reasonloop import config
from reasonloop.cli import main
from reasonloop.records import Rollout, Verdict
from reasonloop.rewards.outcome import outcome_reward
from reasonloop.store.database import query
from reasonloop.store.segments import TrajectoryStore
from reasonloop.tasks import load_task
from reasonloop.verify import stream
from reasonloop.verify.workers import VerifierSpec

TASKS = """
from reasonloop.records import Judgement, Verdict
from reasonloop.tasks.countdown.task import Countdown

class Scored(Countdown):
    quick = None

    def verify(self, problem, response):
        judged = super().verify(problem, response)
        if judged.verdict is Verdict.UNPARSEABLE:
            return judged
        score = 1.0 - len(response) / 1000 if judged.verdict is Verdict.RIGHT else min(0.5, len(response) / 100)
        return Judgement(judged.verdict, judged.detail, score)

class Broken(Countdown):
    quick = None

    def verify(self, problem, response):
        judged = super().verify(problem, response)
        return judged if judged.verdict is Verdict.RIGHT else Judgement(judged.verdict, "", float("nan"))

class Graded:
    def verify(self, problem, response):
        if response == problem.answer:
            return Judgement(Verdict.RIGHT)
        return Judgement(Verdict.WRONG, "close", 0.1) if len(response) == len(problem.answer) else Verdict.WRONG
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tasks that give scores, and a recipe beside them."""
    (tmp_path / "scored_tasks.py").write_text(TASKS)
    small_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def argv(task: str, *overrides: str, out: str = "run") -> list[str]:
    named = [f"task.name=scored_tasks:{task}", "eval.samples=2", *overrides]
    return ["run", "small.toml", *named, "--out", out]


def stored(out: Path) -> list[Rollout]:
    return TrajectoryStore(out / "trajectories", "run").read()


def test_a_score_is_the_outcome_and_the_verdict_stays_what_is_counted(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv("Scored", "rloop.vanilla=false", "rl.probe_every=1")) == 0
    assert " score " in capsys.readouterr().out
    out, task = here / "run", load_task("scored_tasks:Scored", {k: v for k, v in TASK.items() if k != "name"})
    rollouts, by_id = stored(out), {problem.id: problem for problem in task.problems()}
    for r in rollouts:
        judged = task.verify(by_id[r.problem_id], r.text)
        assert (r.verdict, r.score) == (judged.verdict, judged.score)
        assert r.reward == r.reward_parts["outcome"] == (float(r.right) if r.score is None else r.score)
    assert {r.score is None for r in rollouts} == {r.verdict is Verdict.UNPARSEABLE for r in rollouts}
    assert any(0 < r.reward < 1 for r in rollouts)
    first = [r for r in rollouts if (r.iteration, r.step) == (0, 0)]
    groups = [{r.reward for r in first if r.problem_id == name} for name in {r.problem_id for r in first}]
    (line, *_) = metrics(out, stage="explore")
    assert line["groups_used"] == sum(len({round(x, 9) for x in own}) > 1 for own in groups)
    assert line["right"] == sum(r.right for r in first) / len(first)
    chosen = metrics(out, stage="select")
    assert sum(line["right"] for line in chosen) == sum(r.right for r in rollouts)
    assert all(0 <= line["score"] <= 1 for line in [*metrics(out, stage="probe"), *metrics(out, stage="eval")])
    for path in (out / "evals").glob("*.json"):
        found = json.loads(path.read_text())
        means = [row["score"] / row["n"] for row in found["problems"]]
        assert found["metrics"]["score"]["value"] == pytest.approx(sum(means) / len(means))
        assert found["metrics"]["avg@2"]["value"] == sum(row["correct"] for row in found["problems"]) / 10
    assert query(out, "SELECT count(*) FROM rollouts WHERE score < 1 AND verdict = 'right'")[1][0][0] > 0
    assert "<th>score</th>" in (out / "report.html").read_text()


def test_a_run_without_scores_says_nothing_of_them(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "small.toml", "method=sft", "eval.samples=1", "--out", "run"]) == 0
    assert "score" not in capsys.readouterr().out
    assert all("score" not in path.read_text() for path in (here / "run" / "evals").glob("*.json"))
    assert "<th>score</th>" not in (here / "run" / "report.html").read_text()


def test_a_run_with_scores_that_is_killed_ends_with_the_same_bytes(here: Path) -> None:
    options = ("method=rl", "rl.steps=2", "eval.samples=1", "rl.refill_rounds=1")
    assert command(argv("Scored", *options, out=f"{here}/whole/run"), log=here / "log", cwd=here) == 0
    again = argv("Scored", *options, out=f"{here}/broken/run")
    for change in (24, 33):
        code = command(again, log=here / "log", watched=here / "broken/run", kill_at=change, cwd=here)
        assert code == -signal.SIGKILL, (here / "log").read_text()
    assert command(again, log=here / "log", cwd=here) == 0
    assert outcome(here / "broken/run") == outcome(here / "whole/run")


def test_a_score_that_is_no_number_is_a_crash_of_its_response_alone(here: Path) -> None:
    assert main(argv("Broken", "method=rl", "rl.steps=1")) == 0
    rollouts = stored(here / "run")
    assert {r.verdict for r in rollouts} == {Verdict.RIGHT, Verdict.CRASHED}
    assert {r.detail for r in rollouts if not r.right} == {
        "the verifier returned the score nan, expected a number from 0 to 1, or None"
    }
    assert [r.reward for r in rollouts] == [float(r.right) for r in rollouts]


@pytest.mark.parametrize("advantage", ["maxrl", "pass@2"])
def test_what_needs_right_and_wrong_alone_is_told(
    advantage: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(argv("Scored", "method=rl", "rl.steps=2", f"rl.advantage={advantage}"))
    said = capsys.readouterr().err
    if advantage == "maxrl":  # any reward of at least 0
        assert code == 0
    else:
        assert code == 1
        assert re.search(r"rl\.advantage = 'pass@2', problem .*need rewards of 0 and 1 .*; another advantage", said)


def test_penalties_stand_beside_a_score() -> None:
    fields: dict[str, Any] = {"problem_id": "p", "prompt_tokens": None, "logprobs": None}
    r = Rollout(**fields, response_tokens=list(range(9)), verdict=Verdict.WRONG, score=0.75)  # type: ignore[arg-type]
    rewarded = outcome_reward(r, max_tokens=10, overlong_buffer=4)
    assert rewarded.reward_parts == {"outcome": 0.75, "overlong": -0.75}
    assert rewarded.reward == 0
    assert outcome_reward(r, 10, 4, outcome=2.0).reward == 1.25  # a function of the user's own has the last word


def test_a_stream_prints_a_score_where_there_is_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stream.KINDS, "graded", VerifierSpec("scored_tasks:Graded"))
    lines = [json.dumps({"answer": answer, "gold": "abc"}) for answer in ("abc", "abd", "x")]
    out = io.StringIO()
    stream.run_stream("graded", lines, out, 5.0, 1)
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {"verdict": "right"},
        {"verdict": "wrong", "detail": "close", "score": 0.1},
        {"verdict": "wrong"},
    ]


def test_recipes_know_nothing_of_scores() -> None:
    assert "score" not in config.dumps(config.Recipe())
