"""Brackets among tokens: what stands outside of all of them, and what a pair encloses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from reasonloop.verify.maths.tokens import Token, Unreadable

_OPENS = {"(", "[", "{", "set", "lfloor", "lceil", "matrix"}
_CLOSES = {")", "]", "}", "endset", "rfloor", "rceil", "endmatrix"}


def _depths(tokens: list[Token]) -> Iterator[tuple[Token, int]]:
    """Each token with the brackets open around it; a bracket itself counts as inside. ]a, b[ are brackets too."""
    open_: list[str] = []
    for token in tokens:
        bracket = token.text if token.kind in ("op", "command") else ""
        if bracket in "[]" and bracket and open_ and open_[-1] == "]":
            yield token, len(open_)
            open_.pop()
        elif bracket in _OPENS or (bracket == "]" and not open_):
            open_.append(bracket)
            yield token, len(open_)
        elif bracket in _CLOSES:
            if not open_:
                raise Unreadable(f"{bracket!r} without its opening bracket")
            yield token, len(open_)
            open_.pop()
        else:
            yield token, len(open_)
    if open_:
        raise Unreadable(f"{open_[-1]!r} without its closing bracket")


def split_at(tokens: list[Token], parts: Callable[[Token], bool]) -> tuple[list[list[Token]], list[Token]]:
    """(the pieces between them, the tokens outside of all brackets that part)."""
    pieces: list[list[Token]] = [[]]
    found: list[Token] = []
    for token, depth in _depths(tokens):
        if depth == 0 and parts(token):
            found.append(token)
            pieces.append([])
        else:
            pieces[-1].append(token)
    return pieces, found


def top_level(tokens: list[Token]) -> list[Token]:
    return [token for token, depth in _depths(tokens) if depth == 0]


def enclosed(tokens: list[Token]) -> tuple[str, str] | None:
    """The brackets around all of the tokens, if it is one pair."""
    if (
        len(tokens) < 2
        or tokens[0].kind == "num"
        or tokens[0].text not in (*_OPENS - {"lfloor", "lceil", "matrix"}, "]")
    ):
        return None
    depths = [depth for _, depth in _depths(tokens)]
    if 0 in depths:
        return None
    closings = sum(1 for i, depth in enumerate(depths) if depth == 1 and _closes(tokens, depths, i))
    return (tokens[0].text, tokens[-1].text) if closings == 1 else None


def _closes(tokens: list[Token], depths: list[int], place: int) -> bool:
    """Whether the pair that opened first closes here."""
    if place == 0:
        return False
    bracket = tokens[place].text if tokens[place].kind in ("op", "command") else ""
    return bracket in _CLOSES or (bracket == "[" and tokens[0].text == "]")


def contents(tokens: list[Token]) -> list[Token]:
    return tokens[1:-1]
