"""A run's arms: RL steps and evaluations of each, in order, on one axis of rollouts spent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reasonloop.errors import InputError
from reasonloop.evaluation.metrics import avg_at_k, pass_at_k
from reasonloop.evaluation.table import split_of

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluated policy, with its counts per problem."""

    name: str
    stage: str
    branch: str
    iteration: int
    rollouts: int
    """Rollouts that its arm had spent by then"""
    split: str
    correct: dict[str, int]
    """Right samples by problem id"""
    samples: dict[str, int]
    """Samples by problem id"""

    def values(self, metric: str) -> NDArray[np.float64]:
        """Per problem, in the order of `correct`: the accuracy ("avg"), or pass@k ("pass@8"), float64 [problems].

        InputError for another metric, or for k above the number of samples.
        """
        c, n = list(self.correct.values()), [self.samples[problem] for problem in self.correct]
        name, _, k = metric.partition("@")
        if metric == "avg":
            return avg_at_k(c, n)
        try:
            if name != "pass":
                raise ValueError("expected 'avg' or 'pass@k'")
            return pass_at_k(n, c, int(k))
        except ValueError as error:
            raise InputError(f"evaluation {self.name!r}: {metric!r} can't be had ({error})") from None

    def mean(self, metric: str) -> float:
        return float(self.values(metric).mean())


@contextmanager
def database(source: str | Path | duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    """The connection itself, or one to the run in this folder that is closed behind the block."""
    if isinstance(source, str | Path):
        from reasonloop.store.database import connect

        with connect(Path(source)) as opened:
            yield opened
    else:
        yield source


def rl_steps(source: str | Path | duckdb.DuckDBPyConnection) -> dict[str, list[dict[str, Any]]]:
    """Lines of metrics.jsonl of every RL step, by branch, ordered by iteration and step; absent keys are None.

    A branch whose first exploration begins behind step 0 went on from the main branch's: the steps before are in both.
    A step that was done again after a kill counts as it was done last.
    """
    found = _lines(source, "explore")
    lines: dict[str, list[dict[str, Any]]] = {}
    for branch, line in found:
        lines.setdefault(branch, []).append(line)
    first = [line for line in lines.get("main", []) if line["iteration"] == 0]
    for branch, own in lines.items():
        if branch != "main" and own[0]["iteration"] == 0 and own[0]["step"] > 0:
            lines[branch] = [line for line in first if line["step"] < own[0]["step"]] + own
    return lines


def probes(source: str | Path | duckdb.DuckDBPyConnection) -> dict[str, list[dict[str, Any]]]:
    """Lines of metrics.jsonl of every evaluation on the probe problems, as `rl_steps` has them (nothing shared)."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for branch, line in _lines(source, "probe"):
        lines.setdefault(branch, []).append(line)
    return lines


def evaluations(source: str | Path | duckdb.DuckDBPyConnection, split: str | None = "reported") -> list[Evaluation]:
    """The run's evaluations with counts per problem, by rollouts spent, then in the order in which they were made.

    `split`: only of this split; None for all; "reported" for the one that results are reported on (test where there is
    one). Evaluations without problems are left out. Problems are sorted by id.
    """
    with database(source) as opened:
        order = '"order"' if "order" in _columns(opened, "evals") else "rollouts"
        files = opened.execute(
            "SELECT file, coalesce(name, file), coalesce(stage, ''), coalesce(branch, 'main'), coalesce(iteration, 0), "
            f"coalesce(rollouts, 0), coalesce(split, '') FROM evals ORDER BY coalesce(rollouts, 0), {order}, file"
        ).fetchall()
        counted: dict[str, dict[str, tuple[int, int]]] = {}
        for file, problem, correct, n in opened.execute(
            "SELECT file, problem_id, correct, n FROM eval_problems ORDER BY file, problem_id"
        ).fetchall():
            counted.setdefault(file, {})[problem] = (correct, n)
    if split == "reported":
        split = split_of([{"split": row[-1]} for row in files])
    return [
        Evaluation(
            *(name, stage, branch, iteration, rollouts, of_split),
            correct={problem: c for problem, (c, _) in counted[file].items()},
            samples={problem: n for problem, (_, n) in counted[file].items()},
        )
        for file, name, stage, branch, iteration, rollouts, of_split in files
        if file in counted and split in (None, of_split)
    ]


def by_arm(found: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """The evaluations of each arm in the order given; those of the starting policy (base, SFT) open each.

    Arms: the branches. Where a branch has RFT policies, its explored (RL) policies are an arm "<branch> explored" of
    their own, since nothing goes on from them; the starting policy that RL began from is the last of base and SFT.
    """
    starts = [e for e in found if e.stage in ("base", "sft")]
    tuned = {e.branch for e in found if e.stage == "rft"}
    arms: dict[str, list[Evaluation]] = {}
    for e in found:
        if e not in starts:
            explored = e.branch in tuned and e.stage == "explore"
            arms.setdefault(f"{e.branch} explored" if explored else e.branch, []).append(e)
    return {arm: [*starts, *own] for arm, own in arms.items()} or ({"main": starts} if starts else {})


def paired(a: Evaluation, b: Evaluation, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both evaluations' values on the problems that both have, in one order, float64 [problems] each."""
    shared = [problem for problem in a.correct if problem in b.correct]
    if not shared:
        raise InputError(f"evaluations {a.name!r} and {b.name!r} have no problem in common; expected the same split")
    of_a = dict(zip(a.correct, a.values(metric), strict=True))
    of_b = dict(zip(b.correct, b.values(metric), strict=True))
    return np.array([of_a[problem] for problem in shared]), np.array([of_b[problem] for problem in shared])


def largest_k(found: Sequence[Evaluation]) -> int:
    """The largest k whose pass@k all of these evaluations have."""
    return min((n for e in found for n in e.samples.values()), default=1)


def _lines(source: str | Path | duckdb.DuckDBPyConnection, stage: str) -> list[tuple[str, dict[str, Any]]]:
    with database(source) as opened:
        cursor = opened.execute("SELECT * FROM metrics WHERE stage = ?", [stage])
        names = [column[0] for column in cursor.description or []]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    last: dict[tuple[str, int, int], dict[str, Any]] = {}
    for row in rows:
        address = (row["branch"] or "main", row["iteration"] or 0, row["step"] or 0)
        last[address] = row | dict(zip(("branch", "iteration", "step"), address, strict=True))
    return [(branch, last[branch, iteration, step]) for branch, iteration, step in sorted(last)]


def _columns(opened: duckdb.DuckDBPyConnection, table: str) -> set[str]:
    return {row[0] for row in opened.execute(f"DESCRIBE {table}").fetchall()}
