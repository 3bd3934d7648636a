"""`make install` (tools/install.sh) with stand-ins for Python: which it takes, what it says, and what it leaves behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "tools" / "install.sh"
NAMES = ("python3", "python3.11", "python3.12", "python3.13", "python3.14")
PYTHON = """#!/bin/sh
case "$*" in
    *version_info*) echo {version} ;;
    *platform*) echo "{system}" ;;
    *ensurepip*) exit {no_venv} ;;
    "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo "venv {version}" >> "{log}" ;;
    "-m pip "*) echo "$*" >> "{log}"; cat "{log}.pip" > /dev/null ;;
esac
"""


class Machine:
    """A PATH with the Pythons of these versions, and a folder for the environment."""

    def __init__(self, folder: Path) -> None:
        self.path, self.log, self.venv = folder / "bin", folder / "log", folder / "venv"
        self.path.mkdir()
        Path(f"{self.log}.pip").touch()
        for name in NAMES:
            self._write(name, "exit 127")

    def has(self, name: str, version: str, system: str = "Linux x86_64", no_venv: int = 0) -> None:
        self._write(name, PYTHON.format(version=version, system=system, no_venv=no_venv, log=self.log))

    def break_pip(self, broken: bool) -> None:
        (Path(f"{self.log}.pip").unlink if broken else Path(f"{self.log}.pip").touch)()

    def install(self, **options: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": f"{self.path}:/usr/bin:/bin", "VENV": str(self.venv), "TORCH": "torch==9", **options}
        return subprocess.run(["/bin/sh", str(SCRIPT)], env=env, capture_output=True, text=True)

    def did(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    @property
    def whole(self) -> bool:
        return (self.venv / "bin/.installed").is_file() and not (self.venv / ".incomplete").exists()

    def _write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        (self.path / name).chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def refused(machine: Machine, **options: str) -> str:
    done = machine.install(**options)
    assert (done.returncode, done.stdout, machine.did()) == (1, "", [])
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("old", ["3.9.18", "3.10.12", "3.15.0"])
def test_a_python_that_will_not_do_is_named_before_anything_is_made(machine: Machine, old: str) -> None:
    machine.has("python3", old)
    assert refused(machine) == (
        f"install: python3 is Python {old}; expected Python 3.11 to 3.14: install one, then for example: "
        "make PYTHON=python3.12 quickstart"
    )
    assert not machine.venv.exists()


def test_another_python_of_the_machine_is_found(machine: Machine) -> None:
    machine.has("python3", "3.10.12")
    machine.has("python3.13", "3.13.1")
    done = machine.install()
    assert done.returncode == 0, done.stderr
    assert machine.did()[0] == "venv 3.13.1"
    assert machine.whole


def test_the_python_that_is_asked_for_is_taken_or_refused(machine: Machine) -> None:
    machine.has("python3", "3.12.1")
    machine.has("python3.11", "3.11.9")
    assert "mine is Python none" in refused(machine, PYTHON="mine")
    assert machine.install(PYTHON="python3.11").returncode == 0
    assert machine.did()[0] == "venv 3.11.9"


def test_what_cannot_work_is_told(machine: Machine) -> None:
    machine.has("python3", "3.12.1", no_venv=1)
    assert "apt install python3.12-venv" in refused(machine)
    machine.has("python3", "3.12.1", system="Darwin x86_64")
    assert "Intel" in refused(machine)


def test_torch_comes_first_and_from_where_it_is_told(machine: Machine) -> None:
    machine.has("python3", "3.12.1")
    done = machine.install(TORCH_INDEX="https://example.org/whl/cpu")
    assert machine.did()[1:] == [
        "-m pip install --index-url https://example.org/whl/cpu torch==9",
        "-m pip install --editable .[dev]",
    ]
    assert "0.4 GB" in done.stdout
    assert "3 GB" not in done.stdout
    (machine.venv / "bin/.installed").unlink()  # as when pyproject.toml has changed
    assert "3 GB" in machine.install().stdout
    assert machine.did()[3:] == ["-m pip install torch==9", "-m pip install --editable .[dev]"]  # the same environment


def test_an_install_that_stopped_half_way_does_not_count_and_is_begun_anew(machine: Machine) -> None:
    machine.has("python3", "3.12.1")
    machine.break_pip(True)
    failed = machine.install()
    assert failed.returncode == 1
    assert "the same command tries again" in failed.stderr
    assert not machine.whole
    (machine.venv / "half").touch()
    machine.break_pip(False)
    assert machine.install().returncode == 0
    assert machine.whole
    assert not (machine.venv / "half").exists()


def test_an_environment_of_another_python_is_not_touched(machine: Machine) -> None:
    machine.has("python3", "3.12.1")
    (machine.venv / "bin").mkdir(parents=True)
    machine.has("python3.9", "3.9.1")
    os.rename(machine.path / "python3.9", machine.venv / "bin/python")
    assert f"{machine.venv} has Python 3.9.1; expected" in refused(machine)
    machine.has("python3.12", "3.12.1")
    os.replace(machine.path / "python3.12", machine.venv / "bin/python")
    (machine.venv / "own").touch()
    assert machine.install().returncode == 0
    assert (machine.venv / "own").exists()
