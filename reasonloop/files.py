"""Files and folders that are there whole or not at all, and the user's cache.

All that must outlive a crash is written here. What stands behind something else is on the disk before it: a file's content
before its name, a folder's files before the folder.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import stat
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from reasonloop.errors import InputError, first_line

RECIPES = Path(__file__).parent / "recipes"
"""The recipes that come with the package"""

ADAPTER = "adapter"
"""The folder of an adapter in a checkpoint or a run: one that peft loads"""
TRAINER_STATE = "trainer.pt"
"""Of a checkpoint's files the one that only its learner reads, to go on"""
TRAINER_SHARDS = "trainer"
"""A folder beside it, where several processes learned"""
OF_TRAINER = (TRAINER_STATE, TRAINER_SHARDS)
_REFUSED = ("SafetensorError", "RuntimeError", "Exception", "CheckpointException")
"""What libraries raise where a disk refuses: safetensors, torch's zip writer, tokenizers, torch.distributed.checkpoint"""


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
        partial.unlink(missing_ok=True)  # a killed process may have left it, and somebody else a link
        handle = open_own(partial, os.O_WRONLY | os.O_EXCL, mode)
        try:
            _write_all(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise _naming(error, path) from None
    if several:
        _clear_left(path)
    fsync(path.parent)


def open_own(path: Path | str, flags: int, mode: int = 0o666) -> int:
    """A descriptor of a file, made if need be: of the file itself, never of what a link leads to, nor of a pipe or device
    that somebody else has put there. An opener for `open`, too. Raises OSError."""
    try:
        handle = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise OSError(error.errno, "a link or a pipe, where a file was expected", str(path)) from None
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "no file, where one was expected", str(path))


def append(path: Path, text: str, *, durable: bool = False) -> None:
    """Adds whole lines to a file; `durable`: they are on the disk then. Raises OSError where it refuses; the file then ends
    where it did."""
    handle = open_own(path, os.O_WRONLY | os.O_APPEND)
    try:
        size = os.fstat(handle).st_size
        try:
            _write_all(handle, text.encode())
            if durable:
                os.fsync(handle)
        except OSError as error:
            os.ftruncate(handle, size)
            raise _naming(error, path) from None
    finally:
        os.close(handle)


def _write_all(handle: int, data: bytes | memoryview) -> None:
    left = memoryview(data).cast("B")
    while left:
        left = left[os.write(handle, left) :]


def _naming(error: OSError, path: Path) -> OSError:
    """The same error, which says what could not be written."""
    return error if error.filename or not error.errno else OSError(error.errno, error.strerror, str(path))


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What libraries raise in place of an OSError where the disk refuses what they write to `path`, as an OSError."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ not in _REFUSED or "memory" in str(error):
            raise
        raise OSError(f"{path}: could not be written: {first_line(error)}") from error


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


def fsync(path: Path) -> None:
    """A file's content, or what was made, renamed or removed in a folder, outlives a crash of the system."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """It is there, and is after a crash."""
    if not folder.is_dir():
        make_folder(folder.parent)
        try:
            folder.mkdir(exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
        fsync(folder.parent)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a run. Raises InputError for anything else: it was damaged after it was written."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("no file")  # a pipe would be waited for
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"got a {type(found).__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error}); expected a JSON object: restore it, or delete it") from None
    return found


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON Lines, none where there is none; the torn last line of a process that was killed, or is
    writing it, is left out. Raises InputError for any other that isn't one, by its number."""
    content = path.read_bytes() if path.is_file() else b""
    found, lines = [], content.split(b"\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(json.loads(line))
                if not isinstance(found[-1], dict):
                    raise ValueError(f"got {type(found.pop()).__name__}")
            except (ValueError, RecursionError) as error:
                if number < len(lines):
                    raise InputError(f"{path}, line {number}: expected a JSON object ({error})") from error
    return found


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises InputError, naming it, for anything else."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read: {first_line(error)}") from None


def replace_folder(partial: Path, folder: Path) -> None:
    """Puts the finished `partial` in `folder`'s place, durably."""
    for path in sorted(partial.rglob("*"), reverse=True):  # what is in a folder before the folder
        fsync(path)
    fsync(partial)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    fsync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def require_new(folder: Path) -> None:
    """Raises InputError unless a folder can be made there: nothing is, or it is empty."""
    if not folder.name or folder.name == "..":
        raise InputError(f"--out {folder}: expected the name of a new folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--out {folder}: {'not empty' if folder.is_dir() else 'a file'}; expected a new folder")


@contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes `folder`'s place when the block ends. Where it fails nothing is left, and what killed
    processes left of theirs goes, too."""
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.partial"):
        try:
            os.kill(int(left.name.split(".")[-2]), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except (ValueError, OSError):
            pass
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        partial.mkdir(parents=True)
        yield partial
        replace_folder(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        raise


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

    Raises OSError where it can't be made, or where others could put something into it; RuntimeError where the user has no
    home.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    folder = (base if base.is_absolute() else Path.home() / ".cache") / "reasonloop"
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    above, me = folder.parent.stat(), os.geteuid()
    kept = above.st_mode & stat.S_ISVTX or (above.st_uid in (0, me) and not above.st_mode & stat.S_IWOTH)
    if not (kept and os.lstat(folder).st_uid == me and own_alone(folder.resolve(), stat.S_ISDIR)):
        raise OSError(f"{folder}: others can write there; expected a folder that is yours alone")
    return folder


def own_alone(path: Path, kind: Callable[[int], bool]) -> bool:
    """Whether it is there, of this kind (`stat.S_ISREG`, say; a link is none), the user's own, and nobody else's to
    change."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return kind(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
