"""A disk that is full, fails, or loses its power at a chosen operation on the files below a folder.

Operations are those that change what is there or what outlives a crash: opening for writing, writing, renaming, linking,
removing, making a folder, fsync. What libraries write in C is one operation less: they open unseen.

After a power cut there is, of each folder, what it held at its last fsync, or, by the seed, what it holds now; of each file
what was in it at its last fsync, nothing, a part, or all of it. `PESSIMIST` always takes what was there at the last fsync.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

FULL, BROKEN, CUT = "full", "broken", "cut"
MODES = (FULL, BROKEN, CUT)
PESSIMIST = 0
GROWING = ("open", "write", "os.mkdir", "os.link")


class FaultyDisk:
    """Watches a folder from `install` on, for as long as the process lives."""

    def __init__(self, folder: Path, mode: str, at: int, seed: int = PESSIMIST, count: Path | None = None) -> None:
        """`at`: the operation, from 1, at which it happens; 0: never. `count`: a file that has the operations so far."""
        self.folder, self.mode, self.at, self.seed, self.count = folder, mode, at, seed, count
        self.done, self.busy = 0, False
        self.contents: dict[int, bytes] = {}
        """Of each file, by its inode, at its last fsync"""
        self.listings: dict[int, dict[str, int]] = {}
        """Of each folder"""
        self.kept = Path(tempfile.mkdtemp(prefix="reasonloop-inodes-", dir=folder.parent))
        """A link to each file, so that no number is given twice"""

    def install(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in [self.folder, *self.folder.rglob("*")]:
            self._sync(path)
        write, fsync = os.write, os.fsync

        def faulty_write(handle: int, data: Any) -> int:
            self._happens("write", self._path(handle))
            return write(handle, data)

        def faulty_fsync(handle: int) -> None:
            path = self._path(handle)
            self._happens("fsync", path)
            fsync(handle)
            if path is not None and self._ours(path) and not self.busy:
                self._quietly(lambda: self._sync(path))

        os.write, os.fsync = faulty_write, faulty_fsync  # type: ignore[assignment]
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.busy or event not in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link"):
            return
        if event == "open":
            path, _, flags = args
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        else:
            path = args[1] if event == "os.link" else args[0]
            if isinstance(args[-1], int) and args[-1] >= 0:  # relative to an open folder: rmtree at work
                path = str(Path(os.readlink(f"/proc/self/fd/{args[-1]}")) / os.fsdecode(path))
        if isinstance(path, str | bytes | os.PathLike):
            self._happens(event, Path(os.fsdecode(path)))

    def _path(self, handle: int) -> Path | None:
        try:
            return Path(os.readlink(f"/proc/self/fd/{handle}"))
        except OSError:
            return None

    def _ours(self, path: Path) -> bool:
        return path.name != ".lock" and path.is_relative_to(self.folder)

    def _quietly(self, work: Any) -> None:
        self.busy = True
        try:
            work()
        finally:
            self.busy = False

    def _happens(self, event: str, path: Path | None) -> None:
        if self.busy or path is None or not self._ours(path):
            return
        self.done += 1
        if self.count is not None:
            self._quietly(lambda: self.count.write_text(str(self.done)))  # type: ignore[union-attr]
        if not self.at or self.done < self.at:
            return
        if self.mode == FULL and event in GROWING:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if self.mode == BROKEN and self.done == self.at:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        if self.mode == CUT:
            self._quietly(self._cut)

    def _sync(self, path: Path) -> None:
        """The content of a file or a folder is on the disk."""
        try:
            about = path.lstat()
        except OSError:
            return
        if stat.S_ISDIR(about.st_mode):
            self.listings[about.st_ino] = self._listing(path)
        elif stat.S_ISREG(about.st_mode):
            self.contents[about.st_ino] = path.read_bytes()
            if not (self.kept / str(about.st_ino)).exists():
                os.link(path, self.kept / str(about.st_ino))

    def _listing(self, folder: Path) -> dict[str, int]:
        found = {path.name: path for path in folder.iterdir() if path.name != ".lock"}
        for path in found.values():  # a file that is renamed over must keep its number, too
            if path.is_file() and not (self.kept / str(path.stat().st_ino)).exists():
                os.link(path, self.kept / str(path.stat().st_ino))
        return {name: path.stat().st_ino * (-1 if path.is_dir() else 1) for name, path in found.items()}

    def _cut(self) -> None:
        """Nothing but what the disk has is there any more."""
        now, random = self.folder.with_name(f"{self.folder.name}.cut"), Random(self.seed)
        current = {path.stat().st_ino: path for path in [self.folder, *self.folder.rglob("*")]}
        now.mkdir()
        self._image(self.folder.stat().st_ino, now, current, random)
        for path in self.folder.iterdir():
            if path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in now.iterdir():
            path.rename(self.folder / path.name)
        now.rmdir()
        shutil.rmtree(self.kept)
        os.kill(os.getpid(), signal.SIGKILL)

    def _image(self, number: int, into: Path, current: dict[int, Path], random: Random) -> None:
        listing = self.listings.get(number, {})
        if self.seed != PESSIMIST and number in current and random.random() < 0.5:
            listing = self._listing(current[number])
        for name, child in sorted(listing.items()):
            if child < 0:
                (into / name).mkdir()
                self._image(-child, into / name, current, random)
                continue
            content = self.contents.get(child, b"")
            there = current.get(child, self.kept / str(child))
            if self.seed != PESSIMIST and there.is_file() and there.read_bytes() != content:
                latest = there.read_bytes()
                kept = len(content) if latest.startswith(content) else 0  # what was added to is still there
                content = random.choice([content, latest, latest[: (kept + len(latest)) // 2]])
            (into / name).write_bytes(content)
