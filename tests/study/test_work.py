"""Runs at work: Ctrl-C, runs that fail, and the time that is left. The processes are real, their work is a line or two."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from reasonloop.study.work import Crew, Job

DONE = "import json, pathlib; pathlib.Path({0!r}, 'state.json').write_text(json.dumps({{'stage': 'done', 'seconds': {1}}}))"


@dataclass
class Script(Job):
    code_to_run: str = ""

    def command(self, recipe: Path) -> list[str]:
        return [sys.executable, "-c", self.code_to_run]


def script(folder: Path, name: str, code: str = "", seconds: float = 10.0, units: float = 1.0) -> Script:
    """A job that runs `code` and is done then."""
    run = folder / f"{name}-0"
    run.mkdir()
    return Script(name, 0, run, (), units, code_to_run=f"{code}\n" + DONE.format(str(run), seconds))


def crew(at_once: int, done: list[str]) -> Crew:
    return Crew(Path("recipe.toml"), 1, at_once, lambda job: done.append(job.arm))


def test_one_run_that_fails_stops_no_other_and_is_told_by_its_last_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = "import sys; print('step 1'); print('reasonloop: it broke', file=sys.stderr); print('bye'); sys.exit(3)"
    jobs = [script(tmp_path, "good"), script(tmp_path, "bad", bad), script(tmp_path, "last")]
    jobs[1].log.write_text("reasonloop: an error of an earlier try\n")
    done: list[str] = []
    one = crew(1, done)
    one.work(jobs)
    assert done == ["good", "last"]
    assert [(job.arm, job.code, job.last_line()) for job in one.failed] == [("bad", 3, "it broke")]
    assert "bad seed 0: failed (exit 3): it broke; 2 of 3 runs (1 failed)" in capfd.readouterr().err
    assert not one.stopping


def test_ctrl_c_asks_every_run_to_stop_and_begins_no_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # each waits to be asked, as a run that works does; the second one plays the user
    waits = "import os, signal, sys\nsignal.signal(signal.SIGINT, lambda *_: sys.exit(1))\n{}while True: signal.pause()"
    ready = f"open({str(tmp_path / 'ready')!r}, 'w').close()\n"
    user = f"while not os.path.exists({str(tmp_path / 'ready')!r}): pass\nos.kill(os.getppid(), signal.SIGINT)\n"
    jobs = [
        script(tmp_path, "first", waits.format(ready)),
        script(tmp_path, "second", waits.format(user)),
        script(tmp_path, "third"),
    ]
    handler = signal.getsignal(signal.SIGINT)
    done: list[str] = []
    two = crew(2, done)
    two.work(jobs)
    assert two.stopping
    assert done == []
    assert two.failed == two.working == []
    assert {job.arm for job in two.waiting} == {"first", "second", "third"}
    assert jobs[2].process is None
    assert signal.getsignal(signal.SIGINT) is handler
    assert "once more stops at once" in capfd.readouterr().err


def test_the_time_left_is_that_of_the_lane_that_ends_last(tmp_path: Path) -> None:
    two = crew(2, [])
    assert two.seconds_left() is None
    ended = script(tmp_path, "ended", units=2.0)
    (ended.run / "state.json").write_text(json.dumps({"stage": "done", "seconds": 20.0}))
    two.done = [ended]
    two.waiting = [script(tmp_path, name, units=units) for name, units in (("a", 3.0), ("b", 1.0), ("c", 1.0))]
    assert two.seconds_left() == pytest.approx(30.0)  # a beside b and c, at 10 s a unit
    working = script(tmp_path, "working", units=1.0)
    working.log.write_text("explore 1  step 2/3  1:00:05 left\n")
    two.working = [working]
    two.waiting = []
    assert two.seconds_left() == pytest.approx(3605.0)
    working.log.write_text("explore 1  step 2/3  2 days, 0:00:01 left\n")
    assert working.seconds_left() == 2 * 86400 + 1


def test_every_run_has_its_threads_and_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = script(
        tmp_path, "one", "import os, sys; print(os.environ['OMP_NUM_THREADS'], os.getsid(0), sys.stdin.read())"
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    Crew(Path("recipe.toml"), 3, 1, lambda job: None).work([job])
    threads, session = job.log.read_text().split()
    assert threads == "3"
    assert int(session) != os.getsid(0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the runs of a killed study go on to their end")
def test_a_study_that_is_killed_takes_its_runs_with_it(tmp_path: Path) -> None:
    held = tmp_path / "held"
    run = f"import fcntl, signal\nf = open({str(held)!r}, 'w')\nfcntl.flock(f, fcntl.LOCK_EX)\nprint(1, file=f, flush=True)"
    study = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_work import crew, script\nfrom pathlib import Path\n"
        f"crew(1, []).work([script(Path({str(tmp_path)!r}), 'run', {run + chr(10) + 'while True: signal.pause()'!r})])"
    )
    process = subprocess.Popen([sys.executable, "-c", study], stderr=subprocess.DEVNULL)
    while process.poll() is None and not (held.is_file() and held.read_text()):
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with held.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the run has let go of it
