"""What other systems lack: there every file can be imported all the same, and what is missing is said, not raised."""

from __future__ import annotations

import subprocess
import sys

import house
from test_architecture import TENSORS, WITHOUT_TORCH

from reasonloop.bench import doctor

AS_ON_A_MAC = """
import importlib, os, pathlib, platform, sys, sysconfig
import duckdb, numpy, pyarrow, pydantic, rich, torch, urllib.request  # these may know where they are
sysconfig.get_config_vars()
for name in ("memfd_create", "sched_getaffinity", "sched_setaffinity", "splice", "eventfd", "pidfd_open", "setns", "unshare",
             "getresuid", "setresuid", "posix_fadvise", "copy_file_range", "O_TMPFILE", "O_PATH"):
    if hasattr(os, name): delattr(os, name)
sys.platform, platform.system, platform.machine = "darwin", lambda: "Darwin", lambda: "arm64"
platform.processor = lambda: "arm"
read_text = pathlib.Path.read_text
def without_proc(path, *args, **options):
    if str(path).startswith(("/proc", "/sys")): raise FileNotFoundError(2, "No such file", str(path))
    return read_text(path, *args, **options)
pathlib.Path.read_text = without_proc
"""


def on_a_mac(code: str) -> str:
    """What the code prints in a Python that says it is macOS's, on ARM, and has nothing that is Linux's own."""
    found = subprocess.run([sys.executable, "-c", AS_ON_A_MAC + code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_every_file_can_be_imported_without_what_is_linuxs_own() -> None:
    chosen = [
        name
        for name in house.modules(house.ROOT)
        if house.room(name) in WITHOUT_TORCH and name.removeprefix("reasonloop.") not in TENSORS
    ]
    on_a_mac(f"for name in {chosen!r}: importlib.import_module(name)")


def test_what_is_missing_is_said() -> None:
    lines = on_a_mac(
        "from reasonloop.bench import doctor\n"
        "from reasonloop.config import Recipe\n"
        "from reasonloop.machine.threads import available_cores, keep_freed_memory\n"
        "from reasonloop.runs.ran_on import describe_machine\n"
        "keep_freed_memory()\n"
        "print(available_cores() > 0, describe_machine(Recipe())['processor'])\n"
        "for check in (doctor.own_kernels(), doctor.sandbox(), doctor.memory()): print(check.status, check.detail)"
    ).splitlines()
    assert lines[0] == "True arm"
    assert lines[1].startswith("missing they are for Linux, and this is Darwin: sampling takes")
    assert lines[2].startswith("missing model-written programs can't be run safely here: namespaces are Linux's")
    assert lines[3].endswith("GiB")
    assert "free" not in lines[3]  # which macOS doesn't tell there
    assert "free of" in doctor.memory().detail


def test_windows_gets_one_line() -> None:
    code = "import sys; from reasonloop.cli import main; sys.platform = 'win32'; sys.exit(main(['doctor']))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (2, "")
    (line,) = found.stderr.splitlines()
    assert "expected Linux, in WSL, or macOS" in line
