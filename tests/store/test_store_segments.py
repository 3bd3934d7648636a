from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rollout_factory import bits, rollout

from reasonloop.errors import RunError
from reasonloop.records import Place, Rollout, Verdict
from reasonloop.store import segments as segments_module
from reasonloop.store.database import query
from reasonloop.store.experts import select_experts
from reasonloop.store.schema import SCHEMAS, to_table
from reasonloop.store.segments import TrajectoryStore, encode, list_segments, read_rows

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TOKENS = hnp.arrays(np.int32, st.integers(0, 6), elements=st.integers(-(2**31), 2**31 - 1))


def masks(length: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.bool_, length).filter(lambda mask: mask.any())


@st.composite
def step_rollouts(draw: st.DrawFn) -> list[Rollout]:
    result, stage, scored = [], draw(st.sampled_from(["explore", "greedy"])), draw(st.booleans())
    for sample in range(draw(st.integers(0, 6))):
        tokens = draw(TOKENS)
        # Every bit pattern of a float32, NaN payloads included: the store must not touch one.
        patterns = draw(hnp.arrays(np.uint32, len(tokens), elements=st.integers(0, 2**32 - 1)))
        result.append(
            Rollout(
                problem_id=draw(TEXT),
                prompt_tokens=draw(TOKENS),
                response_tokens=tokens,
                logprobs=patterns.view(np.float32),
                finish=draw(st.sampled_from(["stop", "length"])),
                text=draw(TEXT),
                verdict=draw(st.sampled_from(list(Verdict))),
                detail=draw(TEXT),
                reward=draw(st.floats()),
                reward_parts=draw(st.dictionaries(TEXT, st.floats(), max_size=3)),
                place=Place("main", stage, 2, 3),
                sample=sample,
                version=draw(st.integers(0, 2**31 - 1)),
                sampled=draw(st.none() | masks(len(tokens))) if len(tokens) else None,
                score=draw(st.none() | st.floats(0, 1)) if scored else None,
            )
        )
    return result


@given(step_rollouts(), st.integers(1, 8))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_read_is_what_was_written_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, rollouts: list[Rollout], row_group_tokens: int
) -> None:
    store = TrajectoryStore(tmp_path_factory.mktemp("store"), "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments_module, "_ROW_GROUP_TOKENS", row_group_tokens)  # many row groups, or one
        place = rollouts[0].place if rollouts else Place(iteration=2, step=3)
        path = store.write(rollouts, place)
    assert bits(store.read()) == bits(rollouts)
    some = random.Random(0).sample(range(len(rollouts)), (len(rollouts) + 1) // 2)
    assert bits(read_rows(path, some)) == bits(rollouts[i] for i in sorted(some))


def test_arrays_that_are_read_can_be_written_to(tmp_path: Path) -> None:
    """torch warns when it wraps a read-only array, and an update in place would be undefined."""
    store = TrajectoryStore(tmp_path, "run")
    store.write([rollout("p"), rollout("q")], Place())
    first, second = store.read()
    first.response_tokens[-1] = 99
    assert second.response_tokens.tolist() == [1, 2]


def test_a_lone_surrogate_in_a_text_does_not_stop_the_run(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path, "run")
    store.write([rollout("p", text="a\ud800b", detail="\udfff")], Place())
    assert [(r.text, r.detail) for r in store.read()] == [("a?b", "?")]


def test_equal_rollouts_make_equal_files_in_any_process(tmp_path: Path) -> None:
    rollouts = [rollout(f"p{i % 5}", sample=i, tokens=range(i), reward_parts={"a": 1.0}) for i in range(40)]
    path = TrajectoryStore(tmp_path / "one", "run").write(rollouts, Place())
    again = TrajectoryStore(tmp_path / "two", "run").write(rollouts, Place())
    assert path.read_bytes() == again.read_bytes()
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from rollout_factory import rollout; from reasonloop.records import Place\n"
        "from reasonloop.store.segments import TrajectoryStore\n"
        "rollouts = [rollout(f'p{i % 5}', sample=i, tokens=range(i), reward_parts={'a': 1.0}) for i in range(40)]\n"
        "TrajectoryStore(Path(sys.argv[2]), 'run').write(rollouts, Place())\n"
    )
    _python(script, str(Path(__file__).parent), str(tmp_path / "three"))
    assert (tmp_path / "three" / path.name).read_bytes() == path.read_bytes()


def test_a_step_that_is_written_again_replaces_its_segment(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path, "run")
    store.write([rollout("old"), rollout("older")], Place())
    path = store.write([rollout("new")], Place())
    assert path == tmp_path / "main-i000-s00000.parquet"
    assert [r.problem_id for r in store.read()] == ["new"]
    assert os.listdir(tmp_path) == [path.name]


def test_segments_are_found_by_branch_iteration_and_step_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path, "run")
    places = [(b, i, s) for b in ("main", "main-2") for i in (0, 1000) for s in (0, 9, 100_000)]
    for branch, iteration, step in random.Random(1).sample(places, len(places)):
        row = rollout("p", step, branch=branch, iteration=iteration)
        store.write([row], row.place)
    (tmp_path / "notes.parquet").write_bytes(b"not a segment by its name")
    assert [(place.branch, place.iteration, place.step) for place in list_segments(tmp_path)] == places
    assert [(r.branch, r.iteration, r.step) for r in store.read()] == places
    assert [(r.iteration, r.step) for r in store.read("main-2", 1000)] == [(1000, 0), (1000, 9), (1000, 100_000)]
    assert len(store.read("main")) == 6


def test_an_absent_folder_is_an_empty_store(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path / "none", "run")
    assert (list_segments(store.folder), store.read()) == ({}, [])
    assert not (tmp_path / "none").exists()


def test_leftovers_of_a_killed_writer_are_ignored_and_its_resumed_exploration_removes_them(tmp_path: Path) -> None:
    mine, other = tmp_path / ".main-i000-s00004.parquet.partial", tmp_path / ".main-2-i000-s00004.parquet.partial"
    for path in (mine, other):
        path.write_bytes(b"torn")
    store = TrajectoryStore(tmp_path, "run")
    assert store.read() == []
    store.take_back(Place())
    # Another branch's may belong to a writer that is alive.
    assert (mine.exists(), other.exists()) == (False, True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda r: [replace(r, place=Place(step=1))], "belongs to .*step=1.*, not to .*step=0"),
        (lambda r: [replace(r, place=Place("vanilla"))], "belongs to .*branch='vanilla'"),
        (lambda r: [replace(r, sampled=np.ones(1, bool))], "sampled has 1 values"),
        (lambda r: [replace(r, sampled=np.zeros(2, bool))], "0 of them true, for 2 response tokens"),
        (lambda r: [replace(r, sampled=np.ones(2, np.int8))], "sampled is int8"),
        (lambda r: [r, r], "problem 'p' has sample 0 twice"),
        (lambda r: [replace(r, logprobs=r.logprobs[:1])], "1 log-probs for 2 response tokens"),
        (lambda r: [replace(r, logprobs=r.logprobs.astype(np.float64))], "logprobs is float64"),
        (lambda r: [replace(r, response_tokens=r.response_tokens.astype(np.int64))], "response_tokens is int64"),
    ],
)
def test_rollouts_that_break_their_contract_are_refused_before_anything_is_written(
    tmp_path: Path, wrong: object, message: str
) -> None:
    store = TrajectoryStore(tmp_path / "store", "run")
    with pytest.raises(ValueError, match=message):
        store.write(wrong(rollout("p")), Place())  # type: ignore[operator]
    assert not (tmp_path / "store").exists()


def test_a_full_disk_leaves_the_old_segment_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TrajectoryStore(tmp_path, "run")
    path = store.write([rollout("old")], Place())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"main-i000-s00000.*No space left on device.*run the same command again"):
        store.write([rollout("new")], Place())
    assert [r.problem_id for r in store.read()] == ["old"]
    assert os.listdir(tmp_path) == [path.name]


def test_data_is_on_the_disk_before_its_name_is_and_the_name_before_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.replace

    def watched_fsync(handle: int) -> None:
        calls.append("sync folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "sync file")
        fsync(handle)

    def watched_rename(source: Path, target: Path) -> None:
        calls.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_rename)
    TrajectoryStore(tmp_path, "run").write([rollout("p")], Place())
    assert calls == ["sync file", "rename", "sync folder"]


# For k = 0, 1, ...: dies at the k-th moment before or after one of the writer's file-system calls, or half-way
# through what it writes.
KILLED_WRITER = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from rollout_factory import rollout
from reasonloop.records import Place
from reasonloop.store.segments import TrajectoryStore

def die_at(kill):
    state = {"tick": 0}
    def tick():
        if state["tick"] == kill:
            os._exit(9)
        state["tick"] += 1
    def wrapped(function):
        def call(*args, **kwargs):
            tick()
            result = function(*args, **kwargs)
            tick()
            return result
        return call
    class Torn:
        def __init__(self, file): self.file = file
        def __enter__(self): return self
        def __exit__(self, *error): self.file.close()
        def __getattr__(self, name): return getattr(self.file, name)
        def write(self, data):
            tick()
            self.file.write(data[: len(data) // 2]); self.file.flush()
            tick()
            self.file.write(data[len(data) // 2 :]); self.file.flush()
            tick()
    fdopen = os.fdopen
    os.fdopen = lambda *args: Torn(fdopen(*args))
    for name in ("open", "fsync", "replace", "close", "unlink"):
        setattr(os, name, wrapped(getattr(os, name)))

for kill in range(100):
    child = os.fork()
    if child == 0:
        die_at(kill)
        store = TrajectoryStore(Path(sys.argv[2]) / str(kill), "run")
        store.write([rollout("new", sample=i) for i in range(50)], Place())
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        print(kill)
        break
"""


def test_a_writer_killed_at_any_call_leaves_the_old_or_the_new_segment(tmp_path: Path) -> None:
    old = [rollout("old", sample=i) for i in range(30)]
    new = [rollout("new", sample=i) for i in range(50)]
    for kill in range(40):
        TrajectoryStore(tmp_path / str(kill), "run").write(old, Place())
        (tmp_path / str(kill) / ".main-i000-s00009.parquet.partial").write_bytes(b"torn by an earlier death")
    kills = int(_python(KILLED_WRITER, str(Path(__file__).parent), str(tmp_path)))
    assert 14 <= kills < 40  # every call of open, write, fsync, rename and close, before it and behind it
    outcomes = []
    for kill in range(kills + 1):
        store = TrajectoryStore(tmp_path / str(kill), "run")
        found = bits(store.read())
        assert found in (bits(old), bits(new)), f"killed at call {kill}"
        outcomes.append(found == bits(new))
        store.take_back(Place(step=1))  # the resumed run
        path = store.write(new, Place())
        assert bits(store.read()) == bits(new)
        assert os.listdir(store.folder) == [path.name]
    assert outcomes == sorted(outcomes)
    assert (outcomes[0], outcomes[-1]) == (False, True)


def test_a_damaged_byte_is_an_error_and_never_other_data(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path, "run")
    rng = np.random.default_rng(0)
    rollouts = [
        rollout(f"p{i // 4}", 0, i % 4, rng.integers(0, 30, 5), verdict=list(Verdict)[i % 2], reward_parts={"a": 1.0})
        for i in range(16)
    ]
    path = store.write(rollouts, Place())
    sound = path.read_bytes()
    experts = bits(select_experts(tmp_path, iteration=0).rollouts)
    places = sorted({*range(24), *range(len(sound) - 48, len(sound)), *rng.integers(0, len(sound), 160).tolist()})
    for i, place in enumerate(places):
        damaged = bytearray(sound)
        damaged[place] ^= 0xFF if i % 2 else 1 << (place % 8)
        path.write_bytes(damaged)
        found = _or_error(store.read)
        assert found == bits(rollouts) or str(path) in found, f"byte {place}"
        if i % 8 == 0:
            selected = _or_error(lambda: select_experts(tmp_path, iteration=0).rollouts)
            assert selected == experts or str(path) in selected, f"byte {place}"


def _or_error(read: Callable[[], list[Rollout]]) -> list | str:
    try:
        return bits(read())
    except RunError as error:
        return str(error)


def test_a_truncated_segment_is_an_error_that_names_it(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path, "run")
    path = store.write([rollout("p", sample=i) for i in range(4)], Place())
    sound = path.read_bytes()
    for size in [0, 1, 7, 8, 12, *range(100, len(sound), 331), len(sound) - 1]:
        path.write_bytes(sound[:size])
        for read in (store.read, lambda: select_experts(tmp_path, iteration=0)):
            with pytest.raises(RunError, match=r"main-i000-s00000\.parquet.*damaged.*delete it"):
                read()


def test_another_schema_version_and_a_foreign_file_are_told_apart_from_damage(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path, "run")
    path = tmp_path / "main-i000-s00000.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments_module, "_version_of", lambda table: 999)
        path.write_bytes(encode(to_table([rollout("p")], "run")))
    with pytest.raises(RunError, match=r"schema version 999, this version of reasonloop reads 1, 2, 3"):
        store.read()
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(RunError, match="damaged"):
        store.read()


def test_segments_of_the_first_schema_are_read_and_asked_beside_new_ones(tmp_path: Path) -> None:
    """The file was written by the version before the second schema (commit 8679ef3)."""
    shutil.copytree(Path(__file__).parent / "schema-1", tmp_path / "run")
    store = TrajectoryStore(tmp_path / "run" / "trajectories", "run")
    old = store.read()
    assert [(r.problem_id, r.sample, len(r.response_tokens)) for r in old] == [
        (f"p{i // 4}", i % 4, 3 + i) for i in range(8)
    ]
    assert {(r.place, r.version, r.sampled) for r in old} == {(Place(step=1), 0, None)}
    assert [r.reward for r in old] == [0.25 * i for i in range(8)]
    columns = query(tmp_path / "run", "DESCRIBE rollouts")
    new = [replace(r, place=Place(step=2), version=3, sampled=r.response_tokens > 0) for r in old]
    store.write(new, Place(step=2))
    assert bits(store.read()) == bits([*old, *new])
    sql = "SELECT step, stage, version, sum(n_tokens), sum(len(sampled)) FROM rollouts GROUP BY ALL ORDER BY ALL"
    assert query(tmp_path / "run", "DESCRIBE rollouts") == columns
    tokens = sum(range(3, 11))
    assert query(tmp_path / "run", sql)[1] == [(1, "explore", 0, tokens, 0), (2, "explore", 3, tokens - 8, tokens)]
    experts = select_experts(store.folder, iteration=0, hard_threshold=1.0)
    assert (experts.seen, experts.right) == (16, 4)
    assert {r.step for r in experts.rollouts} == {1}  # the same tokens again in step 2


def test_a_step_without_scores_is_written_as_before_and_asked_beside_one_with_scores(tmp_path: Path) -> None:
    """Segments of the second schema, whose bytes earlier versions read: the third is for steps with a score alone."""
    store = TrajectoryStore(tmp_path / "run" / "trajectories", "run")
    plain, scored = (
        [rollout("p"), rollout("q")],
        [rollout("p", 1, score=0.25), rollout("q", 1), rollout("r", 1, score=0)],
    )
    paths = [store.write(plain, Place()), store.write(scored, Place(step=1))]
    names = [pq.read_schema(path).names for path in paths]
    assert (names[0], names[1]) == (SCHEMAS[2].names, [*SCHEMAS[2].names, "score"])
    assert bits(store.read()) == bits([*plain, *scored])
    sql = "SELECT step, count(*), count(score), sum(score), avg(score) FROM rollouts GROUP BY ALL ORDER BY ALL"
    assert query(tmp_path / "run", sql)[1] == [(0, 2, 0, None, None), (1, 3, 2, 0.25, 0.125)]
    assert select_experts(store.folder, iteration=0, hard_threshold=1.0).right == 5


def test_any_parquet_reader_reads_a_segment(tmp_path: Path) -> None:
    rollouts = [rollout(f"p{i}", sample=i, tokens=range(i)) for i in range(5)]
    path = TrajectoryStore(tmp_path, "my run").write(rollouts, Place())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = pq.read_table(path)
    assert table.column("n_tokens").to_pylist() == [0, 1, 2, 3, 4]
    assert table.column("response_tokens").to_pylist() == [list(range(i)) for i in range(5)]
    assert set(table.column("run").to_pylist()) == {"my run"}


def _python(script: str, *args: str) -> str:
    done = subprocess.run([sys.executable, "-c", script, *args], check=True, capture_output=True, text=True)
    return done.stdout
