"""Values in notations of their own: decimals of exact values, matrices, digits in a base, ratios and times."""

from __future__ import annotations

from collections.abc import Sequence

from reasonloop.verify.maths.agree import agree, is_decimal, rounds_to
from reasonloop.verify.maths.forms import Based, Colon, Form, Matrix, Quantity, Tuple, Words
from reasonloop.verify.maths.tree import Tree, integer, is_numeral


def same_number(a: Tree, b: Tree) -> bool:
    """Whether they have the same value, or one is the other in six decimal digits or more."""
    if agree(a, b):
        return True
    for one, other in ((a, b), (b, a)):
        if is_decimal(one) and not is_decimal(other) and rounds_to(one, other):
            return not is_numeral(other) or (other[0] == "num" and other[1].denominator != 1)
    return False


def same_matrix(matrix: Matrix, other: Form) -> bool:
    """A column is the point with its coordinates, too; a row isn't."""
    if isinstance(other, Tuple) and (other.opening, other.closing) == ("(", ")"):
        if any(len(row) != 1 for row in matrix.rows) or not all(isinstance(p.form, Quantity) for p in other.parts):
            return False
        other = Matrix(tuple((part.form.tree,) for part in other.parts))  # type: ignore[union-attr]
    if isinstance(other, Quantity) and other.tree[0] == "binom":
        other = Matrix(tuple((tree,) for tree in other.tree[1:]))
    if isinstance(other, Tuple) and all(isinstance(part.form, Tuple) for part in other.parts):  # [[1, 2], [3, 4]]
        rows = [part.form.parts for part in other.parts if isinstance(part.form, Tuple)]
        if all(isinstance(cell.form, Quantity) for row in rows for cell in row):
            other = Matrix(tuple(tuple(cell.form.tree for cell in row) for row in rows))  # type: ignore[union-attr]
    if not isinstance(other, Matrix) or [len(row) for row in matrix.rows] != [len(row) for row in other.rows]:
        return False
    pairs = zip(matrix.rows, other.rows, strict=True)
    return all(same_number(a, b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))


def same_based(based: Based, other: Form) -> bool:
    """Digit by digit; the base may be left out of one."""
    if isinstance(other, Based):
        return based == other
    if not isinstance(other, Quantity):
        return isinstance(other, Words) and other.text.upper() == based.digits
    return _digits(other.tree) == based.digits


def _digits(tree: Tree) -> str:
    """The digits that a tree was written with: 204, A5."""
    if tree[0] == "num" and tree[1].denominator == 1:
        return str(tree[1])
    if tree[0] == "sym" and len(tree[1]) == 1:
        return str(tree[1]).upper()
    if tree[0] == "*":
        left, right = _digits(tree[1]), _digits(tree[2])
        return left + right if left and right else ""
    return ""


def same_colon(a: Form, b: Form) -> bool:
    """As times or as ratios; a ratio of two is their quotient, too."""
    if isinstance(a, Colon) and isinstance(b, Colon):
        if len(a.parts) != len(b.parts) or (a.half and b.half and a.half != b.half):
            return False
        if bool(a.half) != bool(b.half):
            return _same_time(a, b) if a.half else _same_time(b, a)
        if all(agree(x, y) for x, y in zip(a.parts, b.parts, strict=True)):
            return True
        clocks = a.half or b.half or all(len(colon.texts[-1]) == 2 and colon.texts[-1].isdigit() for colon in (a, b))
        return not clocks and _same_ratio(a.parts, b.parts)
    colon, other = (a, b) if isinstance(a, Colon) else (b, a)
    if not isinstance(colon, Colon) or not isinstance(other, Quantity) or len(colon.parts) != 2:
        return False
    if colon.half:  # 9:00 a.m. and 9 a.m.
        return colon.half in other.units and agree(colon.parts[0], other.tree) and agree(colon.parts[1], integer(0))
    return agree(("/", colon.parts[0], colon.parts[1]), other.tree)


def _same_time(halved: Colon, whole: Colon) -> bool:
    """8:34 p.m. and 20:34; 8:34 alone may be either half of the day, 08:34 not."""
    if not all(agree(x, y) for x, y in zip(halved.parts[1:], whole.parts[1:], strict=True)):
        return False
    if halved.half == "pm" and agree(("+", halved.parts[0], integer(12)), whole.parts[0]):
        return True
    return agree(halved.parts[0], whole.parts[0]) and not (halved.half == "pm" and whole.texts[0].startswith("0"))


def _same_ratio(a: Sequence[Tree], b: Sequence[Tree]) -> bool:
    return all(agree(("*", a[0], y), ("*", b[0], x)) for x, y in zip(a[1:], b[1:], strict=True)) and not any(
        agree(x, integer(0)) for x in (*a, *b)
    )
