"""Problem files: every usual layout is read, every mistake is named, and samples don't depend on row order."""

import gzip
import json
import random

import pytest

from reasonloop.errors import InputError
from reasonloop.records import Verdict
from reasonloop.tasks import check_task, demonstrations, load_task, task_problems
from reasonloop.tasks.jsonl.task import Jsonl


def sums(numbers, **extra):
    return [{"prompt": f"What is {n} + {n}?", "answer": str(2 * n), **extra} for n in numbers]


def test_layouts(write):
    worked = "He has 48/2 = <<48/2=24>>24.\nSo 48+24 = <<48+24=72>>72.\n#### 72 "
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]
    path = write(
        "rows.jsonl",
        [
            {"id": 7, "prompt": "a", "answer": 3},
            {"id": "x", "messages": chat, "answer": "4"},
            {"problem": "b", "solution": r"Thus \boxed{\frac{1}{2}}.", "level": 5},
            "",
            {"problem": "c", "solution": r"Thus \boxed{6}.", "answer": "6"},
            {"question": "d", "answer": worked},
            {"question": "e", "answer": "1,080"},
            {"prompt": "f", "response": "anything"},
            {"prompt": "f", "response": "something else"},
        ],
    )
    problems = Jsonl(train=path).problems()
    assert [p.answer for p in problems] == ["3", "4", r"\frac{1}{2}", "6", "72", "1,080", "", ""]
    assert [p.id for p in problems[:2]] == ["rows-7", "rows-x"]
    assert problems[1].messages == tuple(chat)
    assert problems[2].response == r"Thus \boxed{\frac{1}{2}}."
    assert problems[4].response == "He has 48/2 = 24.\nSo 48+24 = 72.\n#### 72"
    assert [p.response for p in problems[5:]] == [None, "anything", "something else"]
    assert [p.split for p in problems] == ["train"] * 6 + ["sft"] * 2
    assert problems[3].meta == {"file": "rows.jsonl", "line": 5}


def test_prompts(write):
    path = write("t.jsonl", [{"prompt": r"\frac{1}{2} {x}?", "answer": "1"}])
    (plain,) = Jsonl(test=path, prompt_template="Q: {prompt}\nA:").problems()
    assert plain.prompt == "Q: \\frac{1}{2} {x}?\nA:"
    assert (plain.split, plain.messages) == ("test", None)
    (chat,) = Jsonl(test=path, format="chat", system="Be brief.", prompt_template="{prompt} Go.").problems()
    assert chat.prompt is None
    assert [m["role"] for m in chat.messages] == ["system", "user"]
    assert chat.messages[1]["content"] == r"\frac{1}{2} {x}? Go."


def test_samples_are_fixed_and_independent_of_row_order(write):
    rows = sums(range(200))
    shuffled = random.Random(1).sample(rows, len(rows))
    options = {"probe": 20, "limit_train": 30, "limit_test": 10}
    other = write("test.jsonl", sums(range(1000, 1050)))
    splits = []
    for order in (rows, shuffled):
        problems = Jsonl(train=write("train.jsonl", order), test=other, **options).problems()
        splits.append({s: {p.id for p in problems if p.split == s} for s in ("train", "probe", "test")})
    assert splits[0] == splits[1]
    assert [len(splits[0][s]) for s in ("train", "probe", "test")] == [30, 20, 10]
    assert not splits[0]["train"] & splits[0]["probe"]
    more = Jsonl(train="train.jsonl", probe=20, limit_train=60).problems()
    assert splits[0]["train"] < {p.id for p in more if p.split == "train"}


def test_a_prompt_of_the_probe_set_is_in_no_other_row_of_training(write):
    """Demonstrations may have the same prompt."""
    same = {"prompt": "What is 1 + 1?"}
    rows = [*sums([1, 5, 6, 7]), *({**same, "response": f"It is {n}."} for n in range(3))]
    for probe in (1, 2, 3):
        problems = Jsonl(train=write(f"{probe}.jsonl", rows), probe=probe).problems()
        held_out = {p.prompt for p in problems if p.split == "probe"}
        assert held_out
        assert not held_out & {p.prompt for p in problems if p.split != "probe"}


def test_demonstrations_alone_are_for_sft(write):
    rows = [*sums([1, 2]), {"prompt": "Why?", "response": "Because."}]
    task = Jsonl(train=write("t.jsonl", rows), probe=1)
    assert sorted(p.split for p in task.problems()) == ["probe", "sft", "train"]
    assert check_task(task, task.problems()) == []
    assert [(p.prompt, text) for p, text in demonstrations(task, 0, seed=0)] == [("Why?", "Because.")]
    with pytest.raises(InputError, match=r"u\.jsonl line 3: no 'answer'; expected one in a held-out problem"):
        Jsonl(train=write("s.jsonl", sums([3])), test=write("u.jsonl", rows)).problems()


def test_probe_from_a_file(write):
    task = Jsonl(train=write("a.jsonl", sums(range(5))), probe=write("b.jsonl", sums(range(5, 8))))
    assert [p.split for p in task.problems()] == ["train"] * 5 + ["probe"] * 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [*sums(range(16)), {"prompt": "q", "gold": 1}],
            r"line 17: no 'answer' \(keys: prompt, gold\); expected \{prompt",
        ),
        ([*sums(range(3)), "{oops"], r"line 4: not JSON \(.*\{oops; expected"),
        (["", "[1]"], "row 1: 1 is no JSON object"),
        (["[" * 100_000], "line 1: not JSON"),
        (['{"prompt": "a", "answer": ' + "1" * 5000 + "}"], "line 1: not JSON"),
        (['{"prompt": "a", "answer": NaN}'], "line 1: 'answer' is NaN; expected text or a number"),
        (['{"prompt": "a", "answer": 1e999}'], "line 1: 'answer' is Infinity; expected text or a number"),
        (['{"prompt": "a\\ud800", "answer": "1"}'], "line 1: half of a surrogate pair"),
        ([{"answer": "1"}], "line 1: no 'prompt'"),
        ([{"prompt": "a", "question": "b", "answer": "1"}], "both 'prompt' and 'question'"),
        ([{"prompt": ["a"], "answer": "1"}], "'prompt' is .* expected text"),
        ([{"prompt": "a", "answer": [{"b": 1}]}], "'answer' is .* expected text or a number"),
        ([{"prompt": "a", "answer": True}], "'answer' is true"),
        ([{"prompt": "a", "answer": " "}], "'answer' is"),
        ([{"prompt": "a", "answer": "So #### "}], "line 1: .*####"),
        ([{"problem": "a", "solution": "no box"}], r"'solution' has no \\boxed"),
        ([{"messages": [{"role": "bot", "content": "a"}], "answer": "1"}], "'messages' is"),
        ([{"messages": [{"role": "assistant", "content": "a"}], "answer": "1"}], "user message at the end"),
        (
            sums([1, 2], id="same"),
            r"2 of 2 rows are bad \(2 same id .*line 1: has the id 'rows-same', and so has rows.jsonl line 2",
        ),
        ([{"id": {}, "prompt": "a", "answer": "1"}], "'id' is"),
        (["", " "], "file is empty"),
    ],
)
def test_bad_rows_are_named(write, rows, message):
    path = write("rows.jsonl", rows)
    with pytest.raises(InputError, match=message) as caught:
        task_problems(Jsonl(train=path), "jsonl")
    assert "rows.jsonl" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a", "answer": 1}\n{"prompt": "\xff", "answer": 1}\n')
    with pytest.raises(InputError, match="line 2: not UTF-8"):
        Jsonl(train=str(path)).problems()


def test_a_gzipped_file_is_read_line_by_line(tmp_path):
    rows = [{"prompt": "a\u2028b", "answer": 1}, {"prompt": "c", "answer": 2}]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    problems = Jsonl(train=str(tmp_path / "rows.jsonl.gz")).problems()
    assert [(problem.prompt, problem.meta["line"]) for problem in problems] == [("a\u2028b", 1), ("c", 2)]


def test_overlap_names_both_lines(write):
    train = write("train.jsonl", sums(range(10)))
    test = write("test.jsonl", [{"question": "What is  7 + 7? ", "answer": "14"}])
    with pytest.raises(InputError, match=r"test.jsonl line 1 has the same prompt as train.jsonl line 8"):
        Jsonl(train=train, test=test).problems()


def test_one_id_in_two_files(write, tmp_path):
    (tmp_path / "a").mkdir()
    train, test = write("rows.jsonl", sums([1], id=1)), write("a/rows.jsonl", sums([2], id=1))
    with pytest.raises(InputError, match=r"the id 'rows-1' \(a/rows.jsonl line 1 and rows.jsonl line 1\)"):
        task_problems(Jsonl(train=train, test=test), "jsonl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither 'train' nor 'test'"),
        ({"train": "missing.jsonl"}, "missing.jsonl: there is no such file"),
        ({"train": "empty"}, "empty: a folder without files of problems; expected .jsonl"),
        ({"train": "rows.jsonl", "probe": 2}, "has only 2 problems"),
        ({"train": "rows.jsonl", "prompt_template": "Q:"}, "to contain {prompt}"),
        ({"trian": "rows.jsonl"}, "did you mean 'train'"),
    ],
)
def test_bad_options(write, options, message, tmp_path):
    write("rows.jsonl", sums(range(2)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        Jsonl(**options).problems()


def test_gsm8k_says_where_its_files_are(tmp_path):
    with pytest.raises(InputError, match=r"nowhere/train.jsonl: .*github.com/openai/grade-school-math.*task.folder"):
        load_task("gsm8k", {"folder": str(tmp_path / "nowhere")}).problems()


def test_gsm8k_preset(write, tmp_path):
    write("train.jsonl", [{"question": "a", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"}])
    write("test.jsonl", [{"question": "b", "answer": "It is\n#### 1,080"}])
    task = load_task("gsm8k", {"folder": str(tmp_path)})
    train, test = task.problems()
    assert (train.split, test.split) == ("train", "test")
    assert train.response == "1 + 1 = 2\n#### 2"
    assert "####" in test.messages[0]["content"]
    for problem, response, verdict in [
        (test, "so\n#### 1080", Verdict.RIGHT),
        (test, "so\n#### 1081", Verdict.WRONG),
        (train, train.response, Verdict.RIGHT),
        (test, task.gold_response(test), Verdict.RIGHT),
    ]:
        judgement = task.quick(problem, response) or task.verify(problem, response)
        assert judgement.verdict is verdict


def test_slow_mathematics_goes_to_a_worker_with_a_deadline(write):
    from reasonloop.verify.workers import VerifierPool, VerifierSpec

    options = {"test": write("t.jsonl", [{"problem": "a", "solution": r"\boxed{\frac{1}{2}}"}])}
    (problem,) = load_task("jsonl", options).problems()
    responses = [r"\boxed{\dfrac{2}{4}}", r"\boxed{((10^10)!)!}", r"\boxed{\frac{1}{3}}"]
    with VerifierPool(VerifierSpec("reasonloop.tasks.jsonl.task:Jsonl", options), deadline=1.0, workers=1) as pool:
        verdicts = [judgement.verdict for judgement in pool.verify([(problem, r) for r in responses])]
    assert (verdicts[0], verdicts[2]) == (Verdict.RIGHT, Verdict.WRONG)
    assert verdicts[1] is not Verdict.RIGHT
