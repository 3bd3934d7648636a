"""The digests that a run keeps, and whether its files have them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from reasonloop.errors import RunError
from reasonloop.files import ADAPTER
from reasonloop.written.digests import METRICS, SEGMENTS, digest, of_start, size_of, unsealed

NAME = "digests.jsonl"
STATE = "state.json"
CHECKPOINTS = "checkpoints"
MODEL = "model"
KINDS = (
    *("config.toml", "inputs.json", "problems.parquet", STATE, METRICS, "evals/*.json", "evals/*.parquet"),
    *(f"{SEGMENTS}/*.parquet", "sources/*.parquet", f"{CHECKPOINTS}/*", f"{MODEL}/*", f"{ADAPTER}/*"),
)
"""What the files are, by name in the run; `*` stands for folders, too"""
ALONE = ("inputs.json", "problems.parquet", "evals/*.json", f"{CHECKPOINTS}/*/stage.json")
"""Of these there are none but those that the run has written; other folders may hold what a user has put there"""
LENIENT = ("config.toml", STATE)
"""May be lost or another one: it is said"""


@dataclass
class Written:
    """The digests of a run, as its file has them at this moment."""

    run: Path
    kept: bool = False
    """Whether there are any"""
    whole: bool = False
    """Whether its last line is"""
    lines: int = 0
    began: dict[str, Any] = field(default_factory=dict)
    """What the run's first process said of itself"""
    files: dict[str, str] = field(default_factory=dict)
    """By name in the run, without the last line's"""
    coming: dict[str, str | None] = field(default_factory=dict)
    """The last line's; None: the file goes"""

    @classmethod
    def read(cls, run: Path) -> Written:
        """Raises RunError where the file is damaged. What a killed process has left of a last line doesn't count."""
        path = run / NAME
        if not path.is_file():
            return cls(run)
        status = path.stat()
        found = _parsed(run, (status.st_ino, status.st_size, status.st_mtime_ns))
        return replace(found, began=dict(found.began), files=dict(found.files), coming=dict(found.coming))

    @classmethod
    def parse(cls, run: Path) -> Written:
        """`read`, of a file that is there."""
        path = run / NAME
        *lines, torn = path.read_bytes().split(b"\n")
        found = cls(run, kept=True, whole=not torn, lines=len(lines))
        for number, line in enumerate(lines, 1):
            try:
                record = unsealed(line)
                found.began |= record.get("began", {})
                found.take(record["files"])
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise RunError(
                    f"{path}, line {number}: damaged; restore it from a copy, or delete it: the same command then takes the "
                    "run's files as they are"
                ) from None
        if not lines:
            raise RunError(
                f"{path}: empty; restore it from a copy, or delete it: the same command then takes the run's files as they "
                "are"
            )
        return found

    def take(self, coming: Mapping[str, str | None]) -> None:
        """A further line: what the one before it said has come to pass."""
        for name, value in self.coming.items():
            if value is None:
                self.files.pop(name, None)
            else:
                self.files[name] = value
        self.coming = dict(coming)

    def expected(self, name: str) -> list[str | None]:
        """What a file may be: a digest, or None where there is to be none."""
        return [self.coming[name], self.files.get(name)] if name in self.coming else [self.files.get(name)]

    def names(self, below: str = "") -> list[str]:
        """Of the files that are to be there."""
        return sorted(n for n in {*self.files, *self.coming} if n.startswith(below) and None not in self.expected(n))

    def wrong(self, name: str, *, whole: bool = True) -> str:
        """What is wrong with a file; empty where nothing is. Without `whole` only its size is looked at."""
        if not self.kept:
            return ""
        path, expected = self.run / name, self.expected(name)
        if not path.is_file():
            return "" if None in expected else "lost"
        known = [value for value in expected if value is not None]
        if not known:
            return "not written by this run under this name"
        size = path.stat().st_size
        if name == METRICS:
            sound = any(of_start(path, value) == value for value in known)
            return "" if sound else _other_size(min(size, size_of(known[0])), known[0])  # lines are added to it
        if not whole:
            return "" if size in map(size_of, known) else _other_size(size, known[0])
        value = digest(self.run, name)
        if value in known:
            return ""
        twin = next((other for other in sorted(self.files) if other != name and self.files[other] == value), None)
        return f"it is {twin}" if twin else _other_size(size, known[0])


@lru_cache(maxsize=8)
def _parsed(run: Path, state: tuple[int, int, int]) -> Written:
    """A query or a report asks for each of a run's files; the digests are read once while their file is as it is."""
    return Written.parse(run)


def _other_size(size: int, value: str) -> str:
    wanted = size_of(value)
    return "changed" if size == wanted else f"{'cut' if size < wanted else 'longer'}: {size:,} bytes of {wanted:,}"


def run_of(path: Path) -> Path | None:
    """The run, with digests, that a file or a folder is in."""
    return next((above for above in path.resolve().parents[:4] if (above / NAME).is_file()), None)


def check(path: Path, without: Collection[str] = ()) -> None:
    """Raises RunError unless a file, or all files of a folder, are as the run that they are in has written them. Of a file
    that is in no run with digests nothing is known. `without`: names in the folder that aren't looked at."""
    run = run_of(path)
    if run is None:
        return
    name = path.resolve().relative_to(run).as_posix()
    if name.partition("/")[0] not in {kind.partition("/")[0] for kind in KINDS}:
        return

    def look(written: Written) -> dict[str, str]:
        names = [name]
        if not path.is_file():
            passed = tuple(f"{name}/{one}" for one in without)
            below = [one for one in [*written.names(f"{name}/"), *alone(run, path)] if not one.startswith(passed)]
            names = list(dict.fromkeys(below)) or names
        return {one: wrong for one in names if (wrong := written.wrong(one))}

    verify(run, look)


def verify(run: Path, look: Callable[[Written], Mapping[str, str]]) -> None:
    """Raises RunError where `look` finds something wrong (what, by name), again and again: a run may be at work on it."""
    while True:
        path = run / NAME
        before = path.stat().st_mtime_ns if path.is_file() else 0
        found = look(Written.read(run))
        if not found:
            return
        if not path.is_file() or path.stat().st_mtime_ns == before:
            raise RunError(told(run, found))


def told(run: Path, wrong: Mapping[str, str]) -> str:
    """What is wrong with files, by name, and what to do: one line."""
    order = sorted(wrong, key=lambda name: (wrong[name] == "lost", name))
    listed = "; ".join(f"{run / name}: {wrong[name]}" for name in order[:4])
    more = f"; and {len(order) - 4} more" if len(order) > 4 else ""
    good = _good(run, order)
    return f"{listed}{more}: not what the run has written. {good}{_remedy(run, order)}"


def _good(run: Path, wrong: Collection[str]) -> str:
    """Which policies of the run are as they were written, where one isn't."""
    where = {str(PurePosixPath(*PurePosixPath(name).parts[:2])) for name in wrong if name.startswith(CHECKPOINTS)}
    if not where:
        return ""
    written = Written.read(run)
    folders = {
        str(PurePosixPath(name).parent) for name in written.names(CHECKPOINTS) if name.endswith("model.safetensors")
    }
    good = [
        one
        for one in sorted({one.removesuffix(f"/{ADAPTER}") for one in folders} - where)
        if not any(written.wrong(name) for name in written.names(f"{one}/"))
    ]
    return f"Still good: {', '.join(str(run / one) for one in good)}. " if good else ""


def _remedy(run: Path, wrong: Collection[str]) -> str:
    first = next(iter(wrong))
    if first.startswith((f"{MODEL}/", f"{ADAPTER}/")) and (run / CHECKPOINTS).is_dir():
        return "Restore it from a copy; a finished run keeps nothing else to make it from"
    stage = first.split("/")[1] if first.startswith(CHECKPOINTS) else ""
    what = f"the folder {run / CHECKPOINTS / stage}" if stage else "what is damaged"
    return (
        f"Restore it from a copy, or delete {what} and {run / NAME}: the same command then goes on with what is there"
    )


def there(run: Path, kinds: Collection[str] = KINDS) -> Iterator[str]:
    """The files of a run that are of these kinds, by name."""
    for kind in kinds:
        for path in sorted(run.glob(kind)):
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                name = file.relative_to(run).as_posix()
                if file.is_file() and ".partial" not in name:
                    yield name


def alone(run: Path, below: Path | None = None) -> list[str]:
    """The files of `ALONE` that are there, all or those below a folder, by name."""
    start = f"{below.resolve().relative_to(run).as_posix()}/" if below is not None else ""
    return [name for name in there(run, ALONE) if name.startswith(start)]
