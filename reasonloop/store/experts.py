"""Expert selection: which rollouts of an iteration's exploration the policy is fine-tuned on (RLoop, arXiv 2511.04285).

The SQL below is the definition, for rollouts in a store and in memory. It sees narrow columns only; the chosen rows' tokens
and log-probs are read at the end, from the few row groups that hold them, so that ten million rollouts in a store need
little more memory than the experts do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Protocol

import duckdb
import numpy as np
import pyarrow as pa

from reasonloop.config import Recipe
from reasonloop.errors import InputError, RunError
from reasonloop.records import Place, Rollout
from reasonloop.store.schema import SCHEMA, to_table
from reasonloop.store.segments import find_damage, open_segment, read_rows, scan, stored_segments

_MEMORY_LIMIT = "1GB"

GREEDY = "greedy"
"""The store's branch of the greedy responses: one for each training problem, in step 0 of their iteration."""

# Success is judged by the verdict: the reward may hold other parts (an overlong penalty, say).
_RATES = """
SELECT problem_id, count(*), count(*) FILTER (WHERE verdict = 'right')
FROM rollouts
GROUP BY problem_id
ORDER BY problem_id
"""

# `hard` numbers the problems that experts are for. Exact duplicates go: of equal token ids the earliest step's stays,
# within a step the lowest sample.
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
WITH drawn AS (
    SELECT problem, problem_id, row, place >> 32 AS step, place & 4294967295 AS sample,
        left(md5($seed || '/' || step || '/' || sample || '/' || problem_id), 12) AS drawn
    FROM candidates JOIN hard USING (problem)
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
SELECT step, list(row)
FROM offers
WHERE q >= p
   OR (q = 1 AND k = (p - 1) // 2)
   OR (q > 1 AND k = round(round(k * (q - 1) / (p - 1)) * (p - 1) / (q - 1)))
GROUP BY step
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
    full_step: int | None = None,
    seed: int = 0,
) -> Experts:
    """The experts of one iteration: { (x, y) : y right, 0 < rate(x) <= hard_threshold }, deduplicated and capped.

    rate(x) is the share of x's rollouts in the whole iteration that have the verdict "right" (whatever `full_step` is).
    Of responses with equal token ids the one of the earliest step, then of the lowest sample, is kept. At most `cap` a
    problem are kept, spread over the RL steps that solved it:

    - no more such steps than `cap`: each gives equally many, to within one, as far as it has them; what a step lacks,
      the others give;
    - more: one each from `cap` of them, evenly spaced in their order, the first and the last included.

    Which of a step's responses is taken is drawn by a hash of (seed, step, sample, problem): the selection depends
    on nothing else, neither on the segments' row order nor on threads. With `full_step` experts are taken from the
    iteration's last step only; a step of fewer than `full_step` rollouts, which the budget cut short, is passed over where
    an earlier one is longer.

    Of explorations side by side ("main.1", "main.2" of branch "main") each has steps of its own, those of the first before
    those of the second, and a last one of its own.

    Memory: below 1 GB (more is spilled to the temporary folder) plus the experts themselves. Raises RunError if the
    iteration has no rollouts or a segment is damaged.
    """
    if cap < 1:
        raise ValueError(f"cap is {cap}, expected at least 1")
    segments = stored_segments(Path(store_folder), branch, iteration)
    if not segments:
        raise RunError(
            f"{store_folder}: no rollouts of branch {branch!r}, iteration {iteration}; "
            "run the exploration of that iteration first"
        )
    stored = _Stored(dict(sorted((_number(place), path) for place, path in segments.items())))
    return _select(stored, hard_threshold=hard_threshold, cap=cap, full_step=full_step, seed=seed)


def experts_among(rollouts: Sequence[Rollout], *, hard_threshold: float = 0.5, cap: int = 8, seed: int = 0) -> Experts:
    """The experts of the rollouts of one exploration, or of several side by side, by the same query as `select_experts`.

    Raises InputError if there are none, if they are of several explorations, or if two have one address: the same problem,
    step and sample.
    """
    if cap < 1:
        raise InputError(f"experts: cap = {cap}: expected at least 1")
    explorations = sorted({(rollout.place.trunk, rollout.iteration) for rollout in rollouts})
    if len(explorations) != 1:
        got = ", ".join(f"{branch} {iteration}" for branch, iteration in explorations) or "no rollouts"
        raise InputError(f"experts: got {got}; expected the rollouts of one exploration (branch and iteration)")
    places = Counter((rollout.problem_id, rollout.place, rollout.sample) for rollout in rollouts)
    (problem, place, sample), count = places.most_common(1)[0]
    if count > 1:
        step = place.step
        raise InputError(
            f"experts: {count} rollouts of problem {problem} are sample {sample} of step {step}; expected each rollout "
            "once, and a step of its own for each time that a problem is sampled"
        )
    steps: dict[int, list[Rollout]] = {}
    for rollout in rollouts:
        steps.setdefault(_number(rollout.place), []).append(rollout)
    return _select(_InMemory(dict(sorted(steps.items()))), hard_threshold=hard_threshold, cap=cap, seed=seed)


_STRIDE = 1 << 20


def _number(place: Place) -> int:
    """A step's number among those of all explorations side by side."""
    if place.step >= _STRIDE:
        raise ValueError(f"{place.name}: step {place.step}; expected fewer than {_STRIDE}")
    return sum(twin * _STRIDE for twin in place.twin) + place.step


def _numbered(batches: Iterable[pa.RecordBatch], number: int) -> Iterator[pa.RecordBatch]:
    """The same, of the step with this number."""
    for batch in batches:
        at = batch.schema.get_field_index("step")
        steps = pa.array(np.full(batch.num_rows, number, np.int32))
        yield batch if at < 0 else batch.set_column(at, batch.schema.field(at), steps)


class _Source(Protocol):
    """Where the rollouts of an exploration are, by step (`_number`)."""

    @property
    def steps(self) -> Mapping[int, object]: ...

    def count(self, step: int) -> int: ...

    def batches(self, step: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """These columns of a step's rollouts, and `row`, the rollout's number in its step."""
        ...

    def rows(self, step: int, rows: Sequence[int]) -> list[Rollout]:
        """The rollouts with these numbers."""
        ...

    def find_damage(self, steps: Iterable[int]) -> None:
        """Raises RunError where something in them can't be read."""
        ...


@dataclass(frozen=True)
class _Stored:
    steps: Mapping[int, Path]
    """Segments"""

    def count(self, step: int) -> int:
        with open_segment(self.steps[step]) as file:
            return int(file.metadata.num_rows)

    def batches(self, step: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return _numbered((b for table in scan(self.steps[step], columns) for b in table.to_batches()), step)

    def rows(self, step: int, rows: Sequence[int]) -> list[Rollout]:
        return read_rows(self.steps[step], rows)

    def find_damage(self, steps: Iterable[int]) -> None:
        find_damage(self.steps[step] for step in steps)


@dataclass(frozen=True)
class _InMemory:
    steps: Mapping[int, Sequence[Rollout]]

    def count(self, step: int) -> int:
        return len(self.steps[step])

    def batches(self, step: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        table = to_table(self.steps[step], run="").select(list(columns))
        return _numbered(table.append_column("row", pa.array(np.arange(table.num_rows))).to_batches(), step)

    def rows(self, step: int, rows: Sequence[int]) -> list[Rollout]:
        return [self.steps[step][row] for row in rows]

    def find_damage(self, steps: Iterable[int]) -> None:
        pass


def _select(source: _Source, *, hard_threshold: float, cap: int, full_step: int | None = None, seed: int) -> Experts:
    given = list(source.steps) if full_step is None else _last_steps(source, full_step)
    with (
        TemporaryDirectory(prefix="reasonloop-") as spill,
        duckdb.connect(config={"memory_limit": _MEMORY_LIMIT, "temp_directory": spill, "threads": 2}) as database,
    ):
        with _rollouts(database, source, source.steps, ["problem_id", "verdict"]):
            rates = [SuccessRate(*row) for row in database.execute(_RATES).fetchall()]
        # A problem that was never solved has no expert to give, so that only the upper end filters.
        hard = [rate.problem_id for rate in rates if 0 < rate.rate <= hard_threshold]
        deduplicated, chosen = _choose(database, (source, given), hard, cap, seed)
    rollouts = [r for step, rows in chosen.items() for r in source.rows(step, rows)]
    return Experts(
        rollouts=sorted(rollouts, key=lambda r: (r.problem_id, _number(r.place), r.sample)),
        rates=rates,
        seen=sum(rate.seen for rate in rates),
        right=sum(rate.right for rate in rates),
        problems=len(rates),
        hard_problems=len(hard),
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
        full_step=recipe.rl.rollouts_per_step if options.experts == "last_step" else None,
        seed=recipe.seed,
    )


def solved_experts(recipe: Recipe, run_folder: Path, iteration: int) -> list[Rollout]:
    """The right greedy responses of `rl.skip_solved`, so that RFT doesn't forget what was left out of the exploration.

    Their problems' success rate is 1: the hard filter lets them through where `rloop.hard_threshold` is 1.
    """
    asked = stored_segments(run_folder / "trajectories", GREEDY, iteration)
    return chosen_experts(recipe, run_folder, iteration, GREEDY).rollouts if asked else []


def expert_rollouts(recipe: Recipe, run_folder: Path, iteration: int) -> list[Rollout]:
    """All that the iteration gives RFT to train on: its experts, and what it had solved before it explored."""
    return [*chosen_experts(recipe, run_folder, iteration).rollouts, *solved_experts(recipe, run_folder, iteration)]


def distinct(rollouts: Iterable[Rollout]) -> list[Rollout]:
    """Of rollouts with the same problem and the same response tokens only the first, in the order given."""
    found: dict[tuple[str, bytes], Rollout] = {}
    for rollout in rollouts:
        found.setdefault((rollout.problem_id, rollout.response_tokens.tobytes()), rollout)
    return list(found.values())


def _last_steps(source: _Source, full_step: int) -> list[int]:
    """Of each of the explorations side by side."""
    explorations: dict[int, dict[int, int]] = {}
    for step in source.steps:
        explorations.setdefault(step // _STRIDE, {})[step] = source.count(step)
    enough = {twin: min(full_step, max(rows.values())) for twin, rows in explorations.items()}
    return [max(step for step, count in rows.items() if count >= enough[twin]) for twin, rows in explorations.items()]


def _choose(
    database: duckdb.DuckDBPyConnection,
    among: tuple[_Source, Sequence[int]],
    hard: Sequence[str],
    cap: int,
    seed: int,
) -> tuple[int, dict[int, list[int]]]:
    """How many distinct right rollouts of the problems `hard` these steps hold, and by step the rows of the chosen."""
    numbers = np.arange(len(hard), dtype=np.int32)
    database.register("hard", pa.table({"problem": numbers, "problem_id": pa.array(hard, pa.string())}))
    columns = ["problem_id", "verdict", "step", "sample", "response_hash_hi", "response_hash_lo"]
    with _rollouts(database, *among, columns):
        database.execute(_CANDIDATES)
    distinct_ones = database.execute("SELECT count(*) FROM candidates").fetchall()[0][0]
    return distinct_ones, dict(database.execute(_CHOSEN, {"seed": str(seed), "cap": cap}).fetchall())


@contextmanager
def _rollouts(
    database: duckdb.DuckDBPyConnection, source: _Source, steps: Iterable[int], columns: Sequence[str]
) -> Iterator[None]:
    """The steps' columns as the relation `rollouts`, good for one pass."""
    schema = pa.schema([*(SCHEMA.field(name) for name in columns), ("row", pa.int64())])
    batches = (batch for step in steps for batch in source.batches(step, columns))
    database.register("rollouts", pa.RecordBatchReader.from_batches(schema, batches))
    try:
        yield
    except duckdb.Error:
        source.find_damage(steps)  # an error in the stream reaches DuckDB as words only
        raise
    finally:
        database.unregister("rollouts")
