"""Whatever a file holds: its rollouts are read, its faults are counted, or it is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from byte_model import byte_model

from reasonloop.errors import InputError
from reasonloop.imports.judging import judged
from reasonloop.imports.reading import Asked, find_rollouts
from reasonloop.imports.scores import Agreement
from reasonloop.policy.codec import Codec
from reasonloop.records import Place, Problem
from reasonloop.store.schema import to_table
from reasonloop.verify.workers import VerifierPool, VerifierSpec

CASES = Path(__file__).parent / "cases"
FILES = sorted(
    path
    for path in CASES.rglob("*")
    if path.suffix in (".jsonl", ".json", ".parquet")
    and "sft" not in path.parts
    and path.name not in ("problems.jsonl", "expected.json")
)
PROBLEMS = [Problem(str(k), prompt=p, answer="1") for k, p in enumerate(("17 + 25 = ?", "9 * 8 = ?", "144 / 12 = ?"))]
ODD: list[Any] = [None, [], {}, "", "x", "\ud800", -1, 10**30, 1e308, float("nan"), True, [None], [[]], {"a": 1}, 256]


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(VerifierSpec("reasonloop.verify.verifiers:ExactVerifier")) as made:
        yield made


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return Codec.load(byte_model(tmp_path_factory.mktemp("bytes")))


def changed(value: Any, rng: Random) -> Any:
    """The value with one thing in it replaced, left out or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.95:
        key = rng.choice([*value])
        kept = {k: v for k, v in value.items() if k != key or rng.random() < 0.9}
        return kept | ({key: changed(value[key], rng)} if key in kept else {})
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return [*value[:at], *([changed(value[at], rng)] * rng.choice((0, 1, 1, 1, 2))), *value[at + 1 :]]
    return rng.choice(ODD)


def damaged(path: Path, out: Path, rng: Random) -> None:
    if path.suffix == ".parquet":
        rows = [changed(row, rng) if rng.random() < 0.3 else row for row in pq.read_table(path).to_pylist()]
        try:
            pq.write_table(pa.Table.from_pylist(rows), out)
        except (pa.ArrowException, AttributeError, ValueError, TypeError, OverflowError):
            out.write_bytes(path.read_bytes()[: rng.randrange(5000)])
        return
    data = path.read_bytes()
    if rng.random() < 0.2:
        at, count = rng.randrange(len(data)), rng.randrange(1, 40)
        out.write_bytes(data[:at] + rng.choice((b"", b"\n", b"\xff\x00", b"}")) + data[at + count :])
    elif path.suffix == ".json":
        out.write_text(json.dumps(changed(json.loads(data), rng)))
    else:
        rows = [json.loads(line) for line in data.split(b"\n") if line]
        out.write_text("".join(json.dumps(changed(row, rng) if rng.random() < 0.5 else row) + "\n" for row in rows))


def read(path: Path, pool: VerifierPool, codec: Codec | None) -> None:
    asked = Asked(step=0, unmatched=1.0, evaluation=True)
    try:
        with find_rollouts([path], PROBLEMS, asked, codec) as reading:
            agreement = Agreement()
            steps = [*judged(reading, pool, agreement, Place())]
    except InputError:
        return
    agreement.table().lines()
    reading.counts.lines()
    for step in steps:
        assert len(step.rollouts) == len(step.sources) > 0
        to_table(step.rollouts, "run")  # what a store takes


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CASES).as_posix())
def test_damage_is_counted_or_refused(path: Path, tmp_path: Path, pool: VerifierPool, codec: Codec) -> None:
    for seed in range(ROUNDS):
        rng = Random(f"{path.name} {seed}")
        out = tmp_path / f"{path.stem}_{seed}{path.suffix}"
        damaged(path, out, rng)
        read(out, pool, codec if seed % 2 else None)


ROUNDS = 3
