"""`reasonloop init DIR`: a folder to start from, which runs as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

from reasonloop.errors import InputError

FILES = Path(__file__).parent / "files"


def init(folder: Path) -> str:
    """Makes the folder, and returns what its README says to type next. Raises InputError unless it is new or empty."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"init {folder}: is there already; expected a new or an empty folder")
        folder.mkdir(parents=True, exist_ok=True)
        for source in sorted(path for path in FILES.iterdir() if path.is_file()):
            shutil.copyfile(source, folder / source.name)
    except OSError as error:
        raise InputError(f"init {folder}: cannot be made ({error.strerror})") from None
    names = ", ".join(sorted(path.name for path in folder.iterdir()))
    return f"{folder}: {names}\n\n{(folder / 'README.md').read_text(encoding='utf-8').rstrip()}"
