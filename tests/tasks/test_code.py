from __future__ import annotations

import ast
import gzip
import io
import json

import pytest

from reasonloop.errors import InputError
from reasonloop.records import Problem, Verdict
from reasonloop.tasks import TASKS, check_task, demonstrations, load_task, task_problems
from reasonloop.tasks.code.plus import plus_tests
from reasonloop.tasks.code.problems import PROBLEMS
from reasonloop.tasks.code.task import deal
from reasonloop.verify.code import extract_code, extract_completion
from reasonloop.verify.sandbox.sandbox import Sandbox, require_sandbox
from reasonloop.verify.stream import run_stream

try:
    require_sandbox()
    REFUSED = ""
except InputError as error:
    REFUSED = str(error)
needs_sandbox = pytest.mark.skipif(bool(REFUSED), reason=REFUSED)

HUMANEVAL = [
    {
        "task_id": "HumanEval/0",
        "prompt": 'from typing import List\n\n\ndef total(numbers: List[int]) -> int:\n    """ Sum them.\n    """\n',
        "entry_point": "total",
        "canonical_solution": "    result = 0\n    for n in numbers:\n        result += n\n    return result\n",
        "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n"
        "    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n",
    },
    {
        "task_id": "HumanEval/1",
        "prompt": "def shift(s: str):\n    return ''.join(chr(ord(c) + 1) for c in s)\n\n\n"
        'def unshift(s: str):\n    """\n    Undo shift.\n    """\n',
        "entry_point": "unshift",
        "canonical_solution": "    return ''.join(chr(ord(c) - 1) for c in s)\n",
        "test": "def check(candidate):\n    for word in ('abc', '', 'zz'):\n        assert candidate(shift(word)) == word\n",
    },
]
MBPP = [
    {
        "task_id": 126,
        "prompt": "Write a python function to find the product of two numbers.",
        "code": "def sum(a,b): \n    return a * b",
        "test_imports": ["import math"],
        "test_list": ["assert sum(10,15) == 150", "assert math.isclose(sum(0.1,3), 0.3)"],
    },
    {
        "task_id": 2,
        "prompt": "Write a function to find the shared elements.",
        "code": "def shared(a, b):\n  return tuple(set(a) & set(b))",
        "test_imports": [],
        "test_list": ["assert set(shared((3, 4, 5),(5, 7, 4))) == set((4, 5))"],
    },
]
MBPP_PLUS = {
    "task_id": "Mbpp/3",
    "prompt": '"""\nWrite a function to reverse a tuple.\nassert back((1, 2)) == (2, 1)\n"""\n',
    "entry_point": "back",
    "canonical_solution": "\ndef back(t):\n    return t[::-1]\n",
    "base_input": [[[1, 2]]],
    "plus_input": [[[1, 2, 3]], [[]], [["a"]]],
    "assertion": "\nassert back((1, 2)) == (2, 1)\n",
    "atol": 0,
}


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def humaneval(tmp_path):
    return jsonl(tmp_path / "HumanEval.jsonl", HUMANEVAL)


@pytest.fixture
def mbpp(tmp_path):
    (tmp_path / "mbpp.json").write_text(json.dumps(MBPP))
    return str(tmp_path / "mbpp.json")


@pytest.fixture(scope="module")
def bundled():
    return load_task("code")


def verdict(task, id, response):
    (problem,) = (p for p in task.problems() if p.id == id)
    quick = task.quick(problem, response)
    return (quick or task.verify(problem, response)).verdict


@needs_sandbox
@pytest.mark.parametrize("format", ["plain", "chat"])
def test_the_bundled_solutions_are_right(format):
    task = load_task("code", {"format": format})
    problems = task_problems(task, "code")
    assert len(problems) == 24
    assert check_task(task, problems) == []
    assert {split: sum(p.split == split for p in problems) for split in ("train", "probe", "test")} == {
        "train": 12,
        "probe": 4,
        "test": 8,
    }
    assert len(list(demonstrations(task, 0, 0))) == 12


@needs_sandbox
@pytest.mark.parametrize("written", PROBLEMS, ids=lambda written: written.name)
def test_the_bundled_tests_notice_what_is_wrong(written):
    task = load_task("code")
    for wrong in (
        "    return None\n",
        "    return 1\n",
        "    return []\n",
        "    return ''\n",
        "    return True\n",
        "    pass\n",
    ):
        assert verdict(task, f"code-{written.name}", wrong) is Verdict.WRONG, wrong


@needs_sandbox
@pytest.mark.parametrize("format", ["plain", "chat"])
@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_solutions_from_files_are_right(name, format, request):
    task = load_task(name, {"test": request.getfixturevalue(name), "format": format})
    problems = task_problems(task, name)
    assert [problem.split for problem in problems] == ["test", "test"]
    assert check_task(task, problems) == []
    assert all((problem.messages is None) == (format == "plain") for problem in problems)


@needs_sandbox
def test_responses_to_humaneval(humaneval):
    task = load_task("humaneval", {"test": humaneval})
    right = "    return sum(numbers)\n"
    assert verdict(task, "HumanEval/0", right) is Verdict.RIGHT
    assert verdict(task, "HumanEval/0", right + "\nAnd this is why it works: it sums.\n") is Verdict.RIGHT
    assert (
        verdict(task, "HumanEval/0", "Well:\n```python\ndef total(numbers):\n    return sum(numbers)\n```\nDone.")
        is Verdict.RIGHT
    )
    assert verdict(task, "HumanEval/0", "    return 3\n") is Verdict.WRONG
    assert verdict(task, "HumanEval/0", "    return (\n") is Verdict.UNPARSEABLE
    assert (
        verdict(task, "HumanEval/0", "```python\ndef total(numbers):\n    return sum(numbers)\n") is Verdict.UNPARSEABLE
    )
    assert verdict(task, "HumanEval/0", "\n  \n") is Verdict.UNPARSEABLE


@needs_sandbox
def test_a_helper_of_the_prompt_cannot_be_replaced(humaneval):
    task = load_task("humaneval", {"test": humaneval})
    forged = "    return s\n\n\ndef shift(s):\n    return s\n"
    assert verdict(task, "HumanEval/1", forged) is Verdict.WRONG


@needs_sandbox
def test_extended_inputs_are_tested(tmp_path):
    with gzip.open(tmp_path / "plus.jsonl.gz", "wt") as file:
        file.write(json.dumps(MBPP_PLUS) + "\n")
    task = load_task("mbpp", {"test": str(tmp_path / "plus.jsonl.gz")})
    assert check_task(task, task.problems()) == []
    base_only = "def back(t):\n    return (2, 1)\n"
    lists = "def back(t):\n    return list(t)[::-1] if len(t) == 3 else t[::-1]\n"
    assert verdict(task, "Mbpp/3", base_only) is Verdict.WRONG
    assert verdict(task, "Mbpp/3", lists) is Verdict.WRONG


@pytest.mark.parametrize(
    ("assertion", "solution", "inputs", "same", "other"),
    [
        ("assert set(f([1])) == {1}", "def f(x): return x", [[[1, 2]]], lambda x: x[::-1], lambda x: [1]),
        ("assert not f('a')", "def f(x): return 0", [["b"]], lambda x: None, lambda x: "yes"),
        ("assert math.isclose(f(1), 0.5, rel_tol=0.001)", "def f(x): return x / 2", [[3]], lambda x: 1.5001, lambda x: 1.51),
        ("assert f((1, (2, 3))) == 1", "def f(x): return x", [[[1, [2, [3]]]]], lambda x: (1, (2, (3,))), list),
        ("assert f([(1,)], [3]) == 1", "def f(x, y): return x, y", [[[[5]], [7]]], lambda x, y: ([(5,)], [7]), lambda *_: 0),
        ("assert f(1j) == 1", "def f(x): return x + 1", [["(1+2j)"]], lambda x: 2 + 2j, lambda x: 2.0),
        ("assert f({'a': (1,)}) == 1", "def f(x): return x", [[{"b": [2]}]], lambda x: {"b": (2,)}, lambda x: {"b": [2]}),
        ("assert f(0.1) == 1", "def f(x): return [x]", [[0.5]], lambda x: [x + 1e-9], lambda x: [x + 1e-3]),
    ],
)  # fmt: skip
def test_extended_inputs_are_read_and_compared_as_the_assertion_does(assertion, solution, inputs, same, other):
    import math

    tests = plus_tests("f", solution, {"plus_input": inputs}, assertion)
    exec(tests, {"f": same, "math": math})
    with pytest.raises(AssertionError):
        exec(tests, {"f": other, "math": math})


def test_splits_are_dealt_by_hash():
    ids = [f"p{i}" for i in range(50)]
    splits = deal(ids, 5, 20)
    assert sorted(splits.values()) == ["probe"] * 5 + ["test"] * 20 + ["train"] * 25
    assert deal(ids[::-1], 5, 20) == splits
    more = deal(ids, 9, 20)
    assert {i for i in ids if splits[i] == "test"} == {i for i in ids if more[i] == "test"}


@needs_sandbox
def test_one_file_is_dealt_and_limited(tmp_path):
    rows = [HUMANEVAL[0] | {"task_id": f"HumanEval/{i}"} for i in range(10)]
    path = jsonl(tmp_path / "all.jsonl", rows)
    problems = load_task("humaneval", {"path": path, "probe": 2, "test": 3}).problems()
    assert sorted(p.split for p in problems) == ["probe"] * 2 + ["test"] * 3 + ["train"] * 5
    assert len(load_task("humaneval", {"test": path, "limit": 4}).problems()) == 4


@needs_sandbox
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("{", "bad.jsonl line 1: not JSON"),
        ('[{"task_id": 1},\n{oops}]', "bad.jsonl line 2: not JSON"),
        ("[]", "the file is empty"),
        ('{"x": 1}', "line 1: no 'task_id'"),
        ('{"task_id": "a", "prompt": "x"}', "line 1: no 'entry_point' .keys: task_id, prompt.*expected .task_id"),
        ('{"task_id": "a", "prompt": 1, "entry_point": "x"}', "line 1: 'prompt' is a int"),
        (json.dumps(HUMANEVAL[0]) + "\n" + json.dumps(HUMANEVAL[0]), "'HumanEval/0' .bad.jsonl line 2 and bad.jsonl line 1"),
    ],
)  # fmt: skip
def test_bad_files_are_named(tmp_path, text, message):
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(InputError, match=message):
        task_problems(load_task("humaneval", {"test": str(tmp_path / "bad.jsonl")}), "humaneval")


@needs_sandbox
def test_a_missing_file_is_named():
    with pytest.raises(InputError, match=r"nowhere\.jsonl: there is no such file"):
        load_task("mbpp", {"train": "nowhere.jsonl"}).problems()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "none of 'path', 'train' and 'test'"),
        ({"path": "a", "train": "b"}, "one file for all splits"),
        ({"test": 5, "train": "a"}, "test = 5"),
        ({"test": "a", "probe": 3}, "probe = 3"),
        ({"test": "a", "fromat": "chat"}, "did you mean 'format'"),
        ({"test": "a", "timeout": 0}, "timeout = 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        load_task("humaneval", options)


def test_no_sandbox_no_task(monkeypatch):
    def refuse(self):
        raise InputError("not here")

    monkeypatch.setattr(Sandbox, "start", refuse)
    require_sandbox.cache_clear()
    with pytest.raises(InputError, match="not here"):
        load_task("code").problems()


@pytest.mark.parametrize(
    ("response", "code"),
    [
        ("x = 1\n", "x = 1\n"),
        ("Look:\n```python\nx = 1\n```\n", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```py\n    x = 1\n```", "    x = 1\n"),
        ("```python\na\n```\nbetter:\n```python\nb\n```", "b\n"),
        ("```python\na\n```\nrun it:\n```bash\npython a.py\n```", "a\n"),
        ("```python\na\n```\nand\n```python\nb", None),
        ("```text\na\n```", None),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
        ("", None),
        ("```python\n```", None),
    ],
)
def test_the_last_closed_python_block_is_the_program(response, code):
    assert extract_code(response) == code


@pytest.mark.parametrize("solution", [row["canonical_solution"] for row in HUMANEVAL] + [w.body for w in PROBLEMS])
def test_a_completion_ends_where_prose_begins(solution):
    assert extract_completion(solution) == solution
    assert extract_completion(solution + "\nThis function works because of that.\n").rstrip() == solution.rstrip()
    ast.parse("def f():\n" + solution)


@needs_sandbox
def test_the_stream_judges_programs():
    rows = [
        {"answer": "def f(x): return x + 1", "gold": "assert f(1) == 2"},
        {"answer": "```python\ndef f(x): return x\n```", "gold": "assert f(1) == 2"},
        {"answer": "no code (", "gold": "assert f(1) == 2"},
        {"answer": "while True: pass", "gold": "assert f(1) == 2"},
        {"answer": "def f(x): return x + 1", "gold": "assert f(1) == 2"},
    ]
    out = io.StringIO()
    run_stream("code", [json.dumps(row) for row in rows], out, deadline=1.0, workers=1)
    verdicts = [json.loads(line)["verdict"] for line in out.getvalue().splitlines()]
    assert verdicts == ["right", "wrong", "unparseable", "timeout", "right"]


def test_they_are_registered():
    assert {"code", "humaneval", "mbpp"} <= set(TASKS)
    problem = Problem(id="x", prompt="def f():\n", answer="", meta={"prefix": "def f():\n"})
    assert load_task("code").quick(problem, "    return 1") is None
