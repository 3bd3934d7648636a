"""A follower brings every line once: whatever the run takes back, the tracker does, and whenever one of them dies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import own_trackers
import pytest
from metrics_factory import line, make_run, short_run, write
from own_trackers import got

from reasonloop.track import follower as module
from reasonloop.track.follower import Follower

LINES = short_run()
Moment = Callable[[], object]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRACKED", str(tmp_path / "ledger"))
    (tmp_path / "run" / "track").mkdir(parents=True)
    return make_run(tmp_path / "run", [])


def follow(run: Path, *moments: Moment, tracker: str = "Ledger") -> tuple[bool, list[str]]:
    """Follows while these things happen, one between two looks, and then to the end: whether all is there, and what was
    said."""
    said: list[str] = []
    left = iter(moments)

    def wait(seconds: float) -> bool:
        if not seconds:
            return not moments
        moment = next(left, None)
        if moment is not None:
            moment()
        return moment is None

    return Follower(run, f"own_trackers:{tracker}", None, None, said.append).follow(wait), said


def ledger(run: Path) -> list[tuple[int, str, int]]:
    """(step, a name in it, where) of each point that came."""
    return [(step, next(iter(point.values)), point.at) for step, point in got(run.parent / "ledger")]


def expected(run: Path) -> list[tuple[int, str, int]]:
    known = module.Points(run / "metrics.jsonl")
    known.read()
    return [(step, next(iter(point.values)), point.at) for step, point in enumerate(known.known.values())]


def test_lines_come_once_and_in_order(run: Path) -> None:
    moments = [lambda n=n: write(run, LINES[:n], half='{"stage": "expl') for n in range(1, len(LINES) + 1)]
    assert follow(run, *moments) == (True, ["tracked by own_trackers:Ledger: a file"])
    assert ledger(run) == expected(run)
    assert len(ledger(run)) == len(LINES)
    assert (run.parent / "ledger.finished").read_text() == "True\n"


@pytest.mark.parametrize("tracker", ["Ledger", "Forgetful"])
def test_a_run_that_goes_on_is_the_same_tracked_run(run: Path, tracker: str) -> None:
    """Killed behind its checkpoint: lines are taken back and written again, with other timings."""
    write(run, LINES[:9])
    follow(run, tracker=tracker)
    kept = json.loads((run / "track" / f"own_trackers.{tracker}.json").read_text())
    write(run, LINES[:5])
    again = [one | {"seconds": 9.0} if "seconds" in one else one for one in LINES]
    done, said = follow(run, lambda: write(run, again[:7]), lambda: write(run, again), tracker=tracker)
    assert done
    assert len(said) == 1
    assert ledger(run) == expected(run)
    assert json.loads((run / "track" / f"own_trackers.{tracker}.json").read_text())["id"] == kept["id"]


def test_what_came_out_otherwise_is_said(run: Path) -> None:
    """An engine that isn't exact samples others; the tracker keeps what it has, and what is new still comes."""
    write(run, LINES[:9])
    follow(run)
    other = [one | {"reward": 7.0} if "reward" in one else one for one in LINES[:6]]
    done, said = follow(run, lambda: write(run, [*other, *LINES[9:]]))
    assert done
    assert (
        "keeps 5 of 19 lines as they were before" in said[-1]
    )  # two rewards, and three steps that were not taken again
    assert len(ledger(run)) == 19


def test_a_tracker_that_is_down_is_warned_of_once_and_caught_up_later(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(run, LINES)
    done, said = follow(run, *[lambda: None] * 5, tracker="Down")
    assert not done
    assert said == [
        "own_trackers:Down: no route to host; the run goes on, and it is tried again",
        f"own_trackers:Down lacks {len(LINES)} of {len(LINES)} lines (no route to host); it gets them with: "
        f"reasonloop track {run} --to own_trackers:Down",
    ]
    monkeypatch.setattr(own_trackers, "Down", own_trackers.Ledger)
    assert follow(run, tracker="Down")[0]
    assert ledger(run) == expected(run)


def test_a_tracker_that_fails_now_and_then_gets_everything_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, calls = own_trackers.Ledger.log, []

    def sometimes(self: own_trackers.Ledger, *point: Any) -> None:
        calls.append(point)
        if len(calls) % 5 == 0:
            raise OSError("timed out")
        log(self, *point)

    monkeypatch.setattr(own_trackers.Ledger, "log", sometimes)
    write(run, LINES)
    done, said = follow(run, *[lambda: None] * 12)
    assert done
    assert sum("timed out" in text for text in said) == 1
    assert ledger(run) == expected(run)


class Killed(BaseException):
    """What a SIGKILL is to the code: nothing behind it happens."""


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Dies at the n-th of the moments before and behind each thing that a follower does to a file or a tracker."""
    left = {"moments": 10**9}

    def mortal(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            _die()
            result = call(*arguments, **options)
            _die()
            return result

        return wrapped

    def _die() -> None:
        left["moments"] -= 1
        if left["moments"] == 0:
            raise Killed

    monkeypatch.setattr(module, "write_atomically", mortal(module.write_atomically))
    for name in ("start", "log", "finish"):
        monkeypatch.setattr(own_trackers.Ledger, name, mortal(getattr(own_trackers.Ledger, name)))
    return left


def test_killed_at_every_moment(run: Path, deaths: dict[str, int]) -> None:
    """First with a part of the run, then, some of it taken back, with the rest."""
    moment = 0
    while True:
        moment += 1
        for path in (run.parent / "ledger", *(run / "track").glob("*")):
            path.unlink(missing_ok=True)
        write(run, LINES[:3])
        deaths["moments"] = moment
        try:
            follow(run, lambda: write(run, LINES[:6]))
            break
        except Killed:
            pass
        write(run, LINES[:4])
        assert follow(run, lambda: write(run, LINES[:8]))[0]
        assert ledger(run) == expected(run)
        assert len(ledger(run)) == 8
    assert moment > 25


def test_a_done_run_is_not_opened_again(run: Path) -> None:
    write(run, LINES)
    follow(run)
    told = Follower(run, "own_trackers:Ledger", None, None, print)
    assert told.nothing_new()
    write(run, [*LINES, line("eval", None, name="more", rollouts=70, x=1)])
    assert not told.nothing_new()


def test_a_folder_that_was_brought_back(run: Path) -> None:
    """The record of what was sent is older than what the tracker has: nothing comes twice."""
    write(run, LINES[:6])
    follow(run)
    record = run / "track" / "own_trackers.Ledger.sent"
    record.write_text("".join(record.read_text().splitlines(keepends=True)[:2]) + '["[\\"expl')
    write(run, LINES)
    assert follow(run)[0]
    assert ledger(run) == expected(run)
