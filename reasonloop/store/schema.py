"""The trajectory store's columns, and rollouts as Arrow tables and back, bit for bit.

One row is one `Rollout`. Beside its fields a row holds the run's name and columns that are derived from the response,
so that counting, deduplicating and choosing never read the long lists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reasonloop.records import Rollout, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
"""Raised whenever a reader of the older version would misread a segment."""

COLUMNS = {
    "run": "VARCHAR",
    "branch": "VARCHAR",
    "iteration": "INTEGER",
    "step": "INTEGER",
    "problem_id": "VARCHAR",
    "sample": "INTEGER",
    "verdict": "VARCHAR",
    "reward": "DOUBLE",
    "reward_parts": "MAP(VARCHAR, DOUBLE)",
    "finish": "VARCHAR",
    "detail": "VARCHAR",
    "n_tokens": "INTEGER",
    "response_hash_hi": "UBIGINT",
    "response_hash_lo": "UBIGINT",
    "text": "VARCHAR",
    "prompt_tokens": "INTEGER[]",
    "response_tokens": "INTEGER[]",
    "logprobs": "FLOAT[]",
}
"""Column -> DuckDB type. `n_tokens` is the response's length; the two hash columns are `response_hash`."""


def arrow_schema() -> pa.Schema:
    """The Arrow schema of a segment; no column and no list element is ever null."""
    import pyarrow as pa

    types = {
        "VARCHAR": pa.string(),
        "INTEGER": pa.int32(),
        "UBIGINT": pa.uint64(),
        "DOUBLE": pa.float64(),
        "INTEGER[]": pa.list_(pa.field("element", pa.int32(), nullable=False)),
        "FLOAT[]": pa.list_(pa.field("element", pa.float32(), nullable=False)),
        "MAP(VARCHAR, DOUBLE)": pa.map_(pa.string(), pa.field("value", pa.float64(), nullable=False)),
    }
    return pa.schema([pa.field(name, types[kind], nullable=False) for name, kind in COLUMNS.items()])


def response_hash(tokens: np.ndarray) -> tuple[int, int]:
    """128-bit BLAKE2b of the token ids as little-endian int32, as two uint64 (high, low): equal ids, equal hash."""
    digest = hashlib.blake2b(np.ascontiguousarray(tokens, dtype="<i4").tobytes(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


def to_table(rollouts: Sequence[Rollout], run: str) -> pa.Table:
    """The rollouts as one Arrow table, row order as given.

    Raises ValueError where a rollout breaks its own contract (dtype, lengths), before anything is written.
    """
    import pyarrow as pa

    for r in rollouts:
        _check(r)
    hashes = np.array([response_hash(r.response_tokens) for r in rollouts], dtype=np.uint64).reshape(-1, 2)
    schema = arrow_schema()
    values: dict[str, Any] = {
        "run": [run] * len(rollouts),
        "branch": [r.branch for r in rollouts],
        "iteration": [r.iteration for r in rollouts],
        "step": [r.step for r in rollouts],
        "problem_id": [r.problem_id for r in rollouts],
        "sample": [r.sample for r in rollouts],
        "verdict": [str(r.verdict) for r in rollouts],
        "reward": [float(r.reward) for r in rollouts],
        "reward_parts": [[(key, float(value)) for key, value in r.reward_parts.items()] for r in rollouts],
        "finish": [r.finish for r in rollouts],
        "detail": [_utf8(r.detail) for r in rollouts],
        "n_tokens": [len(r.response_tokens) for r in rollouts],
        "response_hash_hi": hashes[:, 0],
        "response_hash_lo": hashes[:, 1],
        "text": [_utf8(r.text) for r in rollouts],
        "prompt_tokens": _lists([r.prompt_tokens for r in rollouts], schema.field("prompt_tokens").type),
        "response_tokens": _lists([r.response_tokens for r in rollouts], schema.field("response_tokens").type),
        "logprobs": _lists([r.logprobs for r in rollouts], schema.field("logprobs").type),
    }
    arrays = [
        values[field.name] if isinstance(values[field.name], pa.Array) else pa.array(values[field.name], field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def from_table(table: pa.Table) -> list[Rollout]:
    """The rollouts of a table that has (at least) a segment's columns, in row order."""
    if table.num_rows == 0:
        return []
    plain = {
        name: table.column(name).to_pylist()
        for name in ("problem_id", "finish", "text", "detail", "reward", "reward_parts")
    }
    address = {name: table.column(name).to_pylist() for name in ("branch", "iteration", "step", "sample")}
    verdicts = [Verdict(value) for value in table.column("verdict").to_pylist()]
    prompts, responses, logprobs = (
        _arrays(table.column(name)) for name in ("prompt_tokens", "response_tokens", "logprobs")
    )
    return [
        Rollout(
            problem_id=plain["problem_id"][i],
            prompt_tokens=prompts[i],
            response_tokens=responses[i],
            logprobs=logprobs[i],
            finish=plain["finish"][i],
            text=plain["text"][i],
            verdict=verdicts[i],
            detail=plain["detail"][i],
            reward=plain["reward"][i],
            reward_parts=dict(plain["reward_parts"][i]),
            branch=address["branch"][i],
            iteration=address["iteration"][i],
            step=address["step"][i],
            sample=address["sample"][i],
        )
        for i in range(table.num_rows)
    ]


def _check(r: Rollout) -> None:
    where = f"rollout of problem {r.problem_id!r}, step {r.step}, sample {r.sample}"
    expected = {"prompt_tokens": np.int32, "response_tokens": np.int32, "logprobs": np.float32}
    for name, dtype in expected.items():
        array = getattr(r, name)
        if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype != dtype:
            got = f"{array.dtype}{list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
            raise ValueError(f"{where}: {name} is {got}, expected a {np.dtype(dtype)} array of one dimension")
    if len(r.logprobs) != len(r.response_tokens):
        raise ValueError(f"{where}: {len(r.logprobs)} log-probs for {len(r.response_tokens)} response tokens")


def _utf8(text: str) -> str:
    """Lone surrogates (from a JSON "\\ud800") have no UTF-8 form: they become '?', rather than stopping the run."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def _lists(arrays: list[np.ndarray], kind: pa.ListType) -> pa.Array:
    import pyarrow as pa

    offsets = np.zeros(len(arrays) + 1, dtype=np.int32)
    np.cumsum([len(a) for a in arrays], out=offsets[1:])
    flat = np.concatenate(arrays) if arrays else np.empty(0, dtype=kind.value_type.to_pandas_dtype())
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, kind.value_type), type=kind)


def _arrays(column: pa.ChunkedArray) -> list[np.ndarray]:
    result: list[np.ndarray] = []
    for chunk in column.chunks:
        offsets = chunk.offsets.to_numpy().astype(np.int64)
        # A copy, because Arrow's buffers are read-only and torch refuses to wrap those without a warning.
        flat = chunk.values.to_numpy()[offsets[0] : offsets[-1]].copy()
        result += np.split(flat, offsets[1:-1] - offsets[0]) if len(chunk) else []
    return result
