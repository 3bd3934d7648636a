r"""The structure of an answer: elements between commas, names in front of equals signs, tuples, sets, intervals.

`read` gives it; `equal` compares two. Every element is a `Part`, whose form is one of the classes below. Where the text is
mathematics of a kind that is not known (an integral), `Unsupported` is raised; where it is none, the answer is its words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from reasonloop.verify.maths.agree import agree, near, straight
from reasonloop.verify.maths.brackets import contents, enclosed, split_at, top_level
from reasonloop.verify.maths.expression import parsed
from reasonloop.verify.maths.forms import (
    REALS,
    Answer,
    Based,
    Colon,
    Form,
    Interval,
    Matrix,
    Operation,
    Part,
    Quantity,
    Relation,
    Set,
    Tuple,
    Union,
    Words,
)  # fmt: skip
from reasonloop.verify.maths.names import name_of, sum_name_of
from reasonloop.verify.maths.phrases import phrase, trimmed
from reasonloop.verify.maths.tokens import Token, Unreadable, Unsupported, tokens_of
from reasonloop.verify.maths.tree import Tree, symbols
from reasonloop.verify.maths.units import measured, with_nouns
from reasonloop.verify.maths.words import HEDGES, MONTHS, NUMBERS


def read(text: str, gold: bool = False) -> Answer:
    """The structure of an answer's text. `gold`: of a gold answer, from which no sum's name is dropped.

    Raises Unreadable, or Unsupported.
    """
    tokens = trimmed(with_nouns(tokens_of(text)))
    words = phrase(tokens)
    choice, rest = _choice(tokens)
    if rest and (rest[0].kind == "sep" or any(_is_letter(a) and b.text == ":" for a, b in pairwise(rest))):
        choice, rest = "", []
    content = _read(rest, phrase(rest), gold) if choice and rest else None
    if content is not None and not any(t.kind == "op" and t.text in ":)" for t in tokens[:2]):
        content = None
    return replace(_read(tokens, words, gold, lenient=bool(choice)), choice=choice, content=content)


def spelling(text: str) -> tuple[str, ...]:
    """The signs of a text without what only lays it out: equal ones say the same."""
    return tuple(token.text for token in trimmed(tokens_of(text)))


def _choice(tokens: list[Token]) -> tuple[str, list[Token]]:
    """("C", the rest) of "C", "(C)", "C: 12", "C. 12" and "(C) 12"."""
    if tokens and tokens[0].text == "(" and len(tokens) > 2 and tokens[2].text == ")":
        tokens = tokens[1:2] + tokens[3:]
        if not _is_letter(tokens[0]):
            return "", []
        return tokens[0].text, [t for t in tokens[1:] if t.text not in ":."] if len(tokens) > 1 else []
    if not tokens or not _is_letter(tokens[0]):
        return "", []
    if len(tokens) == 1:
        return tokens[0].text, []
    if tokens[1].kind == "op" and tokens[1].text in ":.)":
        return tokens[0].text, tokens[2:]
    return "", []


def _is_letter(token: Token) -> bool:
    return token.kind in ("name", "word") and len(token.text) == 1 and token.text.isupper()


def _read(tokens: list[Token], words: str, gold: bool, lenient: bool = False) -> Answer:
    if _is_prose(tokens):
        return Answer((Part(Words(words), phrase=words),), words)
    try:
        pieces, joined = split_at(tokens, lambda token: token.kind == "sep")
        if any(token.kind == "word" and token.text.casefold() in HEDGES for token in top_level(tokens)):
            raise Unreadable("words that leave it open")
        parts = tuple(part for piece in pieces if piece for part in _part(piece, gold))
        if not parts:
            raise Unreadable("nothing")
    except Unreadable as error:
        if isinstance(error, Unsupported) and not lenient:
            raise
        return Answer((), words, reason=str(error))
    return Answer(parts, words, joined=frozenset(token.text for token in joined))


def _is_prose(tokens: list[Token]) -> bool:
    """Words without anything to be calculated, or a date."""
    kinds = {token.kind for token in tokens}
    if any(token.kind == "word" and token.text.casefold() in MONTHS for token in tokens):
        return True
    if kinds == {"letters"} and len(tokens) == 1:
        text = tokens[0].text
        return not text.islower() or len(text) > 3
    plain = kinds <= {"word", "letters", "op"} and all(t.text in "().'-?!" for t in tokens if t.kind == "op")
    return (
        plain and "word" in kinds and not any(len(t.text) == 1 for t in tokens if t.kind == "word" or t.kind == "name")
    )


def _part(tokens: list[Token], gold: bool) -> list[Part]:
    """The element that some tokens are: as a rule one, none for an "and" alone."""
    words = phrase(tokens)
    tokens = trimmed(tokens)
    if not tokens:
        return []
    sides, signs = split_at(tokens, lambda token: token.kind == "rel")
    marks = [token.text for token in signs]
    if not marks:
        return [Part(_form(tokens, gold), phrase=words)]
    if not sides[0]:  # "= 12"
        sides, marks = sides[1:], marks[1:]
        if not marks:
            return [Part(_form(sides[0], gold), phrase=words)]
    if "=>" in marks or "<=>" in marks:
        last = max(i for i, mark in enumerate(marks) if mark in ("=>", "<=>"))
        sides, marks = sides[last + 1 :], marks[last + 1 :]
        if not marks:
            return [Part(_form(sides[0], gold), phrase=words)]
    if set(marks) <= {"=", "~"}:
        return [replace(part, phrase=words) for part in _assigned(sides, marks, gold)]
    if marks == ["in"]:
        name = name_of(sides[0])
        if not name:
            raise Unreadable("an element that is no name")
        return [Part(_form(sides[1], gold), (name,), words)]
    if "in" in marks or "->" in marks or "!in" in marks:
        raise Unsupported("a relation of that kind")
    return [Part(_relation(sides, marks), phrase=words)]


def _assigned(sides: list[list[Token]], marks: list[str], gold: bool) -> list[Part]:
    """The value at the end of a chain of equals signs, with the names in front of it."""
    names: list[str] = []
    reader: Callable[[list[Token]], str] = name_of if gold and len(sides) == 2 else sum_name_of
    while len(sides) > 1 and (name := reader(sides[0])):
        names.append(name)
        sides, marks = sides[1:], marks[1:]
    if len(sides) == 2 and not names and marks == ["="] and len(sides[1]) == 1 and (name := name_of(sides[1])):
        names, sides = [name], sides[:1]  # 5 = x
    if len(sides) == 1:
        return [Part(_form(sides[0], gold), tuple(names))]
    forms = [_form(side, gold) for side in sides]
    if not all(isinstance(form, Quantity) for form in forms):
        if isinstance(forms[-1], Quantity | Words) or (gold and len(sides) > 2):
            raise Unreadable("an equation of something else than numbers")
        return [Part(forms[-1], tuple(names))]  # A^{-1} = a matrix
    quantities = [form for form in forms if isinstance(form, Quantity)]
    if not names and len(sides) == 2 and any(symbols(quantity.tree) for quantity in quantities):
        trees = tuple(quantity.tree for quantity in quantities)
        return [Part(Relation(trees, ("=",), tuple(name_of(side) for side in sides)))]
    return [Part(_last(quantities, marks), tuple(names))]


def _last(quantities: list[Quantity], marks: list[str]) -> Quantity:
    """The value of a chain a = b = c, all of which must be equal; of a ~ b the exact one."""
    last = quantities[-1]
    for before, mark in zip(quantities, marks, strict=False):
        if mark == "=" and not agree(_plain(before), _plain(last)):
            raise Unreadable("an equation that doesn't hold")
        if mark == "~" and not near(before.tree, last.tree):
            raise Unreadable("an estimate that is none")
    return quantities[0] if set(marks) == {"~"} else last


def _plain(quantity: Quantity) -> Tree:
    """0.56 = 56 %"""
    return ("/", quantity.tree, ("num", Fraction(100), -1)) if "%" in quantity.units else quantity.tree


def _relation(sides: list[list[Token]], marks: list[str]) -> Form:
    """An inequality: as the numbers for which it holds where one side is a name, else as it stands."""
    names = tuple(name_of(side) for side in sides)
    trees = tuple(_side(side, name) for side, name in zip(sides, names, strict=True))
    at = [i for i, name in enumerate(names) if name and not (name == "e" or name == "i")]
    if len(marks) == 1 and not at and (solved := _solved(trees, marks[0])) is not None:
        return solved
    if len(at) != 1 or len(sides) > 3 or (len(sides) == 3 and at != [1]):
        return Relation(trees, tuple(marks), names)
    infinite: Tree = ("const", "oo")
    low, low_in, high, high_in = ("neg", infinite), False, infinite, False
    for i, mark in enumerate(marks):
        above = at[0] <= i  # the bound stands behind the name
        bound = trees[i + 1] if above else trees[i]
        if mark == "!=":
            if len(marks) > 1:
                return Relation(trees, tuple(marks), names)
            return Union((Interval(low, False, bound, False), Interval(bound, False, high, False)))
        if mark not in ("<", "<=", ">", ">="):
            raise Unsupported("a chain of other relations")
        if (mark[0] == "<") == above:
            high, high_in = bound, mark.endswith("=")
        else:
            low, low_in = bound, mark.endswith("=")
    found = Interval(low, low_in, high, high_in)
    if re.fullmatch(r"\|[a-z]\|", names[at[0]]):  # 1 < |z|: of z
        mirrored = Interval(("neg", high), high_in, ("neg", low), low_in)
        return (
            Union((found, mirrored))
            if low != ("neg", infinite)
            else Union((replace(found, low=("neg", high), low_in=high_in),))
        )
    return Union((found,))


def _solved(trees: tuple[Tree, ...], mark: str) -> Form | None:
    """A linear inequality in one variable, for example -2x > 6, as the numbers for which it holds."""
    difference: Tree = ("+", trees[0], ("neg", trees[1]))
    names = symbols(difference)
    if len(names) != 1 or mark not in ("<", "<=", ">", ">="):
        return None
    line = straight(difference, next(iter(names)))
    if line is None or line[1] == 0:
        return None
    root: Tree = ("num", -line[0] / line[1], -1)
    infinite: Tree = ("const", "oo")
    if (mark[0] == "<") == (line[1] > 0):
        return Union((Interval(("neg", infinite), False, root, mark.endswith("=")),))
    return Union((Interval(root, mark.endswith("="), infinite, False),))


def _side(tokens: list[Token], name: str) -> Tree:
    if name and not all(token.kind in ("num", "name", "op") for token in tokens):
        return ("sym", name)
    if name and any(token.text == "(" for token in tokens):
        return ("sym", name)
    return parsed(measured(tokens).tokens)


_SET_SIGNS = ("cup", "cap", "setminus")


def _form(tokens: list[Token], gold: bool) -> Form:
    """What stands on one side of an equals sign."""
    tokens = trimmed(tokens)
    if not tokens:
        raise Unreadable("nothing where a value should stand")
    pieces, signs = split_at(tokens, lambda token: token.kind == "command" and token.text in _SET_SIGNS)
    if signs:
        form = _form(pieces[0], gold)
        for sign, piece in zip(signs, pieces[1:], strict=True):
            form = Operation(sign.text, form, _form(piece, gold))
        return form
    texts = [token.text for token in tokens]
    if texts[:2] == ["mathbb", "{"]:
        return _number_set(tokens)
    if texts == ["emptyset"] or texts == ["set", "endset"]:
        return Words("none")
    bracketed = enclosed(tokens)
    if bracketed:
        return _bracketed(bracketed[0], contents(tokens), bracketed[1], gold)
    if any(token.text == "matrix" and token.kind == "command" for token in tokens):
        return _matrix(tokens)
    return _scalar(tokens, gold)


def _number_set(tokens: list[Token]) -> Form:
    if [token.text for token in tokens] == ["mathbb", "{", "R", "}"]:
        return REALS
    raise Unsupported("a set of numbers")


def _bracketed(opening: str, inside: list[Token], closing: str, gold: bool) -> Form:
    if opening == "set":
        return _set(inside, gold)
    pieces, _ = split_at(inside, lambda token: token.kind == "sep")
    if len(pieces) == 1:
        if (opening, closing) not in (("(", ")"), ("{", "}"), ("[", "]")):
            raise Unreadable("brackets that don't match")
        return _form(inside, gold)
    if opening == "{":
        return Set(tuple(part for piece in pieces for part in _part(piece, gold)))
    return Tuple(opening, closing, tuple(part for piece in pieces for part in _part(piece, gold)))


def _set(inside: list[Token], gold: bool) -> Form:
    pieces, bars = split_at(inside, lambda token: token.kind == "op" and token.text in "|:")
    if len(bars) == 1 and pieces[0]:  # { x | condition }
        element = split_at(pieces[0], lambda token: token.kind == "rel")[0][0]
        if not name_of(element):
            raise Unsupported("a set of values of an expression")
        conditions = [
            part for piece in split_at(pieces[1], lambda t: t.kind == "sep")[0] for part in _part(piece, gold)
        ]
        form = conditions[0].form
        for condition in conditions[1:]:
            form = Operation("cup" if any(t.text == "or" for t in pieces[1]) else "cap", form, condition.form)
        return form
    pieces, _ = split_at(inside, lambda token: token.kind == "sep")
    return Set(tuple(part for piece in pieces for part in _part(piece, gold)))


def _matrix(tokens: list[Token]) -> Form:
    opening = next(i for i, token in enumerate(tokens) if token.text == "matrix")
    if tokens[-1].text != "endmatrix" or sum(token.text == "matrix" for token in tokens) > 1:
        raise Unsupported("a matrix among other things")
    scale = tokens[:opening]
    while scale and scale[-1].text == "*":
        scale = scale[:-1]
    rows, _ = split_at(tokens[opening + 1 : -1], lambda token: token.kind == "op" and token.text == "\\")
    factor = parsed(scale) if scale and scale[0].text not in "([" else None
    found = []
    for row in rows:
        if row:
            cells = [parsed(cell) for cell in split_at(row, lambda token: token.kind == "sep" and token.text == "&")[0]]
            found.append(tuple(cells if factor is None else [("*", factor, cell) for cell in cells]))
    if not found or len({len(row) for row in found}) > 1:
        raise Unreadable("a matrix with rows of other lengths")
    return Matrix(tuple(found))


def _scalar(tokens: list[Token], gold: bool) -> Form:
    based = _based(tokens)
    if based is not None:
        return based
    pieces, colons = split_at(
        tokens, lambda t: (t.kind == "op" and t.text == ":") or (t.kind == "word" and t.text == "to")
    )
    if colons and all(pieces):
        return _colon(pieces)
    found = measured(_without_aside(tokens))
    if len(found.tokens) == 1 and found.tokens[0].kind == "word":
        word = found.tokens[0].text
        if word.casefold() in NUMBERS:
            return Quantity(("num", NUMBERS[word.casefold()], -1), found.units)
        if len(word) == 1:
            return Quantity(parsed([Token("name", word)]), found.units)
    if any(token.kind == "word" for token in found.tokens):
        if any(token.kind not in ("word", "letters", "op") for token in found.tokens):
            raise Unreadable("words among numbers")
        return Words(phrase(tokens))
    return Quantity(parsed(found.tokens), found.units)


def _without_aside(tokens: list[Token]) -> list[Token]:
    """Without words in brackets at the end: 18 (eighteen)."""
    if tokens[-1].text != ")" or all(token.kind != "word" for token in tokens):
        return tokens
    opening = max((i for i, token in enumerate(tokens) if token.text == "("), default=0)
    aside = tokens[opening + 1 : -1]
    return tokens[:opening] if opening and all(token.kind in ("word", "letters") for token in aside) else tokens


def _based(tokens: list[Token]) -> Form | None:
    r"""1101_2, (12)_5, 4210_{\text{base }5}: digits with a base behind them."""
    at = next((i for i, token in enumerate(tokens) if token.kind == "op" and token.text == "_"), 0)
    if not at:
        return None
    digits, base = tokens[:at], [token for token in tokens[at + 1 :] if token.text not in "{}"]
    if digits[0].text == "(" and digits[-1].text == ")":
        digits = digits[1:-1]
    while base and base[0].text.casefold() == "base":
        base = base[1:]
    text = "".join(token.text for token in digits)
    plain = all(token.kind in ("num", "name", "letters", "word") for token in digits) and text.isalnum()
    if not plain or len(base) != 1 or base[0].kind != "num" or not any(c.isdigit() for c in text) or text[0].islower():
        return None
    if digits[0].kind != "num" and len(text) < 2:
        return None
    if not base[0].text.isdigit() or not 2 <= int(base[0].text) <= 36:
        return None
    return Based(text.upper().lstrip("0") or "0", int(base[0].text))


def _colon(pieces: list[list[Token]]) -> Form:
    *front, last = pieces
    half = "".join(token.text for token in last if token.kind in ("word", "name", "letters") or token.text == ".")
    half = half.replace(".", "").casefold()
    if half in ("am", "pm"):
        last = last[:1]
        pieces = [*front, last]
    else:
        half = ""
        pieces = [measured(piece).tokens for piece in pieces]
    texts = tuple("".join(token.text for token in piece) for piece in pieces)
    return Colon(tuple(parsed(piece) for piece in pieces), texts, half)
