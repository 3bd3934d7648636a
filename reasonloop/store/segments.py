"""The trajectory store: every rollout of a run, one Parquet file (a *segment*) per RL step.

Segments are written whole or not at all: to a temporary file beside their place, fsync, rename, fsync of the folder.
A resumed run that samples a step again replaces the segment of that step with the same bytes. What is read is checked:
every page by its CRC, and the footer (which Parquet leaves unprotected) by a digest that lies before it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reasonloop.errors import RunError
from reasonloop.files import fsync_folder, write_atomically
from reasonloop.records import Rollout
from reasonloop.store.schema import SCHEMA_VERSION, arrow_schema, from_table, to_table

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_NAME = re.compile(r"(?P<branch>[A-Za-z0-9][A-Za-z0-9_.-]*)-i(?P<iteration>\d{3,})-s(?P<step>\d{5,})\.parquet")
_VERSION_KEY = b"reasonloop.schema"
_DIGEST_MAGIC = b"RLFT"
_DIGEST_SIZE = 16
# Tokens in a row group: with ids and log-probs 32 MB, so that one expert of a long-response run costs no more to read.
_ROW_GROUP_TOKENS = 4_000_000


@dataclass(frozen=True, order=True, slots=True)
class Segment:
    """One RL step's file; sorts by branch, iteration, step."""

    branch: str
    iteration: int
    step: int
    path: Path = field(compare=False)

    @property
    def rows(self) -> int:
        """Rollouts in it, from the footer alone."""
        with open_segment(self.path) as file:
            return int(file.metadata.num_rows)


class TrajectoryStore:
    """The segments of one run, in one folder (RUN/trajectories).

    Several branches may write to the same folder at the same time, each through its own store object; one branch has
    one writer. Files that aren't segments by their name are left alone and not read.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.folder = Path(folder)
        self.run = run
        self._cleaned: set[str] = set()

    def write(self, rollouts: Sequence[Rollout], *, branch: str, iteration: int, step: int) -> Path:
        """Stores one step's rollouts, row order as given; replaces the segment if there is one. Returns its path.

        Equal input gives equal bytes. Raises ValueError if a rollout belongs to another step, is there twice, or breaks
        `Rollout`'s contract; RunError if the disk refuses (the old segment, if any, is then still whole).
        """
        name = f"{branch}-i{iteration:03d}-s{step:05d}.parquet"
        if not _NAME.fullmatch(name):
            raise ValueError(f"no segment name can be made of branch {branch!r}, iteration {iteration}, step {step}")
        _check_addresses(rollouts, (branch, iteration, step))
        data = encode(to_table(rollouts, self.run))
        path = self.folder / name
        try:
            self._open_for_writing(branch)
            write_atomically(path, data)
        except OSError as error:
            raise RunError(
                f"{path}: the segment could not be written ({error.strerror or error}); "
                "free space or fix the folder's permissions, then run the same command again"
            ) from error
        return path

    def take_back(self, branch: str, iteration: int, from_step: int) -> None:
        """Removes the segments of steps that a resumed exploration will make again: where it isn't repeated to the bit (a
        GPU, a judge, a verifier's deadline) it may have fewer, and what lies behind them must not count."""
        for segment in self.segments(branch, iteration):
            if segment.step >= from_step:
                segment.path.unlink(missing_ok=True)

    def segments(
        self, branch: str | None = None, iteration: int | None = None, steps: Collection[int] | None = None
    ) -> list[Segment]:
        """The segments that match, sorted by branch, iteration, step. None matches all. No file is opened."""
        return list_segments(self.folder, branch, iteration, steps)

    def count(self, branch: str | None = None, iteration: int | None = None) -> int:
        """Number of stored rollouts, from the segments' footers."""
        return sum(segment.rows for segment in self.segments(branch, iteration))

    def read(
        self, branch: str | None = None, iteration: int | None = None, steps: Collection[int] | None = None
    ) -> list[Rollout]:
        """The rollouts exactly as they were written, sorted by branch, iteration and step, then in row order.

        Raises RunError, naming the file, if a segment is damaged or was written by another version.
        """
        return list(self.iterate(branch, iteration, steps))

    def iterate(
        self, branch: str | None = None, iteration: int | None = None, steps: Collection[int] | None = None
    ) -> Iterator[Rollout]:
        """Like `read`, holding one segment at a time."""
        for segment in self.segments(branch, iteration, steps):
            with open_segment(segment.path) as file, _damage(segment.path):
                rollouts = from_table(file.read())
            yield from rollouts

    def _open_for_writing(self, branch: str) -> None:
        """Makes the folder, and removes the temporary files of a writer of this branch that was killed."""
        if branch in self._cleaned:
            return
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            fsync_folder(self.folder.parent)
        for path in self.folder.glob(".*.partial"):
            match = _NAME.fullmatch(path.name.removeprefix(".").removesuffix(".partial"))
            if match and match["branch"] == branch:
                path.unlink(missing_ok=True)
        self._cleaned.add(branch)


def list_segments(
    folder: Path, branch: str | None = None, iteration: int | None = None, steps: Collection[int] | None = None
) -> list[Segment]:
    """The folder's segments that match, sorted by branch, iteration, step; none if there is no such folder."""
    if not folder.is_dir():
        return []
    wanted = None if steps is None else set(steps)
    found = []
    for entry in os.scandir(folder):
        match = _NAME.fullmatch(entry.name)
        if match is None:
            continue
        segment = Segment(match["branch"], int(match["iteration"]), int(match["step"]), folder / entry.name)
        if (
            branch in (None, segment.branch)
            and iteration in (None, segment.iteration)
            and (wanted is None or segment.step in wanted)
        ):
            found.append(segment)
    return sorted(found)


def encode(table: pa.Table) -> memoryview:
    """A segment's bytes: Parquet, zstd, a CRC per page, the schema version, and a digest of the footer before it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tokens = int(np.asarray(table.column("n_tokens")).sum()) if table.num_rows else 0
    rows = max(1, _ROW_GROUP_TOKENS * table.num_rows // max(tokens, 1))
    sink = pa.BufferOutputStream()
    # No pandas metadata and no time of writing goes into the file: equal rollouts are equal bytes.
    pq.write_table(
        table.replace_schema_metadata({_VERSION_KEY: str(SCHEMA_VERSION).encode()}),
        sink,
        row_group_size=rows,
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


@contextmanager
def open_segment(path: Path) -> Iterator[pq.ParquetFile]:
    """An open segment whose footer is sound and of this schema; reading from it checks every page's CRC.

    Raises RunError, naming the file and what to do, if it is damaged or was written by another version.
    """
    import pyarrow.parquet as pq

    with _damage(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
    with file:
        metadata = file.metadata.metadata or {}
        version = metadata.get(_VERSION_KEY, b"none").decode(errors="replace")
        intact = _footer_intact(path)
        if intact and version != str(SCHEMA_VERSION):
            raise RunError(
                f"{path}: segment has schema version {version}, this version of reasonloop reads {SCHEMA_VERSION}; "
                "use the version that wrote it (RUN/config.toml names it)"
            )
        with _damage(path):
            if not intact:
                raise ValueError("the footer doesn't match its digest")
            if not file.schema_arrow.equals(arrow_schema()):
                raise ValueError("the columns aren't those of a segment")
        yield file


def read_rows(path: Path, rows: Sequence[int] | np.ndarray) -> list[Rollout]:
    """The rollouts at these row numbers of one segment, in the order asked for; reads only their row groups."""
    import pyarrow as pa

    wanted = np.asarray(rows, dtype=np.int64)
    with open_segment(path) as file, _damage(path):
        counts = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        groups = np.searchsorted(starts, wanted, side="right") - 1
        order = np.argsort(groups, kind="stable")
        parts = [file.read_row_group(int(g)).take(pa.array(wanted[groups == g] - starts[g])) for g in np.unique(groups)]
        found = [rollout for part in parts for rollout in from_table(part)]
    result: list[Rollout | None] = [None] * len(wanted)
    for place, rollout in zip(order, found, strict=True):
        result[place] = rollout
    return [rollout for rollout in result if rollout is not None]


def scan(
    segments: Iterable[Segment], columns: Sequence[str], *, right_only: bool, failures: list[RunError]
) -> pa.RecordBatchReader:
    """Streams narrow columns of many segments, with `step` (from the file's name) and `row` (the row's number in it).

    `right_only` leaves out rows whose verdict isn't "right" ("verdict" must be among the columns). One row group is
    held at a time, checked by its pages' CRCs: DuckDB, that skips them, is therefore not left to read the files itself.
    A RunError is put into `failures` as well, because it may not survive the way through another library's stream.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = [name for name in columns if arrow_schema().field(name).type == pa.string()]

    def encoded(name: str) -> pa.DataType:
        kind = arrow_schema().field(name).type
        return pa.dictionary(pa.int32(), kind) if name in texts else kind

    schema = pa.schema([*((name, encoded(name)) for name in columns), ("step", pa.int32()), ("row", pa.int64())])

    def tables(segment: Segment) -> Iterator[pa.Table]:
        start = 0
        with open_segment(segment.path) as file, _damage(segment.path):
            for group in range(file.metadata.num_row_groups):
                table = file.read_row_group(group, columns=list(columns))
                row = np.arange(start, start + table.num_rows)
                start += table.num_rows
                arrays = [
                    pc.dictionary_encode(table.column(name)) if name in texts else table.column(name)
                    for name in columns
                ]
                yield pa.Table.from_arrays([*arrays, np.full(len(row), segment.step, np.int32), row], schema=schema)

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for segment in segments:
                for table in tables(segment):
                    chosen = table.filter(pc.equal(table.column("verdict"), "right")) if right_only else table
                    yield from chosen.to_batches()
        except RunError as error:
            failures.append(error)
            raise

    return pa.RecordBatchReader.from_batches(schema, batches())


def _check_addresses(rollouts: Sequence[Rollout], step: tuple[str, int, int]) -> None:
    seen = set()
    for r in rollouts:
        if (r.branch, r.iteration, r.step) != step:
            raise ValueError(
                f"rollout of problem {r.problem_id!r}, sample {r.sample} belongs to branch {r.branch!r}, iteration "
                f"{r.iteration}, step {r.step}, and was to be written to {step[0]!r}, {step[1]}, {step[2]}"
            )
        if (r.problem_id, r.sample) in seen:
            raise ValueError(f"problem {r.problem_id!r} has sample {r.sample} twice in step {r.step}")
        seen.add((r.problem_id, r.sample))


def _digest(footer: bytes | memoryview) -> bytes:
    return hashlib.blake2b(footer, digest_size=_DIGEST_SIZE).digest()


def _footer_intact(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        length = int.from_bytes(file.read(4), "little") + 8
        file.seek(max(0, size - length - _DIGEST_SIZE - len(_DIGEST_MAGIC)))
        if file.read(len(_DIGEST_MAGIC)) != _DIGEST_MAGIC:
            return False
        return file.read(_DIGEST_SIZE) == _digest(file.read())


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Whatever a reader may say of bytes that aren't a sound segment, as one clear error."""
    import pyarrow as pa

    try:
        yield
    except PermissionError as error:
        raise RunError(f"{path}: the segment can't be opened ({error.strerror}); fix its permissions") from error
    except (pa.ArrowException, OSError, ValueError, KeyError, EOFError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"{path}: segment is missing, truncated or damaged ({reason}); restore it from a copy, or delete it: "
            "the run goes on without this step's rollouts"
        ) from error
