"""The digests of a run as the process that works on it keeps them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from reasonloop.files import append, fsync, replace_folder, write_atomically
from reasonloop.written.digests import (
    METRICS,
    SEGMENTS,
    digest,
    of_bytes,
    of_file,
    of_segment,
    of_start,
    sealed,
    size_of,
    value_of,
)
from reasonloop.written.known import NAME, Written, there

MANY = 1000
"""Lines, and four for each file, after which they are written anew as one"""


class Ledger:
    """The digests of a run as the process that works on it keeps them. Raises OSError where the disk refuses."""

    def __init__(self, run: Path, began: Mapping[str, Any] | None = None) -> None:
        """Takes up what there is, and settles what a killed process has left open; or, for a run that begins or that an
        earlier version has made, starts with the files that are there. `began`: see `Written`."""
        self.run, self.known = run, Written.read(run)
        self._lines, self._lines_size = hashlib.sha256(), 0
        self.new = not self.known.kept
        if self.known.whole and not self.known.coming and self.known.lines < MANY + 4 * len(self.known.files):
            return
        if self.new:
            self.known = Written(
                run, True, True, 0, dict(began or {}), {name: digest(run, name) for name in there(run)}
            )
        else:
            self._settle()
        record = {"began": self.known.began, "files": self.known.files}
        write_atomically(run / NAME, sealed(record) + sealed({"files": {}}))
        self.known.coming = {}

    def put(self, files: Mapping[str, str | None]) -> None:
        """What files, by name in the run, are to be from now on: before they are written, or removed. Those that stand
        behind lines of metrics.jsonl come after these."""
        if not all(name.startswith(SEGMENTS) for name in files) and METRICS not in files:
            files = {**self._metrics(), **files}
        append(self.run / NAME, sealed({"files": files}), durable=True)
        self.known.take(files)

    def _metrics(self) -> dict[str, str]:
        """What metrics.jsonl is by now, on the disk."""
        path = self.run / METRICS
        if not path.is_file() or path.stat().st_size == self._lines_size:
            return {}
        fsync(path)
        if not self._lines_size:
            fsync(self.run)  # a new file's name, too
        with path.open("rb") as file:
            file.seek(self._lines_size)
            added = file.read()
        self._lines.update(added)
        self._lines_size += len(added)
        return {METRICS: value_of(self._lines_size, self._lines.hexdigest())}

    def _done(self) -> None:
        """What was put has come to pass. Where this line gets lost, it is found out."""
        append(self.run / NAME, sealed({"files": {}}))
        self.known.take({})

    def write(self, path: Path, content: str | bytes | memoryview) -> None:
        """`write_atomically`, of a file in the run."""
        data = content.encode() if isinstance(content, str) else content
        value = of_segment(data) if path.parent.name == SEGMENTS else of_bytes(data)
        if path.name == METRICS:
            self._lines, self._lines_size = hashlib.sha256(data), len(data)
            value = value_of(self._lines_size, self._lines.hexdigest())
        self.put({self.name(path): value})
        write_atomically(path, data)
        self._done()

    def remove(self, names: Collection[str]) -> None:
        """Files, by name in the run, that are to go."""
        if names:
            self.put(dict.fromkeys(names))
            for name in names:
                (self.run / name).unlink(missing_ok=True)
            for folder in {(self.run / name).parent for name in names}:
                fsync(folder)
            self._done()

    def name(self, path: Path) -> str:
        return path.relative_to(self.run).as_posix()

    def below(self, folder: Path) -> dict[str, str]:
        """The digests of a folder's files, by name in it."""
        start = f"{self.name(folder)}/"
        names = (name for name in sorted({*self.known.files, *self.known.coming}) if name.startswith(start))
        found = {name.removeprefix(start): self.known.expected(name)[0] for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def put_folder(self, partial: Path, folder: Path, known: Mapping[str, str] | None = None) -> None:
        """`replace_folder`, of a folder in the run. `known`: digests of its files, as far as there are any."""
        start, known = self.name(folder), known or {}
        names = [path.relative_to(partial).as_posix() for path in sorted(partial.rglob("*")) if path.is_file()]
        files = {name: known.get(name) or of_file(partial / name) for name in names}
        gone = dict.fromkeys(self.below(folder))
        self.put({f"{start}/{name}": value for name, value in {**gone, **files}.items()})
        replace_folder(partial, folder)
        self._done()

    def _settle(self) -> None:
        """Which of the last line's files have come to be. What is replaced as a folder is told by the smallest file that
        differs."""
        known = self.known
        coming, known.coming = known.coming, {}
        folders: dict[str, dict[str, str]] = {}
        for name, value in coming.items():
            before = known.files.get(name)
            if value is None or before is None:
                kept = value if value is not None else before
                if kept is not None and (self.run / name).is_file():
                    known.files[name] = kept
                else:
                    known.files.pop(name, None)
            elif value != before:
                folder = name if name == METRICS else str(PurePosixPath(name).parent)
                folders.setdefault(folder, {})[name] = value
        for found in folders.values():
            name = min(found, key=lambda one: size_of(found[one]))
            path, before = self.run / name, known.files[name]
            there = path.is_file()
            if there and name == METRICS:
                done = of_start(path, found[name]) == found[name] or of_start(path, before) != before
            else:
                done = not (there and of_file(path) == before)
            if done:
                known.files.update(found)
