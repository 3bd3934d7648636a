"""Every public layout of problem files, in a row of our own making, is read as what it means."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from reasonloop.errors import InputError
from reasonloop.tasks.jsonl.layouts import ANSWERS, PROMPTS, RESPONSES
from reasonloop.tasks.jsonl.task import Jsonl

ASK = "What is 40 + 2?"
USER = {"role": "user", "content": ASK}
SYSTEM = {"role": "system", "content": "Think."}
BOXED = "Adding gives \\boxed{42}."


def said(text, who="assistant"):
    return {"role": who, "content": text}


LAYOUTS = {
    "verl": (
        {
            "data_source": "m",
            "prompt": [USER],
            "ability": "MATH",
            "reward_model": {"style": "rule", "ground_truth": "42"},
            "extra_info": {"index": "9a", "split": "train"},
        },
        ([USER], "42", None),
    ),
    "TRL's conversational format": ({"prompt": [SYSTEM, USER], "answer": "42"}, ([SYSTEM, USER], "42", None)),
    "TRL's with a solution": ({"prompt": [USER], "solution": BOXED}, ([USER], "42", BOXED)),
    "TRL's beside the problem": (
        {"problem": ASK, "prompt": [SYSTEM, USER], "solution": "42"},
        ([SYSTEM, USER], "42", None),
    ),
    "TRL's prompt and completion": (
        {"prompt": [USER], "completion": [said("It is 42.")]},
        ([USER], "", "It is 42."),
    ),
    "DAPO-Math-17k, processed": (
        {
            "prompt": ASK,
            "solution": "42",
            "data_source": "math_dapo",
            "source_prompt": [said("Solve it. " + ASK, "user")],
            "reward_model": {"ground_truth": "42", "style": "rule"},
        },
        (ASK, "42", None),
    ),
    "its solution alone": ({"prompt": ASK, "solution": " 42"}, (ASK, "42", None)),
    "NuminaMath-CoT": (
        {"source": "s", "problem": ASK, "solution": BOXED, "messages": [USER, said(BOXED)]},
        (ASK, "42", BOXED),
    ),
    "NuminaMath-1.5": (
        {"problem": ASK, "solution": "Add.", "answer": "42", "problem_type": "Algebra", "question_type": "math-word"},
        (ASK, "42", "Add."),
    ),
    "OpenR1-Math-220k": (
        {
            "problem": ASK,
            "answer": "42",
            "solution": BOXED,
            "messages": [USER, said("<think>")],
            "generations": ["a", "b"],
        },
        (ASK, "42", BOXED),
    ),
    "DeepScaleR": ({"problem": ASK, "answer": "42", "solution": "Add."}, (ASK, "42", "Add.")),
    "DeepMath-103K": (
        {"question": ASK, "final_answer": "42", "difficulty": 5.0, "r1_solution_1": "Hm.", "r1_solution_2": "Oh."},
        (ASK, "42", "Hm."),
    ),
    "Big-Math": (
        {"problem": ASK, "answer": "42", "source": "s", "domain": ["d"], "llama8b_solve_rate": 0.5},
        (ASK, "42", None),
    ),
    "Open-Reasoner-Zero, training": (
        [{"from": "human", "value": ASK}, {"from": "assistant", "ground_truth": {"value": "42"}}],
        ([USER], "42", None),
    ),
    "Open-Reasoner-Zero, evaluation": (
        {"prompt": [{"from": "user", "value": ASK}], "final_answer": "42", "file_name": "f"},
        ([USER], "42", None),
    ),
    "OlympiadBench": (
        {
            "id": 1606,
            "question": ASK,
            "solution": ["Add.", "Or count."],
            "final_answer": ["42"],
            "context": None,
            "is_multiple_answer": False,
            "unit": None,
            "answer_type": "Numerical",
        },
        (ASK, "42", "Add."),
    ),
    "OlympiadBench, two answers": ({"question": ASK, "final_answer": ["42", "$-1$"]}, (ASK, "42, $-1$", None)),
    "AIME": ({"ID": "2024-II-4", "Problem": ASK, "Solution": BOXED, "Answer": 42}, (ASK, "42", BOXED)),
    "AMC": ({"id": 0, "problem": ASK, "question": f" {ASK}\n", "answer": 42.0}, (ASK, "42.0", None)),
    "MATH-500": (
        {
            "problem": ASK,
            "solution": BOXED,
            "answer": "42",
            "subject": "Algebra",
            "level": 2,
            "unique_id": "test/1.json",
        },
        (ASK, "42", BOXED),
    ),
    "MATH": ({"problem": ASK, "level": "Level 1", "type": "Algebra", "solution": BOXED}, (ASK, "42", BOXED)),
    "GSM8K": ({"question": ASK, "answer": "40+2=<<40+2=42>>42\n#### 42"}, (ASK, "42", "40+2=42\n#### 42")),
    "GSM8K as rllm has it": (
        {"problem": ASK, "solution": "40+2=<<40+2=42>>42\n#### 42", "answer": None},
        (ASK, "42", "40+2=42\n#### 42"),
    ),
    "SVAMP": (
        {
            "ID": "chal-1",
            "Body": "There are 40 and 2 ",
            "Question": "How many?",
            "Equation": "( 40 + 2 )",
            "Answer": "42.0",
        },
        ("There are 40 and 2 How many?", "42.0", None),
    ),
    "OpenRLHF": ({"input": ASK, "label": "42"}, (ASK, "42", None)),
    "OpenRLHF, messages": ({"context_messages": [USER], "label": 42}, ([USER], "42", None)),
    "simpleRL": ({"input": ASK, "gt_answer": "42", "subject": "s", "level": 3}, (ASK, "42", None)),
    "simpleRL, training": (
        {"input": "<|im_start|>user", "answer": BOXED, "gt_answer": "42", "question": ASK, "target": "42"},
        (ASK, "42", None),
    ),
    "Qwen2.5-Math's outputs": ({"question": ASK, "gt": "42", "gt_cot": "Add."}, (ASK, "42", "Add.")),
    "OpenMathReasoning": (
        {"problem": ASK, "expected_answer": "42", "generated_solution": "Add."},
        (ASK, "42", "Add."),
    ),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": "It is 42."}]},
        ([USER], "", "It is 42."),
    ),
    "a last message that demonstrates": ({"messages": [USER, said(BOXED)], "answer": "42"}, ([USER], "42", BOXED)),
    "preferences": ({"prompt": ASK, "completion": "It is 42.", "label": True}, (ASK, "", "It is 42.")),
    "Alpaca": ({"instruction": "Add.", "input": "40, 2", "output": "42"}, ("Add.\n\n40, 2", "", "42")),
    "Alpaca in capitals": ({"Instruction": "Add.", "Input": "40, 2", "Output": "42"}, ("Add.\n\n40, 2", "", "42")),
    "Alpaca without input": ({"instruction": ASK, "input": "", "output": "42"}, (ASK, "", "42")),
    "MetaMath": (
        {"query": ASK, "response": "The answer is: 42", "original_question": ASK, "type": "GSM_Rephrased"},
        (ASK, "", "The answer is: 42"),
    ),
    "a solution with a heading": (
        {"problem": ASK, "solution": "#### Step\nIt is \\boxed{42}", "answer": "42"},
        (ASK, "42", "#### Step\nIt is \\boxed{42}"),
    ),
}


@pytest.fixture
def read(tmp_path, monkeypatch):
    """The problems of rows, all of them training problems."""
    monkeypatch.chdir(tmp_path)

    def problems(*rows, **options):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return Jsonl(train="rows.jsonl", **options).problems()

    return problems


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(read, name):
    row, (asked, answer, response) = LAYOUTS[name]
    (problem,) = read(row)
    assert (list(problem.messages) if problem.messages else problem.prompt) == asked
    assert (problem.answer, problem.response) == (answer, response)


def test_the_manual_has_every_key():
    page = (Path(__file__).parents[2] / "docs" / "your-own.md").read_text(encoding="utf-8")
    for tiers in (PROMPTS, ANSWERS, RESPONSES):
        lists = [[f"`{path}`" for path in tier if "-1" not in str(path)] for tier in tiers]
        told = "; ".join(", ".join(keys) for keys in lists).replace(" + ", "` + `")
        assert told in page


def test_ids_are_those_that_rows_had_before(read):
    """The row's own `id`, else a hash of the prompt as it was before other layouts were read."""
    rows = [
        {"id": 7, "prompt": "a", "answer": "1"},
        {"prompt": "b  c\n", "answer": "1"},
        {"messages": [SYSTEM, USER], "answer": "1", "ID": "other", "unique_id": "u"},
        {"prompt": "d", "response": "shown"},
        {"question": "e", "answer": "1"},
    ]
    hashed = ["b c", f"system: Think. user: {ASK}", "e", "d\nshown"]
    expected = ["rows-7", *(f"rows-{sha256(text.encode()).hexdigest()[:12]}" for text in hashed)]
    assert [problem.id for problem in read(*rows)] == expected


@pytest.mark.parametrize(
    ("choices", "lines"),
    [
        ({"options": "A) 3 B) 4"}, ["A) 3 B) 4"]),
        ({"choices": ["3", "4"]}, ["(A) 3", "(B) 4"]),
        ({"options": ["A) 3", "B) 4"]}, ["A) 3", "B) 4"]),
        ({"options": {"A": "3", "B": "4"}}, ["(A) 3", "(B) 4"]),
        ({"choices": {"text": ["3", "4"], "label": ["A", "B"]}}, ["(A) 3", "(B) 4"]),
        ({"options": ["What is it?"]}, []),
        ({"options": None}, []),
    ],
)
def test_choices_belong_to_the_prompt(read, choices, lines):
    (problem,) = read({"question": "What is it?", "answer": "B", **choices})
    assert problem.prompt == "\n".join(["What is it?", *lines])


def test_the_body_of_a_question_belongs_to_it(read):
    (problem,) = read({"body": "Ann has 3 pens.", "question": "How many?", "answer": "3"})
    assert problem.prompt == "Ann has 3 pens. How many?"


def test_one_gold_answer_in_two_spellings_is_one(read):
    problems = read(
        {"prompt": "a", "answer": "0.5"},
        {"prompt": "a", "answer": "\\frac{1}{2}"},
        {"prompt": "b", "answer": "\\dfrac{1}{9}", "gt": "\\frac{1}{9}"},
    )
    assert [problem.prompt for problem in problems] == ["a", "b"]


def test_keys_that_are_named(read):
    row = {"id": "x", "Task": {"Text": ASK}, "gold": {"values": ["41", "42"]}, "how": "Add.", "n": 5, "prompt": "no"}
    options = {"prompt_key": "task.text", "answer_key": "gold.values.-1", "response_key": "how", "id_key": "n"}
    (problem,) = read(row, **options)
    assert (problem.id, problem.prompt, problem.answer, problem.response) == ("rows-5", ASK, "42", "Add.")
    (problem,) = read(row | {"a.b": "43"}, **options | {"answer_key": "a.b", "id_key": ""})
    assert (problem.answer, problem.id) == ("43", f"rows-{sha256(ASK.encode()).hexdigest()[:12]}")
    (problem,) = read({"prompt": ASK, "solution": "forty two"}, answer_key="solution")
    assert (problem.answer, problem.response) == ("forty two", None)
    (problem,) = read({"chat": [SYSTEM, USER], "solution": BOXED}, prompt_key="chat", response_key="solution")
    assert (problem.messages, problem.answer) == ((SYSTEM, USER), "42")


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"prompt": "a", "problem": "b", "answer": "1"}, {}, "both 'prompt' and 'problem', which differ .*prompt_key"),
        ({"prompt": "a", "answer": "1", "final_answer": "2"}, {}, "'answer' .1. and 'final_answer' .2., .*answer_key"),
        (
            {"prompt": "a", "answer": "So it is 3.", "reward_model": {"ground_truth": "2"}},
            {},
            "'reward_model.ground_truth'",
        ),
        ({"prompt": "a", "gold": "1"}, {}, r"no 'answer' \(keys: prompt, gold\).*answer_key"),
        ({"text": "a", "answer": "1"}, {}, r"no 'prompt' \(keys: text, answer\).*prompt_key"),
        ({"prompt": "a", "answer": "1"}, {"answer_key": "x.y"}, r"no 'x.y' \(keys: prompt, answer\)"),
        ({"prompt": "a", "answer": "1"}, {"prompt_key": "ask"}, r"no 'ask' \(keys: prompt, answer\)"),
        ({"prompt": "a", "answer": "1", "n": [1]}, {"id_key": "n"}, r"'n' is \[1\]; expected text or an integer"),
        ({"prompt": "a", "answer": ""}, {}, "'answer' is ''; expected text or a number"),
        ({"prompt": " ", "answer": "1"}, {}, "'prompt' is ' '; expected text"),
        ({"prompt": "a", "answer": []}, {}, r"'answer' is \[\]"),
        ({"prompt": "a", "answer": None, "label": None}, {}, "'answer' is null"),
        ({"prompt": 3, "answer": "1"}, {}, "'prompt' is 3; expected text, or .*user message at the end"),
        ({"prompt": [USER, said("Let me see.")], "answer": "1"}, {}, "user message at the end"),
        ({"messages": [USER, {"role": "developer", "content": "a"}], "answer": "1"}, {}, "'messages' is"),
        ({"messages": [{"role": "user", "content": [{"text": "a"}]}], "answer": "1"}, {}, "'messages' is"),
        ({"problem": "a", "solution": "It is two."}, {}, 'answer_key = "solution"'),
        ({"problem": "a", "solution": "#### Step one\nIt is two."}, {}, r"no \\boxed"),
        ({"prompt": "a", "reward_model": {"ground_truth": {"x": 1}}}, {}, "'reward_model.ground_truth' is"),
    ],
)
def test_what_a_row_lacks_is_told(read, row, options, message):
    with pytest.raises(InputError, match=message) as error:
        read(row, **options)
    assert str(error.value).startswith("rows.jsonl line 1: ")
    assert "\n" not in str(error.value)
