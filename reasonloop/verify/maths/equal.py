r"""Whether an answer is the gold answer: element by element, each kind of element by its own rule.

Order counts in brackets and not between commas; an element that stands twice stands once; \pm is two elements; a list is not
one of its elements. Names are dropped unless both sides have one; units too, and then they have to be the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from typing import Any

from reasonloop.verify.maths.agree import agree, proportional
from reasonloop.verify.maths.assignments import in_variable_of, named_alike, records_of, same_names, with_variable
from reasonloop.verify.maths.forms import (
    Answer,
    Based,
    Colon,
    Form,
    Matrix,
    Operation,
    Part,
    Quantity,
    Relation,
    Set,
    Tuple,
    Words,
    uses_sign,
)  # fmt: skip
from reasonloop.verify.maths.notations import same_based, same_colon, same_matrix, same_number
from reasonloop.verify.maths.reals import reals_of, same_reals
from reasonloop.verify.maths.tokens import Unreadable
from reasonloop.verify.maths.tree import Tree, has, integer, is_numeral, symbols, variable
from reasonloop.verify.maths.value import rational

MOST_ELEMENTS, MOST_PAIRS = 100, 1_000
_UNTOLD = frozenset(("deg", "rad", "%"))


@dataclass(frozen=True)
class Rules:
    """What is left open by the notation."""

    percent: bool = False
    """The problem asks for a percentage: its sign may stand or be left out. (Where the gold has it, it may anyway.)"""
    strict_percent: bool = False
    """The sign must stand where the gold has it, and nowhere else"""

    def percent_fits(self, answer: bool, gold: bool) -> bool:
        """Whether an answer with or without the sign may be right for a gold answer with or without it."""
        return answer == gold or (not self.strict_percent and (gold or self.percent))


def equal(answer: Answer, gold: Answer, rules: Rules) -> bool:
    """Whether the answer is the gold answer. Raises Unreadable where that can't be told in bounds."""
    if not (answer.parts and gold.parts):
        same = answer.phrase == gold.phrase if gold.in_words else answer.spelled == gold.spelled
        if same and answer.phrase:
            return True
    if gold.choice and answer.choice:
        return answer.choice == gold.choice
    if gold.content is not None and equal(answer, gold.content, rules):
        return True
    if len(gold.parts) == 1 and isinstance(gold.parts[0].form, Based) and not answer.parts:
        return answer.phrase.replace(" ", "").upper() == gold.parts[0].form.digits
    if answer.content is not None and equal(answer.content, gold, rules):
        return True
    if not answer.parts or not gold.parts:
        return False
    if answer.domain and gold.domain and answer.domain != gold.domain:
        answer = with_variable(answer, gold.domain)
    return any(_Comparison(rules, together).answers(answer, gold) for together in _sign_modes(answer, gold))


def _sign_modes(answer: Answer, gold: Answer) -> tuple[bool, ...]:
    signs = any(uses_sign(part.form) for part in (*answer.parts, *gold.parts))
    return (True, False) if signs else (True,)


class _Comparison:
    def __init__(self, rules: Rules, together: bool) -> None:
        self.rules = rules
        self.together = together
        r"""Whether all \pm of an element have the same sign"""

    def answers(self, answer: Answer, gold: Answer) -> bool:
        ours, theirs = self.expanded(answer.parts), self.expanded(gold.parts)
        if len(ours) > MOST_ELEMENTS or len(theirs) > MOST_ELEMENTS:
            raise Unreadable(f"more than {MOST_ELEMENTS} elements")
        if len(ours) == len(theirs) == 1:
            return self.part(ours[0], theirs[0])
        sets = reals_of(ours, answer.joined), reals_of(theirs, gold.joined)
        if (
            sets[0] is not None
            and sets[1] is not None
            and (sets[0].extended or _has_operation(ours + theirs))
            and same_reals(sets[0], sets[1])
        ):
            return True
        return self.lists(ours, theirs)

    def expanded(self, parts: Sequence[Part]) -> list[Part]:
        r"""The elements, with \pm written out."""
        found: list[Part] = []
        for part in parts:
            if not uses_sign(part.form):
                found.append(part)
                continue
            count = _signs_in(part.form)
            if count > 5:
                raise Unreadable(r"too many \pm")
            ways: Iterable[tuple[int, ...]] = product((1, -1), repeat=count)
            if self.together:
                ways = ((sign,) * count for sign in (1, -1))
            found += [replace(part, form=_with_signs(part.form, list(way))) for way in ways]
        return found

    def lists(self, ours: list[Part], theirs: list[Part]) -> bool:
        for single, others in ((ours, theirs), (theirs, ours)):
            if len(single) == 1:
                return self.bracketed(single[0], others) or _are_choices(single[0], others)
        records = records_of(ours), records_of(theirs)
        if records[0] and records[1]:
            return self.recorded(records[0], records[1])
        if records[0] or records[1]:
            named, other = (records[0], theirs) if records[0] else (records[1], ours)
            return self.against_record(named, other)
        return self.unordered(ours, theirs)

    def bracketed(self, single: Part, others: list[Part]) -> bool:
        """{1, 2} and (1, 2) against 1, 2."""
        form = single.form
        records = records_of(others)
        if isinstance(form, Set):
            if records and all(isinstance(part.form, Tuple) for part in form.parts):
                return self.against_record(records, list(form.parts))
            return self.unordered(self.expanded(form.parts), others)
        if isinstance(form, Tuple):
            named = records_of([single])
            if records and named:
                return self.recorded(named, records)
            if records:
                return len(records) == 1 and self.ordered(form.parts, list(records[0].values()))
            return (form.opening, form.closing) == ("(", ")") and self.ordered(form.parts, others)
        return all(self.part(single, other) for other in others)

    def recorded(self, ours: list[dict[str, Part]], theirs: list[dict[str, Part]]) -> bool:
        def same(a: dict[str, Part], b: dict[str, Part]) -> bool:
            return a.keys() == b.keys() and all(self.part(a[name], b[name]) for name in a)

        return _matched(ours, theirs, same)

    def against_record(self, records: list[dict[str, Part]], others: list[Part]) -> bool:
        """Named elements against elements without a name: in the order in which they stand."""
        if len(records) == 1:
            if all(not part.names for part in others):
                return self.ordered(list(records[0].values()), others)
            return False

        def same(record: dict[str, Part], other: Part) -> bool:
            return isinstance(other.form, Tuple) and self.ordered(list(record.values()), other.form.parts)

        return _matched(records, others, same)

    def ordered(self, ours: Sequence[Part], theirs: Sequence[Part]) -> bool:
        return len(ours) == len(theirs) and all(self.part(a, b) for a, b in zip(ours, theirs, strict=True))

    def unordered(self, ours: Sequence[Part], theirs: Sequence[Part]) -> bool:
        numbers = [_plain_numbers(parts) for parts in (ours, theirs)]
        if None not in numbers:
            return numbers[0] == numbers[1]
        if len(ours) * len(theirs) > MOST_PAIRS:
            raise Unreadable("lists too long to be compared")
        return _matched(named_alike(ours), named_alike(theirs), self.part)

    def part(self, a: Part, b: Part) -> bool:
        """`a` of the answer, `b` of the gold answer."""
        if a.names and b.names and not same_names(a, b):
            renamed = in_variable_of(a, b)
            return self.equations(a, b) if renamed is None else self.form(renamed, b.form)
        if isinstance(a.form, Relation) or isinstance(b.form, Relation):
            return self.equations(a, b) or self.named_relation(a, b)
        return self.form(a.form, b.form) or (
            (isinstance(a.form, Words) or isinstance(b.form, Words)) and (bool(a.phrase) and a.phrase == b.phrase)
        )

    def named_relation(self, a: Part, b: Part) -> bool:
        return isinstance(a.form, Relation) and isinstance(b.form, Relation) and a.form == b.form

    def equations(self, a: Part, b: Part) -> bool:
        """Equations and inequalities as they stand: the same up to a constant factor."""
        x, y = _relation_of(a), _relation_of(b)
        if x is None or y is None or len(x.signs) != len(y.signs):
            return False
        if len(x.signs) > 1:
            return x.signs == y.signs and all(agree(p, q) for p, q in zip(x.sides, y.sides, strict=True))
        (left, sign), (other, other_sign) = _zero_form(x), _zero_form(y)
        if sign != other_sign:
            return False
        return proportional(left, other, positive=sign in ("<", "<="))

    def form(self, a: Form, b: Form) -> bool:
        if isinstance(a, Quantity) and isinstance(b, Quantity):
            return self.quantity(a, b)
        if isinstance(a, Tuple) and isinstance(b, Tuple):
            return ((a.opening, a.closing) == (b.opening, b.closing) and self.ordered(a.parts, b.parts)) or _both_reals(
                a, b
            )
        for one, other in ((a, b), (b, a)):
            if (
                isinstance(one, Set)
                and one.plain
                and isinstance(other, Tuple)
                and other.opening + other.closing == "()"
            ):
                return self.ordered(one.parts, other.parts)
        if isinstance(a, Set) and isinstance(b, Set):
            return self.unordered(self.expanded(a.parts), self.expanded(b.parts))
        if isinstance(a, Words) and isinstance(b, Words):
            return a.text == b.text
        for one, other in ((a, b), (b, a)):
            if isinstance(one, Words) and one.letters and isinstance(other, Quantity):
                return same_number(_product(one.letters), other.tree)
            if isinstance(one, Matrix):
                return same_matrix(one, other)
            if isinstance(one, Based):
                return same_based(one, other)
        if isinstance(a, Colon) or isinstance(b, Colon):
            return same_colon(a, b)
        for one, other in ((a, b), (b, a)):
            if isinstance(one, Set) and len(one.parts) == 1 and isinstance(other, Quantity):
                return self.part(one.parts[0], Part(other))
        if (isinstance(a, Quantity) and isinstance(b, Words)) or (isinstance(a, Words) and isinstance(b, Quantity)):
            quantity, words = (a, b) if isinstance(a, Quantity) else (b, a)
            return _in_words(quantity, words)  # type: ignore[arg-type]
        return _both_reals(a, b)

    def quantity(self, a: Quantity, b: Quantity) -> bool:
        if not self.rules.percent_fits("%" in a.units, "%" in b.units):
            return False
        units, others = (_told(q.units) for q in (a, b))
        if {*units, *others} == {"cent", "$"} and len(units) == len(others) == 1:
            x, y = (("/", q.tree, integer(100)) if "cent" in q.units else q.tree for q in (a, b))
            return agree(x, y)
        if units and others and units != others:
            return False
        if len({unit for q in (a, b) for unit in q.units if re.fullmatch("u[0-9]?", unit)}) > 1:
            return False
        if {"rad", "deg"} <= a.units | b.units and ("rad" in a.units) is not ("rad" in b.units):
            return False
        if same_number(a.tree, b.tree):
            return True
        if {a.tree[0], b.tree[0]} <= {"sym", "const"} and not a.units and not b.units:
            return _letter(a.tree).casefold() == _letter(b.tree).casefold() not in ("", "i")
        if "deg" in a.units ^ b.units:
            x, y = (("fn", "degrees", q.tree) if "deg" in q.units else q.tree for q in (a, b))
            return (has(x, "const", "pi") or has(y, "const", "pi")) and agree(x, y)
        return False


def _plain_numbers(parts: Sequence[Part]) -> set[Fraction] | None:
    """The values of elements that are all numerals and nothing else."""
    trees = [
        part.form.tree for part in parts if isinstance(part.form, Quantity) and not part.form.units and not part.names
    ]
    if len(trees) < len(parts) or not all(is_numeral(tree) for tree in trees):
        return None
    return {value for tree in trees if (value := rational(tree)) is not None}


def _told(units: frozenset[str]) -> frozenset[str]:
    """Units that have to be the same; any kind of unit is "unit", of whatever power."""
    return frozenset(unit for unit in units if unit not in _UNTOLD and not re.fullmatch("u[0-9]?", unit))


def _product(letters: str) -> Tree:
    """nRT as n R T"""
    tree = variable(letters[0])
    for letter in letters[1:]:
        tree = ("*", tree, variable(letter))
    return tree


def _letter(tree: Tree) -> str:
    name = str(tree[1])
    return name if len(name) == 1 else ""


def letter_free(answer: Answer) -> bool:
    """Whether no letter stands in it that could be a variable."""
    return not any(isinstance(part.form, Quantity) and symbols(part.form.tree) for part in answer.parts)


def units_of(answer: Answer) -> frozenset[str]:
    """The units that it has, all together."""
    found = [part.form.units for part in answer.parts if isinstance(part.form, Quantity)]
    return frozenset().union(*found)


def _in_words(quantity: Quantity, words: Words) -> bool:
    tree = quantity.tree
    if tree == ("const", "oo"):
        return words.text == "infinity"
    return tree[0] in ("sym", "const") and _letter(tree).casefold() == words.text


def _has_operation(parts: Sequence[Part]) -> bool:
    return any(isinstance(part.form, Operation) for part in parts)


def _are_choices(single: Part, others: Sequence[Part]) -> bool:
    """ABD for A, B, D"""
    letters = single.form.letters if isinstance(single.form, Words) else ""
    named = [_letter(part.form.tree) for part in others if isinstance(part.form, Quantity) and not part.form.units]
    return letters.isupper() and len(named) == len(others) and sorted(letters) == sorted(named)


def _matched(ours: Sequence[Any], theirs: Sequence[Any], same: Callable[[Any, Any], bool]) -> bool:
    """Whether each is one of the others, both ways; repetitions don't count."""
    seen = set()
    for one in ours:
        found = [i for i, other in enumerate(theirs) if same(one, other)]
        if not found:
            return False
        seen.update(found)
    return len(seen) == len(theirs)


def _relation_of(part: Part) -> Relation | None:
    if isinstance(part.form, Relation):
        return part.form
    if isinstance(part.form, Quantity) and len(part.names) == 1 and symbols(part.form.tree):
        return Relation((("sym", part.names[0]), part.form.tree), ("=",), ("", ""))
    return None


def _zero_form(relation: Relation) -> tuple[Tree, str]:
    left, right = relation.sides
    sign = relation.signs[0]
    if sign in (">", ">="):
        left, right, sign = right, left, {">": "<", ">=": "<="}[sign]
    return ("+", left, ("neg", right)), sign


def _signs_in(form: Form) -> int:
    if isinstance(form, Tuple):
        return sum(_signs_in(part.form) for part in form.parts)
    return _count_signs(form.tree) if isinstance(form, Quantity) else 0


def _count_signs(tree: Tree) -> int:
    return (tree[0] == "pm") + sum(_count_signs(part) for part in tree[1:] if isinstance(part, tuple))


def _with_signs(form: Form, signs: list[int]) -> Form:
    if isinstance(form, Tuple):
        return replace(form, parts=tuple(replace(part, form=_with_signs(part.form, signs)) for part in form.parts))
    return replace(form, tree=_signed(form.tree, signs)) if isinstance(form, Quantity) else form


def _signed(tree: Tree, signs: list[int]) -> Tree:
    if tree[0] == "pm":
        sign = signs.pop(0) * tree[1]
        inner = _signed(tree[2], signs)
        return inner if sign > 0 else ("neg", inner)
    return (tree[0], *(_signed(part, signs) if isinstance(part, tuple) else part for part in tree[1:]))


def _both_reals(a: Form, b: Form) -> bool:
    ours, theirs = (reals_of([Part(form)], frozenset()) for form in (a, b))
    return ours is not None and theirs is not None and same_reals(ours, theirs)
