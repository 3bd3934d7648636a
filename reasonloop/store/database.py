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

import glob
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from reasonloop.errors import InputError
from reasonloop.files import lines_of, read_object
from reasonloop.store.schema import SCHEMA, missing
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


def connect(run_folder: Path) -> duckdb.DuckDBPyConnection:
    """A locked in-memory database with the relations of this module, as the run folder is at this moment.

    Nothing outside of the run's Parquet files can be read, no setting changed, no extension loaded. Raises InputError if the
    folder is no run or a file in it can't be understood; RunError if a segment's footer is damaged. (DuckDB doesn't
    check the pages' CRCs: `TrajectoryStore.read` and `select_experts` do.)
    """
    folder = Path(run_folder).resolve()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the folder of a run")
    if not any((folder / name).exists() for name in ("config.toml", "state.json", "metrics.jsonl", "trajectories")):
        raise InputError(f"{folder}: not the folder of a run (it holds neither config.toml nor trajectories/)")
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
        "temp_directory": os.path.join(tempfile.gettempdir(), f"reasonloop-duckdb-{os.getpid()}"),
    }
    database = duckdb.connect(config=config)
    try:
        evals, problems = _evals(folder / "evals")
        _make_table(database, "metrics", _table(_metrics(folder / "metrics.jsonl"), _METRICS))
        _make_table(database, "evals", _table(evals, _EVALS))
        _make_table(database, "eval_problems", _table(problems, _EVAL_PROBLEMS))
        _make_views(database, folder, evals)
        database.execute("SET enable_external_access = false; SET lock_configuration = true")
    except BaseException:
        database.close()
        raise
    return database


def query(run_folder: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of one SELECT (or WITH, FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW TABLES) on the run.

    Raises InputError, in one line, if the SQL is wrong or would do anything but read.
    """
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
            words = str(error).split("\n\nLINE ")[0].split()
            raise InputError(f"query: {' '.join(words)}") from error


def _make_views(database: duckdb.DuckDBPyConnection, folder: Path, evals: Sequence[Mapping[str, Any]]) -> None:
    """The relations that are read from Parquet files as they are asked for."""
    paths: dict[int, list[str]] = {}
    for path in stored_segments(folder / "trajectories").values():
        with open_segment(path) as file:
            paths.setdefault(version_of(file), []).append(str(path))
    texts = {path: row for row in evals if (path := folder / "evals" / f"{Path(row['file']).stem}.parquet").is_file()}
    problems = [problems_file(folder)] if problems_file(folder).is_file() else []
    sources = list_sources(folder)
    every = [path for own in paths.values() for path in own]
    for path in (*texts, *problems, *sources):
        read_checked(path)
        every.append(str(path))
    if every:  # DuckDB checks a path's permission as it is written in the query and again as it is on the disk
        database.execute(f"SET allowed_paths = {_sql_list([*every, *map(glob.escape, every)])}")
    _make_rollouts(database, paths)
    _make_eval_rollouts(database, texts)
    for name, own, schema in (("problems", problems, PROBLEMS), ("sources", sources, SOURCES)):
        if own:
            database.execute(f"CREATE VIEW {name} AS SELECT * FROM {_parquet(own)}")
        else:
            _make_table(database, name, schema.empty_table())


def _make_eval_rollouts(database: duckdb.DuckDBPyConnection, texts: Mapping[Path, Mapping[str, Any]]) -> None:
    about = pa.table({name: pa.array([], kind) for name, kind in _EVAL_ROLLOUTS.items()})
    if not texts:
        empty = pa.table([*about.columns, *TEXTS.empty_table().columns], names=[*about.column_names, *TEXTS.names])
        _make_table(database, "eval_rollouts", empty, f"*, {_REWARD}")
        return
    sources = []
    for path, row in texts.items():
        values = (f"{_sql(row.get(name))}::{_SQL_KINDS[kind]} AS {name}" for name, kind in _EVAL_ROLLOUTS.items())
        sources.append(f"SELECT {', '.join(values)}, {', '.join(TEXTS.names)}, {_REWARD} FROM {_parquet([path])}")
    database.execute(f"CREATE VIEW eval_rollouts AS {' UNION ALL '.join(sources)}")


def _parquet(paths: Iterable[Path | str]) -> str:
    return f"read_parquet({_sql_list(glob.escape(str(path)) for path in paths)})"


def _sql(value: object) -> str:
    return "NULL" if value is None else _quoted(str(value))


def _make_rollouts(database: duckdb.DuckDBPyConnection, paths: Mapping[int, Sequence[str]]) -> None:
    """`paths`: the segments by the version of their schema."""
    digits = "format('{:016x}{:016x}', response_hash_hi, response_hash_lo) AS response_hash"
    if not paths:
        _make_table(database, "rollouts", SCHEMA.empty_table(), f"*, {digits}")
        return
    sources = [
        f"SELECT {', '.join(['*', *(f'{value} AS {name}' for name, value in missing(version).items())])} "
        f"FROM {_parquet(own)}"
        for version, own in sorted(paths.items())
    ]
    database.execute(f"CREATE VIEW rollouts AS SELECT *, {digits} FROM ({' UNION ALL BY NAME '.join(sources)})")


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


def _look_for_damage(folder: Path, error: duckdb.Error) -> None:
    """A damaged segment fails deep inside of DuckDB: the store's own reader says which one it is."""
    kinds = (duckdb.Error, duckdb.IOException, duckdb.SerializationException, duckdb.InternalException)
    if type(error) in kinds or (isinstance(error, duckdb.InvalidInputException) and "arquet" in str(error)):
        find_damage(list_segments(folder / "trajectories").values())


def _sql_list(values: Iterable[str]) -> str:
    return f"[{', '.join(map(_quoted, values))}]"


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
