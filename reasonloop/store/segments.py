"""The trajectory store: every rollout of a run, one Parquet file (a *segment*) per RL step.

Segments are written whole or not at all: to a temporary file beside their place, fsync, rename, fsync of the folder.
A resumed run that samples a step again replaces the segment of that step with the same bytes. What is read is checked:
every page by its CRC, the footer (which Parquet leaves unprotected) by a digest that lies before it, the place of its rows
by its name, and, where the run keeps digests, that they are the segments that were written, all of them and no others.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reasonloop.errors import RunError
from reasonloop.files import make_folder, write_atomically
from reasonloop.records import Place, Rollout
from reasonloop.store.schema import SCHEMAS, from_table, to_table
from reasonloop.written.digests import SEGMENTS
from reasonloop.written.known import Written, verify
from reasonloop.written.ledger import Ledger

_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)-i(\d{3,})-s(\d{5,})\.parquet")
_VERSION_KEY = b"reasonloop.schema"
_DIGEST_MAGIC = b"RLFT"
_DIGEST_SIZE = 16
# Tokens in a row group: with ids and log-probs 32 MB, so that one expert of a long-response run costs no more to read.
_ROW_GROUP_TOKENS = 4_000_000


class TrajectoryStore:
    """The segments of one run, in one folder (RUN/trajectories).

    Several branches may write to the same folder at the same time, each through its own store object; one branch has
    one writer. Files that aren't segments by their name are left alone and not read.
    """

    def __init__(self, folder: Path, run: str, ledger: Ledger | None = None) -> None:
        """`ledger`: where the digests of what is written go."""
        self.folder, self.run, self.ledger = Path(folder), run, ledger

    def write(self, rollouts: Sequence[Rollout], place: Place) -> Path:
        """Stores one step's rollouts, row order as given; replaces the segment if there is one. Returns its path.

        Equal input gives equal bytes. Raises ValueError if a rollout belongs to another step, is there twice, or breaks
        `Rollout`'s contract; RunError if the disk refuses (the old segment, if any, is then still whole).
        """
        path = self.folder / f"{place.branch}-i{place.iteration:03d}-s{place.step:05d}.parquet"
        if not _NAME.fullmatch(path.name):
            raise ValueError(f"no segment name can be made of {place}")
        _check_places(rollouts, place)
        self._put(path, encode(to_table(rollouts, self.run)))
        return path

    def take(self, name: str, data: bytes) -> None:
        """A segment that another store has written, of a run of the same name; replaces the one that is there. Raises
        ValueError for no segment's name; RunError as `write`."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no segment's name")
        self._put(self.folder / name, data)

    def _put(self, path: Path, data: bytes | memoryview) -> None:
        try:
            make_folder(self.folder)
            (self.ledger.write if self.ledger is not None else write_atomically)(path, data)
        except OSError as error:
            raise RunError(
                f"{path}: the segment could not be written ({error.strerror or error}); "
                "free space or fix the folder's permissions, then run the same command again"
            ) from error

    def take_back(self, place: Place) -> None:
        """Removes the segments of this step and of those behind it, which a resumed exploration will make again: where it
        isn't repeated to the bit (a GPU, a judge, a verifier's deadline) it may have fewer. What a killed process had of
        a segment goes, too."""
        behind = [
            path
            for found, path in list_segments(self.folder, place.branch, place.iteration).items()
            if found.step >= place.step and found.branch == place.branch
        ]
        if self.ledger is not None:
            self.ledger.remove([self.ledger.name(path) for path in behind])
        else:
            for path in behind:
                path.unlink(missing_ok=True)
        for path in self.folder.glob(f".{place.branch}-i{place.iteration:03d}-s*.parquet.partial"):
            path.unlink(missing_ok=True)

    def read(self, branch: str | None = None, iteration: int | None = None) -> list[Rollout]:
        """The rollouts exactly as they were written, sorted by branch, iteration and step, then in row order. `branch` as in
        `list_segments`.

        Raises RunError, naming the file, if a segment is damaged or was written by another version.
        """
        found = []
        for path in stored_segments(self.folder, branch, iteration).values():
            with open_segment(path) as file:
                found += from_table(file.read())
        return found


def list_segments(folder: Path, branch: str | None = None, iteration: int | None = None) -> dict[Place, Path]:
    """The folder's segments that match (None: all), sorted by branch, iteration, step; none if there is no such folder. A
    branch has those of its explorations side by side ("main.1", "main.2" of "main").

    No file is opened: of its place the stage isn't told by the file's name.
    """
    found = {}
    for path in folder.glob("*.parquet"):
        if place := _matches(path.name, branch, iteration):
            found[place] = path
    return dict(sorted(found.items()))


def _matches(name: str, branch: str | None, iteration: int | None) -> Place | None:
    """The place of a segment of this name, if it is one of these."""
    if not (match := _NAME.fullmatch(name)):
        return None
    place = Place(match[1], iteration=int(match[2]), step=int(match[3]))
    own = branch in (None, place.branch, place.trunk) and iteration in (None, place.iteration)
    return place if own else None


def stored_segments(folder: Path, branch: str | None = None, iteration: int | None = None) -> dict[Place, Path]:
    """`list_segments`, where these are the segments that the run has written. Raises RunError where one is lost or another
    one, which."""

    def look(written: Written) -> dict[str, str]:
        if not written.kept:
            return {}
        known = [name for name in written.names(f"{SEGMENTS}/") if _matches(Path(name).name, branch, iteration)]
        names = dict.fromkeys([*known, *(f"{SEGMENTS}/{path.name}" for path in found().values())])
        return {name: wrong for name in names if (wrong := written.wrong(name))}

    def found() -> dict[Place, Path]:
        return list_segments(folder, branch, iteration)

    if folder.name == SEGMENTS:
        verify(folder.parent, look)
    return found()


def encode(table: pa.Table) -> memoryview:
    """A segment's bytes: Parquet, zstd, a CRC per page, the schema version, and a digest of the footer before it."""
    tokens = int(np.asarray(table["n_tokens"]).sum())
    sink = pa.BufferOutputStream()
    # No pandas metadata and no time of writing goes into the file: equal rollouts are equal bytes.
    pq.write_table(
        table.replace_schema_metadata({_VERSION_KEY: str(_version_of(table)).encode()}),
        sink,
        row_group_size=max(1, _ROW_GROUP_TOKENS * table.num_rows // max(tokens, 1)),
        compression="zstd",
        use_dictionary=[
            *("run", "branch", "problem_id", "verdict", "finish", "detail", "reward_parts.key_value.key"),
            *("prompt_tokens.list.element", "response_tokens.list.element"),
        ],
        column_encoding={"logprobs.list.element": "BYTE_STREAM_SPLIT"},
        write_page_checksum=True,
    )
    whole = memoryview(sink.getvalue())
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    # Readers find pages by absolute offset and the footer from the end, so that bytes between the two are ignored.
    return memoryview(b"".join((whole[:footer], _DIGEST_MAGIC, _digest(whole[footer:]), whole[footer:])))


def _version_of(table: pa.Table) -> int:
    """The schema's version that has these columns."""
    return next(version for version, schema in SCHEMAS.items() if schema.names == table.column_names)


def version_of(file: pq.ParquetFile) -> int:
    """The schema's version that an open segment was written with."""
    return int((file.metadata.metadata or {})[_VERSION_KEY])


@contextmanager
def open_segment(path: Path) -> Iterator[pq.ParquetFile]:
    """An open segment whose footer is sound and of this schema or an earlier one; reading from it checks every page's CRC.

    Raises RunError, naming the file and what to do, if it is damaged or was written by another version; also for what a
    reader may say of bytes that aren't a sound segment inside of the block.
    """
    try:
        _expect_file(path)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if not _footer_intact(path, file.metadata.serialized_size):
                raise ValueError("the footer doesn't match its digest")
            version = version_of(file)
            if version not in SCHEMAS:
                raise RunError(
                    f"{path}: segment has schema version {version}, this version of reasonloop reads "
                    f"{', '.join(map(str, SCHEMAS))}; use the version that wrote it (RUN/config.toml names it)"
                )
            if not file.schema_arrow.equals(SCHEMAS[version]):
                raise ValueError("the columns aren't those of a segment")
            _check_name(path, file.metadata)
            yield file
    except PermissionError as error:
        raise RunError(f"{path}: the segment can't be opened ({error.strerror}); fix its permissions") from error
    except (pa.ArrowException, OSError, ValueError, KeyError, EOFError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"{path}: segment is missing, truncated or damaged ({reason}); restore it from a copy, or delete it (and "
            "digests.jsonl beside its folder, where there is one): the run goes on without this step's rollouts"
        ) from error


def _expect_file(path: Path) -> None:
    """Raises OSError for a pipe or a device, which would be waited for."""
    if not path.is_file():
        raise FileNotFoundError("there is no file")


def read_rows(path: Path, rows: Sequence[int]) -> list[Rollout]:
    """The rollouts at these row numbers of one segment, in row order; reads only their row groups."""
    wanted = np.sort(rows)
    found: list[Rollout] = []
    start = 0
    with open_segment(path) as file:
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            inside = wanted[(start <= wanted) & (wanted < end)]
            if len(inside):
                found += from_table(file.read_row_group(group).take(pa.array(inside - start)))
            start = end
    return found


def scan(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Narrow columns of one segment's row groups, one held at a time, with `row`, the row's number in the segment.

    Each is checked by its pages' CRCs: DuckDB, that skips them, is therefore not left to read the file itself.
    """
    start = 0
    with open_segment(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=list(columns))
            yield table.append_column("row", pa.array(np.arange(start, start + table.num_rows)))
            start += table.num_rows


def find_damage(paths: Iterable[Path]) -> None:
    """Raises RunError for the first segment that can't be read whole, if there is one: DuckDB says in many words that
    something is wrong, and not in which file."""
    for path in paths:
        with open_segment(path) as file:
            file.read()


def _check_places(rollouts: Sequence[Rollout], place: Place) -> None:
    seen = set()
    for r in rollouts:
        if r.place != place:
            raise ValueError(
                f"rollout of problem {r.problem_id!r}, sample {r.sample} belongs to {r.place}, not to {place}"
            )
        if (r.problem_id, r.sample) in seen:
            raise ValueError(f"problem {r.problem_id!r} has sample {r.sample} twice in step {place.step}")
        seen.add((r.problem_id, r.sample))


def _check_name(path: Path, about: pq.FileMetaData) -> None:
    """Raises ValueError where a segment is of another step than its name says."""
    place = _matches(path.name, None, None)
    if place is None:
        return
    expected = {"branch": place.branch, "iteration": place.iteration, "step": place.step}
    for group in range(about.num_row_groups):
        for number in range(about.row_group(group).num_columns):
            column = about.row_group(group).column(number)
            if column.path_in_schema not in expected or not column.is_stats_set or not column.statistics.has_min_max:
                continue
            found = {column.statistics.min, column.statistics.max}
            if found != {expected[column.path_in_schema]}:
                raise ValueError(
                    f"its rollouts are of {column.path_in_schema} {', '.join(sorted(map(str, found)))}, its name says "
                    f"{expected[column.path_in_schema]}"
                )


def _digest(footer: bytes | memoryview) -> bytes:
    return hashlib.blake2b(footer, digest_size=_DIGEST_SIZE).digest()


def _footer_intact(path: Path, size: int) -> bool:
    """Whether a file's footer, `size` bytes before its last eight, has the digest that lies before it."""
    with path.open("rb") as file:
        file.seek(-(size + 8 + _DIGEST_SIZE + len(_DIGEST_MAGIC)), os.SEEK_END)
        return file.read(len(_DIGEST_MAGIC)) == _DIGEST_MAGIC and file.read(_DIGEST_SIZE) == _digest(file.read())
