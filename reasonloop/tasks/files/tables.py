"""Rows of Parquet and Arrow files, read in batches with pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from reasonloop.errors import InputError, first_line
from reasonloop.tasks.files.raw import RawRow

BATCH = 1_000
"""Rows"""


def parquet_rows(path: Path) -> Iterator[RawRow]:
    def batches() -> Iterator[Any]:
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(path) as file:
            yield from file.iter_batches(BATCH)

    return _rows(path, "Parquet", batches)


def arrow_rows(path: Path) -> Iterator[RawRow]:
    """Of an Arrow stream (what `datasets` writes) or an Arrow file (Feather)."""

    def batches() -> Iterator[Any]:
        import pyarrow as pa

        with pa.memory_map(str(path)) as data:
            if data.read(6) == b"ARROW1":
                file = pa.ipc.open_file(data)
                yield from (file.get_batch(i) for i in range(file.num_record_batches))
            else:
                data.seek(0)
                yield from pa.ipc.open_stream(data)

    return _rows(path, "Arrow", batches)


def _rows(path: Path, name: str, batches: Callable[[], Iterator[Any]]) -> Iterator[RawRow]:
    import pyarrow as pa

    number = 0
    try:
        for batch in batches():
            for start in range(0, len(batch), BATCH):
                for value in batch.slice(start, BATCH).to_pylist():
                    number += 1
                    yield RawRow(str(path), "row", number, value)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as {name} ({first_line(error)}); is it whole?") from None
