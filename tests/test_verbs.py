"""What a model says and what is kept of it: `sample`, its `--chat`, the texts of evaluations. `init`, help, completion."""

from __future__ import annotations

import functools
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from run_fixtures import TASK, random_model, small_recipe, temporary, weak_model

from reasonloop import config, usage
from reasonloop.cli import _parse, _parser, main
from reasonloop.engine.native import NativeEngine
from reasonloop.evaluation.chat import Chat
from reasonloop.evaluation.evaluate import _read_blocks
from reasonloop.policy.policy import Policy, Weights
from reasonloop.store.database import query
from reasonloop.tasks import load_task
from reasonloop.written.digests import sealed

OPTIONS = "&".join(f"{key}={json.dumps(value)}" for key, value in TASK.items() if key != "name")
COUNTDOWN = f"countdown?{OPTIONS}"
SMALL = ("sampling.max_tokens=14", "threads=1")


@functools.cache
def weak() -> Policy:
    return Policy.load(weak_model())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, in which one evaluation is known from another."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert main(["run", str(small_recipe(temporary())), "rl.steps=2", "rloop.iterations=1", "--out", str(out)]) == 0
    return out


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("my_task", "my_rewards", "reading"):
        sys.modules.pop(name, None)


def said(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in argv]) == 0
    return capsys.readouterr().out


# the texts of evaluations, and the problems of a run


def test_each_evaluation_keeps_its_responses(finished: Path) -> None:
    task = load_task("countdown", {key: value for key, value in TASK.items() if key != "name"})
    problems = {problem.id: problem for problem in task.problems()}
    evaluations = sorted((finished / "evals").glob("*.json"))
    assert {path.stem for path in evaluations} == {"base", "iteration-0-explored", "iteration-0-rft", "vanilla"}
    for path in evaluations:
        result, rows = json.loads(path.read_text()), pq.read_table(path.with_suffix(".parquet")).to_pylist()
        assert [(row["problem_id"], row["sample"]) for row in rows] == [
            (problem["id"], sample) for problem in result["problems"] for sample in range(problem["n"])
        ]
        right = Counter(row["problem_id"] for row in rows if row["verdict"] == "right")
        assert {p["id"]: p["correct"] for p in result["problems"]} == {
            p["id"]: right[p["id"]] for p in result["problems"]
        }
        assert sum(row["n_tokens"] for row in rows) == pytest.approx(result["mean_tokens"] * len(rows))
        for row in rows:
            judged = task.verify(problems[row["problem_id"]], row["text"])
            assert (row["verdict"], row["detail"]) == (judged.verdict, judged.detail)
    same = [(finished / "evals" / f"{name}.parquet").read_bytes() for name in ("iteration-0-explored", "vanilla")]
    assert same[0] == same[1]


def test_what_a_query_can_ask_of_them(finished: Path) -> None:
    count, missing = query(
        finished,
        "SELECT count(*), count(*) FILTER (answer IS NULL) FROM rollouts LEFT JOIN problems USING (problem_id)",
    )[1][0]
    assert (count, missing) == (2 * 4 * 4, 0)
    sql = "SELECT split, count(*), count(DISTINCT prompt) FROM problems GROUP BY ALL ORDER BY ALL"
    assert query(finished, sql)[1] == [("probe", 2, 2), ("test", 5, 5), ("train", 20, 20)]
    sql = "SELECT name, avg(reward) FROM eval_rollouts JOIN problems USING (problem_id) GROUP BY ALL ORDER BY ALL"
    averages = "SELECT name, (metrics->'avg@4'->>'value')::DOUBLE FROM evals ORDER BY ALL"
    assert query(finished, sql)[1] == query(finished, averages)[1]


def test_runs_that_kept_no_texts_can_be_asked(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    for table in ("eval_rollouts", "problems"):
        described = f"SELECT column_name, column_type FROM (DESCRIBE {table})"
        assert query(tmp_path, f"SELECT * FROM {table}")[1] == []
        assert query(tmp_path, described) == query(finished, described)


@pytest.mark.parametrize("name", ["evals/base.parquet", "problems.parquet"])
def test_a_damaged_file_is_named(name: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["cp", "-r", finished, tmp_path / "run"], check=True)
    (tmp_path / "run" / name).write_bytes((finished / name).read_bytes()[:-20])
    assert main(["query", str(tmp_path / "run"), "SELECT 1"]) == 1
    assert f"{name}: cut: " in capsys.readouterr().err


def test_eval_repeats_the_run_to_the_byte(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = said(capsys, "eval", finished, "--samples", "4", "--json", tmp_path / "r.json")
    assert (tmp_path / "r.parquet").read_bytes() == (finished / "evals" / "iteration-0-rft.parquet").read_bytes()
    assert "maj@4" in printed
    assert main(["eval", str(finished), "--json", str(tmp_path / "r.parquet")]) == 2
    assert "the responses go into that file; expected another ending" in capsys.readouterr().err


def test_the_majority_is_counted_from_the_responses(finished: Path) -> None:
    """Of Countdown: the expression behind the only `answer`, most often given; the first of equally frequent ones."""
    for path in (finished / "evals").glob("*.json"):
        result, rows = json.loads(path.read_text()), pq.read_table(path.with_suffix(".parquet")).to_pylist()
        found = []
        for problem in result["problems"]:
            own = [row for row in rows if row["problem_id"] == problem["id"]]
            votes = [row["text"].split("answer")[1].split() for row in own if row["text"].count("answer") == 1]
            votes = [" ".join(vote) for vote in votes if vote]
            top = max(votes, key=votes.count) if votes else None
            right = {row["text"].split("answer")[1].strip() for row in own if row["verdict"] == "right"}
            found.append(top in right)
            assert problem["majority"] == found[-1]
        assert result["metrics"]["maj@4"]["value"] == pytest.approx(sum(found) / len(found))


def test_greedy_is_what_transformers_calls_greedy(tmp_path: Path) -> None:
    import torch

    out = tmp_path / "r.json"
    argv = ["eval", str(weak_model()), "--task", COUNTDOWN, "eval.temperature=0", *SMALL, "--json", str(out)]
    assert main(argv) == 0
    result, rows = json.loads(out.read_text()), pq.read_table(out.with_suffix(".parquet")).to_pylist()
    assert result["samples"] == 1
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (kind.from_pretrained(weak_model()) for kind in (AutoModelForCausalLM, AutoTokenizer))
    problems = {problem.id: problem for problem in load_task(*_task()).problems()}
    for row in rows:
        ids = torch.tensor([tokenizer(problems[row["problem_id"]].prompt).input_ids])
        made = model.generate(ids, max_new_tokens=14, do_sample=False)[0, ids.shape[1] :]
        assert row["text"] == tokenizer.decode(made, skip_special_tokens=True)


def _task() -> tuple[str, dict[str, Any]]:
    return "countdown", {key: value for key, value in TASK.items() if key != "name"}


def test_a_run_whose_training_rows_only_demonstrate_in_part(here: Path) -> None:
    rows = [{"prompt": f"{n} from {n} 0 :", "answer": str(n)} for n in range(1, 11)]
    rows.append({"prompt": "11 from 11 0 :", "response": "11 + 0 = 11 ;"})
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("test.jsonl").write_text('{"prompt": "12 from 12 0 :", "answer": "12"}\n')
    Path("own.toml").write_text(
        f'method = "rl"\nthreads = 1\n[model]\npath = "{weak_model()}"\n[sampling]\nmax_tokens = 8\n[rl]\nsteps = 1\n'
        'problems_per_step = 4\ngroup_size = 2\n[eval]\nsamples = 2\n[task]\nname = "jsonl"\nverifier = "numeric"\n'
        'extract = "last_number"\ntrain = "train.jsonl"\ntest = "test.jsonl"\n'
    )
    assert main(["run", "own.toml", "--out", "run"]) == 0
    sql = "SELECT split, count(*), max(source) FROM problems GROUP BY ALL ORDER BY ALL"
    assert query(Path("run"), sql)[1] == [
        ("sft", 1, "train.jsonl line 11"),
        ("test", 1, "test.jsonl line 1"),
        ("train", 10, "train.jsonl line 9"),
    ]


def test_an_evaluation_that_was_cut_off_before_texts_were_kept_begins_anew(tmp_path: Path) -> None:
    saved = tmp_path / "base.partial"
    new, old = [sealed({"id": one, "rollouts": []}) for one in "abc"], '{"id": "b", "n": 4, "correct": 1}\n'
    for lines, rows in (([*new[:2], old], 2), ([old] * 4, 0), (new, 2), ([new[1], *new], 0)):
        saved.write_text("".join(lines))
        assert len(_read_blocks(saved, 2, ["a", "b", "c"])) == rows
        assert saved.read_text() == "".join(new[:rows])


# sample


def test_sample_shows_what_an_evaluation_samples_first(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = pq.read_table(finished / "evals" / "iteration-0-rft.parquet").to_pylist()
    lines = said(capsys, "sample", finished, "-n", "2", "--samples", "3", "--json").splitlines()
    problems = {problem.id: problem for problem in load_task(*_task()).problems()}
    assert len(lines) == 2
    for line in map(json.loads, lines):
        own = [row for row in kept if row["problem_id"] == line["id"]][:3]
        assert [r["text"] for r in line["responses"]] == [row["text"] for row in own]
        assert [r["verdict"] for r in line["responses"]] == [row["verdict"] for row in own]
        assert line["prompt"] == f"<bos> {problems[line['id']].prompt}"
        assert line["answer"] == problems[line["id"]].answer
    plain = said(capsys, "sample", finished, "-n", "2", "--samples", "3")
    for line in map(json.loads, lines):
        shown = [line["prompt"], line["answer"], *(r["text"] for r in line["responses"])]
        shown += [f"{r['verdict']}: {r['detail']}" for r in line["responses"]]
        assert all(text in plain for text in shown)
    assert re.search(r"^\d of 6 responses are right", plain, re.MULTILINE)
    assert "\x1b" not in plain


def test_sample_takes_what_eval_takes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.jsonl").write_text('{"prompt": "5 from 5 0 :", "answer": "5"}\n')
    task = "t.jsonl?verifier=numeric&extract=last_number"
    lines = said(capsys, "sample", weak_model(), "--task", task, "--json", "eval.temperature=0", *SMALL).splitlines()
    (response,) = json.loads(lines[0])["responses"]
    assert response["finish"] in ("stop", "length")
    for argv, why in (
        (["sample", "x"], "no run folder, so --task is needed"),
        (["sample", "x", "--task", task, "--samples", "2", "eval.temperature=0"], "all responses to a problem are one"),
        (["sample", "x", "--chat", "--task", task], "--chat: it takes no --task"),
        (["sample", str(weak_model()), "--task", task, "--split", "train"], "no train problems; it has: test"),
    ):
        assert main(argv) == 2
        assert why in capsys.readouterr().err


# chat


def templated() -> Path:
    """The weak model with a chat template that strings the turns together."""
    folder = temporary() / "templated"
    if not folder.exists():
        subprocess.run(["cp", "-r", weak_model(), folder], check=True)
        file = folder / "tokenizer_config.json"
        template = "{{ bos_token }}{% for m in messages %} {{ m.content }}{% endfor %}"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": template}))
    return folder


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_a_talk_over_a_pipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a chat template each line is continued: greedily, as transformers would (see above)."""
    typed(monkeypatch, "5 from 3 2 :", "", "6 from 3 3 :", "/quit", "7 from 3 4 :")
    out = said(capsys, "sample", weak_model(), "--chat", "eval.temperature=0", *SMALL)
    first, second = out.splitlines()
    assert {first.split()[1], second.split()[1]} <= set("+-*/")
    assert main(["sample", str(weak_model()), "--chat", "sampling.max_tokens=x"]) == 2


READING = """
from reasonloop.engine.native import NativeEngine

ASKED = []


class Reading(NativeEngine):
    def generate(self, requests, sampling, on_done=None):
        ASKED.append((requests[0].prompt.tolist(), sampling.max_tokens))
        return super().generate(requests, sampling, on_done)
"""


def test_a_talk_has_all_of_its_turns_in_the_prompt(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("reading.py").write_text(READING)
    typed(monkeypatch, "5 from 3 2 :", "6 from 3 3 :", "/new", "7 from 3 4 :")
    options = ["engine.name=reading:Reading", "task.system=9 from", "sampling.max_tokens=10", "threads=1"]
    out = said(capsys, "sample", templated(), "--chat", *options)
    replies = out.splitlines()
    assert len(replies) == 3
    asked = [weak().codec.decode(_array(prompt)) for prompt, _ in sys.modules["reading"].ASKED]
    assert asked == [
        "9 from 5 from 3 2 :",
        f"9 from 5 from 3 2 : {replies[0]} 6 from 3 3 :",
        "9 from 7 from 3 4 :",
    ]


def _array(tokens: list[int]) -> Any:
    import numpy as np

    return np.array(tokens)


def test_a_talk_that_fills_the_context_and_one_that_is_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "5 from " + "5 " * 30 + ":", "6 from 3 3 :", "5 from " + "5 " * 50 + ":")
    assert main(["sample", str(random_model()), "--chat", "sampling.max_tokens=40", "threads=1"]) == 2
    found = capsys.readouterr()
    assert "context 48; /new begins anew" in found.err
    assert len(found.out.splitlines()) == 2
    engine = NativeEngine()
    engine.load(Weights(policy=weak()))
    chat = Chat(config.parse({"sampling": {"max_tokens": 30}}, [], "here"), weak().codec, engine)
    seen = []

    def generate(requests: Any, sampling: Any) -> Any:
        reads = engine.on_token
        assert reads is not None

        def stopped(number: int, tokens: Any) -> None:
            reads(number, tokens)
            seen.append(len(tokens))
            if len(tokens) == 3:
                raise KeyboardInterrupt

        engine.on_token = stopped
        return NativeEngine.generate(engine, requests, sampling)

    monkeypatch.setattr(engine, "generate", generate)
    text = chat.reply("5 from 3 2 :")
    assert seen == [1, 2, 3]
    assert len(text.split()) == 3
    found = capsys.readouterr()
    assert found.out == f"{text}\n"  # token by token, and nothing twice
    assert found.err == "[stopped]\n"


# init


def test_what_init_makes_runs_as_it_is(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = said(capsys, "init", "start")
    readme = Path("start/README.md").read_text()
    assert readme.rstrip() in printed
    assert len(readme.splitlines()) == 6
    os.chdir("start")
    lines = [line.split("#")[0] for line in readme.splitlines() if line.startswith("    reasonloop ")]
    short = [
        "rl.steps=1",
        "rl.group_size=4",
        "rloop.hard_threshold=1.0",
        "eval.samples=2",
        "task.limit=16",
        "threads=1",
    ]
    for line in lines:
        argv = shlex.split(line)[1:]
        assert main([*argv, *(short if argv[0] == "run" else [])]) == 0
    shown = capsys.readouterr().out
    assert "72 gold answers: 72 right" in shown
    assert "rewards.format" in shown
    assert "RLoop 2, after RFT" in shown
    assert query(Path("runs/recipe"), "SELECT DISTINCT reward_parts['format'] FROM rollouts ORDER BY 1")[1] == [
        (0.0,),
        (1.0,),
    ]


def test_init_takes_a_new_or_an_empty_folder_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    said(capsys, "init", "empty")
    for folder in ("empty", "empty/README.md", "empty/README.md/x"):
        before = sorted(here.rglob("*"))
        assert main(["init", folder]) == 2
        assert f"init {folder}: " in capsys.readouterr().err
        assert sorted(here.rglob("*")) == before


# help and completion


def test_every_option_and_argument_says_what_it_is() -> None:
    silent = [
        (action.dest, action.option_strings)
        for action in usage.actions(_parser())
        if not action.help and action.dest not in ("==SUPPRESS==", "what")
    ]
    assert silent == []


@pytest.mark.parametrize("verb", usage.EXAMPLES)
def test_examples_are_commands(verb: str) -> None:
    for line in usage.EXAMPLES[verb]:
        for command in re.split(r" && | \| |\$\(|\)", line.split("    #")[0]):
            argv = shlex.split(command.split(" > ")[0]) if command.count('"') % 2 == 0 else []
            if argv[:1] == ["reasonloop"]:
                assert _parse(argv[1:]).verb


def test_help_without_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = [action.dest for action in usage._listed(_parser())]
    for argv, words in (([], verbs), (["tasks"], ["list", "check", "show"])):
        assert main(argv) == 2
        found = capsys.readouterr()
        assert found.err == ""
        assert all(re.search(rf"^ +{word}\b", found.out, re.MULTILINE) for word in words)
    with pytest.raises(SystemExit):
        main(["sample", "--help"])
    assert "examples:" in capsys.readouterr().out


def test_completion(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("argcomplete")
    for shell in usage.SHELLS:
        assert "reasonloop" in said(capsys, "completion", shell)
    for line, expected in (
        ("reasonloop sam", {"sample"}),
        ("reasonloop tasks ch", {"check"}),
        ("reasonloop eval x --sp", {"--split"}),
        ("reasonloop run x.toml rl.learning_r", {"rl.learning_rate="}),
        ("reasonloop tasks check countd", {"countdown"}),
        ("reasonloop run quick", {"quickstart"}),
        ("reasonloop run quickstart rl.kl_in=", {"rl.kl_in=loss", "rl.kl_in=reward"}),
        ("reasonloop run quickstart rl.objective=dr", {"rl.objective=dr_grpo"}),
        ("reasonloop run quickstart method=rlo", {"method=rloop"}),
        ("reasonloop run quickstart rloop.vanilla=", {"rloop.vanilla=true", "rloop.vanilla=false"}),
    ):
        environment = os.environ | {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
        environment |= {"_ARGCOMPLETE_STDOUT_FILENAME": "found", "IFS": "\n", "_ARGCOMPLETE_IFS": "\n"}
        code = "from reasonloop.cli import main; main()"
        subprocess.run([sys.executable, "-c", code], env=environment, check=False, capture_output=True)
        assert {word.strip() for word in Path("found").read_text().split("\n")} == expected
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert main(["completion", "bash"]) == 2
    assert 'pip install "reasonloop[completion]"' in capsys.readouterr().err


def test_eval_writes_over_its_own_files_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["eval", str(weak_model()), "--task", COUNTDOWN, "--samples", "1", *SMALL]
    problems = b"not a Parquet file, or one of problems"
    (here / "test.parquet").write_bytes(problems)
    assert main([*asked, "--json", "test.json"]) == 2
    assert "test.parquet: the responses would go there, and it holds something else" in capsys.readouterr().err
    assert (here / "test.parquet").read_bytes() == problems
    for _ in range(2):  # its own may be written anew
        for name in ("model-0.5", "model-0.8", "plain.json"):
            assert main([*asked, "--json", name]) == 0
    assert {path.name for path in here.glob("*.parquet")} - {"test.parquet"} == {
        *("model-0.5.parquet", "model-0.8.parquet", "plain.parquet")
    }


def test_bytes_that_are_no_text_are_talked_about_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    piped = io.TextIOWrapper(io.BytesIO(b"\xff\xfe80 from 2 3 :\n"), errors="surrogateescape")
    monkeypatch.setattr(sys, "stdin", piped)
    assert main(["sample", str(weak_model()), "--chat", "sampling.max_tokens=4"]) == 0
    assert main(["sample", str(weak_model()), "--chat", "-n", "3"]) == 2
    assert main(["init", ""]) == 2
