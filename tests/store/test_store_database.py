from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from rollout_factory import rollout

from reasonloop.errors import InputError, RunError
from reasonloop.records import Place, Verdict
from reasonloop.store.database import connect, query
from reasonloop.store.segments import TrajectoryStore

COLUMNS = {
    "VARCHAR": "run branch problem_id verdict finish detail text stage response_hash",
    "INTEGER": "iteration step sample n_tokens version",
    "DOUBLE": "reward score",
    "MAP(VARCHAR, DOUBLE)": "reward_parts",
    "UBIGINT": "response_hash_hi response_hash_lo",
    "INTEGER[]": "prompt_tokens response_tokens",
    "FLOAT[]": "logprobs",
    "BOOLEAN[]": "sampled",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two steps of a run, in a folder whose name is awkward for globs and for SQL."""
    folder = tmp_path / "it's a [run]*?"
    store = TrajectoryStore(folder / "trajectories", "run-1")
    for step in range(2):
        rollouts = [
            rollout(
                f"p{i // 2}",
                step,
                i % 2,
                range(i + 1),
                verdict=Verdict.RIGHT if i % 2 else Verdict.WRONG,
                reward=float(i % 2) - 0.25 * step,
                reward_parts={"outcome": float(i % 2), "overlong": -0.25 * step},
                text=f"nul \x00 and 'quotes' {i}",
            )
            for i in range(4)
        ]
        store.write(rollouts, Place(step=step))
    (folder / "metrics.jsonl").write_text(
        '{"stage": "rl", "step": 0, "reward": 1, "kl": NaN, "note": {"lr": 0.1}}\n'
        '{"stage": "rl", "step": 1, "reward": 0.5, "KL": 3, "drop\\"table": true}\n'
        '{"stage": "rl", "step": 2, "rewa'
    )
    (folder / "evals").mkdir()
    evaluation = {"name": "base", "stage": "base", "branch": "main", "iteration": 0, "rollouts": 0, "samples": 32}
    evaluation |= {"split": "test", "task": "countdown", "metrics": {"avg@32": 0.25, "pass@k": {"1": 0.25, "32": 0.9}}}
    evaluation |= {"problems": [{"id": "p0", "n": 32, "correct": 16}, {"id": "p1", "n": 32, "correct": 0}]}
    (folder / "evals" / "base-test.json").write_text(json.dumps(evaluation))
    return folder


def test_questions_that_a_user_asks(run: Path) -> None:
    assert query(run, "SELECT step, avg(reward) AS r FROM rollouts GROUP BY step ORDER BY step") == (
        ["step", "r"],
        [(0, 0.5), (1, 0.25)],
    )
    rows = query(
        run, "SELECT sum((verdict = 'right')::INT), sum(n_tokens), min(reward_parts['overlong']) FROM rollouts"
    )
    assert rows[1] == [(4, 20, -0.25)]
    assert query(run, "FROM rollouts SELECT count(DISTINCT response_hash), max(len(response_hash))")[1] == [(4, 32)]
    assert query(run, "SELECT text FROM rollouts ORDER BY step, problem_id, sample LIMIT 1")[1] == [
        ("nul \x00 and 'quotes' 0",)
    ]
    assert query(run, "SELECT step, reward FROM metrics ORDER BY step;")[1] == [(0, 1.0), (1, 0.5)]
    assert query(run, "SELECT isnan(kl), note->>'lr', kl_ FROM metrics WHERE step = 0")[1] == [(True, "0.1", None)]
    assert query(run, 'SELECT kl, kl_, "drop""table" FROM metrics WHERE step = 1')[1] == [(None, 3, True)]
    pass_32 = "(metrics->>'avg@32')::DOUBLE, (metrics->'pass@k'->>'32')::DOUBLE"
    assert query(run, f"SELECT file, name, {pass_32} FROM evals")[1] == [("base-test.json", "base", 0.25, 0.9)]
    assert query(run, "SELECT problem_id, correct / n FROM eval_problems ORDER BY 1")[1] == [("p0", 0.5), ("p1", 0.0)]
    joined = "SELECT e.problem_id, count(*) FROM eval_problems e JOIN rollouts USING (problem_id) GROUP BY 1 ORDER BY 1"
    assert query(run, joined)[1] == [("p0", 4), ("p1", 4)]
    assert [row[0] for row in query(run, "SHOW TABLES")[1]] == [
        *("eval_problems", "eval_rollouts", "evals", "metrics", "problems", "rollouts", "sources")
    ]


def test_a_run_that_has_just_begun_answers_with_the_same_columns(run: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / "config.toml").touch()
    assert query(fresh, "SELECT count(*) FROM rollouts")[1] == [(0,)]
    assert query(fresh, "DESCRIBE rollouts") == query(run, "DESCRIBE rollouts")
    described = query(fresh, "SELECT column_name, column_type FROM (DESCRIBE rollouts)")[1]
    assert dict(described) == {name: kind for kind, names in COLUMNS.items() for name in names.split()}
    for table in ("metrics", "evals", "eval_problems"):
        kinds = dict(query(fresh, f"SELECT column_name, column_type FROM (DESCRIBE {table})")[1])
        assert kinds.items() <= dict(query(run, f"SELECT column_name, column_type FROM (DESCRIBE {table})")[1]).items()
    (fresh / "metrics.jsonl").touch()
    assert query(fresh, "SELECT stage, step, reward FROM metrics")[1] == []


@pytest.mark.parametrize(
    "sql",
    [
        "COPY metrics TO '{out}/copy.csv'",
        "COPY (SELECT 1) TO '{segment}' (FORMAT parquet, USE_TMP_FILE false)",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{segment}' (FORMAT parquet, USE_TMP_FILE false)",
        "EXPORT DATABASE '{out}/export'",
        "ATTACH '{out}/new.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "PRAGMA enable_profiling",
        "CREATE TABLE t AS SELECT 1",
        "DROP VIEW rollouts",
        "DELETE FROM metrics",
        "SELECT 1; COPY metrics TO '{out}/copy.csv'",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_parquet('https://example.org/a.parquet')",
        "SELECT * FROM '{out}/secret.csv'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM sql",  # a Python variable of this process
        "",
        "SELEKT 1",
        "SELECT nothing FROM rollouts",
        "SELECT error('boom')",
    ],
)
def test_a_query_reads_the_run_and_does_nothing_else(run: Path, tmp_path: Path, sql: str) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    before = _files(tmp_path)
    segment = str(run / "trajectories" / "main-i000-s00000.parquet").replace("'", "''")
    with pytest.raises(InputError, match=r"^query: ") as caught:
        query(run, sql.format(out=str(tmp_path).replace("'", "''"), segment=segment))
    assert "\n" not in str(caught.value)
    assert _files(tmp_path) == before


def test_a_connection_cannot_be_unlocked(run: Path) -> None:
    with connect(run) as database:
        for sql in ("SET enable_external_access = true", "SET allowed_directories = ['/']", "RESET lock_configuration"):
            with pytest.raises(duckdb.Error):
                database.execute(sql)
        assert database.execute("SELECT count(*) FROM rollouts").fetchall() == [(8,)]


def test_an_error_of_sql_says_what_is_wrong(run: Path) -> None:
    with pytest.raises(InputError, match=r'"rewardd" not found.*reward'):
        query(run, "SELECT rewardd FROM rollouts")


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing: no such folder"):
        query(tmp_path / "missing", "SELECT 1")
    with pytest.raises(InputError, match=r"not the folder of a run"):
        query(tmp_path, "SELECT 1")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.jsonl", '{"step": 1}\n{"step": \n{"step": 3}\n', r"metrics\.jsonl, line 2: expected a JSON object"),
        ("metrics.jsonl", '{"step": 1}\n[1]\n{"step": 3}\n', r"metrics\.jsonl, line 2: .*got list"),
        ("evals/bad.json", '{"name": ', r"bad\.json: damaged .*expected a JSON object"),
        ("evals/bad.json", '{"problems": [1]}', r"bad\.json: .*problems"),
        ("evals/bad.json", b"\xff\xfe", r"bad\.json: damaged .*expected a JSON object"),
    ],
)
def test_a_file_that_cannot_be_understood_is_named(run: Path, name: str, content: str | bytes, message: str) -> None:
    (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        query(run, "SELECT 1")


def test_a_torn_tail_of_zeros_after_a_power_cut_is_ignored(run: Path) -> None:
    (run / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + bytes(100))
    assert query(run, "SELECT step FROM metrics")[1] == [(1,)]


def test_a_damaged_segment_is_named(run: Path) -> None:
    path = run / "trajectories" / "main-i000-s00001.parquet"
    sound = path.read_bytes()
    path.write_bytes(sound[:-50])
    with pytest.raises(RunError, match=r"main-i000-s00001\.parquet.*damaged"):
        query(run, "SELECT count(*) FROM rollouts")
    path.write_bytes(b"PAR1" + bytes(len(sound) // 2 - 4) + sound[len(sound) // 2 :])
    with pytest.raises(RunError, match=r"main-i000-s00001\.parquet.*damaged"):
        query(run, "SELECT * FROM rollouts")


def test_printing_rows_needs_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'duckdb', 'pyarrow', 'rich'}"
    script = f"import sys, reasonloop.store.show; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def _files(folder: Path) -> dict[str, bytes]:
    return {
        os.path.join(where, name): Path(where, name).read_bytes()
        for where, _, names in os.walk(folder)
        for name in names
    }
