"""`reasonloop experts`: RLoop's choice, in files that other trainers' fine-tuning reads as they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from reasonloop.cli import main
from reasonloop.config import parse
from reasonloop.records import Place, Rollout, Verdict
from reasonloop.stages.experts import experts_of
from reasonloop.store.experts import select_experts
from reasonloop.store.segments import TrajectoryStore
from reasonloop.tasks import load_task, task_problems

CASES = Path(__file__).parent.parent / "imports" / "cases"
FILES = {"messages": "messages.parquet", "prompt": "prompt_completion.parquet", "alpaca": "alpaca.json"}
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "9 * 8 = ?"}]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "verl"
    argv = ["import", str(CASES / "verl" / "v0.9.1"), "--task", str(CASES / "problems.jsonl"), "--out", str(folder)]
    assert main(argv) == 0
    return folder


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on chat problems, one of them in several turns."""
    folder = tmp_path_factory.mktemp("chats")
    turns = [*CHAT, {"role": "assistant", "content": "71"}, {"role": "user", "content": "Sure?"}]
    problems = [{"id": "a", "messages": CHAT, "answer": "72"}, {"id": "b", "messages": turns, "answer": "72"}]
    (folder / "p.jsonl").write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    rows = [
        {"id": name, "prompt": "?", "response": text, "step": step}
        for name in "ab"
        for step, text in enumerate(
            ("\\boxed{72}", "so \u2028 \\boxed{72}", "no", "\\boxed{72}", "<|x|> \\boxed{72}", "?")
        )
    ]
    (folder / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    argv = ["import", str(folder / "r.jsonl"), "--from", "jsonl", "--match", "id", "--task", str(folder / "p.jsonl")]
    assert main([*argv, "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_the_choice_is_rloop_s(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k, options in enumerate(({}, {"hard_threshold": 1.0, "cap": 1})):
        out = tmp_path / str(k)
        argv = ["experts", str(run), "--out", str(out), *(f"rloop.{key}={value}" for key, value in options.items())]
        assert main(argv) == 0
        chosen = select_experts(run / "trajectories", iteration=0, **options)
        provenance, rows = lines(out / "provenance.jsonl"), lines(out / "prompt_completion.jsonl")
        assert [(p["problem_id"], p["step"], p["sample"]) for p in provenance] == [
            (r.problem_id, r.step, r.sample) for r in chosen.rollouts
        ]
        assert [row["completion"] for row in rows] == [r.text for r in chosen.rollouts]
        for one, row in zip(provenance, rows, strict=True):
            source = (CASES / "verl" / "v0.9.1" / one["file"]).read_text().split("\n")[one["line"] - 1]
            assert json.loads(source)["output"] == row["completion"]
    assert "experts: 12 rollouts, 6 right" in capsys.readouterr().out


def test_prompt_and_completion(run: Path, tmp_path: Path) -> None:
    assert main(["experts", str(run), "--out", str(tmp_path / "out")]) == 0
    rows = lines(tmp_path / "out" / "prompt_completion.jsonl")
    assert all(row.keys() == {"prompt", "completion"} for row in rows)
    assert {row["prompt"] for row in rows} <= {"17 + 25 = ?", "9 * 8 = ?", "144 / 12 = ?"}
    assert pq.read_table(tmp_path / "out" / "prompt_completion.parquet").to_pylist() == rows


def test_messages_as_the_sample_has_them(run: Path, tmp_path: Path) -> None:
    assert main(["experts", str(run), "--out", str(tmp_path / "out"), "--layout", "messages"]) == 0
    rows = lines(tmp_path / "out" / "messages.jsonl")
    table = pq.read_table(tmp_path / "out" / "messages.parquet")
    assert table.to_pylist() == rows
    sample = pq.read_table(CASES / "sft" / "messages.parquet")
    assert table.schema.equals(sample.schema)
    for row in rows:
        assert [*row] == ["messages"]
        assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
        assert all([*turn] == ["role", "content"] and turn["content"] for turn in row["messages"])


def test_alpaca_with_its_entry(run: Path, chats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experts", str(run), "--out", str(tmp_path / "out"), "--layout", "alpaca"]) == 0
    rows = json.loads((tmp_path / "out" / "alpaca.json").read_text())
    sample = json.loads((CASES / "sft" / "alpaca.json").read_text())
    assert all(row.keys() == sample[0].keys() for row in rows)
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text())["experts"]
    assert info["file_name"] == "alpaca.json"
    assert set(info["columns"].values()) == {"instruction", "input", "output"}
    assert (
        main(
            [
                "experts",
                str(chats),
                "--out",
                str(tmp_path / "no" / "no"),
                "--layout",
                "alpaca",
                "rloop.hard_threshold=1",
            ]
        )
        == 2
    )
    assert "several turns" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_chats_keep_their_turns_and_odd_texts_are_told(
    chats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experts", str(chats), "--out", str(tmp_path / "out"), "rloop.hard_threshold=1"]) == 0
    rows = lines(tmp_path / "out" / "messages.jsonl")
    assert len(rows) == 4  # equal texts once, one with a special token in it left out
    assert [len(row["messages"]) for row in rows] == [3, 3, 5, 5]
    assert rows[0]["messages"][:2] == CHAT
    assert any("\u2028" in row["messages"][-1]["content"] for row in rows)
    assert len((tmp_path / "out" / "messages.jsonl").read_text(encoding="utf-8").splitlines()) == 4
    assert "2 with special tokens in their text left out" in capsys.readouterr().out
    assert (
        main(["experts", str(chats), "--out", str(tmp_path / "no"), "--layout", "prompt", "rloop.hard_threshold=1"])
        == 2
    )
    assert "chat messages" in capsys.readouterr().err


def test_the_folder_says_which_file_is_the_data(run: Path, tmp_path: Path) -> None:
    """By the card, `datasets` reads one file of the folder and not the provenance beside it."""
    for layout, data in FILES.items():
        assert main(["experts", str(run), "--out", str(tmp_path / layout), "--layout", layout]) == 0
        card = (tmp_path / layout / "README.md").read_text()
        assert card.startswith("---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n")
        assert f"path: {data}\n---\n" in card
        assert (tmp_path / layout / data).is_file()


def test_bad_input_writes_nothing(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").write_text("mine")
    for argv, said in (
        ([str(run), "--out", str(full)], "not empty"),
        ([str(run), "--out", str(full / "x")], "a file"),
        ([str(tmp_path), "--out", str(tmp_path / "out")], "no run folder"),
        ([str(run), "--out", str(tmp_path / "out"), "rloop.hard_treshold=1"], "hard_threshold"),
        ([str(run), "--out", str(tmp_path / "out"), "rloop.hard_threshold=0.01"], "no experts"),
        ([str(run), "--out", str(tmp_path / "out"), "task.test=gone.jsonl"], "gone.jsonl"),
    ):
        assert main(["experts", *argv]) == 2, said
        assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert (full / "x").read_text() == "mine"


def test_experts_of_all_iterations_and_of_branches_side_by_side(run: Path, tmp_path: Path) -> None:
    """Of our own runs every iteration gives its own; equal texts of a problem come once."""
    own = tmp_path / "run"
    own.mkdir()
    (own / "config.toml").write_text((run / "config.toml").read_text())
    store = TrajectoryStore(own / "trajectories", "run")
    first = TrajectoryStore(run / "trajectories", "verl").read("main", 0)
    for iteration in (0, 1):
        for step in (1, 2):
            place = Place("main", "explore", iteration, step)
            store.write([moved(r, place, iteration) for r in first if r.step == step], place)
    assert main(["experts", str(own), "--out", str(tmp_path / "out"), "rloop.hard_threshold=1"]) == 0
    provenance = lines(tmp_path / "out" / "provenance.jsonl")
    assert {p["iteration"] for p in provenance} == {0, 1}
    texts = [row["completion"] for row in lines(tmp_path / "out" / "prompt_completion.jsonl")]
    assert len(texts) == len(set(texts)) == len(provenance)


def test_our_own_sft_takes_an_imported_run_s_experts(run: Path) -> None:
    """`sft.experts_of`: as texts, so that the run's tokens don't matter."""
    options = {"task": {"name": "jsonl", "train": str(CASES / "problems.jsonl")}, "sft": {"experts_of": str(run)}}
    recipe = parse(options, ["rloop.hard_threshold=1"], "test")
    problems = task_problems(load_task("jsonl", {"train": str(CASES / "problems.jsonl")}), "jsonl")
    found = experts_of(recipe, problems)
    assert {problem.answer in text for problem, text in found} == {True}
    assert len(found) == len(select_experts(run / "trajectories", iteration=0, hard_threshold=1.0).rollouts)


def moved(rollout: Rollout, place: Place, iteration: int) -> Rollout:
    own = rollout.text + " Again." * (iteration and rollout.sample == 0)
    return replace(rollout, place=place, text=own, verdict=Verdict(rollout.verdict))
