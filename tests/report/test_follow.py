"""`report --follow`: the report is written again when the run has changed, and its page reads itself again until then."""

from __future__ import annotations

import fcntl
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reasonloop.cli import main
from reasonloop.report.follow import SECONDS, SHARE, WAIT_SECONDS, follow

STEP = {"stage": "explore", "branch": "main", "iteration": 0, "rollouts": 256, "reward": 0.25}

Moment = Callable[[], object]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.toml").write_text('method = "rl"\n')
    (folder / "state.json").write_text('{"stage": "main-explore-0"}')
    add_step(folder, 0)
    return folder


@pytest.fixture
def during(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Has these things happen while `follow` sleeps, one a time, and then Ctrl-C; the list holds how long it wanted to."""

    def happening(*moments: Moment) -> list[float]:
        left, slept = list(moments), []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if not left:
                raise KeyboardInterrupt
            left.pop(0)()

        monkeypatch.setattr(time, "sleep", sleep)
        return slept

    return happening


def add_step(run: Path, step: int) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({**STEP, "step": step}) + "\n")


def end(run: Path) -> None:
    (run / "state.json").write_text('{"stage": "done"}')


def page_data(path: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(encoding="utf-8"))
    assert found is not None
    return dict(json.loads(found[1]))


def test_the_page_is_written_again_when_the_run_has_changed_and_reloads_until_it_is_done(
    run: Path, during: Callable[..., list[float]]
) -> None:
    seen: list[tuple[str, int]] = []

    def look() -> None:
        seen.append((page_data(run / "report.html")["version"], (run / "report.html").stat().st_mtime_ns))

    slept = during(
        look, look, lambda: (look(), add_step(run, 1)), lambda: (look(), add_step(run, 2)), lambda: (look(), end(run))
    )
    assert follow(run) == run / "report.html"
    assert seen[0] == seen[1] == seen[2]  # nothing had changed: not even a write
    assert len({version for version, _ in seen}) == 3
    assert all(version for version, _ in seen)
    assert len(slept) == 5
    last = page_data(run / "report.html")
    assert last["version"] == ""
    assert "keeps up with it" not in (run / "report.html").read_text(encoding="utf-8")
    assert len(last["figures"][0]["traces"][0]["x"]) == 3


def test_ctrl_c_leaves_a_page_that_reloads_no_more(run: Path, during: Callable[..., list[float]]) -> None:
    during(lambda: add_step(run, 1))
    path = follow(run)
    assert page_data(path)["version"] == ""
    assert len(page_data(path)["figures"][0]["traces"][0]["x"]) == 2


def test_reports_leave_the_processor_to_the_run(
    run: Path, during: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 60.0, 100.0, 100.001, 200.0, 200.001])  # the first report takes a minute
    slept = during(lambda: None, lambda: None)
    module = sys.modules[follow.__module__]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=time.sleep))
    monkeypatch.setattr(module, "write_report", lambda folder, out, version="": out)
    follow(run)
    assert slept == [60.0 / SHARE, SECONDS, SECONDS]


def test_it_leaves_the_run_and_its_lock_alone(run: Path, during: Callable[..., list[float]]) -> None:
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        during(lambda: None)
        follow(run)
        after = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert {path.name for path in after if before.get(path) != after[path]} == {"report.html"}


def test_a_run_in_the_middle_of_a_write_and_one_that_vanishes_cost_nothing(
    run: Path, tmp_path: Path, during: Callable[..., list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    out, away = tmp_path / "page.html", tmp_path / "away"
    pages: list[dict[str, Any]] = []

    def torn() -> None:
        (run / "metrics.jsonl").open("a").write('{"stage": "expl')
        (run / "state.json").write_text('{"sta')

    def back() -> None:
        pages.append(page_data(out))
        away.rename(run)
        end(run)

    during(torn, lambda: (pages.append(page_data(out)), run.rename(away)), back)
    assert follow(run, out) == out
    assert [len(page["figures"][0]["traces"][0]["x"]) for page in pages] == [1, 1]
    assert "the report stays as it was" in capsys.readouterr().out
    assert page_data(out)["version"] == ""


def test_the_command_says_where_the_page_is(
    run: Path, tmp_path: Path, during: Callable[..., list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    during(lambda: end(run))
    assert main(["report", str(run), "--follow", "--out", str(tmp_path / "x.html")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path / 'x.html'} keeps up with the run (Ctrl-C ends)",
        str(tmp_path / "x.html"),
    ]
    assert not (run / "report.html").exists()


def test_a_finished_run_s_report_is_written_once(run: Path, during: Callable[..., list[float]]) -> None:
    slept = during()
    end(run)
    assert page_data(follow(run))["version"] == ""
    assert slept == []


def test_it_waits_for_a_run_that_has_no_folder_yet_and_says_so_once(
    run: Path, tmp_path: Path, during: Callable[..., list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    later = tmp_path / "later" / "run"

    def lock_only() -> None:
        later.mkdir(parents=True)
        (later / ".lock").touch()

    def begun() -> None:
        (later / ".lock").unlink()
        later.rmdir()
        run.rename(later)

    slept = during(lambda: None, lock_only, begun, lambda: end(later))
    assert main(["report", str(later), "--follow"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"waiting for a run in {later} (Ctrl-C ends)"
    assert said[1:] == [f"{later / 'report.html'} keeps up with the run (Ctrl-C ends)", str(later / "report.html")]
    assert slept == [WAIT_SECONDS] * 3 + [slept[-1]]


def test_ctrl_c_ends_the_wait(tmp_path: Path, during: Callable[..., list[float]]) -> None:
    during()
    assert main(["report", str(tmp_path / "nowhere"), "--follow"]) == 0
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_of_something_else_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("no run")
    assert main(["report", str(tmp_path), "--follow"]) == 2
    assert main(["report", str(tmp_path / "notes.txt"), "--follow"]) == 2
    assert capsys.readouterr().err.count("no run folder") == 2


def test_the_page_says_where_the_run_is_and_how_long_it_takes_yet(
    run: Path, during: Callable[..., list[float]]
) -> None:
    known = {"stage": "RLoop", "iteration": 1, "step": 7, "steps": 12, "seconds_left": 316.2}
    (run / "progress.json").write_text(json.dumps(known))
    pages: list[str] = []
    during(lambda: (pages.append((run / "report.html").read_text(encoding="utf-8")), end(run)))
    pages.append(follow(run).read_text(encoding="utf-8"))
    assert "RLoop 2, step 7/12; about 5 min 16 s left at " in pages[0]
    assert "left at " not in pages[1]
