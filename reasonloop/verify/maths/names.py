r"""Names of values: what may stand in front of an equals sign and says nothing of the value.

x, x_1, x^*, f(x), f^{-1}(2), AB, \angle ABC, |AB|, V_1 : V_2, \frac{NO}{BO}, (x, y), words; \sin A. In answers, where
a formula with several variables can hardly be the unknown itself, m + n and x^2 + y^2, too.
"""

from __future__ import annotations

import re

from reasonloop.verify.maths.agree import straight
from reasonloop.verify.maths.expression import parsed
from reasonloop.verify.maths.tokens import Token, Unreadable
from reasonloop.verify.maths.tree import symbols

_SIGNS = frozenset("|(){}:',[]/")
_COMMANDS = frozenset("det deg dim gcd lcm angle triangle overline bar dot tilde frac max min ldots circ".split())
_GREEK = frozenset(
    "alpha beta gamma delta theta lambda mu phi omega rho sigma tau epsilon Delta Gamma Theta Phi Omega Sigma ell".split()
)
_INVERSE = re.compile(r"\{?(?:-1|\*)\}?")


def name_of(tokens: list[Token]) -> str:
    """The name that the tokens are, or "" if they are none. Signs of absolute values are left out."""
    if not any(_is_letter(token) for token in tokens):
        return ""
    text, place, depth = "", 0, 0
    probability = tokens[0].text in ("P", "Pr", "E")
    while place < len(tokens):
        token = tokens[place]
        depth += {"(": 1, ")": -1}.get(token.text, 0) if token.kind == "op" else 0
        if token.kind == "op" and token.text in "_^" and place:
            end = _script_end(tokens, place + 1)
            script = "".join(token.text for token in tokens[place + 1 : end])
            if token.text == "^" and not _INVERSE.fullmatch(script):
                return ""
            text += f"{token.text}{script.strip('{}')}"
            place = end
            continue
        called = depth > 0 and place > 1 and (probability or token.kind == "num" or token.text in ("+", "-"))
        if not (called or _fits(token)):
            return ""
        text += token.text
        place += 1
    return _same_for_all(text)


def answer_name_of(tokens: list[Token]) -> str:
    """As `name_of`, for an answer: any formula in variables is a name that isn't a multiple of one of them."""
    found = name_of(tokens)
    if found or not any(_is_letter(token) or token.kind == "command" for token in tokens):
        return found
    text = "".join(token.text for token in tokens)
    if any(token.text == "mod" for token in tokens):
        return text
    try:
        tree = parsed(tokens)
    except Unreadable:
        return ""
    names = symbols(tree)
    if not names or (len(names) == 1 and straight(tree, next(iter(names))) is not None):
        return ""
    return text


def gold_name_of(tokens: list[Token]) -> str:
    r"""As `name_of`; \sin A and |z| are names, too."""
    found = name_of(tokens)
    if found or not tokens or not any(_is_letter(token) for token in tokens):
        return found
    try:
        tree = parsed(tokens)
    except Unreadable:
        return ""
    base = tree[1] if tree[0] == "^" else tree
    return "".join(token.text for token in tokens) if base[0] in ("fn", "log") and symbols(base) else ""


def variables_of(name: str) -> list[str]:
    """The names in a name like (x,y)."""
    return name[1:-1].split(",") if re.fullmatch(r"\([^(),]+(?:,[^(),]+)+\)", name) else []


def _same_for_all(name: str) -> str:
    """AB for |AB|, BA and \\overline{AB}."""
    plain = re.sub(r"[|{}:/]|overline|frac", "", name) if not re.fullmatch(r"\|[a-z]\|", name) else name
    return "".join(sorted(plain)) if re.fullmatch("[A-Z]{2}", plain) else plain


def _script_end(tokens: list[Token], start: int) -> int:
    """Behind what stands in a subscript or an exponent."""
    if start >= len(tokens) or tokens[start].text != "{":
        return start + 1
    depth = 0
    for place in range(start, len(tokens)):
        depth += {"{": 1, "}": -1}.get(tokens[place].text, 0)
        if depth == 0:
            return place + 1
    return len(tokens)


def _is_letter(token: Token) -> bool:
    return token.kind in ("name", "letters", "word") or (token.kind == "command" and token.text in _GREEK)


def _fits(token: Token) -> bool:
    if _is_letter(token):
        return True
    if token.kind == "sep":
        return token.text == ","
    if token.kind == "command":
        return token.text in _COMMANDS
    return token.kind == "op" and token.text in _SIGNS
