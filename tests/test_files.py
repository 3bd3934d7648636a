"""Files that are there whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

from reasonloop.files import partial_of, usual_modes, write_atomically


def test_files_of_libraries_get_the_mode_that_the_user_gives_to_new_ones(tmp_path: Path) -> None:
    private = tmp_path / "model.safetensors"
    private.touch(mode=0o600)
    before = os.umask(0o027)
    try:
        usual_modes(tmp_path)
    finally:
        os.umask(before)
    assert private.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [private]


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead, living, other = (partial_of(path, str(pid)) for pid in (gone.pid, os.getppid(), "name"))
    for partial in (dead, living, other):
        partial.write_text("half")
    write_atomically(path, "whole", several=True)
    assert path.read_text() == "whole"
    assert sorted(tmp_path.iterdir()) == sorted([path, living, other])
