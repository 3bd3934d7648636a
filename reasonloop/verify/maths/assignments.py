"""Names that answers give: numbered solutions, assignments, functions of another variable."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from reasonloop.verify.maths.forms import Answer, Form, Part, Quantity, Relation, Tuple
from reasonloop.verify.maths.names import variables_of
from reasonloop.verify.maths.tree import renamed, symbols


def with_variable(answer: Answer, new: str) -> Answer:
    r"""n \pi, n \in \mathbb{Z} with another variable."""

    def part(old: Part) -> Part:
        form = old.form
        return (
            replace(old, form=replace(form, tree=renamed(form.tree, answer.domain, new)))
            if isinstance(form, Quantity)
            else old
        )

    return replace(answer, parts=tuple(map(part, answer.parts)), domain=new)


def same_names(a: Part, b: Part) -> bool:
    """Whether both are the value of the same thing; x is x_1."""
    ours, theirs = ({name.casefold() for name in part.names} for part in (a, b))
    if ours & theirs:
        return True
    return any(x.partition("_")[0] == y.partition("_")[0] and ("_" in x) != ("_" in y) for x in ours for y in theirs)


def in_variable_of(a: Part, b: Part) -> Form | None:
    """The first one's value in the second one's variable, if both are values of a function: f(t) = 2t, g(x) = 2x, y = 2x."""
    if not (
        isinstance(a.form, Quantity) and isinstance(b.form, Quantity) and symbols(a.form.tree) and symbols(b.form.tree)
    ):
        return None
    arguments = [re.fullmatch(r"[A-Za-z](?:_\w)?\(([a-z])\)", part.names[-1]) for part in (a, b)]
    if not any(arguments) or not all(
        found or part.names[-1] == "y" for found, part in zip(arguments, (a, b), strict=True)
    ):
        return None
    ours, theirs = arguments
    if ours is None or theirs is None or ours[1] == theirs[1]:
        return a.form
    if theirs[1] in symbols(a.form.tree):
        return None
    return replace(a.form, tree=renamed(a.form.tree, ours[1], theirs[1]))


def named_alike(parts: Sequence[Part]) -> list[Part]:
    """n = 1, 2, 3 names all three."""
    found: list[Part] = []
    for part in parts:
        names = part.names or (found[-1].names if found and not isinstance(part.form, Relation) else ())
        found.append(replace(part, names=names))
    return found


def records_of(parts: Sequence[Part]) -> list[dict[str, Part]]:
    """Elements with several names as assignments: x = 1, y = 2 is one, p = 5, q = 2, p = 7, q = 2 are two; else none."""
    if len(parts) == 1 and parts[0].names and isinstance(parts[0].form, Tuple):
        named = variables_of(parts[0].names[-1])
        if len(named) == len(parts[0].form.parts):
            return [dict(zip(named, parts[0].form.parts, strict=True))]
    if not all(part.names for part in parts) or len({part.names[-1] for part in parts}) < 2:
        return []
    if len({re.sub(r"_[0-9]+$", "", part.names[-1]) for part in parts}) < 2:
        return []  # x_1, x_2: the solutions, numbered
    records: list[dict[str, Part]] = [{}]
    for part in parts:
        if part.names[-1] in records[-1]:
            records.append({})
        records[-1][part.names[-1]] = replace(part, names=())
    return records if len({frozenset(record) for record in records}) == 1 else []
