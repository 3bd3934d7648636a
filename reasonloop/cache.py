"""The user's cache: what takes long to make, is the same each time, and may be deleted at any moment."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """The folder. Raises OSError where it can't be made, RuntimeError where the user has no home."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    folder = (base if base.is_absolute() else Path.home() / ".cache") / "reasonloop"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
