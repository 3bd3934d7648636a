"""Verdicts on answers as people and models write them: cases by hand, and rewritings of drawn gold answers."""

import json
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reasonloop.records import Judgement, Problem, Verdict
from reasonloop.verify.answers import quick_math
from reasonloop.verify.golds import gold_reading
from reasonloop.verify.maths.choices import choices_in
from reasonloop.verify.symbolic import prepare_symbolic
from reasonloop.verify.verifiers import MathVerifier, NumericVerifier

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from rewritings import OTHER, SAME

CASES = [
    json.loads(line) for line in (Path(__file__).parent / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()
]
VERIFIERS = {
    "math": MathVerifier("bare"),
    "numeric": NumericVerifier("bare"),
    "response:final:math": MathVerifier("final"),
    "response:final:numeric": NumericVerifier("final"),
}


@pytest.fixture(scope="module", autouse=True)
def _math_verify():
    prepare_symbolic()


def judged(kind: str, answer: str, gold: str, prompt: str = "") -> Judgement:
    verifier, problem = VERIFIERS[kind], Problem("p", prompt, answer=gold)
    return verifier.quick(problem, answer) or verifier.verify(problem, answer)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['answer'][:30]}~{case['gold'][:30]}")
def test_cases_by_hand(case):
    found = judged(case["kind"], case["answer"], case["gold"], case.get("prompt", ""))
    assert (found.verdict is Verdict.RIGHT) == (case["expect"] == "right"), found
    assert found.verdict is not Verdict.CRASHED


@pytest.mark.parametrize(
    "case", [case for case in CASES if case["kind"] == "math"], ids=lambda case: case["answer"][:40]
)
def test_a_gold_answer_is_right_itself(case):
    if not gold_reading(case["gold"]).reason.startswith("'"):
        assert judged("math", case["gold"], case["gold"]).verdict is Verdict.RIGHT


integers = st.integers(-999, 9_999)
naturals = st.integers(2, 60)
letters = st.sampled_from("xyzabnk")


@st.composite
def golds(draw) -> str:
    """A gold answer as in MATH."""
    a, b, c = draw(integers), draw(naturals), draw(naturals)
    x, y = draw(letters), draw(letters)
    return draw(
        st.sampled_from(
            [
                str(a),
                rf"\frac{{{c}}}{{{b}}}",
                rf"-\frac{{{c}}}{{{b}}}",
                f"{a}.{b}",
                rf"{b}\sqrt{{{c}}}",
                rf"{a} + {b}\sqrt{{{c}}}",
                rf"\frac{{{b}\pi}}{{{c}}}",
                f"{b}{x}^2 + {c}{y} - {b + c}",
                rf"\frac{{{x}^{{{b}}}}}{{{c} + {y}}}",
                rf"({a}, {a + b})",
                rf"[{a}, {a + b})",
                rf"(-\infty, {a}]",
                rf"[{a}, {a + b}) \cup ({a + b + c}, \infty)",
                f"{a}, {a + b}, {a + b + c}",
                rf"\{{{a}, {a + b}\}}",
                rf"{b} \pm \sqrt{{{c}}}",
                rf"{b}^\circ",
                rf"{b}\text{{ cm}}^2",
                rf"{b}\%",
                f"{''.join(str(int(d) % 7) for d in str(b + 1000))}_7",
                rf"{b} + {c}i",
                rf"x \le {a}",
                rf"{x} = {b}",
                rf"\log_{{{b}}} {c}",
                rf"\text{{{draw(st.sampled_from(['Friday', 'east', 'odd', 'even', 'circle']))}}}",
            ]
        )
    )


_SAME_THING = {"the other relation": "x > ", "a number plus 1": r"\pm"}
"""Rewritings that change nothing in gold answers with this in it"""


@settings(max_examples=300, deadline=None)
@given(golds(), st.sampled_from(sorted(SAME)))
@example(r"\frac{7}{2}", "a mixed number")
def test_rewritings_that_keep_the_value_keep_the_verdict(gold, name):
    text = SAME[name](gold)
    if text is not None:
        assert judged("math", text, gold).verdict is Verdict.RIGHT, (text, gold)


@settings(max_examples=300, deadline=None)
@given(golds(), st.sampled_from(sorted(OTHER)))
@example("(0, 1)", "the order")
def test_rewritings_that_change_the_value_change_the_verdict(gold, name):
    text = OTHER[name](gold)
    if text is not None and _SAME_THING.get(name, "\0") not in gold:
        assert judged("math", text, gold).verdict is not Verdict.RIGHT, (text, gold)


@settings(max_examples=200, deadline=None)
@given(golds(), golds())
def test_verdicts_are_the_same_both_ways_and_again(a, b):
    there, back = quick_math(a, b), quick_math(b, a)
    assert there is not None
    assert back is not None
    if "%" not in a + b and "_7" not in a + b:
        assert (there.verdict is Verdict.RIGHT) == (back.verdict is Verdict.RIGHT)
    assert quick_math(a, b) == there


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=r"0123456789xyabe\{}()[]^_+-*/=<>,.;:|!%$°√π∞ ", max_size=40), golds())
def test_nothing_that_is_typed_crashes(text, gold):
    for answer, expected in ((text, gold), (gold, text)):
        found = quick_math(answer, expected)
        assert found is None or found.verdict is not Verdict.CRASHED, (answer, expected, found)


@pytest.mark.parametrize(
    "unit",
    [
        "1,",
        "(",
        "$a ",
        r"\frac{1}{",
        r"\sqrt{",
        "x^",
        "1!",
        r"\pm 1,",
        "(1,2) ",
        r"\cup(1,2)",
        "answer ",
        r"\text{a}",
        "1 = ",
        "½",
    ],
)
def test_long_answers_take_no_time(unit):
    start = time.process_time()
    for answer, gold in ((unit * (9_000 // len(unit)), "5"), ("5", unit * (9_000 // len(unit)))):
        quick_math(answer, gold)
    assert time.process_time() - start < 5  # what isn't linear takes minutes


def test_a_problem_that_asks_for_a_percentage():
    prompt = "What percent of 50 is 10?"
    assert judged("math", "20%", "20", prompt).verdict is Verdict.RIGHT
    assert judged("math", "0.2", "20", prompt).verdict is Verdict.WRONG
    strict = MathVerifier("bare", "strict")
    assert strict.quick(Problem("p", prompt, answer="20"), "20%").verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("prompt", "choices"),
    [
        ("What is 2+2?\n(A) 3 (B) 4 (C) 5", {"A": "3", "B": "4", "C": "5"}),
        ("Which?\nA. one dog\nB. two dogs", {"A": "one dog", "B": "two dogs"}),
        (r"$\textbf{(A)}\ 12 \qquad\textbf{(B)}\ \frac{1}{2}$", {"A": "12", "B": r"\frac{1}{2}"}),
        ("Let A: be a point", {}),
        ("No choices", {}),
    ],
)
def test_choices_in_a_prompt(prompt, choices):
    assert choices_in(prompt) == choices


@pytest.mark.parametrize(
    ("answer", "worked", "kind", "usable"),
    [
        ("12", None, "readable", True),
        (r"\frac{1}{2}", r"so \boxed{\frac{1}{2}}", "readable", True),
        ("B", None, "readable", True),
        (r"\int_0^1 x dx", None, "readable", True),
        (r"\text{Friday}", None, "text", True),
        ("proof", None, "suspicious", False),
        ("None", None, "suspicious", False),
        ("We add 2 and 2. So the answer is 4.", None, "suspicious", False),
        ("word " * 40, None, "suspicious", False),
        ("{12", None, "suspicious", False),
        ("6", r"first \boxed{5}, no: \boxed{6}", "suspicious", True),
        ("5, 6", r"\boxed{5}, \boxed{6}", "readable", True),
    ],
)
def test_what_is_read_of_a_gold_answer(answer, worked, kind, usable):
    reading = gold_reading(answer, worked)
    assert (reading.kind, reading.usable) == (kind, usable)
    assert (kind == "readable") or reading.reason
