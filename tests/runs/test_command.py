"""A command of the user's own: watched, told what failed, ended with its run however that one ends, and begun again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reasonloop.errors import InputError, RunError, Stopped
from reasonloop.runs.command import Command, require_program

LEAVING = """
import os, subprocess, sys, time
from pathlib import Path
out = Path(sys.argv[1])
beside = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
(out / "pids").write_text(f"{os.getpid()} {beside.pid}")
time.sleep(600)
"""
"""A command with a process in a session of its own, as torchrun's workers are; it doesn't look at its children"""


def command(folder: Path, *words: str, code: str = "", resumes: bool = False, patience: float = 60.0) -> Command:
    given = [sys.executable, "-c", code, str(folder / "out"), *words] if code else list(words)
    return Command("explorer.command", given, folder, folder / "log", resumes, patience)


def run(asked: Command, stopping: Callable[[], bool] = lambda: False) -> list[str]:
    said: list[str] = []
    asked.run(lambda: None, stopping, said.append)
    return said


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return (
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z" if Path("/proc").exists() else True
    )


def wait_for(true: Callable[[], Any]) -> None:
    late = time.monotonic() + 30
    while not true():
        assert time.monotonic() < late
        time.sleep(0.02)


def test_a_command_is_run_once_and_gets_its_words_as_they_are(tmp_path: Path) -> None:
    code = "import sys; open(sys.argv[1] + '/words', 'a').write(repr(sys.argv[2:]))"
    asked = command(tmp_path / "a b", "$HOME *; |", "", "two words", code=code)
    assert run(asked)
    assert run(asked) == []
    assert (asked.out / "words").read_text() == repr(["$HOME *; |", "", "two words"])
    assert asked.done
    assert 0 < asked.seconds < 60


def test_a_failure_tells_its_last_lines_and_where_the_rest_is(tmp_path: Path) -> None:
    code = (
        "import sys; print(*range(100), sep=chr(10)); print('1 %\\r2 %\\rdone\\x1b[2J', flush=True); "
        "sys.exit('out of memory')"
    )
    asked, said = command(tmp_path / "c", code=code), list[str]()
    with pytest.raises(RunError, match=f"exit code 1; its output is in {asked.log}") as error:
        asked.run(lambda: None, lambda: False, said.append)
    assert "\n" not in str(error.value)
    assert said[-3:] == ["  99", "  done\\x1b[2J", "  out of memory"]
    assert len(said) == 14
    assert not asked.done


def test_programs_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no program 'no-such-trainer'"):
        require_program("no-such-trainer --steps 3", "explorer.command")
    with pytest.raises(RunError, match="exit code 127"):
        run(command(tmp_path / "c", "/no/such/trainer"))
    with pytest.raises(RunError, match="ended by SIGKILL"):
        run(command(tmp_path / "d", code="import os; os.kill(os.getpid(), 9)"))


@pytest.mark.parametrize("resumes", [True, False])
def test_a_try_that_failed_is_gone_on_from_or_moved_aside(resumes: bool, tmp_path: Path) -> None:
    code = """
import sys; from pathlib import Path
seen = Path(sys.argv[1], "seen"); before = seen.read_text() if seen.exists() else ""
seen.write_text(before + "x")
sys.exit(not Path(sys.argv[1], "..", "mended").exists())
"""
    asked = command(tmp_path / "c", code=code, resumes=resumes)
    for _ in range(2):
        with pytest.raises(RunError):
            run(asked)
    (asked.folder / "mended").touch()
    run(asked)
    assert (asked.out / "seen").read_text() == ("xxx" if resumes else "x")
    aside = [asked.folder / f"out.{n}" / "seen" for n in (1, 2)]
    assert [path.exists() for path in aside] == [not resumes] * 2
    tries = [json.loads(line) for line in (asked.folder / "tries.jsonl").read_text().splitlines()]
    assert [one["code"] for one in tries] == ([1, 1, 0] if resumes else [0])
    assert asked.seconds == pytest.approx(sum(one["seconds"] for one in tries))


def test_a_mended_command_is_run_again_though_the_other_had_come_to_its_end(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; Path(sys.argv[1], sys.argv[2]).touch()"
    run(command(tmp_path / "c", "without-rollouts", code=code, resumes=True))
    mended = command(tmp_path / "c", "with-rollouts", code=code, resumes=True)
    assert not mended.done
    run(mended)
    assert [path.name for path in mended.out.iterdir()] == ["with-rollouts"]


def test_silence_ends_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"wrote nothing for 0\.3 seconds"):
        run(command(tmp_path / "c", code="import time; time.sleep(600)", patience=0.3))


def test_a_stop_ends_all_that_it_began(tmp_path: Path) -> None:
    asked = command(tmp_path / "c", code=LEAVING)
    pids = asked.out / "pids"
    with pytest.raises(Stopped):
        run(asked, stopping=lambda: pids.exists() and len(pids.read_text().split()) == 2)
    assert not any(alive(int(pid)) for pid in pids.read_text().split())
    assert not asked.done


def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    asked = command(tmp_path / "c", code=LEAVING.replace("\ntime.sleep(600)", ""))
    run(asked)
    assert asked.done
    assert not any(alive(int(pid)) for pid in (asked.out / "pids").read_text().split())


@pytest.mark.parametrize("deaf", [False, True])
def test_a_killed_run_takes_its_command_with_it(deaf: bool, tmp_path: Path) -> None:
    """SIGKILL to the run itself: the command is told to end, and killed where it doesn't listen."""
    deafness = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if deaf else ""
    driver = f"""
import sys; sys.path[:0] = {sys.path!r}
from pathlib import Path
import reasonloop.runs.command as own
own.GRACE_SECONDS = 0.5
folder = Path(sys.argv[1])
words = [sys.executable, "-c", {deafness + LEAVING!r}, str(folder / "out")]
own.Command("explorer.command", words, folder, folder / "log", False, 60.0).run(lambda: None, lambda: False, print)
"""
    folder = tmp_path / "c"
    process = subprocess.Popen([sys.executable, "-c", driver, str(folder)], stdout=subprocess.DEVNULL)
    pids = folder / "out" / "pids"
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    began = [int(pid) for pid in pids.read_text().split()]
    said = run(command(folder, code="pass"))  # waits for the lock that the other's guard holds
    assert "explorer.command: waiting for the command of a killed process to end" in said
    assert not any(alive(pid) for pid in began)
    assert (folder / "out.1" / "pids").exists()
