r"""An answer's text as tokens: LaTeX, Unicode and plain typing brought to one form.

What only lays an answer out is dropped (\left, \displaystyle, fonts, thin spaces, dollar signs around formulas); what has
two spellings gets one (½, \tfrac 1 2; ≤, \leqslant, <=; × , \cdot, *). Words are tokens of their own, whether they stand in
\text{} or bare. Linear in the text's length.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

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


_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎", "0123456789+-=()")
_SUPER_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ]+")
_SUB_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎]+")
_VULGAR = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5), "⅘": (4, 5),
    "⅙": (1, 6), "⅚": (5, 6), "⅐": (1, 7), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8), "⅑": (1, 9), "⅒": (1, 10),
}  # fmt: skip
_UNICODE = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "×": r"\times ", "✕": r"\times ", "·": r"\cdot ",
    "∙": r"\cdot ", "⋅": r"\cdot ", "•": r"\cdot ", "∗": "*", "÷": "/", "∕": "/", "⁄": "/", "∶": ":", "°": r"^\circ ",
    "º": r"^\circ ", "√": r"\sqrt ", "∛": r"\sqrt[3] ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ",
    "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "≃": r"\approx ", "≅": r"\approx ", "≡": r"\equiv ", "∪": r"\cup ",
    "∩": r"\cap ", "∈": r"\in ", "∖": r"\setminus ", "∅": r"\emptyset ", "Ø": r"\emptyset ", "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "±": r"\pm ", "∓": r"\mp ",
    "…": r"\ldots ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "∨": r"\lor ", "∧": r"\land ",
    "∠": r"\angle ", "△": r"\triangle ", "′": "'", "″": "''", "’": "'", "‘": "'", "“": '"', "”": '"', "€": r"\$ ",
    "£": r"\$ ", "¥": r"\$ ", "₹": r"\$ ", "¢": " cents ", "℃": r"^\circ C", "℉": r"^\circ F", "⟨": r"\langle ",
    "⟩": r"\rangle ", "∣": "|", "‖": "|", "→": r"\to ", "⇒": r"\Rightarrow ", "✓": "", "✅": "", "、": ",", "，": ",",
    **{chr(0x2460 + i): f", {i + 1} ," for i in range(20)}, "。": ".", "；": ";", "：": ":", "（": "(", "）": ")", "ı": "i",
}  # fmt: skip
_GREEK = dict(
    zip(
        "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩϕϵ",
        (
            "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon "
            "phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega phi epsilon"
        ).split(),
        strict=True,
    )
)
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad\u2061\u2062\u2063"))
_ONE_FOR_ONE = str.maketrans({**_UNICODE, **{letter: f"\\{name} " for letter, name in _GREEK.items()}})

# what only lays out
_LAYOUT = re.compile(
    r"\\(?:left|right|bigl?|bigr|Bigl?|Bigr|biggl?|biggr|Biggl?|Biggr|middle|displaystyle|textstyle|scriptstyle|limits|nolimits|"
    r"large|Large|LARGE|huge|Huge|normalsize|small|tiny|bf|it|rm|sf|boldmath|checkmark|centering|noindent|therefore|because)"
    r"(?![a-zA-Z])\s?\.?(?=\.|)"
)
_WRAPPED = re.compile(
    r"\\(?:mathbf|boldsymbol|bm|pmb|vec|overrightarrow|underline|mathit|mathsf|mathcal|mathscr|fbox|hbox|ensuremath|"
    r"widehat|hat|mathop|mathrel|mathbin|mathord|smash|textnormal\*)\s*(?=\{)"
)
_SPACED = re.compile(r"\\(?:hspace|vspace|phantom|hphantom|mspace|kern)\s*\*?\s*\{[^{}]*\}")
_COLOUR = re.compile(r"\\(?:color|textcolor)\s*\{[^{}]*\}")
_WIDE_SPACE = re.compile(r"\\q?quad")
_THIN_SPACE = re.compile(
    r"(?<!\\)\\(?:[ ,;:>]|(?:thinspace|enspace|medspace|thickspace|space|nobreakspace)(?![a-zA-Z]))|~"
)
_GROUPED = re.compile(r"(?<=[0-9])(?:\s*\{,\s*\}|,\s*\\!|\\!\s*,)\s*(?=[0-9]{3}(?![0-9]))")
_DECIMAL_COMMA = re.compile(r"(?<=[0-9])\{,\}(?=[0-9])")
_NEGATIVE_SPACE = re.compile(r"\\!")
_TWICE, _ONCE = re.compile(r"\\\\[a-zA-Z]"), re.compile(r"(?<!\\)\\[a-zA-Z]")
"""Commands escaped twice, and those that aren't"""
_PRIMES = re.compile(r"\^\s*(?:\{\s*)?((?:\\prime\s*)+)\}?")
_CIRCLED = re.compile(r"\\textcircled\s*\{?\s*([0-9]+)\s*\}?")
_TIMES = re.compile(r"(?<=[0-9])\s*[xX]\s*(?=10\s*(?:\^|\*\*))")
_POWER = re.compile(r"(?<=[\w)}])\*\*(?=[-\w(])")
_MARKS = re.compile(r"(?<!\\)\\[()\[\]]|\*\*+")
"""Of formulas: \\( \\), and of bold face"""
_BOX = re.compile(r"\\boxed(?![a-zA-Z])\s*")
_OPENS_MATRIX = re.compile(
    r"\\begin\s*\{(?:[pbB]?matrix|smallmatrix|array|pmatrix\*|bmatrix\*)\}(?:\s*\{[lcr| ]*\}|\s*\[[lcr]\])?"
)
_CLOSES_MATRIX = re.compile(r"\\end\s*\{(?:[pbB]?matrix|smallmatrix|array|pmatrix\*|bmatrix\*)\}")
_SI = re.compile(r"\\(?:SI|qty)\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_NUM = re.compile(r"\\num\s*\{([^{}]*)\}")


def cleaned(text: str) -> str:
    """The text with one spelling for what has several, and without what only lays it out."""
    if not text.isascii():
        text = text.translate(_INVISIBLE)
        for sign, (a, b) in _VULGAR.items():
            if sign in text:
                text = text.replace(sign, f"\\frac{{{a}}}{{{b}}}")
        text = _SUPER_RUN.sub(lambda run: f"^{{{run[0].translate(_SUPERSCRIPTS)}}}", text)
        text = _SUB_RUN.sub(lambda run: f"_{{{run[0].translate(_SUBSCRIPTS)}}}", text)
        text = text.translate(_ONE_FOR_ONE)
    if _TWICE.search(text) and not _ONCE.search(text):
        text = text.replace("\\\\", "\\")
    text = _CIRCLED.sub(r", \1 ,", text) if "circled" in text else text
    if "\\prime" in text:
        text = _PRIMES.sub(lambda primes: "'" * primes[1].count("prime"), text)
    text = _POWER.sub("^", _TIMES.sub(r"\\times ", text))
    text = _SI.sub(r"\1 \\text{ \2 }", _NUM.sub(r"\1", text))
    if "\\begin" in text:
        text = _CLOSES_MATRIX.sub(r"\\endmatrix ", _OPENS_MATRIX.sub(r"\\matrix ", text))
    text = _MARKS.sub(" ", _BOX.sub("", _SPACED.sub(" ", _COLOUR.sub("", text))))
    text = _GROUPED.sub(",", text)  # thousands
    text = _DECIMAL_COMMA.sub(".", text)
    text = _NEGATIVE_SPACE.sub("", text)
    text = _WIDE_SPACE.sub(r" \\quad ", text)
    text = _THIN_SPACE.sub(" ", text)
    return _WRAPPED.sub("", _LAYOUT.sub(" ", text))


_TYPED = {"inf": "infty", "acos": "arccos", "asin": "arcsin", "atan": "arctan"}
_TEXT_COMMANDS = (
    r"text|textbf|textit|textrm|textsf|textup|textnormal|mathrm|mbox|operatorname\*?|emph|mathtt|texttt|unit|textsc"
)
_TOKEN = re.compile(
    rf"(?P<space>\s+)"
    rf"|\\(?P<font>{_TEXT_COMMANDS})\s*\{{(?P<text>[^{{}}]*)\}}"
    r"|(?P<command>\\(?:[a-zA-Z]+|[{}%$&#_|\\]))"
    r"|(?P<number>[0-9]{1,3}(?:(?:,[0-9]{3})+|(?:[ '][0-9]{3})+(?![0-9]))(?:\.[0-9]+)?(?![0-9])"
    r"|[0-9]*\.[0-9]+|[0-9]+\.?(?![.0-9])|[0-9]+)"
    r"(?:(?P<exponent>[eE][-+]?[0-9]+)(?![a-zA-Z0-9]))?"
    r"|(?P<word>[^\W\d_]+)"
    r"|(?P<op>\.\.\.|[<>!=]=|\S)",
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
    for match in _TOKEN.finditer(cleaned(text)):
        if match["space"] is not None:
            spaced = True
            continue
        found += _tokens(match, spaced)
        spaced = False
        if len(found) > MOST_TOKENS:
            raise Unreadable(f"an answer of more than {MOST_TOKENS:,} signs")
    return found


def _tokens(match: re.Match[str], spaced: bool) -> list[Token]:
    if match["text"] is not None:
        return _inside_text(match["text"], spaced, match["font"])
    if match["number"] is not None:
        return [number_token(match["number"], match["exponent"] or "", spaced)]
    if match["word"] is not None:
        return _word(match["word"], spaced)
    if match["command"] is not None:
        return _command(match["command"][1:], spaced)
    return _sign(match["op"], spaced)


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
    return Token("num", plain.rstrip(".") + exponent, value, places, spaced)


def endless(token: Token) -> Fraction:
    """The value of 0.333..., whose digits repeat. Raises Unreadable where they don't."""
    assert token.value is not None
    decimals = token.text.partition(".")[2]
    for period in range(1, len(decimals) // 2 + 1):
        repeats = 3 if period == 1 else 2
        tail = decimals[-period * repeats :]
        if len(tail) == period * repeats and tail == tail[:period] * repeats:
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
        elif font.startswith(("mathrm", "operatorname")) and (word in ("i", "e") or word in FUNCTIONS - {"min", "max"}):
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
