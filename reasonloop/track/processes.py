"""The trackers of a run as its process sees them: a process each, told to come to an end by the end of its input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from reasonloop.config import Track
from reasonloop.config.sections import TRACKERS
from reasonloop.errors import InputError
from reasonloop.machine.python import started
from reasonloop.own import search_own

CLOSE_SECONDS = 60.0
"""At the end of a run, for what isn't sent yet"""
SAY_SECONDS = 2.0
"""After which a reader is told what is waited for"""


class Followers:
    """Follows the run in `folder` from the beginning of a `with` block to its end, and until the trackers have everything,
    but for at most `seconds` (60) then. `say` gets what a reader should know, a line at a time, from other threads too.

    `again`: also where a tracker has been told all of a run that is done.
    """

    def __init__(
        self,
        folder: Path,
        track: Track,
        say: Callable[[str], None],
        *,
        again: bool = False,
        seconds: float | None = None,
    ) -> None:
        self.folder, self.track, self.say, self.again = folder, track, say, again
        self.seconds = CLOSE_SECONDS if seconds is None else seconds
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []

    def __enter__(self) -> Followers:
        """Raises InputError where the run has no folder for what they keep."""
        if self.track.to and (folder := self.folder / "track").exists() and not folder.is_dir():
            raise InputError(f"{folder}: a file; expected a folder, which the trackers of a run keep their files in")
        for name in self.track.to:
            order = {"run": str(self.folder), "tracker": name, "again": self.again, "parent": os.getpid()}
            order |= {"project": self.track.project, "name": self.track.name}
            try:
                self._start(name, order)
            except OSError as error:
                self.say(f"{name}: its process can't be started ({error.strerror}); the run goes on without it")
        return self

    def _start(self, name: str, order: dict[str, Any]) -> None:
        if name not in TRACKERS:
            search_own()
        # a session of its own: Ctrl-C reaches the run alone
        process = subprocess.Popen(
            started("reasonloop.track.follower", json.dumps(order)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self._processes[name] = process
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        reader.start()
        self._readers.append(reader)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.say(line.rstrip("\n"))

    def __exit__(self, *error: object) -> None:
        for process in self._processes.values():
            assert process.stdin is not None
            with suppress(OSError):
                process.stdin.close()
        try:
            self._wait()
        finally:
            for process in self._processes.values():
                if process.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        for reader in self._readers:
            reader.join(1.0)
        for name, process in self._processes.items():
            if process.returncode not in (0, 1, -signal.SIGKILL):  # it has said nothing itself
                self.say(
                    f"{name}: its process ended ({process.returncode}); it gets what it lacks with: "
                    f"reasonloop track {self.folder} --to {name}"
                )

    def _wait(self) -> None:
        began, told = time.monotonic(), False
        while late := [name for name, process in self._processes.items() if process.poll() is None]:
            waited = time.monotonic() - began
            if waited > self.seconds:
                for name in late:
                    self.say(
                        f"{name} is not ready after {self.seconds:.0f} s and is left; it gets the rest with: "
                        f"reasonloop track {self.folder} --to {name}"
                    )
                return
            if waited > SAY_SECONDS and not told:
                told = True
                self.say(f"sending the last of it to {', '.join(late)}")
            time.sleep(0.05)

    @property
    def failed(self) -> list[str]:
        """Trackers that haven't got everything, once the block has ended"""
        return [name for name, process in self._processes.items() if process.returncode != 0]
