"""Bad rows, equal ones and ones that contradict others: all named at once, or left out and counted."""

import pytest
from run_fixtures import weak_model

from reasonloop.cli import main
from reasonloop.errors import InputError
from reasonloop.tasks import load_task, report_lines
from reasonloop.tasks.jsonl.task import Jsonl


def sums(numbers, **extra):
    return [{"prompt": f"{n} from {n} 0 :", "answer": str(n), **extra} for n in numbers]


def refused(**options):
    with pytest.raises(InputError) as error:
        Jsonl(**options).problems()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_all_bad_rows_are_named_with_their_counts(write):
    bad = [{"prompt": f"p{n}", "answer": ""} for n in range(30)]
    path = write("t.jsonl", [*sums(range(5)), *bad, "{oops", "[1]", {"answer": "1"}, {"prompt": "q", "answer": True}])
    told = refused(test=path)
    assert told.startswith(
        "t.jsonl: 34 of 39 rows are bad (30 no answer, 1 not JSON, 1 no JSON object, 1 no prompt, 1 value of another type): "
        f"t.jsonl line {', '.join(map(str, range(6, 26)))} and 10 more: 'answer' is ''; expected text or a number; "
        "t.jsonl line 36: not JSON"
    )
    assert told.count("t.jsonl line ") == 5
    assert told.count("'answer' is ''") == 1
    assert told.endswith('correct these rows, or leave them out with on_bad = "skip"')


def test_bad_rows_of_all_files_are_named_together(write):
    train = write("a.jsonl", [*sums(range(5)), {"prompt": "q"}])
    test = write("b.jsonl", [*sums(range(5, 9)), {"prompt": "r", "response": "only shown"}])
    told = refused(train=train, test=test)
    assert told.startswith("a.jsonl, b.jsonl: 2 of 11 rows are bad (2 no answer): a.jsonl line 6: no 'answer' (keys: ")
    assert "; b.jsonl line 5: no 'answer'; expected one in a held-out problem" in told


def test_a_key_that_no_row_has_is_named_once_with_the_one_that_was_meant(write):
    path = write("t.jsonl", [{"problem": f"p{n}", "answer": str(n)} for n in range(30)])
    told = refused(test=path, prompt_key="Exercise")
    assert told.count("no 'Exercise' (keys: problem, answer); did you mean 'problem'?") == 1
    assert "line 1, 2, 3, " in told
    assert "did you mean 'answer'?" in refused(test=path, answer_key="anwser")


def test_a_table_named_as_json_lines(write):
    told = refused(test=write("t.jsonl", ["prompt,answer", *(f"What is {n}?,{n}" for n in range(1_000))]))
    assert "t.jsonl: 1,001 of 1,001 rows are bad (1,001 not JSON): t.jsonl line 1: not JSON" in told
    assert "; and 981 more; expected {" in told
    assert len(told) < 5_000
    told = refused(test="t.jsonl", on_bad="skip")
    assert told.startswith("t.jsonl: none of its 1,001 rows is left (1,001 not JSON): t.jsonl line 1: ")


def test_bad_rows_are_left_out_and_counted(write):
    rows = [*sums(range(3)), {"prompt": "q", "answer": None}, "{oops", *sums([3])]
    task = Jsonl(test=write("t.jsonl", rows), on_bad="skip")
    assert [problem.answer for problem in task.problems()] == ["0", "1", "2", "3"]
    assert report_lines(task) == [
        "t.jsonl: 4 problems of 6 rows; 2 bad rows left out (1 no answer, 1 not JSON)",
        "  t.jsonl line 4: 'answer' is null (keys: prompt, answer)",
        "  t.jsonl line 5: not JSON (Expecting property name enclosed in double quotes): {oops",
    ]


@pytest.mark.parametrize("on_bad", ["refuse", "skip"])
def test_equal_rows_are_dropped_with_a_count(write, on_bad):
    folded = [{"prompt": " 1 from\n1  0 :", "answer": "1 "}, *sums([2], id="own"), *sums([2])]
    shown = [{"prompt": "q", "response": text} for text in ("a", "b", "a ")]
    task = Jsonl(train=write("t.jsonl", [*sums([1, 2] * 100), *folded, *shown]), on_bad=on_bad)
    assert [problem.meta["line"] for problem in task.problems()] == [1, 2, 204, 205]
    (report,) = task.reports()
    assert (report.rows, report.problems, report.equal, report.bad) == (206, 4, 202, ())
    assert report_lines(task) == ["t.jsonl (train): 4 problems of 206 rows; 202 equal rows left out"]


def test_one_prompt_with_several_answers(write):
    rows = [*sums([1, 2]), {"prompt": "1 from 1  0 :", "answer": "9"}, *sums([1, 1]), {**sums([2])[0], "answer": "8"}]
    path = write("t.jsonl", rows)
    told = refused(test=path)
    assert told.startswith("t.jsonl: 4 of 6 rows are bad (4 same prompt with another answer): t.jsonl line 1: ")
    assert "t.jsonl line 3: has the same prompt as t.jsonl line 1 and another answer ('9' and '1'); " in told
    assert (
        "t.jsonl line 6: has the same prompt as t.jsonl line 2 and another answer ('8' and '2'); expected one answer"
        in told
    )
    assert refused(test=path, on_bad="skip").startswith("t.jsonl: none of its 6 rows is left (4 same prompt")
    task = Jsonl(test=write("u.jsonl", [*rows, *sums([5])]), on_bad="skip")
    assert [problem.answer for problem in task.problems()] == ["5"]
    (report,) = task.reports()
    assert (report.equal, len(report.bad)) == (2, 4)


def test_one_id_for_several_problems(write):
    path = write("t.jsonl", [*sums([1, 2, 3], id=0), *sums([4, 5], id="x"), *sums([6, 7])])
    told = refused(test=path)
    assert told.startswith("t.jsonl: 5 of 7 rows are bad (5 same id for another problem): ")
    assert "t.jsonl line 5: has the id 't-x', and so has t.jsonl line 4, which is another problem" in told
    assert [problem.answer for problem in Jsonl(test=path, on_bad="skip").problems()] == ["6", "7"]
    assert len(Jsonl(test=path, id_key="").problems()) == 7


def test_held_out_prompts_in_training(write):
    train = write("train.jsonl", [*sums(range(60)), {"prompt": "1 from 1 0 :", "response": "1"}])
    test, probe = write("test.jsonl", sums(range(30))), write("probe.jsonl", sums(range(29, 32)))
    told = refused(train=train, test=test)
    assert told.startswith(
        "30 held-out problems are training problems too: test.jsonl line 1 has the same prompt as train"
    )
    assert "; and 10 more; expected training and held-out problems to differ" in told
    assert "test.jsonl line 30 has the same prompt as probe.jsonl line 1" in refused(
        train=train, test=test, probe=probe
    )
    task = Jsonl(train=train, test=test, probe=probe, on_bad="skip")
    by_split = {split: sum(p.split == split for p in task.problems()) for split in ("train", "probe", "test", "sft")}
    assert by_split == {"train": 28, "probe": 2, "test": 30, "sft": 0}
    reports = {report.split: report for report in task.reports()}
    assert [(reports[split].problems, len(reports[split].bad)) for split in ("train", "probe", "test")] == [
        (28, 33),
        (2, 1),
        (30, 0),
    ]
    assert report_lines(task)[0] == (
        "train.jsonl (train): 28 problems of 61 rows; 33 bad rows left out (33 held out too)"
    )
    assert str(reports["probe"].bad[0]) == (
        "probe.jsonl line 1: has the same prompt as test.jsonl line 30, which is held out"
    )
    assert "  and 12 more" in report_lines(task)  # two rows have one reason


def test_tasks_without_files_report_nothing():
    assert report_lines(load_task("arithmetic", {"train": 4})) == []


def test_what_was_left_out_is_told_everywhere(write, capsys, tmp_path):
    write("train.jsonl", [*sums(range(1, 21)), *sums([1, 2]), {"prompt": "q"}])
    write("test.jsonl", sums(range(51, 56)))
    told = "train.jsonl (train): 20 problems of 23 rows; 2 equal rows left out; 1 bad row left out (1 no answer)"
    options = "jsonl?train=train.jsonl&on_bad=skip&verifier=numeric"
    for verb in ("check", "show"):
        assert main(["tasks", verb, options]) == 0
        assert told in capsys.readouterr().out.splitlines()
    (tmp_path / "recipe.toml").write_text(
        f'method = "rl"\nthreads = 1\n[model]\npath = "{weak_model()}"\n[sampling]\nmax_tokens = 8\n'
        "[rl]\nsteps = 1\nproblems_per_step = 4\ngroup_size = 2\n[eval]\nsamples = 1\n"
        '[task]\nname = "file"\nverifier = "numeric"\nextract = "bare"\ntrain = "train.jsonl"\ntest = "test.jsonl"\n'
    )
    assert main(["run", "recipe.toml", "--dry-run"]) == 2
    assert "train.jsonl line 23: no 'answer'" in capsys.readouterr().err
    assert main(["run", "recipe.toml", "--dry-run", 'task.on_bad="skip"']) == 0
    assert f"# {told}" in capsys.readouterr().out
    assert main(["run", "recipe.toml", "task.on_bad=skip", "--out", "out"]) == 0
    assert told in capsys.readouterr().err


GOLDS = [
    {"problem": "a", "answer": "12"},
    {"problem": "b", "answer": "proof"},
    {"problem": "c", "answer": "\\text{Friday}"},
    {"problem": "d", "answer": "We add 1 and 1. So the answer is 2."},
    {"problem": "e", "solution": "so \\boxed{5}. No: \\boxed{6}"},
    {"problem": "f", "answer": "{12"},
]


def test_what_is_read_of_gold_answers_is_told_with_rows(write):
    write("t.jsonl", GOLDS)
    (report,) = load_task("file", {"test": "t.jsonl"}).reports()
    assert (report.readable, len(report.text), len(report.suspicious), report.bad) == (1, 1, 4, ())
    lines = report_lines(load_task("file", {"test": "t.jsonl"}))
    assert lines[0].startswith("t.jsonl: 6 problems of 6 rows; gold answers: 1 readable, 1 text only, 4 suspicious")
    assert "  t.jsonl line 2: a placeholder: 'proof'" in lines
    assert "  t.jsonl line 5: several boxes in its solution: 5, 6" in lines
    assert "  text only: t.jsonl line 3: \\text{Friday}" in lines
    assert any("t.jsonl line 6: answer '{12' is unparseable" in line for line in lines)


def test_gold_answers_that_nothing_is_equal_to_are_left_out_on_demand(write):
    write("t.jsonl", GOLDS)
    task = load_task("file", {"test": "t.jsonl", "on_bad": "skip"})
    assert [problem.answer for problem in task.problems()] == ["12", "\\text{Friday}", "6"]
    (report,) = task.reports()
    assert [row.place for row in report.bad] == ["t.jsonl line 2", "t.jsonl line 4", "t.jsonl line 6"]


@pytest.mark.parametrize("verifier", ["numeric", "exact"])
def test_gold_answers_of_other_verifiers(write, verifier):
    write("t.jsonl", GOLDS[:3])
    (report,) = load_task("file", {"test": "t.jsonl", "verifier": verifier}).reports()
    assert (report.readable, len(report.suspicious)) == ((1, 2) if verifier == "numeric" else (3, 0))
