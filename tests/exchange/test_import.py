"""`reasonloop import`: a run that the readers of runs take, written whole or not at all."""

from __future__ import annotations

import json
import shutil
import tomllib
import tracemalloc
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from byte_model import byte_model
from run_fixtures import outcome, start

from reasonloop.api.runs import Run
from reasonloop.cli import main
from reasonloop.errors import InputError, RunError
from reasonloop.files import partial_folder
from reasonloop.imports.judging import judged
from reasonloop.imports.reading import Asked, find_rollouts
from reasonloop.imports.recognising import NAMES
from reasonloop.imports.scores import Agreement
from reasonloop.records import Place, Problem
from reasonloop.report.page import render
from reasonloop.report.run import read_run
from reasonloop.stages.experts import importance_weights
from reasonloop.store.database import query
from reasonloop.verify.workers import VerifierPool, VerifierSpec

CASES = Path(__file__).parent.parent / "imports" / "cases"
JOINED = "rollouts JOIN sources USING (branch, iteration, step, problem_id, sample)"
TASK = ["--task", str(CASES / "problems.jsonl")]


def imported(out: Path, *given: str | Path) -> int:
    return main(["import", *map(str, given), *TASK, "--out", str(out)])


def test_a_run_that_every_reader_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "runs" / "verl"
    assert imported(run, CASES / "verl" / "v0.6.1-dapo", "--from", "verl", "--eval") == 0
    told = capsys.readouterr().out
    assert "24 records in 4 files: 24 rollouts of 3 problems, steps 0 to 2" in told
    assert "verdict right             12            0" in told
    assert "agree on 100.0 %" in told
    columns = "branch, step, count(*), avg(reward), list(DISTINCT file)"
    assert query(run, f"SELECT {columns} FROM {JOINED} GROUP BY ALL ORDER BY ALL")[1] == [
        ("eval", 0, 6, 2 / 6, ["validation_data/0.jsonl"]),
        ("eval", 2, 6, 4 / 6, ["validation_data/2.jsonl"]),
        ("main", 1, 6, 2 / 6, ["rollout_data/1.jsonl"]),
        ("main", 2, 6, -2 / 6, ["rollout_data/2.jsonl"]),
    ]
    for source in query(run, f"SELECT file, line, text FROM {JOINED}")[1]:
        line = (CASES / "verl" / "v0.6.1-dapo" / source[0]).read_bytes().split(b"\n")[source[1] - 1]
        assert json.loads(line)["output"] == source[2]
    lines = Run(run).metrics
    assert [(line["step"], line["rollouts"], line["right"]) for line in lines] == [(1, 6, 4 / 6), (2, 12, 2 / 6)]
    assert "cut_off" not in lines[0]  # verl doesn't say
    assert lines[0]["reward_parts"] == {"acc": 4 / 6}
    assert [(float(e.average), e.name) for e in Run(run).evals] == [(2 / 6, "verl, step 0"), (4 / 6, "verl")]
    told = tomllib.loads((run / "config.toml").read_text())["imported"]
    assert (told["tokens"], told["logprobs"]) == ("UTF-8 bytes", "none")
    page = read_run(run)
    assert "Rollouts of verl on the task jsonl" in render(page)
    assert [text.split(":")[0] for text in page.missing] == ["Token ids", "Log-probs"]
    for argv in (["report", str(run)], ["compare", f"verl={run}"], ["query", str(run), "SELECT * FROM problems"]):
        assert main(argv) == 0
    assert "verl" in capsys.readouterr().out


def test_ids_alone_by_a_tokenizer(tmp_path: Path) -> None:
    """A folder with a tokenizer and nothing else says what ids mean."""
    model = byte_model(tmp_path / "model")
    (model / "config.json").unlink()
    assert imported(tmp_path / "run", CASES / "open-instruct" / "2026-02", "--model", str(model)) == 0
    assert query(tmp_path / "run", "SELECT count(*), count(*) FILTER (verdict = 'right') FROM rollouts")[1] == [(8, 5)]
    told = tomllib.loads((tmp_path / "run" / "config.toml").read_text())["imported"]
    assert (told["tokens"], told["logprobs"]) == ("the trainer's", "all")


def test_without_evaluations_compare_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported(tmp_path / "run", CASES / "roll") == 0
    assert main(["compare", str(tmp_path / "run")]) == 2
    assert "imported without an evaluation" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "run")]) == 0
    assert main(["eval", str(tmp_path / "run")]) == 2


def test_log_probs_are_kept_where_they_are_and_missed_where_they_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(tmp_path / "run", CASES / "prime-rl" / "v0.8.1") == 0
    told = tomllib.loads((tmp_path / "run" / "config.toml").read_text())["imported"]
    assert (told["trainer"], told["tokens"], told["logprobs"]) == ("prime-rl", "the trainer's", "all")
    assert sorted(told["left_out"].values()) == [2, 3]  # failed, of evaluations
    assert [*told["not_read"].values()] == [2]  # in effective/ again
    assert "log-probs" not in capsys.readouterr().out
    assert imported(tmp_path / "verl", CASES / "verl" / "v0.4.1") == 0
    assert "log-probs: none" in capsys.readouterr().out
    with pytest.raises(RunError, match="no log-probs"):
        importance_weights(None, "", Run(tmp_path / "verl").rollouts())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["verl/v0.9.1", "--from", "verrl"], "verl"),
        (["slime"], "pickles"),
        (["slime", "--from", "slime"], "pickles"),
        (["verifiers/v0.1.14"], "--step"),
        (["open-instruct"], "--model"),
        (["verl/v0.9.1", "--trust-scores", "acc >= 1"], "no rollout has 'acc'; there are: score"),
        (["verl/v0.9.1", "--trust-scores", "acc"], "score >= 1"),
        (["verl/v0.9.1", "--match", "id"], "no id"),
        (["not there"], "no such file"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    argv: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(tmp_path / "new" / "run", CASES / argv[0], *argv[1:]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert said in error
    assert error.startswith("reasonloop: ")
    assert [*tmp_path.iterdir()] == []


def test_scores_are_trusted_where_nothing_else_can_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No verifier, no gold answer is looked at, and no table is made of the rule with itself."""
    rows = [
        {"id": name, "prompt": f"{name} = ?", "answer": "nobody knows"} for name in ("17 + 25", "9 * 8", "144 / 12")
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    argv = [
        "import",
        str(CASES / "trl" / "v1.0.0"),
        "--task",
        str(tmp_path / "p.jsonl"),
        "--out",
        str(tmp_path / "run"),
    ]
    assert main([*argv, "--trust-scores", "format_reward >= 1"]) == 0
    told = capsys.readouterr().out
    assert "verdicts: by the trainer's numbers, format_reward >= 1" in told
    assert "verdict other" not in told
    counted = "count(*) FILTER (verdict = 'right'), count(*) FILTER (detail LIKE 'by %')"
    (found,) = query(tmp_path / "run", f"SELECT {counted} FROM rollouts")[1]
    tables = [pq.read_table(path).to_pylist() for path in (CASES / "trl" / "v1.0.0").rglob("*.parquet")]
    by_rule = sum(row["format_reward"] >= 1 for rows in tables for row in rows)
    assert found == (by_rule, 24)


def test_the_help_names_every_trainer(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["import", "--help"])
    told = capsys.readouterr().out
    assert [name for name in NAMES if name not in told] == []


def test_the_wrong_task_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "1 + 1 = ?", "answer": "2"}\n')
    given = [
        "import",
        str(CASES / "verl" / "v0.9.1"),
        "--task",
        str(tmp_path / "p.jsonl"),
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(given) == 2
    assert "12 of 12 rollouts answer no problem of the task" in capsys.readouterr().err
    (tmp_path / "p.jsonl").write_text('{"prompt": "17 + 25 = ?", "answer": "43"}\n')
    assert main([*given, "--allow-unmatched", "0.7"]) == 0
    told = capsys.readouterr().out
    assert "noted, gold answers that are written otherwise in the task: 4" in told
    assert "below 95 %" in told
    assert "problem p-" in told


def test_a_folder_that_is_not_new_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert imported(run, CASES / "trl" / "v1.0.0") == 0
    before = outcome(run)
    assert imported(run, CASES / "trl" / "v1.0.0") == 2
    assert "holds imported rollouts already" in capsys.readouterr().err
    assert outcome(run) == before
    assert [*tmp_path.iterdir()] == [run]
    assert main(["run", "quickstart", "--out", str(run)]) == 2  # nor is it gone on with


@pytest.mark.parametrize("verb", ["import", "experts"])
def test_the_folder_needs_a_name(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(CASES / "roll"), *TASK] if verb == "import" else [str(CASES)]
    for out in (".", "..", "/"):
        assert main([verb, *given, "--out", out]) == 2


def test_a_killed_import_leaves_nothing_and_is_made_anew(tmp_path: Path) -> None:
    argv = ["import", str(CASES / "verl" / "v0.9.1"), *TASK, "--out", str(tmp_path / "out" / "run")]
    (tmp_path / "out").mkdir()
    whole = tmp_path / "whole"
    assert main([*argv[:-1], str(whole)]) == 0
    killed = [start(argv, log=tmp_path / "log", watched=tmp_path / "out", kill_at=at) for at in (1, 4, 9)]
    for process in killed:
        process.join(60)
        assert process.exitcode == -9, (tmp_path / "log").read_text()
        assert not (tmp_path / "out" / "run").exists()
    assert main(argv) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run"]
    assert set(outcome(tmp_path / "out" / "run")) == set(outcome(whole))


def test_a_failing_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, rollouts: object, place: object) -> None:
        raise RunError("the segment could not be written (No space left on device)")

    monkeypatch.setattr("reasonloop.store.segments.TrajectoryStore.write", full)
    assert imported(tmp_path / "run", CASES / "verl" / "v0.9.1") == 1
    assert [*tmp_path.iterdir()] == []
    assert not partial_folder(tmp_path / "run").exists()


def test_memory_does_not_grow_with_the_rollouts(tmp_path: Path) -> None:
    """Ten times as many steps take no more memory but for 16 bytes or so a rollout."""
    problem = Problem("p", prompt="7 + 2 = ?", answer="9")
    peaks = []
    with VerifierPool(VerifierSpec("reasonloop.verify.verifiers:ExactVerifier")) as pool:
        for steps in (4, 40):
            folder = tmp_path / str(steps)
            folder.mkdir()
            for step in range(steps):
                said = {"input": "7 + 2 = ?", "score": 0.0, "step": step}
                rows = [said | {"output": f"{k} {'x' * 2000}", "uid": f"{step} {k}"} for k in range(50)]
                (folder / f"{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            tracemalloc.start()
            with find_rollouts([folder], [problem], Asked(), scratch=tmp_path) as reading:
                count = sum(len(step.rollouts) for step in judged(reading, pool, Agreement(), Place()))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert count == 50 * steps
    assert peaks[1] < 1.3 * peaks[0], peaks


def test_a_file_can_be_read_while_its_trainer_writes_it(tmp_path: Path) -> None:
    """The folder's own files aren't touched, and one that is a table is closed again."""
    shutil.copytree(CASES / "trl" / "v1.16.0", tmp_path / "trl")
    before = {path: path.read_bytes() for path in (tmp_path / "trl").rglob("*") if path.is_file()}
    assert imported(tmp_path / "run", tmp_path / "trl") == 0
    assert {path: path.read_bytes() for path in (tmp_path / "trl").rglob("*") if path.is_file()} == before
    assert pq.read_table(next(iter(before))).num_rows == 6
    with pytest.raises(InputError):
        find_rollouts([], [], Asked())
