"""A run folder as a database: DuckDB over its rollouts, metrics and evaluations, for reading only.

- rollouts: every stored rollout (columns: `reasonloop.store.schema.SCHEMA`, and response_hash, 32 hex digits)
- metrics: RUN/metrics.jsonl, a row per line; a column per key
- evals: RUN/evals/*.json, a row per evaluation; `metrics` is JSON: metrics->>'avg@32'
- eval_problems: a row per evaluation and problem: problem_id, n samples, how many were correct
- eval_rollouts: every response of the evaluations (`store.texts.TEXTS`, and reward: its score, else 1 for right and 0
  otherwise), each with its evaluation's name, place and split
- problems: what the run was given (`store.texts.PROBLEMS`): JOIN problems USING (problem_id)
- sources: where imported rollouts come from (`store.sources.SOURCES`): JOIN sources USING (branch, iteration, step,
  problem_id, sample)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads
from pyarrow.fs import LocalFileSystem

from reasonloop.errors import InputError, first_line
from reasonloop.files import lines_of, read_object
from reasonloop.store.schema import SCHEMA, SCHEMAS, missing
from reasonloop.store.segments import find_damage, list_segments, open_segment, stored_segments, version_of
from reasonloop.store.show import finite
from reasonloop.store.sources import SOURCES, list_sources
from reasonloop.store.texts import PROBLEMS, TEXTS, problems_file, read_checked
from reasonloop.written.known import check

# Columns that are there even if no line of the file has the key, so that a query works on a run that has just begun.
_TEXT, _WHOLE, _REAL, _JSON = pa.string(), pa.int64(), pa.float64(), pa.json_()
_METRICS = {"stage": _TEXT, "branch": _TEXT, "iteration": _WHOLE, "step": _WHOLE, "rollouts": _WHOLE, "reward": _REAL}
_EVALS = {"file": _TEXT, "name": _TEXT, "stage": _TEXT, "branch": _TEXT, "iteration": _WHOLE, "rollouts": _WHOLE}
_EVALS |= {"samples": _WHOLE, "split": _TEXT, "task": _TEXT, "metrics": _JSON}
_EVAL_PROBLEMS = {name: kind for name, kind in _EVALS.items() if name not in ("samples", "metrics")}
_EVAL_PROBLEMS |= {"problem_id": _TEXT, "n": _WHOLE, "correct": _WHOLE}
_EVAL_ROLLOUTS = {name: kind for name, kind in _EVAL_PROBLEMS.items() if name not in ("problem_id", "n", "correct")}
_REWARD = "coalesce(score, (verdict = 'right')::INT::DOUBLE) AS reward"
_SQL_KINDS = {_TEXT: "VARCHAR", _WHOLE: "BIGINT"}
_KINDS = {bool: pa.bool_(), int: _WHOLE, float: _REAL, str: _TEXT}
# Arrow opens the files, for reading, and checks their pages' CRCs: DuckDB gets columns, and knows no path.
_PARQUET = pads.ParquetFileFormat(
    default_fragment_scan_options=pads.ParquetFragmentScanOptions(page_checksum_verification=True)
)
_LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_persistent_secrets": False,
    "python_enable_replacements": False,
    "temp_directory": "",  # it would be a place that SQL may write to
}


def connect(run_folder: Path) -> duckdb.DuckDBPyConnection:
    """A locked in-memory database with the relations of this module, as the run folder is at this moment.

    DuckDB can open no file, neither to read nor to write, change no setting and load no extension; the run's Parquet files
    are read for it as a query asks for their columns. Raises InputError if the folder is no run or a file in it can't be
    understood; RunError if a file isn't as the run has written it, or a segment's footer is damaged.
    """
    folder = Path(run_folder).resolve()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the folder of a run")
    if not any((folder / name).exists() for name in ("config.toml", "state.json", "metrics.jsonl", "trajectories")):
        raise InputError(f"{folder}: not the folder of a run (it holds neither config.toml nor trajectories/)")
    check(problems_file(folder))
    check(folder / "sources")
    database = duckdb.connect(config=_LOCKED)
    try:
        evals, problems = _evals(folder / "evals")
        _make_table(database, "metrics", _table(_metrics(folder / "metrics.jsonl"), _METRICS))
        _make_table(database, "evals", _table(evals, _EVALS))
        _make_table(database, "eval_problems", _table(problems, _EVAL_PROBLEMS))
        _make_views(database, folder, evals)
        database.execute("SET enable_external_access = false; SET disabled_filesystems = 'LocalFileSystem'")
        database.execute("SET lock_configuration = true")
    except BaseException:
        database.close()
        raise
    return database


def query(run_folder: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of one SELECT (or WITH, FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW TABLES) on the run.

    Raises InputError, in one line, if the SQL is wrong or would do anything but read.
    """
    with connect(run_folder) as database:
        return answer(database, Path(run_folder), sql)


def answer(database: duckdb.DuckDBPyConnection, run_folder: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """`query` on a connection to the run that is there already."""
    try:
        statements = database.extract_statements(sql)
        kinds = [_kind_of(statement) for statement in statements]
        if kinds != ["SELECT"]:
            got = ", ".join(kinds) or "nothing"
            raise InputError(f"query: expected one statement that reads (SELECT ...), got {got}")
        database.execute("BEGIN TRANSACTION READ ONLY")  # a SELECT may hold INSERT, UPDATE and DELETE
        try:
            database.execute(statements[0])
            return [column[0] for column in database.description or []], database.fetchall()
        finally:
            database.rollback()
    except (OverflowError, ValueError) as error:  # of a value that Python has no kind for
        raise InputError(f"query: a value can't be shown ({first_line(error)}); cast it: (...)::VARCHAR") from error
    except duckdb.Error as error:
        look_for_damage(run_folder, error)
        if "pytz" in str(error):
            raise InputError("query: a time with a time zone can't be shown; cast it: now()::TIMESTAMP") from error
        words = str(error).split("\n\nLINE ")[0].split()
        raise InputError(f"query: {' '.join(words)}") from error


def _kind_of(statement: duckdb.Statement) -> str:
    try:
        return str(statement.type.name)
    except ValueError:  # one that DuckDB's Python has no name for
        return "another kind"


def _make_views(database: duckdb.DuckDBPyConnection, folder: Path, evals: Sequence[Mapping[str, Any]]) -> None:
    """The relations that are read from Parquet files as they are asked for."""
    segments: dict[int, list[Path]] = {}
    for path in stored_segments(folder / "trajectories").values():
        with open_segment(path) as file:
            segments.setdefault(version_of(file), []).append(path)
    texts = {path: row for row in evals if (path := folder / "evals" / f"{Path(row['file']).stem}.parquet").is_file()}
    problems = [problems_file(folder)] if problems_file(folder).is_file() else []
    sources = list_sources(folder)
    for path in (*texts, *problems, *sources):
        read_checked(path)
    _make_rollouts(database, segments)
    _make_eval_rollouts(database, texts)
    for name, own, schema in (("problems", problems, PROBLEMS), ("sources", sources, SOURCES)):
        if own:
            _parquet(database, own, schema).create_view(name)
        else:
            _make_table(database, name, schema.empty_table())


def _make_rollouts(database: duckdb.DuckDBPyConnection, segments: Mapping[int, Sequence[Path]]) -> None:
    """`segments`: by the version of their schema."""
    digits = "format('{:016x}{:016x}', response_hash_hi, response_hash_lo) AS response_hash"
    if not segments:
        _make_table(database, "rollouts", SCHEMA.empty_table(), f"*, {digits}")
        return
    parts = []
    for version, own in sorted(segments.items()):
        values = missing(version)
        columns = [f"{values[name]} AS {name}" if name in values else name for name in SCHEMA.names]
        parts.append(_parquet(database, own, SCHEMAS[version]).project(", ".join([*columns, digits])))
    _union(parts).create_view("rollouts")


def _make_eval_rollouts(database: duckdb.DuckDBPyConnection, texts: Mapping[Path, Mapping[str, Any]]) -> None:
    about = pa.table({name: pa.array([], kind) for name, kind in _EVAL_ROLLOUTS.items()})
    if not texts:
        empty = pa.table([*about.columns, *TEXTS.empty_table().columns], names=[*about.column_names, *TEXTS.names])
        _make_table(database, "eval_rollouts", empty, f"*, {_REWARD}")
        return
    parts = []
    for path, row in texts.items():
        values = (f"{_sql(row.get(name))}::{_SQL_KINDS[kind]} AS {name}" for name, kind in _EVAL_ROLLOUTS.items())
        parts.append(_parquet(database, [path], TEXTS).project(", ".join([*values, *TEXTS.names, _REWARD])))
    _union(parts).create_view("eval_rollouts")


def _parquet(database: duckdb.DuckDBPyConnection, paths: Sequence[Path], schema: pa.Schema) -> duckdb.DuckDBPyRelation:
    files = pads.dataset([str(path) for path in paths], schema, _PARQUET, filesystem=LocalFileSystem())
    return database.from_arrow(files)


def _union(parts: Sequence[duckdb.DuckDBPyRelation]) -> duckdb.DuckDBPyRelation:
    return reduce(duckdb.DuckDBPyRelation.union, parts)


def _sql(value: object) -> str:
    return "NULL" if value is None else "'" + str(value).replace("'", "''") + "'"


def _metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl. The last one may be torn: while it is being written, or where a run was killed."""
    rows = lines_of(path)  # says which line is damaged
    check(path)
    return rows


def _evals(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    evals, problems = [], []
    check(folder)
    for path in sorted(folder.glob("*.json")):
        row = read_object(path)
        listed = row.pop("problems", None) or []
        if not isinstance(listed, list) or not all(isinstance(problem, dict) for problem in listed):
            raise InputError(f"{path}: expected an evaluation, whose problems are a list of objects")
        row["file"] = path.name
        evals.append(row)
        shared = {name: value for name, value in row.items() if name in _EVAL_PROBLEMS}
        problems += [
            shared | {"problem_id" if key == "id" else key: value for key, value in problem.items()}
            for problem in listed
        ]
    return evals, problems


def _table(rows: Sequence[Mapping[str, Any]], base: Mapping[str, pa.DataType]) -> pa.Table:
    """A column per key that occurs, in order of first occurrence, after the base columns."""
    columns: dict[str, pa.Array] = {}
    for key in dict.fromkeys([*base, *(key for row in rows for key in row)]):
        values = [row.get(key) for row in rows]
        kind = _kind(values, base.get(key))
        if kind == _JSON:
            values = [None if value is None else json.dumps(finite(value)) for value in values]
        while key.lower() in map(str.lower, columns):
            key += "_"  # DuckDB's names are case-insensitive, JSON's aren't
        columns[key] = pa.array(values, kind)
    return pa.table(columns)


def _kind(values: Sequence[Any], base: pa.DataType | None) -> pa.DataType:
    """The narrowest type that holds all values: of _KINDS, or JSON."""
    kinds = {_KINDS.get(type(value), _JSON) for value in values if value is not None}
    if base is not None:
        kinds.add(base)
    if kinds == {_WHOLE, _REAL}:
        return _REAL
    if len(kinds) > 1 or any(type(value) is int and not -(2**63) <= value < 2**63 for value in values):
        return _JSON
    return kinds.pop() if kinds else _TEXT


def _make_table(database: duckdb.DuckDBPyConnection, name: str, rows: pa.Table, select: str = "*") -> None:
    database.register("_rows", rows)
    database.execute(f"CREATE TABLE {name} AS SELECT {select} FROM _rows")
    database.unregister("_rows")


def look_for_damage(folder: Path, error: duckdb.Error) -> None:
    """A damaged file fails deep inside of Arrow or DuckDB: the store's own reader says which one it is. Raises RunError."""
    kinds = (duckdb.Error, duckdb.IOException, duckdb.SerializationException, duckdb.InternalException)
    if type(error) in kinds or (isinstance(error, duckdb.InvalidInputException) and "arrow" in str(error).lower()):
        find_damage(list_segments(folder / "trajectories").values())
        for path in (*sorted((folder / "evals").glob("*.parquet")), problems_file(folder), *list_sources(folder)):
            if path.is_file():
                read_checked(path, whole=True)
