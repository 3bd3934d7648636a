"""What a run has written knows itself: what was lost, exchanged, cut or changed is named when it is read."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faulty_disk import BROKEN, CUT, FULL, FaultyDisk
from run_fixtures import command, metrics, outcome, small_recipe, temporary

from reasonloop import config
from reasonloop.api.runs import Run
from reasonloop.config import Optimizer, Sampling
from reasonloop.errors import InputError, RunError
from reasonloop.exchange.experts import choose
from reasonloop.learner.local import LocalLearner
from reasonloop.policy.policy import Policy
from reasonloop.report.run import read_run
from reasonloop.report.sample import browse
from reasonloop.runs import whole
from reasonloop.runs.checkpoints import Checkpoint
from reasonloop.runs.folder import RunFolder
from reasonloop.runs.whole import ASIDE
from reasonloop.store.database import connect, query
from reasonloop.store.experts import chosen_experts
from reasonloop.store.sources import SOURCES
from reasonloop.written.known import NAME, Written
from reasonloop.written.ledger import Ledger

OPTIONS = (
    *("rloop.iterations=1", "rl.steps=3", "rloop.vanilla=false", "eval.samples=1", "eval.explored=false"),
    *("rft.epochs=1", "keep_checkpoints=true"),
)


class Case:
    """A run in a folder of its own, called `run` everywhere."""

    def __init__(self, folder: Path, begun: Path | None = None) -> None:
        self.out, self.log = folder / "run", folder / "log"
        folder.mkdir(exist_ok=True)
        if begun is not None:
            shutil.copytree(begun, self.out)

    def work(self, **trouble: object) -> tuple[int, str]:
        argv = ["run", small_recipe(temporary()), *OPTIONS, "--out", self.out]
        return self.verb(*argv, **trouble)

    def verb(self, *argv: str | Path, **trouble: object) -> tuple[int, str]:
        self.log.unlink(missing_ok=True)
        code = command(argv, log=self.log, **trouble)
        said = self.log.read_text() if self.log.exists() else ""
        assert "Traceback" not in said
        return code, said

    def opened(self) -> list[str]:
        """What is told as the run goes on, or what it says that it doesn't for."""
        recipe = config.load(small_recipe(temporary()), list(OPTIONS))
        run = RunFolder(recipe, self.out)
        try:
            assert run.threads == 1
            return run.told
        finally:
            run.close()

    def refused(self, *named: str) -> str:
        """It doesn't go on, and one line names these."""
        with pytest.raises((InputError, RunError)) as raised:
            self.opened()
        said = str(raised.value)
        assert [name for name in named if name not in said] == []
        assert "\n" not in said
        return said

    def same(self) -> str:
        """It goes on, to the same bytes."""
        code, said = self.work()
        assert code == 0, said
        found, expected = outcome(self.out), outcome(begun("")) | {NAME: {}}
        assert [name for name in {*found, *expected} if found.get(name) != expected.get(name)] == []
        return said

    def flip(self, name: str) -> None:
        path = self.out / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x40
        path.write_bytes(content)


_begun: dict[str, Path] = {}


def begun(below: str) -> Path:
    """A run that was killed just before its first change below there; "": a finished one."""
    if below not in _begun:
        case = Case(temporary() / f"whole-{len(_begun)}")
        code, said = case.work(watched=case.out / below, kill_at=1) if below else case.work()
        assert code == (-signal.SIGKILL if below else 0), said
        _begun[below] = case.out
    return _begun[below]


BEFORE_RFT, BEFORE_PRODUCT, EXPLORING = "checkpoints/main-rft", "model", "trajectories/.main-i000-s00002"
SECOND = "trajectories/main-i000-s00001.parquet"


# checkpoints


def test_a_flipped_bit_in_a_checkpoint_is_named_with_what_is_still_good(tmp_path: Path) -> None:
    case = Case(tmp_path, begun(BEFORE_PRODUCT))
    stage = case.out / "checkpoints" / "main-rft-0"
    for name in ("model.safetensors", "tokenizer.json", "stage.json", "config.json"):
        case.flip(f"checkpoints/main-rft-0/{name}")
        told = case.refused(f"{stage / name}: changed", f"delete the folder {stage} and {case.out / NAME}")
        assert f"Still good: {case.out / 'checkpoints/main-explore-0'}." in told
        case.flip(f"checkpoints/main-rft-0/{name}")
    case.opened()


def test_large_weights_are_looked_at_when_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path, begun(BEFORE_PRODUCT))
    monkeypatch.setattr(whole, "AT_ONCE", 100)
    case.flip("checkpoints/main-rft-0/model.safetensors")
    case.opened()
    with pytest.raises(RunError, match=r"main-rft-0/model\.safetensors: changed"):
        Policy.load(case.out / "checkpoints" / "main-rft-0")
    with pytest.raises(RunError, match=r"main-rft-0/model\.safetensors: changed"):
        Checkpoint(case.out / "checkpoints" / "main-rft-0").deliver(tmp_path / "delivered")
    (case.out / "checkpoints" / "main-rft-0" / "model.safetensors").write_bytes(b"")
    case.refused("model.safetensors: cut: 0 bytes of")


def test_a_damaged_trainer_state_is_named(tmp_path: Path) -> None:
    """With its digest, and in a run of an earlier version that has none."""
    case = Case(tmp_path, begun(EXPLORING))
    path = case.out / "checkpoints" / "main-explore-0" / "trainer.pt"
    sound = path.read_bytes()
    policy = Policy.load(path.parent)
    for content in (sound[: len(sound) // 2], b"", b"garbage" * 40):
        path.write_bytes(content)
        case.refused(str(path))
        digests = (case.out / NAME).rename(tmp_path / NAME)
        with pytest.raises(RunError, match=re.escape(f"{path}: damaged")):
            Checkpoint(path.parent).restore(LocalLearner(policy, Optimizer(), Sampling()))
        digests.rename(case.out / NAME)
    path.unlink()
    case.refused("main-explore-0/trainer.pt: lost")


def test_what_the_message_says_to_do_works(tmp_path: Path) -> None:
    case = Case(tmp_path, begun(EXPLORING))
    case.flip("checkpoints/main-explore-0/model.safetensors")
    code, said = case.work()
    assert code == 1
    assert "main-explore-0/model.safetensors: changed" in said.splitlines()[-1]
    shutil.rmtree(case.out / "checkpoints" / "main-explore-0")
    (case.out / NAME).unlink()
    assert f"{case.out}: no digests of what was written before" in case.same()
    assert case.opened() == []


def test_a_finished_model_is_looked_at(tmp_path: Path) -> None:
    case = Case(tmp_path, begun(""))
    case.flip("model/model.safetensors")
    case.refused("model/model.safetensors: changed")
    with pytest.raises(RunError, match=r"model/model\.safetensors: changed"):
        Policy.load(case.out)


# the store


def _lose(run: Path) -> str:
    (run / SECOND).unlink()
    return f"{SECOND}: lost"


def _swap(run: Path) -> str:
    first = run / "trajectories" / "main-i000-s00000.parquet"
    content = first.read_bytes()
    first.write_bytes((run / SECOND).read_bytes())
    (run / SECOND).write_bytes(content)
    return f"{SECOND}: it is trajectories/main-i000-s00000.parquet"


def _copy(run: Path) -> str:
    copy = run / "trajectories" / "main-i000-s00007.parquet"
    copy.write_bytes((run / SECOND).read_bytes())
    return f"{copy.name}: not written by this run"


def _cut(run: Path) -> str:
    (run / SECOND).write_bytes((run / SECOND).read_bytes()[:-9])
    return f"{SECOND}: cut"


@pytest.mark.parametrize("damage", [_lose, _swap, _copy, _cut])
def test_segments_that_are_not_those_that_were_written_are_named(damage: Callable[[Path], str], tmp_path: Path) -> None:
    case = Case(tmp_path, begun(BEFORE_RFT))
    named = damage(case.out)
    if damage is not _copy:  # a step that an exploration would make, and replace
        case.refused(named)
    for read in (lambda: query(case.out, "SELECT count(*) FROM rollouts"), lambda: Run(case.out).rollouts()):
        with pytest.raises(RunError, match=re.escape(named)):
            read()


@pytest.mark.parametrize(("damage", "named"), [(_lose, "1 of the 3 segments"), (_swap, "its rollouts are of step")])
def test_so_they_are_in_a_run_without_digests(damage: Callable[[Path], str], named: str, tmp_path: Path) -> None:
    case = Case(tmp_path, begun(BEFORE_RFT))
    damage(case.out)
    (case.out / NAME).unlink()
    with pytest.raises(RunError, match=named):
        chosen_experts(Run(case.out).recipe, case.out, 0)


# metrics and evaluations


def test_a_damaged_line_of_metrics_is_told_and_kept_aside(tmp_path: Path) -> None:
    case = Case(tmp_path, begun(BEFORE_RFT))
    path = case.out / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    sound, lines[1] = lines[1], lines[1][:40] + b"\xff" + lines[1][41:]
    path.write_bytes(b"\n".join(lines))
    assert any("1 damaged line of metrics.jsonl" in text for text in read_run(case.out).missing)
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 2"):
        query(case.out, "SELECT count(*) FROM metrics")
    code, said = case.work()
    assert code == 0
    assert f"{path}, line 2: damaged, and kept aside in {case.out / ASIDE}" in said
    assert (case.out / ASIDE).read_bytes() == lines[1] + b"\n"
    step = json.loads(sound)["step"]
    assert [line["step"] for line in metrics(case.out, stage="explore")] == [i for i in range(3) if i != step]
    assert case.opened() == []


@pytest.mark.parametrize("left", [0.0, 0.5])
def test_emptied_and_halved_metrics_are_told(left: float, tmp_path: Path) -> None:
    case = Case(tmp_path, begun(BEFORE_RFT))
    path = case.out / "metrics.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content))])
    assert f"{path}: cut: {path.stat().st_size:,} bytes of" in case.opened()[0]
    assert case.opened() == []


def test_another_value_in_a_line_of_metrics_is_told(tmp_path: Path) -> None:
    case = Case(tmp_path, begun(BEFORE_RFT))
    path = case.out / "metrics.jsonl"
    path.write_text(path.read_text().replace('"step": 1', '"step": 7', 1))
    for read in (lambda: query(case.out, "SELECT count(*) FROM metrics"), lambda: Run(case.out).metrics):
        with pytest.raises(RunError, match=r"metrics\.jsonl: changed"):
            read()
    assert any("metrics.jsonl: changed" in text for text in read_run(case.out).missing)
    assert f"{path}: changed" in case.opened()[0]


@pytest.mark.parametrize("name", ["evals/base.json", "evals/base.parquet", "inputs.json", "problems.parquet"])
def test_what_is_lost_or_changed_of_the_rest_is_named(name: str, tmp_path: Path) -> None:
    case = Case(tmp_path, begun(BEFORE_RFT))
    case.flip(name)
    case.refused(f"{case.out / name}: changed")
    if name == "evals/base.json":
        with pytest.raises(RunError, match=r"base\.json: changed"):
            query(case.out, "SELECT count(*) FROM evals")
        assert any("base.json: changed" in text for text in read_run(case.out).missing)
    (case.out / name).unlink()
    case.refused(f"{case.out / name}: lost")


def _reading(run: Path) -> dict[str, Callable[[], object]]:
    def report() -> object:
        found = read_run(run)
        return found.missing, found.config, found.evals, found.lines, browse(found)

    def tables() -> object:
        return [
            query(run, f"SELECT bit_xor(hash(t)) FROM {name} t") for name in ("rollouts", "eval_rollouts", "problems")
        ]

    def own() -> object:
        there = Run(run)
        return (
            there.recipe,
            [vars(one) for one in there.evals],
            there.metrics,
            [pickle.dumps(one) for one in there.rollouts()],
        )

    def experts() -> object:
        return [(one.problem, pickle.dumps(one.rollout)) for one in choose(Run(run).recipe, run).experts]

    return {"report": report, "query": tables, "api": own, "experts": experts}


@pytest.mark.parametrize("way", ["lost", "flipped", "emptied"])
def test_whatever_is_read_is_as_it_was_or_named(way: str, tmp_path: Path) -> None:
    """Of each kind of file, by each reader."""
    case = Case(tmp_path, begun(""))
    sound = {reader: read() for reader, read in _reading(case.out).items()}
    chosen = ("config.toml", "metrics.jsonl", "problems.parquet", SECOND, "evals/base.json", "evals/base.parquet")
    for name in chosen:
        path = case.out / name
        content = path.read_bytes()
        if way == "flipped":
            case.flip(name)
        else:
            path.unlink() if way == "lost" else path.write_bytes(b"")
        for reader, read in _reading(case.out).items():
            try:
                found: object = read()
            except (InputError, RunError, duckdb.Error) as error:
                found = error
            assert found == sound[reader] or path.name in str(found), (reader, name)
        path.write_bytes(content)


# what the run is, and where it is


def test_damaged_states_are_named(tmp_path: Path) -> None:
    case = Case(tmp_path, begun(BEFORE_RFT))
    for name in ("state.json", "config.toml", "checkpoints/main-explore-0/stage.json"):
        sound = (case.out / name).read_bytes()
        for content in (b"", b"\xff\xfe" + sound, b"[" * 100_000, sound[:10]):
            (case.out / name).write_bytes(content)
            case.refused(name)
        (case.out / name).write_bytes(sound)
    case.opened()


def test_another_state_is_told_and_other_threads_are_refused(tmp_path: Path) -> None:
    case = Case(tmp_path, begun(BEFORE_RFT))
    (case.out / "state.json").write_text('{"stage": "done"}\n')
    file = case.out / "config.toml"
    text = file.read_text()
    head, _, ran_on = text.partition("[ran_on]")
    file.write_text(f"{head}[ran_on]{ran_on.replace('threads = 1', 'threads = 3')}")
    case.refused(f"{file}: ran_on.threads = 3, and the run began with 1")
    file.write_text(f"{text}# more\n")
    told = case.same()
    assert f"{case.out / 'state.json'}: cut" in told
    assert f"{file}: longer" in told


def test_damaged_digests_are_named_by_their_line(tmp_path: Path) -> None:
    case = Case(tmp_path, begun(BEFORE_RFT))
    path = case.out / NAME
    sound = path.read_bytes()
    lines = sound.split(b"\n")
    path.write_bytes(b"\n".join([*lines[:2], lines[2].replace(b"0", b"1", 1), *lines[3:]]))
    case.refused(f"{path}, line 3: damaged")
    path.write_bytes(b"")
    case.refused(f"{path}: empty")
    path.write_bytes(sound)
    assert case.opened() == []


# disks


@pytest.mark.parametrize(("mode", "at", "seed"), [(FULL, 130, 0), (BROKEN, 180, 0), (CUT, 205, 3)])
def test_a_disk_that_goes_wrong_costs_nothing(mode: str, at: int, seed: int, tmp_path: Path) -> None:
    """A few of what benchmarks/faults/disk.py tries: all operations in all modes."""
    case = Case(tmp_path)
    code, said = case.work(disk=FaultyDisk(case.out, mode, at, seed))
    assert code == (-signal.SIGKILL if mode == CUT else 1)
    assert mode == CUT or said.splitlines()[-1].startswith("reasonloop: ")
    case.same()


def test_the_first_lines_of_metrics_are_on_the_disk_before_what_stands_behind_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their file's name, too: a power cut behind the first evaluation lost its line for good."""
    ledger, synced = Ledger(tmp_path, {}), list[Path]()
    monkeypatch.setattr("reasonloop.written.ledger.fsync", synced.append)
    (tmp_path / "metrics.jsonl").write_text('{"stage": "eval"}\n')
    ledger.write(tmp_path / "evaluation.json", "{}")
    assert synced == [tmp_path / "metrics.jsonl", tmp_path]


def test_what_a_killed_process_left_half_written_goes(tmp_path: Path) -> None:
    case = Case(tmp_path, begun(BEFORE_RFT))
    left = [".metrics.jsonl.partial", "evals/.base.json.partial", "trajectories/.main-i000-s00000.parquet.partial"]
    for name in left:
        (case.out / name).write_bytes(b"half")
    (case.out / "model.partial.partial").mkdir()
    case.opened()
    assert [name for name in [*left, "model.partial.partial"] if os.path.lexists(case.out / name)] == []


def test_a_query_reads_the_digests_once_however_many_files_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sources").mkdir()
    (tmp_path / "config.toml").write_text("seed = 0\n")
    ledger, sink, read = Ledger(tmp_path), pa.BufferOutputStream(), list[Path]()
    pq.write_table(SOURCES.empty_table(), sink, write_page_checksum=True)
    for step in range(30):
        ledger.write(tmp_path / "sources" / f"main-i000-s{step:05d}.parquet", memoryview(sink.getvalue()))
    parse = Written.parse
    monkeypatch.setattr(Written, "parse", lambda run: read.append(run) or parse(run))
    connect(tmp_path).close()
    assert read == [tmp_path.resolve()]
    (tmp_path / "sources" / "main-i000-s00007.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunError, match=r"s00007.parquet: cut: 4 bytes of"):
        connect(tmp_path)
