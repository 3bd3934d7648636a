"""Runs one command and sees to it that nothing of it stays behind: a program of its own, with the standard library alone.

    python -I guard.py FOLDER SECONDS WORD ...

The command is told to end (SIGTERM to its process group, SIGKILL to whatever is left after SECONDS) when the guard's
standard input ends, which it does with the process that holds its other end, however that one dies; SIGTERM to the guard
ends it at once. Processes that the command leaves are ended with it, on Linux those that have made a session of their own,
too. The guard's exit code is the command's, 128 and the signal's number where a signal ended it. Into FOLDER it writes

    tries.jsonl   a line for each try: {"seconds", "code", "words"}; "code" is null where the command was told to end
    done          the same, there once the command has ended by itself with exit code 0
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

POLL_SECONDS = 0.1
REAP_SECONDS = 10.0
SET_DEATH_SIGNAL, SET_SUBREAPER = 1, 36  # of Linux's prctl


def main(folder: Path, grace: float, words: list[str]) -> int:
    asked: list[int] = []

    def at_once(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    signal.signal(signal.SIGTERM, at_once)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    control(SET_SUBREAPER, 1)  # what the command leaves becomes ours, not init's
    began = time.monotonic()
    try:
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=with_the_guard)
    except OSError as error:
        print(f"{words[0]}: {error.strerror}", file=sys.stderr)
        return 127
    ended = False
    while child.poll() is None and not asked and not ended:
        with suppress(InterruptedError):
            ready, _, _ = select.select([sys.stdin], [], [], POLL_SECONDS)
            ended = bool(ready) and not os.read(sys.stdin.fileno(), 1)
    by_itself = child.poll() is not None
    if not by_itself and not asked:
        signal_group(child.pid, signal.SIGTERM)
        late = time.monotonic() + grace
        while child.poll() is None and time.monotonic() < late and not asked:
            time.sleep(POLL_SECONDS)
    end_all(child)
    code = child.returncode if by_itself else None
    line = json.dumps({"seconds": round(time.monotonic() - began, 3), "code": code, "words": words}) + "\n"
    with os.fdopen(opened(folder / "tries.jsonl", os.O_APPEND), "w", encoding="utf-8") as file:
        file.write(line)
    if code == 0:
        write(folder / "done", line)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def with_the_guard() -> None:
    """In the command's process: it dies with the guard, should that one be killed; signals are as they usually are."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    control(SET_DEATH_SIGNAL, signal.SIGKILL)


def control(option: int, value: int) -> None:
    """Linux's prctl; nothing elsewhere."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def end_all(child: subprocess.Popen[bytes]) -> None:
    """Kills the command's group, and all that has become the guard's child, until there is nothing left."""
    signal_group(child.pid, signal.SIGKILL)
    child.wait()
    late = time.monotonic() + REAP_SECONDS
    while time.monotonic() < late:
        for left in children():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(left, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(POLL_SECONDS / 10)
        except ChildProcessError:
            return


def children() -> list[int]:
    """The guard's own, where /proc tells."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(path.parent.name))
    return found


def opened(path: Path, flags: int) -> int:
    """A file to write to; a link, or a pipe that nobody reads, is an error."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o666)


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(opened(partial, os.O_EXCL), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
