"""The expression parser against an independent one, and against input that is meant to break it."""

import contextlib
from fractions import Fraction

import pytest
from expression_oracle import expressions, oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonloop.tasks.countdown.expression import MAX_DEPTH, ExpressionError, parse_expression


@given(expressions)
def test_value_is_the_oracles(text):
    try:
        expected = oracle(text)
    except ZeroDivisionError:
        with pytest.raises(ZeroDivisionError):
            parse_expression(text).value()
    else:
        assert parse_expression(text).value() == expected


@settings(max_examples=300)
@given(st.lists(st.sampled_from(["1", "23", "+", "-", "*", "/", "(", ")"]), max_size=9))
def test_accepts_exactly_what_the_oracle_accepts(tokens):
    text = " ".join(tokens)
    try:
        expected = oracle(text)
    except (SyntaxError, ValueError):
        expected = None
    except ZeroDivisionError:  # the oracle saw no more of it
        with contextlib.suppress(ExpressionError), pytest.raises(ZeroDivisionError):
            parse_expression(text).value()
        return
    if expected is None:
        with pytest.raises(ExpressionError):
            parse_expression(text)
    else:
        assert parse_expression(text).value() == expected


@given(st.text(max_size=40))
def test_any_text_parses_or_is_refused(text):
    with contextlib.suppress(ExpressionError):
        parse_expression(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("3 × 7 ÷ 2", Fraction(21, 2)), ("9 − 4", 5), ("3 x (2·5)", 30), (r"3 \times \left( 8 \div 4 \right)", 6)],
)
def test_other_signs(text, value):
    assert parse_expression(text).value() == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(" * 3000 + "1" + ")" * 3000,
        "(" * 3000,
        "1+" * 5000 + "1",
        "9" * 5000,
        "2 ** 9",
        "-3",
        "2 3",
        "(2)(3)",
        "1\x002",
        "9**9**9**9",
        "__import__('os')",
        "٣ + 1",
        "1 + 2 = 3",
        "3.5",
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(ExpressionError):
        parse_expression(text)


def test_nesting_up_to_the_limit():
    assert parse_expression("(" * MAX_DEPTH + "7" + ")" * MAX_DEPTH).value() == 7
    with pytest.raises(ExpressionError, match="deeper"):
        parse_expression("(" * (MAX_DEPTH + 1) + "7" + ")" * (MAX_DEPTH + 1))
