"""The user's cache: what takes long to make, is the same each time, and may be deleted at any moment."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """The folder, which nobody else may write to: what lies in it is loaded and run.

    Raises OSError where it can't be made or is another user's, RuntimeError where the user has no home.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    folder = (base if base.is_absolute() else Path.home() / ".cache") / "reasonloop"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise PermissionError(f"{folder}: another user's")
    if folder.stat().st_mode & 0o022:
        folder.chmod(0o700)
    return folder
