r"""An answer's text as tokens: LaTeX, Unicode and plain typing brought to one form.

What only lays an answer out is dropped (\left, \displaystyle, fonts, thin spaces, dollar signs around formulas); what has
two spellings gets one (½, \tfrac 1 2; ≤, \leqslant, <=; × , \cdot, *). Words are tokens of their own, whether they stand in
\text{} or bare. Linear in the text's length.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from reasonloop.verify.maths.layout import cleaned
from reasonloop.verify.maths.words import FUNCTIONS, KNOWN_WORDS, SEPARATORS

MOST_TOKENS = 3_000


class Unreadable(Exception):
    """The text is no answer that can be read; the message says why."""


class Unsupported(Unreadable):
    """It is mathematics, but of a kind that isn't known here (an integral, say)."""


class Token(NamedTuple):
    kind: str
    """num, name (one letter), letters (several, bare), command, word, sep (what parts elements), rel, op, unit (% $)"""
    text: str
    value: Fraction | None = None
    """Of a number"""
    decimals: int = -1
    """Of a number: digits behind the point; -1: there is no point"""
    spaced: bool = False
    """Whether white space stands before it"""
    marked: str = ""
    """Of a number with thousands marked by commas: as it was written"""


_AMBIGUOUS = frozenset(("min", "max", "sec", "exp", "floor", "abs", "ceil"))
"""Functions that are units or words, too"""
_TYPED = {"inf": "infty", "acos": "arccos", "asin": "arcsin", "atan": "arctan"}
_TEXT_COMMANDS = (
    r"text|textbf|textit|textrm|textsf|textup|textsc|textnormal|texttt|mathrm|mathit|mathtt|mbox|emph|si|unit"
    r"|operatorname\*?"
)
_TOKEN = re.compile(
    rf"(?P<space>\s+)"
    rf"|\\(?P<font>{_TEXT_COMMANDS})\s*\{{(?P<text>(?:[^{{}}]|\{{[^{{}}]*\}})*)\}}"
    r"|(?P<command>\\(?:[a-zA-Z]+|[{}%$&#_|\\]))"
    r"|(?P<number>[0-9]{1,3}(?:(?:,[0-9]{3}(?![0-9]))+|(?:[ '][0-9]{3}(?![0-9]))+)(?:\.[0-9]+)?"
    r"|[0-9]++(?:\.[0-9]++|\.(?![.0-9]))?|\.[0-9]++)"
    r"(?:(?P<exponent>[eE][-+]?[0-9]+)(?![a-zA-Z0-9]))?"
    r"|(?P<word>[^\W\d_]+)"
    r"|(?P<op>\.\.\.|[<>=]=|(?<![0-9)])!=|\S)",
    re.DOTALL,
)
_RELATIONS = {
    "=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "le": "<=", "leq": "<=", "leqslant": "<=",
    "leqq": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=", "geqq": ">=", "lt": "<", "gt": ">", "ne": "!=", "neq": "!=",
    "approx": "~", "simeq": "~", "cong": "~", "doteq": "~", "equiv": "=", "in": "in", "to": "->", "rightarrow": "->",
    "Rightarrow": "=>", "implies": "=>", "iff": "<=>", "Leftrightarrow": "<=>", "sim": "~", "mapsto": "->", "notin": "!in",
}  # fmt: skip
_SEPARATING = {"lor": "or", "vee": "or", "land": "and", "wedge": "and", "&": "and", "quad": "quad"}
_RENAMED = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "varnothing": "emptyset",
    "empty": "emptyset", "tg": "tan", "ctg": "cot", "cotg": "cot", "cosec": "csc", "arctg": "arctan", "degree": "circ",
    "varphi": "phi", "varepsilon": "epsilon", "vartheta": "theta", "dots": "ldots", "cdots": "ldots", "dotsc": "ldots",
    "infin": "infty", "backslash": "setminus", "bmod": "mod", "pmod": "mod", "div": "/", "ast": "*", "star": "*",
    "lbrack": "[", "rbrack": "]", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "lVert": "|", "rVert": "|", "|": "|",
    "lbrace": "set", "rbrace": "endset", "{": "set", "}": "endset", "prime": "'", "imath": "i", "cdot": "*", "times": "*",
    "langle": "(", "rangle": ")", "lparen": "(", "rparen": ")", "colon": ":", "euro": "$", "pounds": "$", "_": "_",
    "arcsinh": "asinh", "exponentialE": "e",
}  # fmt: skip
"""Commands -> commands of the same meaning, or the sign that they stand for"""


def tokens_of(text: str) -> list[Token]:
    """The tokens of a text. Raises Unreadable where there are too many."""
    found: list[Token] = []
    spaced = False
    for match in _TOKEN.finditer(_with_e(cleaned(text))):
        if match["space"] is not None:
            spaced = True
            continue
        found += _tokens(match, spaced)
        spaced = False
        if len(found) > MOST_TOKENS:
            raise Unreadable(f"an answer of more than {MOST_TOKENS:,} signs")
    return _apart(found) if any(token.marked for token in found) else found


_EXPONENT = re.compile(r"(?<=[0-9])[eE](?=[-+]?[0-9]+(?![a-zA-Z0-9]))")
_E_ITSELF = re.compile(r"(?<![a-zA-Z])e(?![a-zA-Z])|\\frac")
_E_PLUS = re.compile(r"[0-9]e\+[0-9](?![0-9])")


def _with_e(text: str) -> str:
    """2e+1 and e^2 - 2e-1 are formulas with e, 1e-7 is a number: e apart from the digits where it is one itself."""
    if _EXPONENT.search(text) and (_E_PLUS.search(text) or _E_ITSELF.search(_EXPONENT.sub("", text))):
        return _EXPONENT.sub(" e ", text)
    return text


def _apart(tokens: list[Token]) -> list[Token]:
    """(1,200) is a pair: in brackets a comma doesn't mark thousands."""
    found: list[Token] = []
    depth = 0
    for token in tokens:
        if token.kind == "op":
            depth += {"(": 1, "[": 1, "set": 1, ")": -1, "]": -1, "endset": -1}.get(token.text, 0)
        found += _separate(token.marked, token.spaced) if token.marked and depth > 0 else [token]
    return found


def _tokens(match: re.Match[str], spaced: bool) -> list[Token]:
    if match["text"] is not None:
        return _inside_text(match["text"], spaced, match["font"])
    if match["number"] is not None:
        return _numbers(match["number"], match["exponent"] or "", spaced)
    if match["word"] is not None:
        return _word(match["word"], spaced)
    if match["command"] is not None:
        return _command(match["command"][1:], spaced)
    return _sign(match["op"], spaced)


def _numbers(text: str, exponent: str, spaced: bool) -> list[Token]:
    """0,245 is no number: a list."""
    return _separate(text, spaced) if text.startswith("0,") else [number_token(text, exponent, spaced)]


def _separate(text: str, spaced: bool) -> list[Token]:
    first, *others = text.split(",")
    found = [number_token(first, "", spaced)]
    for other in others:
        found += [Token("sep", ","), number_token(other)]
    return found


def number_token(text: str, exponent: str = "", spaced: bool = False) -> Token:
    """A numeral, thousands marks included; `exponent`: "e-7" behind it."""
    plain = re.sub("[, ']", "", text)
    whole, point, decimals = plain.partition(".")
    if len(plain) > 2_000 or len(exponent) > 6:
        raise Unreadable("a number of too many digits")
    value = Fraction(int((whole + decimals) or "0"), 10 ** len(decimals))
    places = len(decimals) if point else -1
    if exponent:
        power = int(exponent[1:])
        value *= Fraction(10) ** power
        places = max(places, 0) - power
    return Token("num", plain.rstrip(".") + exponent, value, places, spaced, text if "," in text else "")


def endless(token: Token) -> Fraction:
    """The value of 0.333..., whose digits repeat. Raises Unreadable where they don't."""
    assert token.value is not None
    decimals = token.text.partition(".")[2]
    for period in range(1, len(decimals) // 2 + 1):
        tail = decimals[-2 * period :]
        if tail == tail[:period] * 2:
            return token.value + Fraction(int(tail[:period]), 10 ** len(decimals) * (10**period - 1))
    raise Unreadable("dots behind a number whose digits don't repeat")


def _command(name: str, spaced: bool) -> list[Token]:
    if name in _RELATIONS:
        return [Token("rel", _RELATIONS[name], spaced=spaced)]
    if name in _SEPARATING:
        return [Token("sep", _SEPARATING[name], spaced=spaced)]
    name = _RENAMED.get(name, name)
    if name in ("%", "$"):  # what \$ says is a currency; a bare $ only opens and closes formulas
        return [Token("unit", name, spaced=spaced)]
    if name == "i" or name == "e":
        return [Token("name", name, spaced=spaced)]
    if name.isalpha() and name not in ("set", "endset"):
        return [Token("command", name, spaced=spaced)]
    return [Token("op", name, spaced=spaced)]


def _sign(sign: str, spaced: bool) -> list[Token]:
    if sign in '$"`':
        return []
    if sign in _RELATIONS:
        return [Token("rel", _RELATIONS[sign], spaced=spaced)]
    if sign in ",;&":
        return [Token("sep", sign, spaced=spaced)]
    if sign == "%":
        return [Token("unit", "%", spaced=spaced)]
    return [Token("op", sign, spaced=spaced)]


def _inside_text(text: str, spaced: bool, font: str) -> list[Token]:
    r"""What stands in \text{}: words, and whatever else they are mixed with."""
    found: list[Token] = []
    for match in _TOKEN.finditer(text.replace("\\", " ")):
        if match["space"] is not None:
            spaced = True
            continue
        word = match["word"]
        if word is None:
            found += _tokens(match, spaced)
        elif word == "i" or (word == "e" and font == "mathrm") or word in FUNCTIONS - _AMBIGUOUS:
            found.append(Token("name" if len(word) == 1 else "command", word, spaced=spaced))
        elif word.casefold() in SEPARATORS:
            found.append(Token("sep", SEPARATORS[word.casefold()], spaced=spaced))
        else:
            found.append(Token("word", word, spaced=spaced))
        spaced = False
    return found


def _word(word: str, spaced: bool) -> list[Token]:
    """Letters that stand side by side outside of \\text{}: a word, a function, or a product of variables."""
    lower = word.casefold()
    if lower in SEPARATORS and len(word) > 1:
        return [Token("sep", SEPARATORS[lower], spaced=spaced)]
    if len(word) == 1:
        return [Token("name", word, spaced=spaced)]
    if word in FUNCTIONS - {"min", "max"} or word in ("pi", "inf", "infty"):
        return [Token("command", _TYPED.get(word, word), spaced=spaced)]
    if len(word) > 4 or lower in KNOWN_WORDS or not word.isascii():
        return [Token("word", word, spaced=spaced)]
    return [Token("letters", word, spaced=spaced)]
