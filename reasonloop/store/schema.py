"""The trajectory store's columns, and rollouts as Arrow tables and back, bit for bit.

One row is one `Rollout`. Beside its fields a row holds the run's name and columns that are derived from the response,
so that counting, deduplicating and choosing never read the long lists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from reasonloop.records import Place, Rollout, Verdict


def _list(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", kind, nullable=False))


_TYPES = {
    "run": pa.string(),
    "branch": pa.string(),
    "iteration": pa.int32(),
    "step": pa.int32(),
    "problem_id": pa.string(),
    "sample": pa.int32(),
    "verdict": pa.string(),
    "reward": pa.float64(),
    "reward_parts": pa.map_(pa.string(), pa.field("value", pa.float64(), nullable=False)),
    "finish": pa.string(),
    "detail": pa.string(),
    "n_tokens": pa.int32(),
    "response_hash_hi": pa.uint64(),
    "response_hash_lo": pa.uint64(),
    "text": pa.string(),
    "prompt_tokens": _list(pa.int32()),
    "response_tokens": _list(pa.int32()),
    "logprobs": _list(pa.float32()),
    "stage": pa.string(),
    "version": pa.int32(),
    "sampled": _list(pa.bool_()),
    "score": pa.float64(),
}
SCHEMA = pa.schema([pa.field(name, kind, nullable=name == "score") for name, kind in _TYPES.items()])
"""No column but `score` and no list element is ever null. `n_tokens` counts the response's tokens that the policy sampled;
the two hash columns are `response_hash`; `sampled` is empty where all of a response's tokens are."""
ADDED = {2: {"stage": "'explore'", "version": "0", "sampled": "[]::BOOLEAN[]"}, 3: {"score": "NULL::DOUBLE"}}
"""By version the columns that came with it, and as SQL what segments of earlier versions have in their place"""


def missing(version: int) -> dict[str, str]:
    """The columns that segments of a version don't have, and as SQL what stands for them."""
    return {name: value for added, columns in ADDED.items() if added > version for name, value in columns.items()}


SCHEMAS = {
    version: pa.schema([field for field in SCHEMA if field.name not in missing(version)]) for version in (1, *ADDED)
}
"""Of the segments that can be read, by version. A new one is for what a reader of the older would misread. Steps without
a score are written in version 2."""
_FIELDS = ["problem_id", "sample", "reward", "finish", "version", "detail", "text"]
_FIELDS += ["prompt_tokens", "response_tokens", "logprobs"]
"""Columns that are fields of a `Rollout`, as they are; `score` is, too, where it is there"""


def response_hash(tokens: np.ndarray) -> tuple[int, int]:
    """128-bit BLAKE2b of the token ids as little-endian int32, as two uint64 (high, low): equal ids, equal hash."""
    digest = hashlib.blake2b(tokens.astype("<i4").tobytes(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


def to_table(rollouts: Sequence[Rollout], run: str) -> pa.Table:
    """The rollouts as one Arrow table, row order as given.

    Raises ValueError where a rollout breaks its own contract (dtype, lengths), before anything is written.
    """
    for r in rollouts:
        _check(r)
    hashes = [response_hash(r.response_tokens) for r in rollouts]
    columns: dict[str, list[Any]] = {
        name: [getattr(r, name) for r in rollouts] for name in (*_FIELDS, "branch", "iteration", "step", "verdict")
    }
    columns |= {
        "run": [run] * len(rollouts),
        "stage": [r.place.stage for r in rollouts],
        "reward_parts": [list(r.reward_parts.items()) for r in rollouts],
        "n_tokens": [r.length for r in rollouts],
        "response_hash_hi": [high for high, _ in hashes],
        "response_hash_lo": [low for _, low in hashes],
        "sampled": [[] if r.sampled is None else r.sampled for r in rollouts],
    }
    scored = any(r.score is not None for r in rollouts)
    columns |= {"score": [r.score for r in rollouts]} if scored else {}
    # Lone surrogates (from a JSON "\\ud800") have no UTF-8 form: they become '?', rather than stopping the run.
    columns |= {name: [text.encode(errors="replace").decode() for text in columns[name]] for name in ("text", "detail")}
    return pa.table(columns, schema=SCHEMAS[3 if scored else 2])


def from_table(table: pa.Table) -> list[Rollout]:
    """The rollouts of a table that has (at least) the columns of a segment of any version, in row order."""
    columns = {"stage": ["explore"], "version": [0], "sampled": [()], "score": [None]}  # what ADDED says
    columns = {name: default * table.num_rows for name, default in columns.items()}
    for name in (*_FIELDS, "branch", "stage", "iteration", "step", "verdict", "reward_parts", "sampled", "score"):
        if name in table.column_names:
            columns[name] = _values(table[name])
    rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    return [
        Rollout(
            **{name: row[name] for name in _FIELDS},
            sampled=row["sampled"] if len(row["sampled"]) else None,
            verdict=Verdict(row["verdict"]),
            score=row["score"],
            reward_parts=dict(row["reward_parts"]),
            place=Place(row["branch"], row["stage"], row["iteration"], row["step"]),
        )
        for row in rows
    ]


def _values(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_list(column.type):
        # Copies, because Arrow's buffers are read-only and torch refuses to wrap those without a warning.
        return [array.copy() for array in column.to_numpy()]
    return column.to_pylist()


def _check(r: Rollout) -> None:
    where = f"rollout of problem {r.problem_id!r}, step {r.step}, sample {r.sample}"
    expected: dict[str, Any] = {"prompt_tokens": np.int32, "response_tokens": np.int32, "logprobs": np.float32}
    for name, dtype in (expected if r.sampled is None else {**expected, "sampled": np.bool_}).items():
        array = getattr(r, name)
        if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype != dtype:
            got = f"{array.dtype}{list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
            raise ValueError(f"{where}: {name} is {got}, expected a {np.dtype(dtype)} array of one dimension")
    if len(r.logprobs) != len(r.response_tokens):
        raise ValueError(f"{where}: {len(r.logprobs)} log-probs for {len(r.response_tokens)} response tokens")
    if r.sampled is not None and (len(r.sampled) != len(r.response_tokens) or not r.sampled.any()):
        raise ValueError(
            f"{where}: sampled has {len(r.sampled)} values, {int(r.sampled.sum())} of them true, for "
            f"{len(r.response_tokens)} response tokens; expected one for each, and at least one true"
        )
