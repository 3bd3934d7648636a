"""Inter-step diversity: how differently the policies of different RL steps solve the same problems (arXiv 2511.04285)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reasonloop.analysis.arms import database
from reasonloop.analysis.ngrams import ngram_hashes
from reasonloop.errors import InputError
from reasonloop.evaluation.metrics import bootstrap_ci

if TYPE_CHECKING:
    import duckdb

NGRAM = 4
MOST_PER_BIN = 32
"""Right responses per problem and bin that are compared: of more, a random choice"""


@dataclass(frozen=True, slots=True)
class Diversity:
    """Diversity between B bins of an arm's RL steps: 1 - mean Jaccard similarity of n-gram sets of right responses."""

    bins: list[tuple[int, int]]
    """B: first and last RL step of each, counted from 0 over all of the arm's iterations"""
    rollouts: list[int]
    """B: right responses that were compared"""
    matrix: list[list[float | None]]
    """B x B, symmetric, in [0, 1]: off the diagonal, between a response of one bin and one of the other; on it, between
    two samples of one step, that both lie in the bin. A mean over problems; None where no problem has such a pair"""
    problems: list[list[int]]
    """B x B: problems behind each value"""
    within: float | None
    """Mean of the diagonal: diversity of one policy's samples"""
    between: float | None
    """Mean off the diagonal"""
    excess: float | None
    """Between minus within, on the problems that have both: the diversity that training adds by moving on"""
    excess_ci95: tuple[float, float] | None
    """Bootstrap over these problems"""

    def rows(self) -> list[dict[str, Any]]:
        """A row per cell: a, b (bins), first and last step of each, diversity, problems."""
        return [
            {
                "a": a,
                "b": b,
                "a_steps": list(self.bins[a]),
                "b_steps": list(self.bins[b]),
                "diversity": value,
                "problems": self.problems[a][b],
            }
            for a, row in enumerate(self.matrix)
            for b, value in enumerate(row)
        ]


def diversity(
    source: str | Path | duckdb.DuckDBPyConnection,
    branch: str = "main",
    *,
    bins: int = 8,
    n: int = NGRAM,
    most_per_bin: int = MOST_PER_BIN,
    seed: int = 0,
) -> Diversity:
    """The inter-step diversity of one arm's stored rollouts.

    The arm's RL steps, over all iterations in order, are cut into `bins` bins of equally many steps (to within one; fewer
    bins for fewer steps). A branch that went on from the main branch's first exploration has its steps too. At most
    `most_per_bin` right responses per problem and bin are compared, drawn with `seed`; so the work is bounded by
    problems x (bins x most_per_bin)^2 pairs. InputError if the branch has no rollouts.
    """
    with database(source) as opened:
        steps = opened.execute(
            "SELECT DISTINCT iteration, step FROM rollouts WHERE branch = $branch ORDER BY 1, 2", {"branch": branch}
        ).fetchall()
        if not steps:
            raise InputError(f"diversity: the run has no rollouts of branch {branch!r}")
        shared = steps[0][1] if branch != "main" and steps[0][0] == 0 else 0
        table = opened.sql(
            "SELECT branch = $branch AS own, iteration, step, problem_id, response_tokens FROM rollouts "
            "WHERE verdict = 'right' AND (branch = $branch OR (branch = 'main' AND iteration = 0 AND step < $shared)) "
            "ORDER BY problem_id, iteration, step, sample",
            params={"branch": branch, "shared": shared},
        ).to_arrow_table()
    order = {place: shared + index for index, place in enumerate(steps)}
    places = zip(*(table.column(name).to_pylist() for name in ("own", "iteration", "step")), strict=True)
    ids = {problem: index for index, problem in enumerate(dict.fromkeys(table.column("problem_id").to_pylist()))}
    return response_diversity(
        [ids[problem] for problem in table.column("problem_id").to_pylist()],
        [order[iteration, step] if own else step for own, iteration, step in places],
        _token_lists(table.column("response_tokens").combine_chunks()) if table.num_rows else [],
        shared + len(steps),
        bins=bins,
        n=n,
        most_per_bin=most_per_bin,
        seed=seed,
    )


def response_diversity(
    problems: Sequence[int],
    steps: Sequence[int],
    responses: Sequence[NDArray[np.int32]],
    total_steps: int,
    *,
    bins: int = 8,
    n: int = NGRAM,
    most_per_bin: int = MOST_PER_BIN,
    seed: int = 0,
) -> Diversity:
    """`diversity` of right responses given one by one: problem, RL step (0 to total_steps - 1) and tokens of each.

    A response's set holds its runs of `n` tokens; one of fewer tokens has itself as its only run.
    """
    if bins < 1 or n < 1 or most_per_bin < 2:
        raise ValueError(f"bins {bins}, n {n}, most_per_bin {most_per_bin}: expected at least 1, 1 and 2")
    bins = min(bins, total_steps)
    edges = [total_steps * b // bins for b in range(bins + 1)]
    step_R = np.asarray(steps, dtype=np.int64)
    bin_R = np.searchsorted(edges, step_R, side="right") - 1
    kept = _choose(np.asarray(problems, dtype=np.int64), bin_R, most_per_bin, np.random.default_rng(seed))
    problem_K = np.asarray(problems, dtype=np.int64)[kept]
    grams = [_grams(responses[i], n) for i in kept]
    cells = [
        _problem_cells(grams[start:stop], step_R[kept[start:stop]], bin_R[kept[start:stop]], bins)
        for start, stop in _runs(problem_K)
    ]
    return _summary(cells, edges, np.bincount(bin_R[kept], minlength=bins))


def _choose(
    problem_R: NDArray[np.int64], bin_R: NDArray[np.int64], most: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """At most `most` responses of each problem and bin, sorted by problem, then by bin."""
    drawn = rng.random(len(problem_R))
    order = np.lexsort((drawn, bin_R, problem_R))
    change = np.ones(len(order), dtype=bool)
    change[1:] = (np.diff(problem_R[order]) != 0) | (np.diff(bin_R[order]) != 0)
    begin = np.maximum.accumulate(np.where(change, np.arange(len(order)), 0))
    return order[np.arange(len(order)) - begin < most]


def _grams(tokens: NDArray[np.int32], n: int) -> NDArray[np.uint64]:
    """The set of hashes of the response's n-grams, never empty. A short one's hash is that of its ids and its length."""
    ids = np.asarray(tokens).astype(np.uint64) + np.uint64(1)
    if len(ids) < n:
        ids = np.concatenate([ids, np.zeros(n - len(ids), dtype=np.uint64)])
    return np.unique(ngram_hashes(ids, n))


def _runs(values: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ranges of equal neighbours."""
    cuts = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [(start, stop) for start, stop in pairwise(cuts) if stop > start]


def jaccard(grams: Sequence[NDArray[np.uint64]]) -> NDArray[np.float64]:
    """float64 [R, R]: |a and b| / |a or b| between all pairs of sets of unique hashes."""
    sizes_R = np.array([len(own) for own in grams], dtype=np.float64)
    row = np.repeat(np.arange(len(grams)), [len(own) for own in grams])
    _, column, seen = np.unique(np.concatenate(grams), return_inverse=True, return_counts=True)
    # A gram that one response alone has is in no intersection: most are of this kind, and need no column.
    shared = seen > 1
    kept = shared[column]
    columns = np.cumsum(shared) - 1
    member_RV = np.zeros((len(grams), int(shared.sum())), dtype=np.float32)
    member_RV[row[kept], columns[column[kept]]] = 1.0
    common_RR = (member_RV @ member_RV.T).astype(np.float64)  # exact: counts below 2^24
    union_RR = sizes_R[:, None] + sizes_R[None, :] - common_RR
    np.fill_diagonal(common_RR, sizes_R)
    np.fill_diagonal(union_RR, sizes_R)
    return np.asarray(common_RR / union_RR)


def _problem_cells(
    grams: Sequence[NDArray[np.uint64]], step_R: NDArray[np.int64], bin_R: NDArray[np.int64], bins: int
) -> NDArray[np.float64]:
    """float64 [B, B]: one problem's diversity in each cell, NaN where it has no pair."""
    apart_RR = 1.0 - jaccard(grams)
    in_bin_RB = (bin_R[:, None] == np.arange(bins)[None, :]).astype(np.float64)
    pairs_BB = np.outer(in_bin_RB.sum(axis=0), in_bin_RB.sum(axis=0))
    sums_BB = in_bin_RB.T @ apart_RR @ in_bin_RB
    same_RR = step_R[:, None] == step_R[None, :]
    np.fill_diagonal(same_RR, False)
    np.fill_diagonal(pairs_BB, in_bin_RB.T @ same_RR.sum(axis=1))
    np.fill_diagonal(sums_BB, in_bin_RB.T @ (apart_RR * same_RR).sum(axis=1))
    return np.divide(sums_BB, pairs_BB, out=np.full_like(sums_BB, np.nan), where=pairs_BB > 0)


def _summary(cells: Sequence[NDArray[np.float64]], edges: Sequence[int], rollouts: NDArray[np.int64]) -> Diversity:
    bins = len(edges) - 1
    cells_PBB = np.stack(cells) if cells else np.full((1, bins, bins), np.nan)
    matrix_BB, known_BB = _mean(cells_PBB, (0,)), np.isfinite(cells_PBB).sum(axis=0)
    diagonal = np.eye(bins, dtype=bool)
    within_P = _mean(np.where(diagonal, cells_PBB, np.nan), (1, 2))
    between_P = _mean(np.where(diagonal, np.nan, cells_PBB), (1, 2))
    excess_P = (between_P - within_P)[np.isfinite(between_P - within_P)]
    return Diversity(
        bins=[(first, stop - 1) for first, stop in pairwise(edges)],
        rollouts=rollouts.tolist(),
        matrix=[[_number(value) for value in row] for row in matrix_BB],
        problems=known_BB.tolist(),
        within=_number(_mean(matrix_BB[diagonal], (0,))),
        between=_number(_mean(matrix_BB[~diagonal], (0,))),
        excess=float(excess_P.mean()) if len(excess_P) else None,
        excess_ci95=bootstrap_ci(excess_P) if len(excess_P) else None,
    )


def _mean(values: NDArray[np.float64], axes: tuple[int, ...]) -> NDArray[np.float64]:
    """The mean over what is known; NaN, without a warning, where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=axes)
    total = np.where(known, values, 0.0).sum(axis=axes)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _token_lists(column: Any) -> list[NDArray[np.int32]]:
    offsets = column.offsets.to_numpy().astype(np.int64)
    flat = column.values.to_numpy()[offsets[0] : offsets[-1]]
    return np.split(flat, offsets[1:-1] - offsets[0])
