"""Tasks by name, the gold check, and what the command line shows of them."""

import subprocess
import sys
from dataclasses import replace

import pytest

from reasonloop.errors import InputError
from reasonloop.records import Judgement, Problem, Verdict
from reasonloop.tasks import (
    TASKS,
    check_task,
    demonstrations,
    load_task,
    parse_task_spec,
    require_gold,
    task_problems,
    task_target,
)
from reasonloop.tasks.show import check, list_tasks, show_task

OWN = """
from pydantic import BaseModel
from reasonloop.records import Problem, Verdict

class Echo:
    def __init__(self, size=3):
        self.size = size
    def problems(self):
        return [Problem(id=str(n), prompt=f"say {n}", answer=str(n), response=f"{n}!") for n in range(self.size)]
    def verify(self, problem, response):
        return Verdict.RIGHT if response == problem.answer + "!" else Verdict.WRONG

class Strict(Echo):
    class Options(BaseModel):
        model_config = {"extra": "forbid"}
        size: int = 3

class Raises(Echo):
    def __init__(self, kind):
        raise {"value": ValueError, "os": OSError}[kind]("no such luck")

class NoTask:
    pass
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_echo.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_echo", None)


def test_own_class_in_the_current_directory(own):
    task = load_task("own_echo:Echo", {"size": 4})
    assert [text for _, text in demonstrations(task, 2, 0)] == ["0!", "1!"]
    assert len(list(demonstrations(task, 0, 0))) == 4
    assert check_task(task, task_problems(task, "echo")) == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("countdwn", {}, "unknown task 'countdwn'; did you mean 'countdown'"),
        ("zzz", {}, "known: countdown, arithmetic"),
        ("own_echo:Ecko", {}, "has no 'Ecko'"),
        ("own_echo:NoTask", {}, "expected a class with problems"),
        ("own_missing:Echo", {}, "cannot be imported"),
        ("own_broken:Echo", {}, "ZeroDivisionError"),
        ("own_echo:Echo", {"sise": 1}, "unexpected keyword"),
        ("own_echo:Raises", {"kind": "value"}, r"its options .* were refused \(ValueError: no such luck\)"),
        ("own_echo:Raises", {"kind": "os"}, "OSError: no such luck"),
        ("own_echo:Raises", {"kind": "?"}, "KeyError"),
        ("own_echo:Strict", {"sise": 1}, "did you mean 'size'"),
        ("countdown", {"nubers": 1}, "did you mean 'numbers'"),
    ],
)
def test_bad_names_and_options(own, name, options, message):
    with pytest.raises(InputError, match=message):
        load_task(name, options)


GOOD = Problem("p", prompt="1 + 1 =", answer="2")
CHAT = ({"role": "user", "content": "1 + 1"},)


@pytest.mark.parametrize(
    ("problems", "message"),
    [
        (None, r"problems\(\) failed \(TypeError: .*\); expected a sequence of Problem"),
        ((1 / (2 - n) for n in range(4)), r"problems\(\) failed \(ZeroDivisionError: .*\)"),
        ([GOOD, {"id": "q", "prompt": "?"}], r"problem number 2 is a dict; expected a reasonloop\.records\.Problem"),
        ([replace(GOOD, id=7)], "problem number 1 has the id 7; expected a str"),
        ([replace(GOOD, prompt=None)], "problem p has neither prompt nor messages"),
        ([replace(GOOD, messages=CHAT)], "problem p has both prompt and messages"),
        ([replace(GOOD, prompt=3)], "problem p has prompt 3; expected a str"),
        ([replace(GOOD, answer=2)], "problem p has answer 2; expected a str"),
        ([replace(GOOD, answer=None)], "problem p has answer None; expected a str"),
        ([replace(GOOD, response=2)], "problem p has response 2; expected a str"),
        ([replace(GOOD, meta=None)], "problem p has meta None; expected a mapping"),
        ([replace(GOOD, prompt=None, messages=())], r"problem p has messages \(\); expected some"),
        ([replace(GOOD, prompt=None, messages=("hello",))], r"problem p has messages \('hello',\)"),
        ([replace(GOOD, prompt=None, messages=({"role": "user"},))], "problem p has messages"),
        ([replace(GOOD, split="dev")], "problem p has split 'dev'; expected"),
        ([replace(GOOD, split=[])], r"problem p has split \[\]; expected"),
        ([GOOD, replace(GOOD, split="test")], "two problems have the id 'p'"),
    ],
)
def test_problems_that_are_none_are_named(problems, message):
    class Given:
        def problems(self):
            return problems

    with pytest.raises(InputError, match=f"task 'given': {message}") as error:
        task_problems(Given(), "given")
    assert "\n" not in str(error.value)


def test_good_problems_are_asked_for_once():
    class Given:
        calls = 0

        def problems(self):
            self.calls += 1
            yield GOOD
            yield Problem("q", messages=CHAT, response="2", split="test")

    task = Given()
    assert [problem.id for problem in task_problems(task, "given")] == ["p", "q"]
    assert task.calls == 1


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("countdown", ("countdown", {})),
        (
            "countdown?numbers=[3,4]&test=50&format=chat",
            ("countdown", {"numbers": [3, 4], "test": 50, "format": "chat"}),
        ),
        ("a/b.jsonl", ("jsonl", {"test": "a/b.jsonl"})),
        ("b.jsonl?extract=boxed&limit_test=5", ("jsonl", {"test": "b.jsonl", "extract": "boxed", "limit_test": 5})),
        ("data/train.parquet", ("jsonl", {"test": "data/train.parquet"})),
        ("rows.csv?on_bad=skip", ("jsonl", {"test": "rows.csv", "on_bad": "skip"})),
        ("hf:gsm8k:main@train", ("jsonl", {"test": "hf:gsm8k:main@train"})),
        ("openai/gsm8k", ("jsonl", {"test": "openai/gsm8k"})),
        ("my.module:Task?x=a=b", ("my.module:Task", {"x": "a=b"})),
    ],
)
def test_task_specs(spec, expected):
    assert parse_task_spec(spec) == expected


@pytest.mark.parametrize("spec", ["", "?a=1", "countdown?a", "countdown?=1", "countdown?a=1&a=2"])
def test_bad_task_specs(spec):
    with pytest.raises(InputError):
        parse_task_spec(spec)


class Wrong:
    """Even problems have gold answers that fail; number 5 has none."""

    def problems(self):
        return [
            Problem(id=f"w{n}", prompt="", answer=str(n) if n != 5 else "", meta={"file": "f.jsonl", "line": n + 1})
            for n in range(10)
        ]

    def verify(self, problem, response):
        return Judgement(Verdict.RIGHT if int(response) % 2 else Verdict.WRONG, "even")

    def quick(self, problem, response):
        return self.verify(problem, response) if int(response) < 4 else None


class Pool:
    """Keeps what it was asked."""

    def __init__(self, task):
        self.task, self.items = task, []

    def verify(self, items):
        self.items += items
        return [self.task.verify(*item) for item in items]


def test_gold_check_finds_exactly_the_failing_rows():
    task = Wrong()
    pool = Pool(task)
    expected = {"w0", "w2", "w4", "w5", "w6", "w8"}
    assert {problem.id for problem, _ in check_task(task, task.problems(), pool)} == expected
    assert [problem.id for problem, _ in pool.items] == ["w4", "w6", "w7", "w8", "w9"]
    assert {problem.id for problem, _ in check_task(task, task.problems())} == expected
    assert {problem.id for problem, _ in check_task(task, task.problems()[:3])} == {"w0", "w2"}


def test_a_gold_response_or_quick_verdict_that_raises_is_a_crash():
    class Raising(Wrong):
        def gold_response(self, problem):
            return {"w1": "1", "w3": "x"}[problem.id]

    failed = check_task(Raising(), Raising().problems()[1:4])
    assert [(problem.id, judgement.verdict, judgement.detail.split(":")[0]) for problem, judgement in failed] == [
        ("w2", Verdict.CRASHED, "KeyError"),
        ("w3", Verdict.CRASHED, "ValueError"),
    ]


def test_require_gold_names_rows_and_count(monkeypatch):
    monkeypatch.setattr("reasonloop.tasks.checks._NAMED", 3)
    with pytest.raises(InputError, match=r"task w: 6 gold answers .*f.jsonl line 1: answer '0' is wrong .*3 more"):
        require_gold(Wrong(), Wrong().problems(), name="task w")
    arithmetic = load_task("arithmetic", {"train": 20})
    require_gold(arithmetic, arithmetic.problems())


@pytest.mark.parametrize("name", ["countdown", "arithmetic"])
def test_generated_tasks_pass_their_gold_check(name):
    task = load_task(name)
    assert check_task(task, task_problems(task, name)) == []


def test_list_and_show(capsys):
    list_tasks()
    shown = capsys.readouterr().out
    assert all(name in shown for name in TASKS)
    assert "max_solutions" in shown
    list_tasks("jsonl")
    shown = capsys.readouterr().out
    assert 'One of "boxed", "hash", "last_number", "final", "bare", "all".' in shown
    assert 'percent = "lenient"' in shown
    assert max(map(len, shown.splitlines())) <= 80
    show_task("countdown", {"train": 5, "probe": 2, "test": 2}, 2)
    shown = capsys.readouterr().out
    assert "5 train, 2 probe, 2 test" in shown
    assert "demonstration" in shown
    assert shown.count("[right]") == 2


def test_check_reports_and_refuses(own, capsys, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "answer": "12"}\n{"prompt": "b", "answer": "no number"}\n')
    check("jsonl", {"test": "rows.jsonl", "verifier": "exact"})
    assert "2 gold answers: 2 right" in capsys.readouterr().out
    show_task("jsonl", {"test": "rows.jsonl", "verifier": "exact", "format": "chat"}, 1)
    shown = capsys.readouterr().out
    assert "jsonl: 2 problems" in shown
    assert "user: a" in shown
    assert "--model MODEL shows them" in shown
    show_task("jsonl", {"test": "rows.jsonl", "format": "chat"}, 1, asked=lambda problem: f"<user> {problem.id}")
    assert "<user> rows-" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"first: rows\.jsonl line 2 is unparseable \(the answer is no number"):
        check("jsonl", {"test": "rows.jsonl", "verifier": "numeric"})


def test_targets_exist_and_nothing_heavy_is_imported():
    program = (
        "import sys, reasonloop.tasks as t\n"
        "files = ('file', 'jsonl', 'gsm8k', 'humaneval', 'mbpp')\n"
        "for name in t.TASKS: t.load_task(name, {'train': 'x'} if name in files else {})\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'duckdb', 'pyarrow', 'math_verify', 'sympy', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert task_target("gsm8k") == "reasonloop.tasks.jsonl.task:Gsm8k"
    assert task_target("a:B") == "a:B"
