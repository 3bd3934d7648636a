"""Inter-step diversity: how differently the policies of different RL steps solve the same problems (arXiv 2511.04285)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reasonloop.analysis.ngrams import ngram_hashes
from reasonloop.errors import InputError
from reasonloop.evaluation.metrics import bootstrap_ci

if TYPE_CHECKING:
    import duckdb

BINS = 8
NGRAM = 4
MOST_PER_BIN = 32
"""Right responses per problem and bin that are compared: of more, a random choice"""


TRUNK, TWIN = "split_part(branch, '.', 1)", "TRY_CAST(split_part(branch, '.', 2) AS INTEGER)"
"""A rollout's branch without, and the number of, one of several explorations side by side"""


@dataclass(frozen=True, slots=True)
class Diversity:
    """Diversity between B bins of an arm's RL steps: 1 - mean Jaccard similarity of n-gram sets of right responses."""

    bins: list[tuple[int, int]]
    """B: first and last RL step of each, counted from 0 over all of the arm's iterations"""
    matrix: list[list[float | None]]
    """B x B, symmetric, in [0, 1]: off the diagonal, between a response of one bin and one of the other; on it, between
    two samples of one step, that both lie in the bin. A mean over problems; None where no problem has such a pair"""
    within: float | None
    """Mean of the diagonal: diversity of one policy's samples"""
    between: float | None
    """Mean off the diagonal"""
    excess: float | None
    """Between minus within, on the problems that have both: the diversity that training adds by moving on"""
    excess_ci95: tuple[float, float] | None
    """Bootstrap over these problems"""


def diversity(
    database: duckdb.DuckDBPyConnection, branch: str = "main", *, most_per_bin: int = MOST_PER_BIN
) -> Diversity:
    """The inter-step diversity of one arm's rollouts in the `reasonloop.store.database.connect`ed run.

    The arm's RL steps, over all iterations in order (and in each over its explorations side by side), are cut into BINS bins
    of equally many steps (to within one; fewer bins for fewer steps). A branch that went on from the main branch's first
    exploration has its steps too. At most `most_per_bin` right responses per problem and bin are compared, so that the work
    is bounded by
    problems x (BINS x most_per_bin)^2 pairs. InputError if the branch has no rollouts.
    """
    steps = database.execute(
        f"SELECT DISTINCT iteration, coalesce({TWIN}, 0), step FROM rollouts WHERE {TRUNK} = $branch ORDER BY ALL",
        {"branch": branch},
    ).fetchall()
    if not steps:
        raise InputError(f"diversity: the run has no rollouts of branch {branch!r}")
    shared = steps[0][2] if branch != "main" and steps[0][0] == 0 else 0
    table = database.sql(
        f"SELECT {TRUNK} = $branch AS own, iteration, coalesce({TWIN}, 0) AS twin, step, problem_id, response_tokens "
        "FROM rollouts "
        f"WHERE verdict = 'right' AND ({TRUNK} = $branch OR (branch = 'main' AND iteration = 0 AND step < $shared)) "
        "ORDER BY problem_id, iteration, twin, step, sample",
        params={"branch": branch, "shared": shared},
    ).to_arrow_table()
    own, iterations, twins, numbers, problems, responses = (column.to_numpy() for column in table.columns)
    order = {place: shared + index for index, place in enumerate(steps)}
    places = [order[i, t, s] if mine else s for mine, i, t, s in zip(own, iterations, twins, numbers, strict=True)]
    return response_diversity(problems, places, responses, shared + len(steps), most_per_bin=most_per_bin)


def response_diversity(
    problems: Sequence[Any],
    steps: Sequence[int],
    responses: Sequence[NDArray[np.int32]],
    total_steps: int,
    *,
    bins: int = BINS,
    n: int = NGRAM,
    most_per_bin: int = MOST_PER_BIN,
) -> Diversity:
    """`diversity` of right responses given one by one: problem, RL step (0 to total_steps - 1) and tokens of each.

    A response's set holds its runs of `n` tokens; one of fewer tokens has itself as its only run.
    """
    bins = min(bins, total_steps)
    edges = [total_steps * b // bins for b in range(bins + 1)]
    step_R = np.asarray(steps, dtype=np.int64)
    bin_R = np.searchsorted(edges, step_R, side="right") - 1
    problem_R = np.unique(problems, return_inverse=True)[1]
    kept = _choose(problem_R, bin_R, most_per_bin)
    cells = [
        _problem_cells([_grams(responses[i], n) for i in own], step_R[own], bin_R[own], bins)
        for own in np.split(kept, np.flatnonzero(np.diff(problem_R[kept])) + 1)
        if own.size
    ]
    return _summary(cells, edges)


def _choose(problem_R: NDArray[np.int64], bin_R: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most `most` responses of each problem and bin, sorted by problem, then by bin."""
    drawn = np.random.default_rng(0).random(len(problem_R))
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
    np.fill_diagonal(common_RR, sizes_R)
    return np.asarray(common_RR / (sizes_R[:, None] + sizes_R[None, :] - common_RR))


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


def _summary(cells: Sequence[NDArray[np.float64]], edges: Sequence[int]) -> Diversity:
    bins = len(edges) - 1
    cells_PBB = np.ma.masked_invalid(np.stack(cells) if cells else np.full((1, bins, bins), np.nan))
    matrix_BB, diagonal = cells_PBB.mean(axis=0), np.eye(bins, dtype=bool)
    within_P = np.ma.masked_where(np.broadcast_to(~diagonal, cells_PBB.shape), cells_PBB).mean(axis=(1, 2))
    between_P = np.ma.masked_where(np.broadcast_to(diagonal, cells_PBB.shape), cells_PBB).mean(axis=(1, 2))
    excess_P = (between_P - within_P).compressed()
    return Diversity(
        bins=[(first, stop - 1) for first, stop in pairwise(edges)],
        matrix=matrix_BB.tolist(),
        within=_number(matrix_BB[diagonal].mean()),
        between=_number(matrix_BB[~diagonal].mean()),
        excess=float(excess_P.mean()) if len(excess_P) else None,
        excess_ci95=bootstrap_ci(excess_P) if len(excess_P) else None,
    )


def _number(value: Any) -> float | None:
    return None if value is np.ma.masked else float(value)
