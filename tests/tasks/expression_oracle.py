"""Random expressions, and their exact values by a parser that shares nothing with the one under test."""

import re
from fractions import Fraction

from hypothesis import strategies as st


def oracle(text: str) -> Fraction:
    """Exact value of four operations on integers, by recursive descent over the grammar as schools teach it."""
    tokens = re.findall(r"\d+|\S", text)

    def sum_() -> Fraction:
        value = product()
        while tokens and tokens[0] in "+-":
            value = value + product() if tokens.pop(0) == "+" else value - product()
        return value

    def product() -> Fraction:
        value = factor()
        while tokens and tokens[0] in "*/":
            value = value * factor() if tokens.pop(0) == "*" else value / factor()
        return value

    def factor() -> Fraction:
        token = tokens.pop(0) if tokens else ""
        if token == "(":
            value = sum_()
            if not tokens or tokens.pop(0) != ")":
                raise SyntaxError("an open bracket")
            return value
        if not token.isdigit():
            raise SyntaxError(f"{token!r} where a number should be")
        return Fraction(int(token))

    value = sum_()
    if tokens:
        raise SyntaxError(f"{tokens[0]!r} behind the end")
    return value


expressions = st.recursive(
    st.integers(0, 99).map(str),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" + ", "-", " * ", "/"]), inner).map("".join),
        inner.map(lambda text: f"( {text})"),
    ),
    max_leaves=8,
)
