"""What was stored can't be changed by asking, nor anything else be read: DuckDB has no file that it may open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from rollout_factory import rollout

from reasonloop.errors import InputError, RunError
from reasonloop.records import Place, Verdict
from reasonloop.store.database import answer, connect, query
from reasonloop.store.segments import TrajectoryStore

CANARY = "never-to-be-read"
NOT_READING = """
COPY metrics TO '{out}/copy.csv'
COPY rollouts TO '{out}/copy.parquet' (FORMAT parquet)
COPY (SELECT 1) TO '{segment}' (FORMAT csv, USE_TMP_FILE false)
COPY (SELECT 1) TO '{segment}' (FORMAT parquet, USE_TMP_FILE false)
COPY (SELECT 1 AS a) TO '{out}/parts' (FORMAT csv, PARTITION_BY (a))
COPY metrics FROM '{secret}'
COPY FROM DATABASE memory TO other
EXPORT DATABASE '{out}/export'
IMPORT DATABASE '{out}'
ATTACH '{out}/new.db'
ATTACH '{segment}' AS s
ATTACH ':memory:' AS other
DETACH memory
USE memory
INSTALL httpfs
INSTALL httpfs FROM '{out}'
FORCE INSTALL httpfs
LOAD httpfs
LOAD '{out}/evil.duckdb_extension'
UPDATE EXTENSIONS
SET enable_external_access = true
SET allowed_directories = ['/']
SET allowed_paths = ['{secret}']
SET temp_directory = '{out}'
SET home_directory = '{out}'
SET secret_directory = '{out}'
SET disabled_filesystems = ''
SET VARIABLE a = 1
RESET lock_configuration
RESET disabled_filesystems
PRAGMA enable_profiling
PRAGMA profiling_output = '{out}/profile.json'
PRAGMA enable_logging
PRAGMA database_list
CALL enable_logging(storage := 'file', storage_path := '{out}/log')
CALL enable_profiling(save_location := '{out}/profile.json')
CALL pragma_version()
CHECKPOINT
FORCE CHECKPOINT
VACUUM
ANALYZE
CREATE SECRET s (TYPE http, BEARER_TOKEN 'x')
CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'x')
DROP SECRET s
CREATE TABLE t AS SELECT 1
CREATE TEMP TABLE t AS SELECT 1
CREATE VIEW v AS SELECT 1
CREATE OR REPLACE VIEW rollouts AS SELECT 1
CREATE MACRO m() AS 1
CREATE SCHEMA s
CREATE SEQUENCE s
CREATE TYPE t AS ENUM ('a')
CREATE INDEX i ON metrics (step)
ALTER TABLE metrics ADD COLUMN a INT
ALTER VIEW rollouts RENAME TO r
DROP VIEW rollouts
DROP TABLE metrics
INSERT INTO metrics SELECT * FROM metrics
UPDATE metrics SET step = 0
DELETE FROM metrics
TRUNCATE metrics
MERGE INTO metrics USING evals ON false WHEN NOT MATCHED THEN INSERT DEFAULT VALUES
BEGIN
COMMIT
ROLLBACK
PREPARE p AS SELECT 1
EXECUTE p
DEALLOCATE p
EXPLAIN SELECT 1
EXPLAIN ANALYZE COPY (SELECT 1) TO '{segment}' (FORMAT csv, USE_TMP_FILE false)
SELECT 1; SELECT 2
SELECT 1; COPY metrics TO '{out}/copy.csv'
WITH x AS (COPY (SELECT 1) TO '{segment}' (FORMAT csv, USE_TMP_FILE false)) SELECT * FROM x
WITH x AS (COPY (SELECT 1) TO '{out}/copy.csv') SELECT * FROM x
WITH x AS (COPY (SELECT 1) TO 'copy.csv') SELECT * FROM x
WITH x AS (COPY (SELECT 1) TO '.tmp/copy.csv') SELECT * FROM x
WITH x AS MATERIALIZED (COPY (SELECT 1) TO '{segment}' (FORMAT parquet, USE_TMP_FILE false)) SELECT 1
WITH x AS (DELETE FROM metrics RETURNING *) SELECT * FROM x
WITH x AS (UPDATE metrics SET step = 7 RETURNING *) SELECT * FROM x
WITH x AS (INSERT INTO metrics SELECT * FROM metrics RETURNING *) SELECT * FROM x
WITH x AS (DELETE FROM rollouts RETURNING *) SELECT * FROM x
SELECT * FROM query('COPY metrics TO ''{out}/copy.csv''')
SELECT * FROM query('WITH x AS (COPY (SELECT 1) TO ''{segment}'' (FORMAT csv, USE_TMP_FILE false)) FROM x')
SELECT * FROM query('DELETE FROM metrics')
SELECT * FROM query('FROM read_text(''{secret}'')')
SELECT * FROM read_text('{secret}')
SELECT * FROM read_blob('{secret}')
SELECT * FROM read_csv('{secret}')
SELECT * FROM read_csv_auto('{out}/*.csv')
SELECT * FROM read_json('{secret}')
SELECT * FROM read_ndjson_objects('{secret}')
SELECT * FROM read_parquet('{segment}')
SELECT * FROM read_parquet('{out}/*.parquet')
SELECT * FROM read_parquet('https://127.0.0.1:9/a.parquet')
SELECT * FROM read_csv('s3://bucket/a.csv')
SELECT * FROM read_text('file://{secret}')
SELECT * FROM read_text('/proc/self/environ')
SELECT * FROM read_csv('/dev/stdin')
SELECT * FROM parquet_metadata('{segment}')
SELECT * FROM parquet_schema('{segment}')
SELECT * FROM parquet_scan('{segment}')
SELECT * FROM sniff_csv('{secret}')
SELECT * FROM read_duckdb('{out}/new.db')
SELECT * FROM glob('{out}/*')
SELECT * FROM '{secret}'
SELECT * FROM '{segment}'
SELECT * FROM "{secret}"
SELECT * FROM enable_logging(storage := 'file', storage_path := '{out}/log')
SELECT * FROM enable_profiling(save_location := '{out}/profile.json')
SELECT * FROM import_database('{out}')
SELECT getenv('HOME')
SELECT * FROM sql
SELECT * FROM rollouts WHERE text IN (SELECT content FROM read_text('{secret}'))
FROM rollouts UNION ALL BY NAME FROM read_csv('{secret}')
""".strip().splitlines()
ASKING = """
SELECT * FROM duckdb_settings()
SELECT * FROM duckdb_views()
SELECT * FROM duckdb_databases()
SELECT * FROM duckdb_secrets()
SELECT * FROM query('SELECT count(*) FROM rollouts')
WITH x AS (SELECT step FROM rollouts) SELECT count(*) FROM x
FROM rollouts
DESCRIBE rollouts
SUMMARIZE rollouts
SHOW TABLES
VALUES (1)
""".strip().splitlines()
PLACES = ["'{secret}'", "'{segment}'", "'{out}/*'", "'{secret}', '{out}/made'", "'rollouts'", "[1]", ""]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    store = TrajectoryStore(folder / "trajectories", "run-1")
    for step in range(2):
        made = [rollout(f"p{i // 2}", step, i % 2, range(i + 1), verdict=Verdict.WRONG) for i in range(4)]
        store.write(made, Place(step=step))
    (folder / "metrics.jsonl").write_text('{"step": 0, "reward": 1}\n{"step": 1, "reward": 0.5}\n')
    (tmp_path / "secret.csv").write_text(f"a\n{CANARY}\n")
    return folder


@pytest.fixture
def names(run: Path) -> dict[str, str]:
    segment = run / "trajectories" / "main-i000-s00000.parquet"
    return {"out": str(run.parent), "secret": str(run.parent / "secret.csv"), "segment": str(segment)}


@pytest.fixture(autouse=True)
def nothing_changes(run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Not in the run folder, beside it or in the current one, which SQL's relative paths mean."""
    monkeypatch.chdir(run.parent)
    before = _files(run.parent)
    yield
    assert _files(run.parent) == before


def test_whatever_does_not_read_the_run_is_refused_in_a_line(run: Path, names: dict[str, str]) -> None:
    with connect(run) as database:
        before = database.execute("FROM metrics").fetchall()
        for sql in NOT_READING:
            with pytest.raises(InputError, match=r"\Aquery: .*\Z") as caught:
                print(sql, answer(database, run, sql.format(**names)))
            assert CANARY not in str(caught.value)
        assert database.execute("FROM metrics").fetchall() == before


def test_what_a_database_tells_of_itself_names_no_file(run: Path, names: dict[str, str]) -> None:
    with connect(run) as database:
        for sql in ASKING:
            _, rows = answer(database, run, sql)
            assert rows or "secrets" in sql
            assert names["out"] not in str(rows)


def test_no_function_of_a_database_reads_or_writes_a_file(run: Path, names: dict[str, str]) -> None:
    """All that this version of DuckDB has, with what could be a path."""
    kinds = "('table', 'table_macro', 'pragma')"
    with connect(run) as database:
        found = database.execute(
            f"SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type IN {kinds}"
        )
        functions = sorted({name for (name,) in found.fetchall()} - {"range", "generate_series", "repeat"})
        assert {"read_csv", "read_text", "parquet_scan", "glob"} <= {*functions}
        for sql in (f"SELECT * FROM {name}({place.format(**names)})" for name in functions for place in PLACES):
            try:
                told = str(database.execute(sql).fetchall())
            except duckdb.Error as error:
                told = str(error)
            assert CANARY not in told, sql


def test_a_value_that_cannot_be_shown_is_named(run: Path) -> None:
    with pytest.raises(InputError, match=r"query: a value can't be shown .* cast it"):
        query(run, "SELECT INTERVAL '100000000 years'")


@pytest.mark.parametrize("flip", [0.05, 0.3, 0.6, 0.9])
def test_a_page_that_was_damaged_is_named(run: Path, flip: float) -> None:
    path = run / "trajectories" / "main-i000-s00001.parquet"
    sound = path.read_bytes()
    damaged = bytearray(sound)
    damaged[int(len(sound) * flip)] ^= 4
    path.write_bytes(damaged)
    try:
        with pytest.raises(RunError, match=r"main-i000-s00001\.parquet: segment is missing, truncated or damaged"):
            query(run, "SELECT * FROM rollouts")
    finally:
        path.write_bytes(sound)


def test_rows_are_chosen_as_the_database_itself_would(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Conditions are handed on to Arrow, which must not have its own mind of NaN, NULL, NUL and large numbers."""
    folder = tmp_path_factory.mktemp("odd")
    odd = [0.5, float("nan"), float("inf"), -0.0, float("-inf"), 1.0]
    rollouts = [
        rollout(f"p\x00{i}", 0, i, range(i + 1), reward=value, score=None if i % 2 else value, text=f"a\x00{i}'ß")
        for i, value in enumerate(odd)
    ]
    TrajectoryStore(folder / "trajectories", "r").write(rollouts, Place(step=0))
    conditions = [
        *(f"{name} {sign} {value}" for name in ("reward", "score") for value in ("0.5", "0", "'nan'", "'inf'")
          for sign in ("<", "<=", "=", "<>", ">=", ">")),
        *("reward IN (1, 'nan')", "NOT reward > 0", "reward BETWEEN 0 AND 'nan'", "score IS NULL", "score IS NOT NULL"),
        *("score IS DISTINCT FROM 0.5", "score > 0 OR score IS NULL", "text = 'a' || chr(0) || '2''ß'", "text > 'a'"),
        *("response_hash_hi > 9223372036854775807", "response_hash_hi <= 9223372036854775807", "problem_id LIKE 'p%3'"),
        *("len(response_tokens) > 2", "response_tokens = [0, 1]", "sample IN (SELECT step FROM rollouts)", "false"),
    ]  # fmt: skip
    with connect(folder) as database:
        database.execute("CREATE TABLE copied AS FROM rollouts")
        for condition in conditions:
            first, second = (
                database.execute(f"SELECT sample FROM {name} WHERE {condition} ORDER BY sample").fetchall()
                for name in ("rollouts", "copied")
            )
            assert first == second, condition


def _files(folder: Path) -> dict[str, bytes]:
    found = (Path(where, name) for where, _, names in os.walk(folder) for name in names)
    return {str(path): path.read_bytes() for path in found}
