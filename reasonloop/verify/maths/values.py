r"""Single values: numbers with units, matrices, digits in a base, ratios and times."""

from __future__ import annotations

from reasonloop.verify.maths.agree import agree, near
from reasonloop.verify.maths.brackets import split_at
from reasonloop.verify.maths.expression import parsed
from reasonloop.verify.maths.forms import Based, Colon, Form, Matrix, Quantity, Words
from reasonloop.verify.maths.phrases import phrase
from reasonloop.verify.maths.tokens import Token, Unreadable, Unsupported, number_token
from reasonloop.verify.maths.tree import Tree, integer
from reasonloop.verify.maths.units import measured
from reasonloop.verify.maths.words import JUDGING, NUMBERS, in_words


def scalar(tokens: list[Token], bare: bool) -> Form:
    """A value without brackets around it. `bare`: letters behind a number may be its unit."""
    based = _based(tokens)
    if based is not None:
        return based
    pieces, colons = split_at(tokens, lambda t: t.text == ":" or (t.kind in ("word", "letters") and t.text == "to"))
    if colons and all(pieces):
        return _colon(pieces)
    found = measured(_without_aside(tokens), bare)
    if len(found.tokens) == 1 and found.tokens[0].kind == "word":
        word = found.tokens[0].text
        if word.casefold() in NUMBERS:
            return Quantity(integer(NUMBERS[word.casefold()]), found.units)
        if len(word) == 1:
            return Quantity(parsed([Token("name", word)]), found.units)
    if all(token.kind in ("word", "letters") or token.text == "-" for token in tokens):
        number = in_words([token.text.casefold() for token in tokens if token.text != "-"])
        if number is not None:
            return Quantity(integer(number))
    if any(token.kind == "word" for token in found.tokens):
        if any(token.kind not in ("word", "letters", "op") for token in found.tokens):
            raise Unreadable("words among numbers")
        return Words(phrase(tokens))
    return Quantity(parsed(found.tokens), found.units)


def matrix(tokens: list[Token]) -> Form:
    """A matrix, with a factor in front or without."""
    opening = next(i for i, token in enumerate(tokens) if token.text == "matrix")
    if tokens[-1].text != "endmatrix" or sum(token.text == "matrix" for token in tokens) > 1:
        raise Unsupported("a matrix among other things")
    scale = tokens[:opening]
    while scale and scale[-1].text == "*":
        scale = scale[:-1]
    rows, _ = split_at(tokens[opening + 1 : -1], lambda token: token.kind == "op" and token.text == "\\")
    factor = _factor(scale)
    found = []
    for row in rows:
        if row:
            cells = [parsed(cell) for cell in split_at(row, lambda token: token.kind == "sep" and token.text == "&")[0]]
            found.append(tuple(cells if factor is None else [("*", factor, cell) for cell in cells]))
    if not found or len({len(row) for row in found}) > 1:
        raise Unreadable("a matrix with rows of other lengths")
    return Matrix(tuple(found))


def _factor(tokens: list[Token]) -> Tree | None:
    if [token.text for token in tokens] == ["-"]:
        return ("neg", integer(1))
    return parsed(tokens) if tokens and tokens[0].text not in "([" else None


def _without_aside(tokens: list[Token]) -> list[Token]:
    """Without what brackets at the end say again: 18 (eighteen), 3/4 (or 0.75), 12 (cm)."""
    opening = max((i for i, token in enumerate(tokens) if token.text == "("), default=0)
    if not opening or tokens[-1].text != ")":
        return tokens
    value, aside = tokens[:opening], tokens[opening + 1 : -1]
    words = [token.text.casefold() for token in aside if token.text != "-"]
    if aside and all(token.kind in ("word", "letters") or token.text == "-" for token in aside):
        number = in_words(words)
        if number is not None:
            return value if agree(parsed(measured(value).tokens), integer(number)) else tokens
        return tokens if any(word in JUDGING for word in words) else value
    if words[:1] in (["option"], ["choice"]) and len(words) == 2:
        return value
    if len(aside) > 1 and (aside[0].text == "~" or words[0] in ("about", "approximately", "approx")):
        return value if near(parsed(measured(value).tokens), parsed(measured(aside[1:]).tokens)) else tokens
    if aside and aside[0].kind == "sep" and aside[0].text == "or" and len(aside) > 1:
        return value if agree(parsed(measured(value).tokens), parsed(measured(aside[1:]).tokens)) else tokens
    if aside and all(token.kind == "num" or token.text in "+-*/" for token in aside) and len(aside) > 2:  # 72 (48 + 24)
        value_is = parsed(measured(value).tokens)
        return value if value_is[0] == "num" and agree(value_is, parsed(aside)) else tokens
    return tokens


def _based(tokens: list[Token]) -> Form | None:
    r"""1101_2, (12)_5, 4210_{\text{base }5}, 1011 base 2: digits with a base behind them."""
    marks = [i for i, token in enumerate(tokens) if token.text == "_" or token.text.casefold() == "base"]
    if not marks or not marks[0]:
        return None
    digits, base = tokens[: marks[0]], [token for token in tokens[marks[0] + 1 :] if token.text not in "{}()"]
    while digits and digits[-1].text in ("(", "in"):
        digits = digits[:-1]
    if not digits:
        return None
    if digits[0].text == "(" and digits[-1].text == ")":
        digits = digits[1:-1]
    while base and base[0].text.casefold() == "base":
        base = base[1:]
    if len(base) == 1 and base[0].text.casefold() in NUMBERS:
        base = [number_token(str(NUMBERS[base[0].text.casefold()]))]
    sign = "-" if digits[0].text == "-" and len(digits) > 1 else ""
    digits = digits[len(sign) :]
    text = "".join(token.text for token in digits)
    plain = (
        all(token.kind in ("num", "name", "letters", "word") for token in digits) and text.replace(".", "").isalnum()
    )
    if not plain or len(base) != 1 or base[0].kind != "num" or not base[0].text.isdigit():
        return None
    written = any(c.isdigit() for c in text) or (text.isupper() and len(text) > 1 and int(base[0].text) > 10)
    if not written or text[0].islower() or (digits[0].kind != "num" and len(text) < 2):
        return None
    return Based(sign + (text.upper().lstrip("0") or "0"), int(base[0].text)) if 2 <= int(base[0].text) <= 36 else None


def _colon(pieces: list[list[Token]]) -> Form:
    *front, last = pieces
    half = next((token.text.casefold() for token in last if token.text.casefold() in ("am", "pm")), "")
    if half:
        pieces = [*front, last[:1]]
    else:
        pieces = [measured(piece).tokens for piece in pieces]
    texts = tuple("".join(token.text for token in piece) for piece in pieces)
    return Colon(tuple(parsed(piece) for piece in pieces), texts, half)
