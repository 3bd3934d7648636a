r"""The layout of an answer's text: one spelling for what LaTeX, Unicode and plain typing have several of.

What only lays out is dropped (\left, \displaystyle, fonts, thin spaces, marks of formulas and environments).
"""

from __future__ import annotations

import re
from collections.abc import Callable

_Table = tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]

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
    "∠": r"\angle ", "△": r"\triangle ", "′": "'", "″": "''", "’": "'", "‘": "'", "“": '"', "”": '"', "€": r" \text{EUR} ",
    "£": r" \text{GBP} ", "¥": r" \text{yuan} ", "₹": r" \text{Rs} ", "∘": r"^\circ ",
    "¢": " cents ", "℃": r"^\circ C", "℉": r"^\circ F", "⟨": r"\langle ",
    "≦": r"\le ", "≧": r"\ge ", "˚": r"^\circ ", "‒": "-",
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
_INVISIBLE = dict.fromkeys(
    map(ord, "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad\u2061\u2062\u2063\u202a\u202b\u202c\u2066\u2067\u2069")
)
_ONE_FOR_ONE = str.maketrans({**_UNICODE, **{letter: f"\\{name} " for letter, name in _GREEK.items()}})

# what only lays out
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{(?:align|aligned|equation|gather|gathered|split|eqnarray)\*?\}")
_GOES_ON = re.compile(r"\\\\\s*(?=(?:&\s*)?=)")
_SYSTEM = re.compile(
    r"\\begin\{cases\}((?:[^&\\]|\\(?!begin\{cases\}|end\{cases\}))*)\\end\{cases\}"
    r"|\\\{\s*\\begin\{array\}\{[lcr]*\}((?:[^&\\]|\\(?!begin\{array\}|end\{array\}))*)\\end\{array\}\s*(?:\\right\s*)?(?:\.|$)"
)
_LINE = re.compile(r"\\\\(?:\[[^\]]{0,60}\])?|\\cr(?![a-z])")
_TWICE, _ONCE = re.compile(r"\\\\[a-zA-Z]"), re.compile(r"(?<!\\)\\[a-zA-Z]")
"""Commands escaped twice, and those that aren't"""
_OPENS_MATRIX = re.compile(
    r"\\begin\s*\{(?:[pbB]?matrix|smallmatrix|array|pmatrix\*|bmatrix\*)\}(?:\s*\{[lcr| ]*\}|\s*\[[lcr]\])?"
)
_CLOSES_MATRIX = re.compile(r"\\end\s*\{(?:[pbB]?matrix|smallmatrix|array|pmatrix\*|bmatrix\*)\}")


def _intervals(brackets: re.Match[str]) -> str:
    """]a, b[ and [a, b[ as (a, b) and [a, b)."""
    if brackets[1] is None:
        return brackets[0]
    return f"{'(' if brackets[1] == ']' else '['}{brackets[2]}{')' if brackets[3] == '[' else ']'}"


_BEFORE_ENVIRONMENTS: _Table = (
    (re.compile(r"\\textcircled\s*(?:\{\s*)?([0-9]+)\s*\}?"), r", \1 ,"),
    (re.compile(r"\^\s*(?:\{\s*)?((?:\\prime\s*)+)\}?"), lambda primes: "'" * primes[1].count("prime")),
    (re.compile(r"(?<!\\)\{\}"), ""),
    (re.compile(r"\{\s*\\(?:rm|it|bf|sf)\s++([^{}]*)\}"), r"\\text{\1}"),
    (re.compile(r"\\([RZNQC])(?![A-Za-z])"), r"\\mathbb{\1}"),
    (re.compile(r"\\not\s*="), r"\\ne "),
    (re.compile(r"\\math(?:bb|bf|rm)\s*(?:\{\s*)?(P|E)\s*(?:\}\s*)?(?=\()"), r"\1"),
    (re.compile(r"\\not\s*\\in(?![a-z])"), r"\\notin "),
    (re.compile(r"negative\s+infinity"), r"-\\infty "),
    (re.compile(r"\b[Nn]egative\s+(?=[0-9])"), "-"),
    (re.compile(r"\bper\s+cent\b"), "percent"),
    (re.compile(r"positive\s+infinity"), r"\\infty "),
    (re.compile(r"\{:\}"), ":"),
    (re.compile(r"\\text\s*\{\s*infinity\s*\}|(?<![A-Za-z])infinity(?![A-Za-z])"), r"\\infty "),
    (re.compile(r"\\textdollar(?![a-z])"), r"\\$"),
    (re.compile(r"\\bbox\s*(?:\[[^\]]{0,60}\])?"), ""),
    (re.compile(r"\^\s*\{?o\}?(?![A-Za-z])"), r"^\\circ "),
    (re.compile(r"\b(?:US|HK|AU|NZ|CA)\s?\\?\$"), r"\\$"),
    (re.compile(r"(?<=[0-9])_(?=[0-9]{3}(?![0-9]))"), ""),
    (re.compile(r"\^\s*(?:\{\s*)?(?:T|\\top|\\intercal)\s*(?:\}\s*)?$"), ""),
    (re.compile(r"(?<=[0-9.])\{(\\(?:overline|bar)\{[0-9]+\})\}"), r"\1"),
    (re.compile(r"\\dot\s*\{?([0-9])\}?([0-9]*)\\dot\s*\{?([0-9])\}?"), r"\\overline{\1\2\3}"),
    (
        re.compile(r"(?<![A-Za-z0-9)}\]])[_^]\s*\{?([0-9]+)\}?\s*C\s*(?:_\s*)?\{?([0-9]+)\}?"),
        r"\\binom{\1}{\2}",
    ),
    (re.compile(r"(?<![0-9A-Za-z_])([0-9]+)C_?\{?([0-9]+)\}?(?![0-9A-Za-z_])"), r"\\binom{\1}{\2}"),
    (re.compile(r"(?<![A-Za-z])C\s*\^\s*\{?([0-9]+)\}?\s*_\s*\{?([0-9]+)\}?"), r"\\binom{\2}{\1}"),
    (re.compile(r"(?<=[0-9])\{,\}(?=[0-9](?:\{,\}|[0-9]\{,\}))"), ", "),
    (re.compile(r", [0-9]+\{,\}(?=[0-9]+$)"), lambda match: match[0].replace("{,}", ", ")),
    (re.compile(r"\\q?quad(?=\s*\\(?:text|mathrm|mbox)\s*\{\s*[a-z]{1,3}\s*\}\s*(?:\^|$))"), " "),
    (re.compile(r"^\s*(?:No\.|\\?#)\s*(?=[0-9])"), ""),  # No. 5
    (
        re.compile(
            r"(?<=[0-9])(?:(?:st|nd|rd|th)(?![A-Za-z])|\s*\^\s*\{\s*(?:\\(?:text|mathrm)\s*\{\s*)?(?:st|nd|rd|th)\s*\}{1,2})"
        ),
        "",
    ),
    (re.compile(r"(?<!\\)\\+\Z"), ""),  # half a command at the end, which white space that was stripped leaves of "\\ "
    (re.compile(r"(?<=[0-9])(?:\s*[xX]\s*(?=10\s*(?:\^|\*\*))|\s+[xX]\s+(?=[0-9]))"), r"\\times "),
    (re.compile(r"(?<=[\w)}])\*\*(?=[-\w(])"), "^"),
    (re.compile(r"\\num\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\(?:SI|qty)\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1 \\text{ \2 }"),
)
"""Patterns and what stands for them, one after the other"""
_BEHIND_ENVIRONMENTS: _Table = (
    (re.compile(r"(?<![A-Za-z])([AaPp])\.\s?[Mm]\b\.?"), lambda half: f" {half[1].lower()}m "),
    (re.compile(r"\\(?:text|mbox|textbf)\s*\{\s*\$([^${}]*(?:\{[^{}]*\}[^${}]*)*)\$\s*\}"), r" \1 "),
    (re.compile(r"\\(?:mathrm|text|mathbf|mbox)\s*(?=\{\s*\\(?:d?frac|sqrt|pi))"), ""),
    (re.compile(r"\\(?:mathbb|mathbf(?=\s*(?:\{\s*)?[RZ]))\s*(?:\{\s*)?([A-Z])\s*\}?"), r"\\mathbb{\1}"),
    (re.compile(r"\\(?:color|textcolor)\s*\{[^{}]*\}"), ""),
    (re.compile(r"\\(?:hspace|vspace|phantom|hphantom|mspace|kern)\s*(?:\*\s*)?\{[^{}]*\}"), " "),
    (re.compile(r"\\boxed(?![a-zA-Z])\s*"), ""),
    (re.compile(r"(?<!\\)\\[()\[\]]|\*\*+"), " "),  # marks of formulas and of bold face
    (re.compile(r"(?<=[0-9])(?:\s*\{,\s*\}|,\s*\\!|\\!\s*,)\s*(?=[0-9]{3}(?![0-9]))"), ""),  # thousands
    (re.compile(r"(?<![0-9])\.(?=\s*\\(?:overline|bar|dot)\b)"), "0."),
    (re.compile(r"(?<=[0-9])\{,\}(?=[0-9])"), "."),
    (re.compile(r"\\!"), ""),
    (re.compile(r"\\q?quad"), r" \\quad "),
    (
        re.compile(r"(?<!\\)\\(?:[ ,;:>]|(?:thinspace|enspace|medspace|thickspace|space|nobreakspace)(?![a-zA-Z]))|~"),
        " ",
    ),
    (re.compile(r"\\(?:left|right)\s*\."), " "),
    (re.compile(r"\\(?:left|right|middle|[bB]igg?[lr]?)\s*(?=[()\[\]|]|\\[{}|])"), ""),
    (
        re.compile(
            r"\\(?:left|right|bigl?|bigr|Bigl?|Bigr|biggl?|biggr|Biggl?|Biggr|middle|displaystyle|textstyle|scriptstyle|limits|nolimits|"
            r"large|Large|LARGE|huge|Huge|normalsize|small|tiny|bf|it|rm|sf|boldmath|checkmark|centering|noindent|therefore|because|"
            r"blacksquare|square|qed|Box)"
            r"(?![a-zA-Z])\s?"
        ),
        " ",
    ),
    (
        re.compile(
            r"\\(?:mathbf|boldsymbol|bm|pmb|vec|overrightarrow|underline|mathsf|mathcal|mathscr|fbox|hbox|ensuremath|"
            r"widehat|hat|mathop|mathrel|mathbin|mathord|smash|textnormal\*)\s*(?=\{)"
        ),
        "",
    ),
    (
        re.compile(
            r"\\sqrt\s*\[[^\]]{0,60}\]|([\[\]])((?:[^\[\],()]|\([^\[\]()]*\))*,(?:[^\[\],()]|\([^\[\]()]*\))*)([\[\]])"
        ),
        _intervals,
    ),
    (re.compile(r"(?<=[\])])\s*(?:U|\\bigcup)\s*(?=[\[(])"), r" \\cup "),
)
"""Patterns and what stands for them, one after the other"""


def cleaned(text: str) -> str:
    """The text with one spelling for what has several, and without what only lays it out."""
    if not text.isascii():
        text = text.translate(_INVISIBLE)
        for sign, (a, b) in _VULGAR.items():
            if sign in text:
                text = text.replace(sign, f"\\frac{{{a}}}{{{b}}}")
        text = text.replace("³√", "∛")
        text = _SUPER_RUN.sub(lambda run: f"^{{{run[0].translate(_SUPERSCRIPTS)}}}", text)
        text = _SUB_RUN.sub(lambda run: f"_{{{run[0].translate(_SUBSCRIPTS)}}}", text)
        text = text.translate(_ONE_FOR_ONE)
    if _TWICE.search(text) and not _ONCE.search(text):
        text = text.replace("\\\\", "\\")
    for pattern, new in _BEFORE_ENVIRONMENTS:
        text = pattern.sub(new, text)
    if "\\begin" in text:
        text = _environments(text)
    for pattern, new in _BEHIND_ENVIRONMENTS:
        text = pattern.sub(new, text)
    return text


def _environments(text: str) -> str:
    """Lines of aligned formulas as one chain, systems of equations as a list, matrices with marks of their own."""
    text = _SYSTEM.sub(lambda system: " " + _LINE.sub(", ", system[1] or system[2] or ""), text)
    if _ENVIRONMENT.search(text):
        text = _ENVIRONMENT.sub(" ", _LINE.sub(", ", _GOES_ON.sub(" ", text)).replace("&", " "))
    return _CLOSES_MATRIX.sub(r"\\endmatrix ", _OPENS_MATRIX.sub(r"\\matrix ", _LINE.sub(r"\\\\ ", text)))
