"""The texts that a run keeps beside its rollouts: the problems it was given, and the responses of its evaluations.

Parquet files, each written whole or not at all; equal rows are equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reasonloop.errors import RunError
from reasonloop.files import write_atomically
from reasonloop.records import Problem
from reasonloop.tasks import row_name
from reasonloop.written.known import check

_ROW_GROUP = 20_000
Write = Callable[[Path, memoryview], None]
"""How a file is put in its place: `write_atomically`, or what also keeps its digest"""

TEXTS = pa.schema(
    [
        ("problem_id", pa.string()),
        ("sample", pa.int32()),
        ("verdict", pa.string()),
        ("score", pa.float64()),
        ("detail", pa.string()),
        ("finish", pa.string()),
        ("n_tokens", pa.int32()),
        ("text", pa.string()),
    ]
)
"""The responses of one evaluation. `detail`: what the verifier read, or why it couldn't"""

PROBLEMS = pa.schema(
    [(name, pa.string()) for name in ("problem_id", "split", "prompt", "answer", "source")],
)
"""The problems of a run. `prompt`: its text; of messages the lines `role: content`. `source`: the file and its line"""


def problems_file(run: Path) -> Path:
    """Where a run keeps its problems."""
    return run / "problems.parquet"


def write_problems(run: Path, problems: Iterable[Problem], write: Write = write_atomically) -> None:
    """Writes the problems of a run, order as given. Raises OSError where the disk refuses."""
    rows = [
        {
            "problem_id": problem.id,
            "split": problem.split,
            "prompt": problem.text,
            "answer": problem.answer,
            "source": row_name(problem) if "file" in problem.meta else None,
        }
        for problem in problems
    ]
    write(problems_file(run), _encoded(rows, PROBLEMS))


def read_problems(run: Path) -> list[dict[str, Any]]:
    """The rows of `PROBLEMS` that a run keeps; none where it has no such file. Raises RunError where it is damaged."""
    path = problems_file(run)
    check(path)
    if not path.is_file():
        return []
    read_checked(path)
    rows: list[dict[str, Any]] = pq.read_table(path, page_checksum_verification=True).to_pylist()
    return rows


def write_texts(path: Path, rows: Sequence[Mapping[str, Any]], write: Write = write_atomically) -> None:
    """Writes an evaluation's responses, rows of `TEXTS`, order as given. Raises OSError where the disk refuses."""
    # half of a surrogate pair (from a JSON "\\ud800") has no UTF-8 form: it becomes '?', rather than stopping the run
    texts = ("problem_id", "detail", "text")
    clean = [{**row, **{key: row[key].encode(errors="replace").decode() for key in texts}} for row in rows]
    write(path, _encoded(clean, TEXTS))


def read_checked(path: Path, whole: bool = False) -> pa.Schema:
    """The schema of such a file. Raises RunError, naming it, where it is damaged: its footer, or with `whole` any page."""
    check(path)
    try:
        return pq.read_table(path, page_checksum_verification=True).schema if whole else pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{path}: damaged ({str(error).splitlines()[0]}); restore it, or delete it") from error


def _encoded(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> memoryview:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist([dict(row) for row in rows], schema)
    pq.write_table(table, sink, row_group_size=_ROW_GROUP, compression="zstd", write_page_checksum=True)
    return memoryview(sink.getvalue())
