"""A tracker's process: what the run has written down since is handed on, until the run's process closes our input.

In the run folder it keeps two files of its own. track/NAME.json: the tracked run's id, and how many points it was given.
track/NAME.sent: a line a point, in their order, written before it is given: what a line was about, and a digest of its
values. So a tracker that says how many it holds gets each once, whenever either of us was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from reasonloop.errors import first_line
from reasonloop.files import append, open_own, read_object, read_toml, write_atomically
from reasonloop.track.points import Key, Points
from reasonloop.track.protocol import TrackedRun, Tracker
from reasonloop.track.registry import tracker_of

SECONDS = 2.0
"""Between two looks at the run"""
RETRY_SECONDS, MOST_RETRY_SECONDS = 5.0, 300.0
"""Before a tracker that failed is started again; twice as long each time"""
LOCK_SECONDS = 20
"""For an earlier process to come to its end, once there is nothing left to wait for"""
ORPHAN_SECONDS = 300
"""For what isn't sent yet, once the run's process was killed"""
NICE = 10
"""The run needs the processor"""

Wait = Callable[[float], bool]
"""Waits at most so many seconds; whether there is nothing left to wait for"""
Say = Callable[[str], None]


def file_name(tracker: str) -> str:
    """What its files in RUN/track/ are called."""
    return tracker.replace(":", ".")


class Follower:
    """One run's way into one tracker."""

    def __init__(self, run: Path, tracker: str, project: str | None, name: str | None, say: Say) -> None:
        self.run, self.tracker, self.project, self.name, self.say = run, tracker, project, name, say
        self._points = Points(run / "metrics.jsonl")
        self._at = run / "track" / f"{file_name(tracker)}.json"
        self._record = self._at.with_suffix(".sent")
        self._sent: dict[Key, str] = {}
        """Digest by key, in the order of their steps"""
        self._open: Tracker | None = None
        self._told: set[str] = set()

    def nothing_new(self) -> bool:
        """Whether the run is done, and the tracker has been told so with all that there is."""
        self._points.read()
        return bool(self._kept().get("finished")) and self._points.known.keys() <= self._recorded().keys()

    def follow(self, wait: Wait) -> bool:
        """Returns when there is nothing left to wait for: whether the tracker has everything then."""
        over, pause = wait(0.0), RETRY_SECONDS
        while True:
            try:
                self._catch_up()
                if over:
                    self._finish()
                    return True
                over, pause = wait(SECONDS), RETRY_SECONDS
            except Exception as error:  # whatever a tracker raises
                self._fail(error, last=over)
                if over:
                    return False
                over, pause = wait(pause), min(2 * pause, MOST_RETRY_SECONDS)

    def _catch_up(self) -> None:
        self._points.read()
        if self._open is None:
            self._start()
        new = [key for key in self._points.known if key not in self._sent]
        if not new:
            return
        assert self._open is not None
        append(self._record, "".join(json.dumps([key, self._points.known[key].digest]) + "\n" for key in new))
        for key in new:
            point = self._points.known[key]
            self._open.log(point, len(self._sent))
            self._sent[key] = point.digest
        self._keep(sent=len(self._sent))

    def _start(self) -> None:
        config = read_toml(self.run / "config.toml")
        kept = {"id": secrets.token_hex(4), "name": self.run.resolve().name} | self._kept()
        given = {"name": self.name, "project": self.project}
        kept = self._keep(**kept | {key: value for key, value in given.items() if value is not None})
        run = TrackedRun(kept["id"], kept["name"], kept.get("project"), config, self.run)
        tracker = tracker_of(self.tracker)
        held = tracker.start(run)
        self._open = tracker
        self._tell(f"tracked by {self.tracker}: {tracker.where}")
        recorded = self._recorded()
        count = kept.get("sent", 0) if held is None else held
        if count > len(
            recorded
        ):  # a folder that was brought back from somewhere: its lines have the order that they had
            recorded = {key: point.digest for key, point in self._points.known.items()}
        self._sent = dict(list(recorded.items())[:count])
        write_atomically(self._record, "".join(json.dumps(one) + "\n" for one in self._sent.items()))

    def _recorded(self) -> dict[Key, str]:
        found = {}
        for text in self._record.read_text(encoding="utf-8").splitlines() if self._record.is_file() else ():
            with suppress(ValueError):  # the torn last line of a killed process
                key, digest = json.loads(text)
                found[key] = digest
        return found

    def _finish(self) -> None:
        done = False
        with suppress(Exception):
            done = read_object(self.run / "state.json").get("stage") == "done"
        assert self._open is not None
        self._open.finish(done)
        self._keep(finished=done)
        # an engine that isn't exact may sample others where a killed run goes on
        known = self._points.known
        other = sum(key not in known or known[key].digest != digest for key, digest in self._sent.items())
        if other:
            self._tell(
                f"{self.tracker} keeps {other} of {len(self._sent)} lines as they were before the run went on from a "
                f"checkpoint; {self.run / 'metrics.jsonl'} has what counts"
            )

    def _fail(self, error: Exception, last: bool) -> None:
        failed, self._open = self._open, None
        if failed is not None:
            with suppress(Exception):
                failed.finish(False)
        if last:
            known = self._points.known
            missing = sum(key not in self._sent for key in known)
            self._tell(
                f"{self.tracker} lacks {missing} of {len(known)} lines ({first_line(error)}); it gets them with: "
                f"reasonloop track {self.run} --to {self.tracker}"
            )
        elif "failed" not in self._told:
            self._told.add("failed")
            self._tell(f"{self.tracker}: {first_line(error)}; the run goes on, and it is tried again")

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.say(text)

    def _kept(self) -> dict[str, Any]:
        return read_object(self._at) if self._at.is_file() else {}

    def _keep(self, **values: Any) -> dict[str, Any]:
        kept = self._kept() | values
        write_atomically(self._at, json.dumps(kept) + "\n")
        return kept


def main() -> None:
    """Follows as the order in our arguments says; what a library prints goes to track/NAME.log."""
    order = json.loads(sys.argv[1])
    run, tracker = Path(order["run"]), str(order["tracker"])
    sys.argv[:] = ["reasonloop", "track", str(run), "--to", tracker]  # what wandb takes down
    folder = run / "track"
    folder.mkdir(exist_ok=True)
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    closed = os.dup(0)
    log = open_own(folder / f"{file_name(tracker)}.log", os.O_WRONLY | os.O_APPEND)
    for number, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
        os.dup2(target, number)
    os.nice(NICE)
    parent: int = order["parent"]
    threading.Thread(target=_end_after, args=(parent,), daemon=True).start()

    def say(text: str) -> None:
        with suppress(OSError):  # whom it would be said to has gone
            print(" ".join(text.split()), file=messages)

    def wait(seconds: float) -> bool:
        return bool(select.select([closed], [], [], seconds)[0]) or os.getppid() != parent

    with open(folder / f"{file_name(tracker)}.lock", "r+", opener=open_own) as lock:
        if not _locked(lock, wait):
            say(f"{tracker}: another process is at it")
            sys.exit(1)
        follower = Follower(run, tracker, order["project"], order["name"], say)
        done = (not order["again"] and follower.nothing_new()) or follower.follow(wait)
    sys.exit(0 if done else 1)


def _end_after(parent: int) -> None:
    """A tracker that hangs doesn't outlive the run's process for ever: it would keep the next one from the run."""
    while os.getppid() == parent:
        time.sleep(SECONDS)
    time.sleep(ORPHAN_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _locked(lock: IO[str], wait: Wait) -> bool:
    """Waits for the one that an earlier process of this run left at work."""
    left = LOCK_SECONDS
    while left:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(1.0)
        left -= wait(0.0)
    return False
