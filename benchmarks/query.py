"""What it costs that a query opens no file: Arrow reads the segments for DuckDB, against DuckDB's own reading of them.

    python benchmarks/query.py --rollouts 100000

A store of short responses without texts (`store.py`'s). The questions are asked one after another of an open connection:
counts, a mean by step, one rollout, the distinct responses, all tokens and log-probs. Both sides give the same answers.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
from pairs import alternate, paired, parser, write
from store import make_store

from reasonloop.machine.threads import available_cores
from reasonloop.store.database import connect
from reasonloop.store.segments import list_segments

QUESTIONS = {
    "count": "SELECT count(*) FROM rollouts",
    "mean by step": "SELECT step, avg(reward) FROM rollouts GROUP BY step ORDER BY step",
    "one rollout": "SELECT response_tokens FROM rollouts WHERE step = 3 AND sample = 2 ORDER BY problem_id LIMIT 1",
    "distinct responses": "SELECT count(DISTINCT (response_hash_hi, response_hash_lo)) FROM rollouts",
    "all tokens": "SELECT sum(list_sum(response_tokens)), round(sum(list_sum(logprobs)), 3) FROM rollouts",
}


def main() -> None:
    made = parser(__doc__, "query")
    made.add_argument("--rollouts", type=int, default=100_000)
    args = made.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run = Path(temporary)
        make_store(run / "trajectories", args.rollouts)
        (run / "config.toml").touch()
        paths = [str(path) for path in list_segments(run / "trajectories").values()]
        own, theirs = connect(run), duckdb.connect()
        theirs.execute(f"CREATE VIEW rollouts AS SELECT * FROM read_parquet({paths!r})")
        for sql in QUESTIONS.values():
            assert own.execute(sql).fetchall() == theirs.execute(sql).fetchall(), sql
        workloads = [
            paired(*_taken(own, theirs, sql, args.pairs), "DuckDB reads the files", {"question": name, "sql": sql})
            for name, sql in QUESTIONS.items()
        ]
    main_one = workloads[list(QUESTIONS).index("mean by step")]
    write({**main_one, "rollouts": args.rollouts, "workloads": workloads}, args.out, args.threads or available_cores())


def _taken(
    own: duckdb.DuckDBPyConnection, theirs: duckdb.DuckDBPyConnection, sql: str, rounds: int
) -> tuple[list[float], list[float]]:
    def timed(database: duckdb.DuckDBPyConnection) -> Callable[[int], float]:
        def side(turn: int) -> float:
            began = time.perf_counter()
            database.execute(sql).fetchall()
            return time.perf_counter() - began

        return side

    seconds = alternate({"ours": timed(own), "peer": timed(theirs)}, rounds)
    return seconds["ours"], seconds["peer"]


if __name__ == "__main__":
    main()
