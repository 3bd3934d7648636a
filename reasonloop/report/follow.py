"""`reasonloop report --follow`: the report is written again while the run goes on, and its page reads itself again.

It only ever reads the run: no lock, no file in the run folder but the report.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from pathlib import Path

from reasonloop.errors import InputError
from reasonloop.files import read_object
from reasonloop.report.page import write_report

SECONDS = 3.0
"""Between two looks at the run"""
WAIT_SECONDS = 1.0
"""Between two looks for its folder"""
SHARE = 0.1
"""Reports never take more than this share of the time: the run needs the processor"""


def follow(folder: Path, out: Path | None = None) -> Path | None:
    """Writes the report of the run in `folder` to `out`, and again whenever the run has changed, until it is done or
    Ctrl-C; the last one doesn't reload itself any more. While the folder can't be read, the report stays as it was.

    Waits for a run that hasn't made its folder yet; None if Ctrl-C ended that. Raises InputError where the folder holds
    something else.
    """
    path, seen, waits = out or folder / "report.html", "", False
    with suppress(KeyboardInterrupt):
        while not _begun(folder):
            if not waits:
                print(f"waiting for a run in {folder} (Ctrl-C ends)", flush=True)
            waits = True
            time.sleep(WAIT_SECONDS)
        while not _done(folder):
            if not seen:
                print(f"{path} keeps up with the run (Ctrl-C ends)", flush=True)
            version, began = _version(folder), time.monotonic()
            if version != seen:
                try:
                    write_report(folder, path, version)
                except (InputError, OSError) as error:
                    print(f"the report stays as it was: {error}", flush=True)
                seen = version
            time.sleep(max(SECONDS, (time.monotonic() - began) / SHARE))
    return write_report(folder, path) if _begun(folder) else None


def _begun(folder: Path) -> bool:
    if (folder / "config.toml").is_file():
        return True
    # what a run leaves before its recipe stands there is hidden
    if folder.exists() and (not folder.is_dir() or any(not path.name.startswith(".") for path in folder.iterdir())):
        raise InputError(f"{folder}: no run folder (no config.toml in it)")
    return False


def _done(folder: Path) -> bool:
    with suppress(InputError):
        return bool(read_object(folder / "state.json").get("stage") == "done")
    return False


def _version(folder: Path) -> str:
    """Another one whenever something that the report shows may have changed."""
    paths = [folder / name for name in ("config.toml", "state.json", "metrics.jsonl", "progress.json")]
    told = hashlib.sha256()
    for path in [*paths, *sorted((folder / "evals").glob("*.json"))]:
        with suppress(OSError):
            status = path.stat()
            told.update(f"{path.name} {status.st_mtime_ns} {status.st_size}\n".encode())
    return told.hexdigest()[:16]
