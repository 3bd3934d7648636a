"""Comparison of answers: numbers against exact fractions, text after folding, mathematics with its known quirks."""

import time
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reasonloop.records import Verdict
from reasonloop.verify.answers import (
    PLAIN,
    exact,
    fold,
    numeric,
    one_line,
    parse_number,
    quick_math,
)
from reasonloop.verify.maths.equal import Rules
from reasonloop.verify.symbolic import prepare_symbolic, symbolic

RIGHT, WRONG, UNPARSEABLE, TIMEOUT, CRASHED = Verdict

decimals = st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9)
fractions = st.fractions(min_value=-1000, max_value=1000, max_denominator=1000)


@st.composite
def numerals(draw):
    """(text, its value): one of the ways in which people write a number."""
    way = draw(st.sampled_from(["integer", "grouped", "decimal", "exponent", "fraction", "frac"]))
    sign = draw(st.sampled_from(["", "+", "-", "\u2212"]))
    negative = sign in ("-", "\u2212")
    n, d, e = draw(st.integers(0, 10**15)), draw(st.integers(1, 10**6)), draw(st.integers(-30, 30))
    text, value = {
        "integer": (str(n), Fraction(n)),
        "grouped": (f"{n:,}", Fraction(n)),
        "decimal": (f"{n}.{d}", Fraction(f"{n}.{d}")),
        "exponent": (f"{n}e{e}", Fraction(n) * Fraction(10) ** e),
        "fraction": (f"{n}/{d}", Fraction(n, d)),
        "frac": (f"\\frac{{{n}}}{{{d}}}", Fraction(n, d)),
    }[way]
    dollar = draw(st.sampled_from(["", "$", "\\$"])) if way != "frac" else ""
    wrap = draw(st.sampled_from(["{}", " {} ", "{}.", "\\({}\\)", "**{}**"]))
    return wrap.format(sign + dollar + text), -value if negative else value


@given(numerals(), numerals())
def test_numeric_agrees_with_exact_fractions(a, b):
    (answer, value), (gold, expected) = a, b
    number = parse_number(answer)
    assert number is not None
    assert number.value == value
    assert numeric(answer, answer).verdict is RIGHT
    assert numeric(answer, gold).verdict is (RIGHT if value == expected else WRONG)


@given(numerals())
def test_percent_signs(numeral):
    """With and without where the gold answer has one or the problem asks for it; never a hundredth."""
    text, value = numeral
    assume(value and not text.rstrip().endswith((".", "*", ")")))
    hundredth = f"{value / 100}"
    asked, strict = Rules(percent=True), Rules(strict_percent=True)
    for compare in (numeric, quick_math):
        for rules in (PLAIN, asked, strict):
            assert compare(f"{text} %", f"{text}\\%", rules).verdict is RIGHT
            assert compare(hundredth, f"{text}\\%", rules).verdict is WRONG
            assert compare(f"{text}%", hundredth, rules).verdict is WRONG
        assert compare(f"{text}%", text).verdict is WRONG
        assert compare(f"{text}%", text, asked).verdict is RIGHT
        assert compare(text, f"{text}%").verdict is RIGHT
        assert compare(text, f"{text}%", strict).verdict is WRONG


@given(decimals, st.integers(-40, 40))
def test_exponents_move_the_point(value: Decimal, shift: int):
    number = parse_number(f"{value:f}e{shift}")
    assert number is not None
    assert number.value == Fraction(value) * Fraction(10) ** shift


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1 2",
        "1,23",
        "1,2345",
        "5 cm",
        "5 or 6",
        "--5",
        "-$-5",
        "1/0",
        "3 1/2",
        "0x10",
        "1e",
        "e5",
        ".",
        "½",
        "2²",
        "∞",
        "nan",
        "1_000",
        "٣٤x",
        "5\0",
        "5\ud800",
    ],
)
def test_what_is_no_plain_number(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1 2",
        "5 or 6",
        "5, 6",
        "5-",
        "5..6",
        "2 + 3",
        "1/0",
        "nan",
        "e5",
        ".",
        "\u221e",
        "5\0",
        "5\ud800",
        "5 5 m",
    ],
)
def test_what_is_no_single_number(text):
    assert numeric(text, "5").verdict is UNPARSEABLE
    assert numeric("5", text).verdict is UNPARSEABLE


@pytest.mark.parametrize(
    ("text", "number"),
    [("5 cm", "5"), ("3 1/2", "7/2"), ("2\u00bd", "2.5"), ("USD 70,000", "70000"), ("1.5\u00d710^3", "1500"),
     ("\u22485", "5"), ("'5'", "5"), ("5\u00b0", "5"), ("70'000", "70000"), ("\ufeff5", "5"), ("12 apples", "12")],
)  # fmt: skip
def test_numbers_with_what_is_written_around_them(text, number):
    assert numeric(text, number).verdict is RIGHT
    assert numeric(text, f"{number}1").verdict is WRONG


@pytest.mark.parametrize(
    "text",
    ["1e999999999", "1e-999999999", "1e401", "9" * 301, "1/" + "9" * 301, "9" * 10_000_000, "1e" + "0" * 900 + "1"],
)
def test_huge_numerals_are_unparseable_at_once(text):
    start = time.process_time()
    assert numeric(text, "5").verdict in (UNPARSEABLE, WRONG)
    assert time.process_time() - start < 1


def test_large_but_bounded_numerals_are_exact():
    assert numeric("9" * 300, "9" * 300).verdict is RIGHT
    assert numeric("9" * 299 + "8", "9" * 300).verdict is WRONG
    assert numeric("1e400", "1" + "0" * 299 + "e101").verdict is RIGHT


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("a  b\n", " a\u00a0b", True),
        ("ﬁve", "five", True),
        ("１２", "12", True),
        ("10²", "102", False),
        ("1½", "11/2", False),
        ("H₂O", "H2O", False),
        ("Paris", "paris", False),
        ("a\0b", "ab", False),
        ("\ud800", "\ud800", True),
        ("é", "e\u0301", True),
    ],
)
def test_exact_folds_form_and_space_only(a, b, same):
    assert exact(a, b).verdict is exact(b, a).verdict is (RIGHT if same else WRONG)


@given(st.text())
def test_folding_twice_is_folding_once(text):
    assert fold(fold(text)) == fold(text)


def test_an_empty_answer_is_unparseable():
    assert {compare(" \n", "5").verdict for compare in (exact, numeric, quick_math)} == {UNPARSEABLE}


def test_combining_marks_do_not_blow_up():
    start = time.process_time()
    exact("a" + "\u0301\u0323" * 500_000, "a")
    quick_math("\u0301\u0323" * 4_000, "a")
    assert time.process_time() - start < 3  # NFKC alone would take hours


@given(st.text())
def test_details_are_one_printable_line(text):
    detail = one_line(text, 20)
    assert len(detail) <= 20
    assert detail.isprintable()
    detail.encode()


@pytest.fixture(scope="module", autouse=True)
def _math_verify():
    prepare_symbolic()


def judge(answer: str, gold: str) -> Verdict:
    return (quick_math(answer, gold) or symbolic(answer, gold)).verdict


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("1,234", "1234"),
        ("10,\\!000", "10000"),
        ("1{,}234", "1,234"),
        ("1\\,234", "1234"),
        ("0.5", "1/2"),
        ("\\dfrac{1}{2}", "0.5"),
        ("0.333333", "1/3"),
        ("\\frac{-3}{4}", "-0.75"),
        ("$\\frac{1}{2}$", "0.5"),
        ("$5$", "5"),
        ("x + y", "y+x"),
        ("(x+1)^2", "x^2+2x+1"),
        ("2^{1/2}", "\\sqrt{2}"),
        ("5, 6", "6, 5"),
        ("\\{5, 6\\}", "5,6"),
        ("x=5", "5"),
        ("12", "12\\text{ cm}"),
        ("7/2", "3\\frac{1}{2}"),
        ("1.57079632679", "\\frac{\\pi}{2}"),
        ("(A)", "\\text{A}"),
        ("Evelyn", "\\text{Evelyn}"),
        ("No Solution.", "\\text{no solution}"),
        ("[1, 2)", "[1,2)"),
        ("10\\%", "10%"),
        ("10 percent", "10\\%"),
        ("\\frac{1}{2}\\%", "0.5\\%"),
        ("9^{9^{9^{9}}}", "9^{9^{9^{9}}}"),
        ("10", "10%"),
        ("\\int_0^1 2x\\,dx", "1"),
        ("\\sum_{k=1}^{10} k", "55"),
    ],
)
def test_equal_mathematics(answer, gold):
    assert judge(answer, gold) is RIGHT


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("5, 6", "6"),
        ("6", "5, 6"),
        ("6 \\text{ or } 5", "6"),
        ("5; 6", "6"),
        ("10%", "10"),
        ("10\\%", "0.1"),
        ("0.1", "10\\%"),
        ("1000\\%", "10"),
        ("\\frac{x}{100}", "x\\%"),
        ("x\\%", "x"),
        ("10\\%, 20", "10, 20\\%"),
        ("1/2", "1/3"),
        ("0.33", "1/3"),
        ("1e-7", "0"),
        ("-5", "5"),
        ("(6, 5)", "(5, 6)"),
        ("seat", "\\text{east}"),
        ("seat", "east"),
        ("x^2=4", "x=2"),
        ("x<4", "x<3"),
        ("B", "A"),
        ("12 or 13", "12"),
    ],
)
def test_different_mathematics(answer, gold):
    assert judge(answer, gold) is WRONG


@pytest.mark.parametrize("answer", ["1 2", "1~2", "12}", "{12", "\\frac{4}", "5\0", "5\ud800", "\\\\", "+", "7 7"])
def test_what_is_no_mathematics(answer):
    assert judge(answer, "3") is UNPARSEABLE


@st.composite
def plain_numerals(draw):
    n = draw(st.integers(-200, 200))
    way = draw(st.sampled_from(["integer", "decimal", "fraction"]))
    if way == "integer":
        return str(n)
    return f"{n / 8:.3f}" if way == "decimal" else f"{n}/{draw(st.integers(1, 12))}"


@settings(max_examples=100, deadline=None)
@given(plain_numerals(), plain_numerals())
def test_ours_never_contradicts_math_verify_on_numerals(a, b):
    assert quick_math(a, b).verdict is symbolic(a, b).verdict
