"""A run folder as a database: DuckDB over its rollouts, metrics and evaluations, for reading only.

- rollouts: every stored rollout (columns: `reasonloop.store.schema.COLUMNS`, and response_hash, 32 hex digits)
- metrics: RUN/metrics.jsonl, a row per line; a column per key
- evals: RUN/evals/*.json, a row per evaluation; `metrics` is JSON: metrics->>'avg@32'
- eval_problems: a row per evaluation and problem: problem_id, n samples, how many were correct
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasonloop.errors import InputError
from reasonloop.store.schema import COLUMNS
from reasonloop.store.segments import TrajectoryStore, open_segment

if TYPE_CHECKING:
    import duckdb

# Columns that are there even if no line of the file has the key, so that a query works on a run that has just begun.
_METRICS = {"stage": "VARCHAR", "branch": "VARCHAR", "iteration": "BIGINT", "step": "BIGINT", "rollouts": "BIGINT"}
_METRICS |= {"reward": "DOUBLE"}
_EVALS = {"file": "VARCHAR", "name": "VARCHAR", "stage": "VARCHAR", "branch": "VARCHAR", "iteration": "BIGINT"}
_EVALS |= {"rollouts": "BIGINT", "samples": "BIGINT", "split": "VARCHAR", "task": "VARCHAR", "metrics": "JSON"}
_EVAL_PROBLEMS = {name: kind for name, kind in _EVALS.items() if name not in ("samples", "metrics")}
_EVAL_PROBLEMS |= {"problem_id": "VARCHAR", "n": "BIGINT", "correct": "BIGINT"}


def connect(run_folder: Path) -> duckdb.DuckDBPyConnection:
    """A locked in-memory database with the four relations of this module, as the run folder is at this moment.

    Nothing outside of the run's segments can be read, no setting changed, no extension loaded. Raises InputError if the
    folder is no run or a file in it can't be understood; RunError if a segment's footer is damaged. (DuckDB doesn't
    check the pages' CRCs: `TrajectoryStore.read` and `select_experts` do.)
    """
    import duckdb

    folder = Path(run_folder).resolve()
    _check_run(folder)
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "temp_directory": os.path.join(tempfile.gettempdir(), f"reasonloop-duckdb-{os.getpid()}"),
    }
    database = duckdb.connect(":memory:", config=config)
    try:
        _make_table(database, "metrics", _metrics(folder / "metrics.jsonl"), _METRICS)
        evals, problems = _evals(folder / "evals")
        _make_table(database, "evals", evals, _EVALS)
        _make_table(database, "eval_problems", problems, _EVAL_PROBLEMS)
        _make_rollouts(database, folder / "trajectories")
        database.execute("SET python_enable_replacements = false")
        database.execute("SET enable_external_access = false")
        database.execute("SET lock_configuration = true")
    except BaseException:
        database.close()
        raise
    return database


def query(run_folder: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of one SELECT (or WITH, FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW TABLES) on the run.

    Raises InputError, in one line, if the SQL is wrong or would do anything but read.
    """
    import duckdb

    with connect(run_folder) as database:
        try:
            statements = database.extract_statements(sql)
            # COPY ... TO could overwrite a segment, which is a file that this connection may open.
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                kinds = ", ".join(statement.type.name for statement in statements) or "nothing"
                raise InputError(f"query: expected one statement that reads (SELECT ...), got {kinds}")
            database.execute(statements[0])
            return [column[0] for column in database.description or []], database.fetchall()
        except duckdb.Error as error:
            _look_for_damage(Path(run_folder), error)
            if "pytz" in str(error):
                raise InputError("query: a time with a time zone can't be shown; cast it: now()::TIMESTAMP") from error
            raise InputError(f"query: {_one_line(error)}") from error


def _check_run(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the folder of a run")
    if not any((folder / name).exists() for name in ("config.toml", "state.json", "metrics.jsonl", "trajectories")):
        raise InputError(f"{folder}: not the folder of a run (it holds neither config.toml nor trajectories/)")


def _make_rollouts(database: duckdb.DuckDBPyConnection, folder: Path) -> None:
    paths = [str(segment.path) for segment in TrajectoryStore(folder, "").segments()]
    for path in paths:
        with open_segment(Path(path)):
            pass
    if paths:
        # DuckDB checks a path's permission as it is written in the query and again as it is on the disk.
        patterns = [_glob_escaped(path) for path in paths]
        database.execute(f"SET allowed_paths = {_sql_list([*paths, *patterns])}")
        source = f"read_parquet({_sql_list(patterns)})"
    else:
        source = "(SELECT " + ", ".join(f"NULL::{kind} AS {name}" for name, kind in COLUMNS.items()) + " LIMIT 0)"
    database.execute(
        "CREATE VIEW rollouts AS "
        "SELECT *, format('{:016x}{:016x}', response_hash_hi, response_hash_lo) AS response_hash "
        f"FROM {source}"
    )


def _metrics(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    last = max((number for number, line in enumerate(lines, 1) if line.strip()), default=0)
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"got {type(row).__name__}")
            rows.append(row)
        except ValueError as error:
            # The last line is torn while it is being written, or where a run was killed.
            if number < last:
                raise InputError(f"{path}, line {number}: expected a JSON object ({error})") from error
    return rows


def _evals(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    evals: list[dict[str, Any]] = []
    problems: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.json")):
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(row, dict):
                raise ValueError(f"got {type(row).__name__}")
            listed = row.pop("problems", None) or []
            if not isinstance(listed, list) or not all(isinstance(problem, dict) for problem in listed):
                raise ValueError("problems isn't a list of objects")
        except ValueError as error:
            raise InputError(f"{path}: expected an evaluation, one JSON object ({error})") from error
        row["file"] = path.name
        evals.append(row)
        shared = {name: row.get(name) for name in _EVAL_PROBLEMS if name in row}
        problems += [
            shared | {"problem_id" if key == "id" else key: value for key, value in problem.items()}
            for problem in listed
        ]
    return evals, problems


def _make_table(
    database: duckdb.DuckDBPyConnection, name: str, rows: Iterable[Mapping[str, Any]], base: Mapping[str, str]
) -> None:
    """A table with a column per key that occurs, in order of first occurrence, after the base columns."""
    import pyarrow as pa

    rows = list(rows)
    keys = list(dict.fromkeys([*base, *(key for row in rows for key in row)]))
    arrow = {"BIGINT": pa.int64(), "DOUBLE": pa.float64(), "BOOLEAN": pa.bool_()}
    fields: dict[str, tuple[str, pa.Array]] = {}
    for key in keys:
        values = [row.get(key) for row in rows]
        kind = _kind(values, base.get(key))
        if kind == "JSON":
            values = [None if value is None else json.dumps(_finite(value)) for value in values]
        column = key
        while column.lower() in (used.lower() for used in fields):
            column += "_"  # DuckDB's names are case-insensitive, JSON's aren't
        fields[column] = kind, pa.array(values, arrow.get(kind, pa.string()))
    table = pa.table({column: values for column, (_, values) in fields.items()})
    casts = ", ".join(f"{_quoted(column)}::{kind} AS {_quoted(column)}" for column, (kind, _) in fields.items())
    database.register("_rows", table)
    database.execute(f"CREATE TABLE {name} AS SELECT {casts} FROM _rows")
    database.unregister("_rows")


def _kind(values: Iterable[Any], base: str | None) -> str:
    """The narrowest of BOOLEAN, BIGINT, DOUBLE, VARCHAR that holds all values; JSON where none does."""
    kinds = {base} if base else set()
    for value in values:
        if isinstance(value, bool):
            kinds.add("BOOLEAN")
        elif isinstance(value, int):
            kinds.add("BIGINT" if -(2**63) <= value < 2**63 else "JSON")
        elif isinstance(value, float):
            kinds.add("DOUBLE")
        elif value is not None:
            kinds.add("VARCHAR" if isinstance(value, str) else "JSON")
    if kinds == {"BIGINT", "DOUBLE"}:
        return "DOUBLE"
    return kinds.pop() if len(kinds) == 1 else "JSON" if kinds else "VARCHAR"


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return value


def _look_for_damage(folder: Path, error: duckdb.Error) -> None:
    """A damaged segment fails deep inside of DuckDB, in many words: the store's own reader says which one it is."""
    import duckdb

    kinds = (duckdb.Error, duckdb.IOException, duckdb.SerializationException, duckdb.InternalException)
    if type(error) in kinds or (isinstance(error, duckdb.InvalidInputException) and "arquet" in str(error)):
        for _ in TrajectoryStore(folder / "trajectories", "").iterate():
            pass


def _one_line(error: Exception) -> str:
    text = str(error).split("\n\nLINE ")[0]
    return " ".join(text.split())


def _glob_escaped(path: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in path)


def _sql_list(values: Iterable[str]) -> str:
    return "[" + ", ".join("'" + value.replace("'", "''") + "'" for value in values) + "]"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
