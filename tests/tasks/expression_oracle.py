"""Random expressions, and their exact values by Python's own parser."""

import ast
import operator
from fractions import Fraction

from hypothesis import strategies as st

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def oracle(text: str) -> Fraction:
    """Exact value by Python's parser, restricted to four operations on integers."""

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return Fraction(node.value)
        raise SyntaxError(ast.dump(node))

    return value(ast.parse(text.strip(), mode="eval").body)


expressions = st.recursive(
    st.integers(0, 99).map(str),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" + ", "-", " * ", "/"]), inner).map("".join),
        inner.map(lambda text: f"( {text})"),
    ),
    max_leaves=8,
)
