"""Files and folders that are there whole or not at all, and the user's cache."""

from __future__ import annotations

import glob
import json
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from reasonloop.errors import InputError

RECIPES = Path(__file__).parent / "recipes"
"""The recipes that come with the package"""

ADAPTER = "adapter"
"""The folder of an adapter in a checkpoint or a run: one that peft loads"""
TRAINER_STATE = "trainer.pt"
"""Of a checkpoint's files the one that only its learner reads, to go on"""
TRAINER_SHARDS = "trainer"
"""A folder beside it, where several processes learned"""


def bundled_recipes() -> list[str]:
    """Their names, the quickstart first."""
    found = [str(path.relative_to(RECIPES)).removesuffix(".toml") for path in RECIPES.rglob("*.toml")]
    return sorted(found, key=lambda name: (name != "quickstart", "/" in name, name))


def write_atomically(
    path: Path, content: str | bytes | memoryview, *, several: bool = False, mode: int = 0o666
) -> None:
    """The file has either its old content or the new one, also after a crash: written beside its place, fsync, rename,
    fsync of the folder. Text is written as UTF-8.

    `several`: other processes may write the same file at the same time; what killed ones left is removed. Raises OSError
    where the disk refuses; the old file is then still whole, and nothing is left beside it.
    """
    data = content.encode() if isinstance(content, str) else content
    partial = partial_of(path, str(os.getpid()) if several else "")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    if several:
        _clear_left(path)
    fsync_folder(path.parent)


def _clear_left(path: Path) -> None:
    """Removes what writers that are gone left of the file."""
    for left in path.parent.glob(f".{path.name}.*.partial"):
        writer = left.name.split(".")[-2]
        try:
            os.kill(int(writer), 0)
        except ProcessLookupError:
            left.unlink(missing_ok=True)
        except (ValueError, OSError):
            pass


def partial_of(path: Path, writer: str = "") -> Path:
    """Where `write_atomically` writes a file that isn't whole yet; a killed process may leave it."""
    return path.with_name(f".{path.name}.{writer}.partial" if writer else f".{path.name}.partial")


def fsync_folder(folder: Path) -> None:
    """What was made, renamed or removed in it outlives a crash of the system."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a run. Raises InputError for anything else: it was damaged after it was written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"got a {type(found).__name__}")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); expected a JSON object: restore it, or delete it") from None
    return found


def replace_folder(partial: Path, folder: Path) -> None:
    """Puts the finished `partial` in `folder`'s place, durably."""
    for path in partial.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    fsync_folder(partial)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    fsync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def require_new(folder: Path) -> None:
    """Raises InputError unless a folder can be made there: nothing is, or it is empty."""
    if not folder.name or folder.name == "..":
        raise InputError(f"--out {folder}: expected the name of a new folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--out {folder}: {'not empty' if folder.is_dir() else 'a file'}; expected a new folder")


def partial_folder(folder: Path) -> Path:
    """Where this process makes a folder that is put in its place when it is whole (`replace_folder`)."""
    return folder.with_name(f".{folder.name}.{os.getpid()}.partial")


def clear_partial(folder: Path) -> None:
    """Removes what processes that are gone left of a folder that they were making."""
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.partial"):
        try:
            os.kill(int(left.name.split(".")[-2]), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except (ValueError, OSError):
            pass


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_dir())


def usual_modes(folder: Path) -> None:
    """Gives a folder's files the mode that new files have here (umask): some libraries write theirs for the owner alone."""
    new = folder / ".new"
    new.touch()
    mode = stat.S_IMODE(new.stat().st_mode)
    new.unlink()
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(mode)


def recover_folder(folder: Path) -> None:
    """Finishes a `replace_folder` that was cut off between its two renames."""
    old, partial = folder.with_name(folder.name + ".old"), folder.with_name(folder.name + ".partial")
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(partial, ignore_errors=True)


def drop_folder(folder: Path, keep: str) -> None:
    """Removes what is in `folder` but for the file `keep`."""
    for path in folder.iterdir():
        if path.name != keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def user_cache() -> Path:
    """The folder for what takes long to make, is the same each time, and may be deleted at any moment.

    Raises OSError where it can't be made, RuntimeError where the user has no home.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    folder = (base if base.is_absolute() else Path.home() / ".cache") / "reasonloop"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
