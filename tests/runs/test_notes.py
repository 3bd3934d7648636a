"""What is said of a recipe before any work: a chat template left aside, an unasked probe set, a length out of reach."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from run_fixtures import random_model

from reasonloop.cli import main
from reasonloop.runs import notes

TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
PLAIN = "the model has a chat template, the task's prompts are plain text"
HELD_OUT = "task.probe = 3: so many training problems are held out for nothing"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A chat model, problems, and a recipe with neither."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(random_model(), tmp_path / "chat")
    (tmp_path / "chat" / "chat_template.jinja").write_text(TEMPLATE)
    for name, first in (("train", 1), ("test", 41)):
        rows = [json.dumps({"prompt": f"{n} from {n} 0 :", "answer": str(n)}) for n in range(first, first + 10)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "r.toml").write_text(
        'method = "rl"\nthreads = 1\n[model]\npath = "chat"\n[sampling]\nmax_tokens = 8\n[rl]\nsteps = 1\n'
        'problems_per_step = 4\ngroup_size = 2\n[eval]\nsamples = 1\n[task]\nname = "file"\nverifier = "numeric"\n'
        'extract = "last_number"\ntrain = "train.jsonl"\ntest = "test.jsonl"\nprobe = 3\n'
    )
    return tmp_path


def test_a_chat_template_that_plain_prompts_leave_aside(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for overrides, told in (
        ([], True),
        (["task.format=chat"], False),
        (["task.format=plain"], False),  # it was chosen
        ([f"model.path={random_model()}"], False),
        (["task.name=countdown"], False),
    ):
        if "task.name=countdown" in overrides:
            (here / "r.toml").write_text((here / "r.toml").read_text().partition("[task]")[0])
        assert main(["run", "r.toml", "--dry-run", *overrides]) == 0
        assert (PLAIN in capsys.readouterr().out) is told, overrides


def test_it_is_said_wherever_the_model_is_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = "test.jsonl?verifier=numeric&extract=last_number"
    for verb in (["eval", "chat", "--task", task, "--samples", "1"], ["sample", "chat", "--task", task, "-n", "1"]):
        assert main([*verb, "sampling.max_tokens=8", "threads=1"]) == 0
        assert capsys.readouterr().err.count(PLAIN) == 1
    assert main(["tasks", "show", task, "--model", "chat", "-n", "1"]) == 0
    assert f"{PLAIN}: 'TASK?format=chat' uses it" in capsys.readouterr().out
    assert main(["run", "r.toml", "--out", "run"]) == 0
    told = capsys.readouterr().err
    assert (told.count(PLAIN), told.count(HELD_OUT)) == (1, 1)
    assert main(["eval", "run", "--samples", "1"]) == 0  # a run has had its choice
    assert PLAIN not in capsys.readouterr().err


def test_an_evaluation_says_how_many_responses_are_no_answers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = "test.jsonl?verifier=numeric&extract=boxed"
    assert main(["eval", "chat", "--task", task, "--samples", "2", "sampling.max_tokens=8", "threads=1"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("of 20 responses: ")
    assert last.endswith("cut off at sampling.max_tokens = 8, 20 unparseable")


def test_a_probe_set_that_nothing_asks(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for override, told in (
        ("seed=1", True),
        ("rl.probe_every=1", False),
        ("eval.split=probe", False),
        ("task.probe=0", False),
    ):
        assert main(["run", "r.toml", "--dry-run", override]) == 0
        assert (HELD_OUT in capsys.readouterr().out) is told, override


@pytest.mark.parametrize("dry", [["--dry-run"], ["--out", "run"]])
def test_a_response_longer_than_the_context_is_refused_at_once(
    dry: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "train.jsonl").write_text("{}\n")  # which would be said next
    assert main(["run", "r.toml", "sampling.max_tokens=48", *dry]) == 2
    told = capsys.readouterr().err
    assert "sampling.max_tokens = 48: with its prompt a response is more than the model's context of 48" in told
    assert "sampling.max_tokens=24" in told
    assert not (here / "run").exists()


def test_the_types_on_the_plain_path_are_those_of_the_committed_table() -> None:
    root = Path(__file__).parents[2]
    table = json.loads((root / "benchmarks" / "results" / "families.json").read_text(encoding="utf-8"))["families"]
    own = [row for row in table if "," not in row["name"]]  # a comma: a configuration other than the type's usual one
    assert {row["name"] for row in own if row.get("path") == "plain"} == notes.PLAIN
