"""Where imported rollouts come from: a Parquet file beside each segment of the store, a row for each of its rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from reasonloop.files import make_folder, write_atomically
from reasonloop.records import Rollout
from reasonloop.store.texts import Write

SOURCES = pa.schema(
    [
        ("branch", pa.string()),
        ("iteration", pa.int32()),
        ("step", pa.int32()),
        ("problem_id", pa.string()),
        ("sample", pa.int32()),
        ("trainer", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("said_right", pa.bool_()),
    ]
)
"""The first five are a rollout's address. `line` counts from 1; of a table or an array it is the row. `said_right`: what the
trainer itself said, where its file says it outright"""
ADDRESS = SOURCES.names[:5]


class Source(NamedTuple):
    """Where one rollout comes from."""

    rollout: Rollout
    trainer: str
    file: str
    line: int
    said_right: bool | None


def sources_folder(run: Path) -> Path:
    """Where a run keeps them."""
    return run / "sources"


def write_sources(run: Path, segment: Path, sources: Sequence[Source], write: Write = write_atomically) -> None:
    """Writes those of one segment, under its name. Raises OSError where the disk refuses."""
    rows = [
        (s.rollout.branch, s.rollout.iteration, s.rollout.step, s.rollout.problem_id, s.rollout.sample, *s[1:])
        for s in sources
    ]
    table = pa.table([list(column) for column in zip(*rows, strict=True)], schema=SOURCES)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    folder = sources_folder(run)
    make_folder(folder)
    write(folder / segment.name, memoryview(sink.getvalue()))


def list_sources(run: Path) -> list[Path]:
    return sorted(sources_folder(run).glob("*.parquet"))
