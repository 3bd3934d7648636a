"""What an answer can be: the forms of its elements. Trees are those of `tree`."""

from __future__ import annotations

from dataclasses import dataclass, field

from reasonloop.verify.maths.tree import Tree, has


@dataclass(frozen=True)
class Quantity:
    """An expression with its units."""

    tree: Tree
    units: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Tuple:
    """Ordered elements in brackets; two of them may be an interval's ends."""

    opening: str
    closing: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Set:
    parts: tuple[Part, ...]
    plain: bool = field(default=False, compare=False)
    """Whether its braces only group, in LaTeX: {1, 2}"""


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`; each end belongs to it or doesn't."""

    low: Tree
    low_in: bool
    high: Tree
    high_in: bool


@dataclass(frozen=True)
class Union:
    """Real numbers: the union of intervals (points are intervals of one number)."""

    intervals: tuple[Interval, ...]


@dataclass(frozen=True)
class Operation:
    """A union, an intersection or a difference of two sets."""

    sign: str
    left: Form
    right: Form


@dataclass(frozen=True)
class Relation:
    """left sign right, and so on: an equation or an inequality that names no value."""

    sides: tuple[Tree, ...]
    signs: tuple[str, ...]
    names: tuple[str, ...]
    """The name that each side is, or "" """


@dataclass(frozen=True)
class Matrix:
    rows: tuple[tuple[Tree, ...], ...]


@dataclass(frozen=True)
class Colon:
    """1:2 or 4:40 p.m."""

    parts: tuple[Tree, ...]
    texts: tuple[str, ...]
    half: str = ""
    """"am", "pm" or "" """


@dataclass(frozen=True)
class Based:
    """Digits in a base."""

    digits: str
    base: int


@dataclass(frozen=True)
class Words:
    text: str
    letters: str = ""
    """As they stand, where it is one run of letters, which may be a product: nRT"""


Form = Quantity | Tuple | Set | Union | Operation | Relation | Matrix | Colon | Based | Words


@dataclass(frozen=True)
class Part:
    """One element of an answer."""

    form: Form
    names: tuple[str, ...] = ()
    """What it is said to be the value of"""
    phrase: str = ""
    """Its words, for answers in words"""


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    parts: tuple[Part, ...]
    phrase: str
    """The whole in words"""
    spelled: tuple[str, ...] = ()
    """The whole, sign by sign"""
    choice: str = ""
    """The letter in front of "C: 12" or "C) 12" """
    content: Answer | None = None
    """What stands behind that letter"""
    joined: frozenset[str] = field(default=frozenset())
    """What parts the elements"""
    domain: str = ""
    """The variable of k \\in \\mathbb{Z}, which any other could stand for"""
    reason: str = ""
    """Why it has no parts"""

    @property
    def in_words(self) -> bool:
        """Whether it is an answer all the same: words"""
        return any(c.isalpha() for c in self.phrase) and not any(c.isdigit() for c in self.phrase)


REALS = Union((Interval(("neg", ("const", "oo")), False, ("const", "oo"), False),))


def uses_sign(form: Form) -> bool:
    r"""Whether a \pm stands in it."""
    if isinstance(form, Quantity):
        return has(form.tree, "pm")
    return isinstance(form, Tuple) and any(uses_sign(part.form) for part in form.parts)
