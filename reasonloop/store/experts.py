"""Expert selection: which rollouts of an iteration's exploration the policy is fine-tuned on (RLoop, arXiv 2511.04285).

The SQL below is the definition. It sees narrow columns only; the chosen rows' tokens and log-probs are read at the end,
from the few row groups that hold them, so that ten million rollouts need little more memory than the experts do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal, NamedTuple

from reasonloop.errors import RunError
from reasonloop.records import Rollout
from reasonloop.store.segments import Segment, list_segments, read_rows, scan

if TYPE_CHECKING:
    import duckdb

    from reasonloop.config import Recipe

_MEMORY_LIMIT = "1GB"

# Success is judged by the verdict: the reward may hold other parts (an overlong penalty, say).
_RATES = """
CREATE TEMP TABLE rates AS
SELECT problem_id, count(*) AS seen, count(*) FILTER (WHERE verdict = 'right') AS n_right
FROM rollouts
GROUP BY problem_id
"""

# A problem that was never solved has no expert to give, so that only the upper end of 0 < rate <= threshold filters.
_HARD = """
CREATE TEMP TABLE hard AS
SELECT CAST(row_number() OVER (ORDER BY problem_id) AS INTEGER) AS problem, problem_id
FROM rates
WHERE n_right > 0 AND n_right / seen <= $threshold
"""

# Exact duplicates go: of equal token ids the earliest step's stays, within a step the lowest sample.
_CANDIDATES = """
CREATE TEMP TABLE candidates AS
SELECT problem, min(place) AS place, arg_min(row, place) AS row
FROM (
    SELECT problem, response_hash_hi, response_hash_lo, row, (CAST(step AS BIGINT) << 32) + sample AS place
    FROM rollouts JOIN hard USING (problem_id)
    WHERE verdict = 'right'
)
GROUP BY problem, response_hash_hi, response_hash_lo
"""

# A problem's cap is filled in rounds. Round r offers the r-th candidate of every step that has one; a round that fits
# is taken whole, and of the first that doesn't, the free places go to steps evenly spaced over those on offer: the
# i-th of q places to number round(i (p-1) / (q-1)) of p, so that the first and the last are in (one place: the middle).
# `drawn` is the first 48 bits of an MD5, the one hash here whose value no version of DuckDB will change.
_CHOSEN = """
WITH addressed AS (
    SELECT problem, place >> 32 AS step, place & 4294967295 AS sample, row FROM candidates
), drawn AS (
    SELECT *, left(md5($seed || '/' || step || '/' || sample || '/' || problem_id), 12) AS drawn
    FROM addressed JOIN hard USING (problem)
), rounds AS (
    SELECT *, row_number() OVER (PARTITION BY problem, step ORDER BY drawn, sample) AS round
    FROM drawn
    QUALIFY round <= $cap
), offers AS (
    SELECT *,
        count(*) OVER (PARTITION BY problem, round) AS p,
        row_number() OVER (PARTITION BY problem, round ORDER BY step) - 1 AS k,
        row_number() OVER (PARTITION BY problem ORDER BY round, step) - 1 - k AS taken_before,
        $cap - taken_before AS q
    FROM rounds
)
SELECT problem_id, step, sample, row
FROM offers
WHERE q >= p
   OR (q = 1 AND k = (p - 1) // 2)
   OR (q > 1 AND k = round(round(k * (q - 1) / (p - 1)) * (p - 1) / (q - 1)))
ORDER BY problem_id, step, sample
"""


class SuccessRate(NamedTuple):
    """How often a problem was solved in an iteration's exploration."""

    problem_id: str
    seen: int
    right: int

    @property
    def rate(self) -> float:
        return self.right / self.seen


@dataclass(frozen=True, slots=True)
class Experts:
    """The selected rollouts and what was left at each stage of the selection."""

    rollouts: list[Rollout] = field(repr=False)
    """Ordered by problem id, step, sample"""
    rates: list[SuccessRate] = field(repr=False)
    """One per problem seen, ordered by problem id"""
    seen: int
    """Rollouts in the iteration's store"""
    right: int
    """Of these, with verdict "right\""""
    problems: int
    """Problems seen"""
    hard_problems: int
    """Of these, solved at least once and not more often than the threshold"""
    deduplicated: int
    """Right rollouts of hard problems (of the last step, if only that is the source), exact duplicates removed"""
    selected: int
    """Of these, left by the cap: len(rollouts)"""


def select_experts(
    store_folder: Path,
    *,
    iteration: int,
    branch: str = "main",
    hard_threshold: float = 0.5,
    cap: int = 8,
    source: Literal["all", "last_step"] = "all",
    full_step: int = 0,
    seed: int = 0,
) -> Experts:
    """The experts of one iteration: { (x, y) : y right, 0 < rate(x) <= hard_threshold }, deduplicated and capped.

    rate(x) is the share of x's rollouts in the whole iteration that have the verdict "right" (`source` doesn't change
    it). Of responses with equal token ids the one of the earliest step, then of the lowest sample, is kept. At most
    `cap` a problem are kept, spread over the RL steps that solved it:

    - no more such steps than `cap`: each gives equally many, to within one, as far as it has them; what a step lacks,
      the others give;
    - more: one each from `cap` of them, evenly spaced in their order, the first and the last included.

    Which of a step's responses is taken is drawn by a hash of (seed, step, sample, problem): the selection depends
    on nothing else, neither on the segments' row order nor on threads. `source="last_step"` takes experts from the
    iteration's last step only; a step of fewer than `full_step` rollouts, which the budget cut short, is passed over where
    an earlier one is longer.

    Memory: below 1 GB (more is spilled to the temporary folder) plus the experts themselves. Raises RunError if the
    iteration has no rollouts or a segment is damaged.
    """
    if cap < 1:
        raise ValueError(f"cap is {cap}, expected at least 1")
    if source not in ("all", "last_step"):
        raise ValueError(f"source is {source!r}, expected 'all' or 'last_step'")
    segments = _segments(store_folder, branch, iteration)
    with _database() as database:
        with _rollouts(database, segments, ["problem_id", "verdict"]):
            database.execute(_RATES)
        rates = _rates(database)
        database.execute(_HARD, {"threshold": hard_threshold})
        hard_problems = _count(database, "hard")

        candidates_from = [_last_step(segments, full_step)] if source == "last_step" else segments
        narrow = ["problem_id", "verdict", "sample", "response_hash_hi", "response_hash_lo"]
        with _rollouts(database, candidates_from, narrow, right_only=True):
            database.execute(_CANDIDATES)
        deduplicated = _count(database, "candidates")
        chosen = database.execute(_CHOSEN, {"seed": str(seed), "cap": cap}).fetchall()

    rollouts = _read(segments, chosen)
    return Experts(
        rollouts=rollouts,
        rates=rates,
        seen=sum(rate.seen for rate in rates),
        right=sum(rate.right for rate in rates),
        problems=len(rates),
        hard_problems=hard_problems,
        deduplicated=deduplicated,
        selected=len(rollouts),
    )


def chosen_experts(recipe: Recipe, run_folder: Path, iteration: int, branch: str = "main") -> Experts:
    """The experts of one iteration of the run in a folder, chosen as the recipe's `[rloop]` says."""
    options = recipe.rloop
    return select_experts(
        run_folder / "trajectories",
        iteration=iteration,
        branch=branch,
        hard_threshold=options.hard_threshold,
        cap=options.cap,
        source="last_step" if options.experts == "last_step" else "all",
        full_step=recipe.rl.rollouts_per_step,
        seed=recipe.seed,
    )


def distinct(rollouts: Iterable[Rollout]) -> list[Rollout]:
    """Of rollouts with the same problem and the same response tokens only the first, in the order given."""
    found: dict[tuple[str, bytes], Rollout] = {}
    for rollout in rollouts:
        found.setdefault((rollout.problem_id, rollout.response_tokens.tobytes()), rollout)
    return list(found.values())


def success_rates(store_folder: Path, *, iteration: int, branch: str = "main") -> list[SuccessRate]:
    """Every problem's share of right rollouts over a whole iteration, ordered by problem id."""
    with _database() as database:
        with _rollouts(database, _segments(store_folder, branch, iteration), ["problem_id", "verdict"]):
            database.execute(_RATES)
        return _rates(database)


def _last_step(segments: Sequence[Segment], full_step: int) -> Segment:
    rows = [segment.rows for segment in segments]
    enough = min(full_step, max(rows))
    return [segment for segment, count in zip(segments, rows, strict=True) if count >= enough][-1]


def _segments(store_folder: Path, branch: str, iteration: int) -> list[Segment]:
    segments = list_segments(Path(store_folder), branch, iteration)
    if not segments:
        raise RunError(
            f"{store_folder}: no rollouts of branch {branch!r}, iteration {iteration}; "
            "run the exploration of that iteration first"
        )
    return segments


@contextmanager
def _database() -> Iterator[duckdb.DuckDBPyConnection]:
    import duckdb

    with TemporaryDirectory(prefix="reasonloop-") as spill:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": _MEMORY_LIMIT,
            "temp_directory": spill,
            "threads": 2,
        }
        with duckdb.connect(":memory:", config=config) as database:
            yield database


@contextmanager
def _rollouts(
    database: duckdb.DuckDBPyConnection, segments: Sequence[Segment], columns: Sequence[str], right_only: bool = False
) -> Iterator[None]:
    """The segments' columns as the relation `rollouts`, good for one pass."""
    import duckdb

    failures: list[RunError] = []
    database.register("rollouts", scan(segments, columns, right_only=right_only, failures=failures))
    try:
        yield
    except duckdb.Error:
        # DuckDB hands on the text of an error in the stream, not the error.
        if failures:
            raise failures[0] from None
        raise
    finally:
        database.unregister("rollouts")


def _rates(database: duckdb.DuckDBPyConnection) -> list[SuccessRate]:
    rows = database.execute("SELECT problem_id, seen, n_right FROM rates ORDER BY problem_id").fetchall()
    return [SuccessRate(*row) for row in rows]


def _count(database: duckdb.DuckDBPyConnection, table: str) -> int:
    return int(database.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def _read(segments: Sequence[Segment], chosen: Sequence[tuple[str, int, int, int]]) -> list[Rollout]:
    paths = {segment.step: segment.path for segment in segments}
    rollouts: list[Rollout] = []
    by_step = sorted(chosen, key=lambda row: (row[1], row[3]))
    for step, rows in groupby(by_step, key=lambda row: row[1]):
        rollouts += read_rows(paths[step], [row for *_, row in rows])
    return sorted(rollouts, key=lambda r: (r.problem_id, r.step, r.sample))
