r"""The structure of an answer: elements between commas, names in front of equals signs, tuples, sets, intervals.

`read` gives it; `equal` compares two. Where the text is mathematics of a kind that is not known (an integral),
`Unsupported` is raised; where it is none, the answer is its words.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from reasonloop.verify.maths.brackets import contents, enclosed, split_at, top_level
from reasonloop.verify.maths.forms import REALS, Answer, Form, Operation, Part, Quantity, Relation, Set, Tuple, Words
from reasonloop.verify.maths.names import answer_name_of, gold_name_of, name_of
from reasonloop.verify.maths.phrases import is_domain, phrase, trimmed, without_condition
from reasonloop.verify.maths.relations import inequality, last_of
from reasonloop.verify.maths.tokens import Token, Unreadable, Unsupported, tokens_of
from reasonloop.verify.maths.tree import symbols
from reasonloop.verify.maths.units import with_nouns
from reasonloop.verify.maths.values import matrix, scalar
from reasonloop.verify.maths.words import HEDGES, MONTHS, in_words

_OTHER_ANSWERS = frozenset(("yes", "no", "maybe"))
_OTHERWISE = _OTHER_ANSWERS | frozenset(("not", "false", "incorrect", "impossible"))
_SET_SIGNS = ("cup", "cap", "setminus")


def read(text: str, gold: bool = False, bare: bool = False) -> Answer:
    """The structure of an answer's text.

    `gold`: of a gold answer, from which no formula is dropped as a name. `bare`: with letters behind a number as its unit.
    Raises Unreadable, or Unsupported.
    """
    tokens = trimmed(with_nouns(tokens_of(text)))
    choice, rest = _choice(tokens)
    if rest and (
        rest[0].kind == "sep" or _choice(rest)[0] or any(_is_letter(a) and b.text == ":" for a, b in pairwise(rest))
    ):
        choice, rest = "", []
    reader = _Reader(gold, bare)
    content = reader.answer(rest, lenient=True) if choice and rest else None
    return replace(reader.answer(tokens, lenient=bool(choice)), choice=choice, content=content)


def spelling(text: str) -> tuple[str, ...]:
    """The signs of a text without what only lays it out: equal ones say the same."""
    return _spelled(trimmed(tokens_of(text)))


def _spelled(tokens: list[Token]) -> tuple[str, ...]:
    return tuple(sign for token in tokens for sign in (token.text if token.kind == "letters" else [token.text]))


def _choice(tokens: list[Token]) -> tuple[str, list[Token]]:
    """("C", the rest) of "C", "(C)", "C: 12", "C. 12" and "(C) 12"."""
    if len(tokens) > 2 and tokens[0].text == "(" and tokens[2].text == ")" and _is_letter(tokens[1]):
        rest = tokens[3:]
        return tokens[1].text, rest[1:] if rest and rest[0].text in ":." else rest
    if not tokens or not _is_letter(tokens[0]):
        return "", []
    if len(tokens) == 1:
        return tokens[0].text, []
    if tokens[1].kind == "op" and tokens[1].text in ":.)":
        return tokens[0].text, tokens[2:]
    return "", []


def _is_letter(token: Token) -> bool:
    return token.kind in ("name", "word") and len(token.text) == 1 and token.text.isupper()


def _prose(tokens: list[Token]) -> Words | None:
    """Words without anything to be calculated, or a date."""
    kinds = {token.kind for token in tokens}
    first = tokens[0].text.casefold() if tokens else ""
    if first in ("yes", "no") and len(tokens) > 1 and tokens[1].text in (",", ";"):
        others = {token.text.casefold() for token in tokens[2:]}
        return None if ((_OTHERWISE if first == "yes" else _OTHER_ANSWERS) & others) else Words(first)
    if any(token.kind == "word" and token.text.casefold() in MONTHS for token in tokens):
        return Words(phrase(tokens))
    if kinds == {"letters"} and len(tokens) == 1:
        text = tokens[0].text
        return Words(phrase(tokens), text) if not text.islower() or len(text) > 3 else None
    if in_words([token.text.casefold() for token in tokens if token.text != "-"]) is not None:
        return None
    plain = kinds <= {"word", "letters", "op"} and all(t.text in "().'-?!" for t in tokens if t.kind == "op")
    single = any(len(token.text) == 1 for token in tokens if token.kind in ("word", "name"))
    return Words(phrase(tokens)) if plain and "word" in kinds and not single else None


def _says_nothing(tokens: list[Token]) -> bool:
    r"""k \in \mathbb{Z}, (k \in \mathbb{Z}), "as required" """
    inside = tokens[1:-1] if tokens[0].text == "(" and tokens[-1].text == ")" else tokens
    words = [token.text.casefold() for token in tokens]
    return is_domain(inside) or (len(words) == 2 and words[0] == "as" and words[1] in ("required", "desired", "needed"))


class _Reader:
    def __init__(self, gold: bool, bare: bool) -> None:
        self.gold, self.bare = gold, bare

    def answer(self, tokens: list[Token], lenient: bool) -> Answer:
        words, spelled = phrase(tokens), _spelled(tokens)
        prose = _prose(tokens)
        if prose is not None:
            return Answer((Part(prose, phrase=prose.text),), prose.text, spelled)
        try:
            pieces, joined = split_at(tokens, lambda token: token.kind == "sep")
            if any(token.kind == "word" and token.text.casefold() in HEDGES for token in top_level(tokens)):
                raise Unreadable("words that leave it open")
            said = [piece for piece in pieces if piece and not _says_nothing(piece)]
            domains = [piece[0].text for piece in pieces if piece and is_domain(piece)]
            parts = tuple(part for piece in said or pieces if piece for part in self.part(piece))
            if not parts:
                raise Unreadable("nothing")
        except Unreadable as error:
            if isinstance(error, Unsupported) and not lenient:
                raise
            return Answer((), words, spelled, reason=str(error))
        domain = domains[0] if len(domains) == 1 else ""
        return Answer(parts, words, spelled, joined=frozenset(token.text for token in joined), domain=domain)

    def part(self, tokens: list[Token]) -> list[Part]:
        """The element that some tokens are: as a rule one, none for an "and" alone."""
        words = phrase(tokens)
        tokens = trimmed(tokens)
        if not tokens:
            return []
        sides, signs = split_at(tokens, lambda token: token.kind == "rel")
        sides = [without_condition(side) for side in sides]
        marks = [token.text for token in signs]
        if marks and not sides[0] and marks[0] in ("=", "~", "->", "=>"):  # "= 12"
            sides, marks = sides[1:], marks[1:]
        if "=>" in marks:
            last = max(i for i, mark in enumerate(marks) if mark == "=>")
            if last == 0:
                raise Unreadable("a consequence of a value")
            sides, marks = sides[last + 1 :], marks[last + 1 :]
        if not all(sides):
            raise Unreadable("a relation without one of its sides")
        if not marks:
            return [Part(self.form(sides[0]), phrase=words)]
        if set(marks) <= {"=", "~"}:
            return [replace(self.assigned(sides, marks), phrase=words)]
        if marks == ["in"]:
            name = name_of(sides[0])
            if not name:
                raise Unreadable("an element that is no name")
            return [Part(self.form(sides[1]), (name,), words)]
        if {"in", "->", "!in", "<=>"} & set(marks):
            raise Unsupported("a relation of that kind")
        return [Part(inequality(sides, marks), phrase=words)]

    def assigned(self, sides: list[list[Token]], marks: list[str]) -> Part:
        """The value at the end of a chain of equals signs, with the names in front of it."""
        names: list[str] = []
        reader = gold_name_of if self.gold and len(sides) == 2 else answer_name_of
        while len(sides) > 1 and (name := (name_of if names else reader)(sides[0])):
            names.append(name)
            sides, marks = sides[1:], marks[1:]
        if len(sides) == 2 and not names and marks == ["="] and len(sides[1]) == 1 and (name := name_of(sides[1])):
            names, sides = [name], sides[:1]  # 5 = x
        if len(sides) == 1:
            return Part(self.form(sides[0]), tuple(names))
        forms = [self.form(side) for side in sides]
        if not all(isinstance(form, Quantity) for form in forms):
            if isinstance(forms[-1], Quantity | Words) or (self.gold and len(sides) > 2):
                raise Unreadable("an equation of something else than numbers")
            return Part(forms[-1], tuple(names))  # A^{-1} = a matrix
        quantities = [form for form in forms if isinstance(form, Quantity)]
        if not names and len(sides) == 2 and any(symbols(quantity.tree) for quantity in quantities):
            trees = tuple(quantity.tree for quantity in quantities)
            return Part(Relation(trees, ("=",), tuple(name_of(side) for side in sides)))
        return Part(last_of(quantities, marks, self.gold), tuple(names))

    def form(self, tokens: list[Token]) -> Form:
        """What stands on one side of an equals sign."""
        tokens = trimmed(tokens)
        if not tokens:
            raise Unreadable("nothing where a value should stand")
        pieces, signs = split_at(tokens, lambda token: token.kind == "command" and token.text in _SET_SIGNS)
        if not signs and tokens[0].text == "mathbb":
            pieces, signs = split_at(tokens, lambda token: token.text == "-")  # R - {0}
        if signs:
            form = self.form(pieces[0])
            for sign, piece in zip(signs, pieces[1:], strict=True):
                form = Operation("setminus" if sign.text == "-" else sign.text, form, self.form(piece))
            return form
        texts = [token.text for token in tokens]
        without = next((i for i, text in enumerate(texts) if text in ("except", "excluding") and i), 0)
        if without and phrase(tokens[:without]) == "reals":
            behind = tokens[without + 1 :]
            return Operation(
                "setminus", REALS, Set(self.parts(behind[1:] if behind[:1] and behind[0].text == "for" else behind))
            )
        if texts[0] == "mathbb":
            if texts != ["mathbb", "{", "R", "}"]:
                raise Unsupported("a set of numbers")
            return REALS
        if texts in (["emptyset"], ["set", "endset"]):
            return Words("none")
        if (bracketed := enclosed(tokens)) is not None:
            return self.bracketed(bracketed[0], contents(tokens), bracketed[1])
        named = tokens[0].kind == "name" and texts[0].isupper() and texts[0] != "C"
        if named and enclosed(tokens[1:]) is not None and any(token.kind == "sep" for token in tokens):  # P(1, 2)
            return self.form(tokens[1:])
        if any(token.text == "matrix" and token.kind == "command" for token in tokens):
            return matrix(tokens)
        return scalar(tokens, self.bare)

    def parts(self, tokens: list[Token]) -> tuple[Part, ...]:
        pieces, _ = split_at(tokens, lambda token: token.kind == "sep")
        return tuple(part for piece in pieces for part in self.part(piece))

    def bracketed(self, opening: str, inside: list[Token], closing: str) -> Form:
        if opening == "set":
            return self.set(inside)
        pieces, _ = split_at(inside, lambda token: token.kind == "sep")
        if len(pieces) > 1:
            parts = self.parts(inside)
            return Set(parts, plain=True) if opening == "{" else Tuple(opening, closing, parts)
        if (opening, closing) not in (("(", ")"), ("{", "}"), ("[", "]")):
            raise Unreadable("brackets that don't match")
        found = self.part(inside)
        if len(found) != 1 or isinstance(found[0].form, Relation):
            raise Unreadable("a relation in brackets")
        return found[0].form

    def set(self, inside: list[Token]) -> Form:
        pieces, bars = split_at(inside, lambda token: token.kind == "op" and token.text in "|:")
        if len(bars) != 1 or not pieces[0]:
            return Set(self.parts(inside))
        element = split_at(pieces[0], lambda token: token.kind == "rel")[0][0]  # { x | condition }
        if not name_of(element):
            raise Unsupported("a set of values of an expression")
        conditions = self.parts(pieces[1])
        form = conditions[0].form
        for condition in conditions[1:]:
            form = Operation("cup" if any(t.text == "or" for t in pieces[1]) else "cap", form, condition.form)
        return form
