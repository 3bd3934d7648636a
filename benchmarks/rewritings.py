r"""Answers written otherwise: with the same value, as people and models write it, and with another one.

Each rewriting takes a gold answer's text and gives another text, or None where it doesn't apply. Used by `verify.py` for its
accuracy table and by the tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Rewriting = Callable[[str], str | None]

_NUMBER = re.compile(r"(?<![\w.\\{,_^])-?[0-9]+(?:\.[0-9]+)?(?![\w.,}])")
_PLAIN = re.compile(r"-?[0-9]+")
_INTERVAL = re.compile(
    r"(?:\\left)?(?P<left>[\[(])(?P<low>[^,()\[\]]+),(?P<high>[^,()\[\]]+?)(?:\\right)?(?P<right>[\])])"
)
_INFINITE = re.compile(r"[-+]?\s*\\infty")
_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf)\s?\{([^{}]*)\}")
_UNITS = re.compile(r"\s*\\(?:text|mbox|mathrm)\s?\{\s*(?!or|and|in |base)[a-z][a-z. ]*\}(?:\^\{?[23]\}?)?$")


def _changed(found: str, text: str) -> str | None:
    return None if found == text else found


def _replaced(old: str, new: str) -> Rewriting:
    return lambda text: _changed(text.replace(old, new), text)


def _matched(pattern: str, new: str, flags: int = 0) -> Rewriting:
    compiled = re.compile(pattern, flags)
    return lambda text: _changed(compiled.sub(new, text), text)


def _elements(text: str) -> list[str] | None:
    """The elements of a list that stands bare."""
    if re.search(r"[\[({]", re.sub(r"\\(?:frac|sqrt)\s*(?:\{[^{}]*\})+", "", text)) or "=" in text or "\\text" in text:
        return None
    parts = [part.strip() for part in text.split(",")]
    return parts if len(parts) > 1 and all(parts) and not re.search(r"[0-9](?:,|,\\!|\{,\})[0-9]{3}", text) else None


def _listed(write: Callable[[list[str]], str]) -> Rewriting:
    def rewritten(text: str) -> str | None:
        parts = _elements(text)
        return None if parts is None or len(set(parts)) < len(parts) else write(parts)

    return rewritten


def _as_inequality(text: str) -> str | None:
    interval = _INTERVAL.fullmatch(text.strip())
    if interval is None:
        return None
    low, high = interval["low"].strip(), interval["high"].strip()
    less = {"(": "<", "[": r"\le"}[interval["left"]], {")": "<", "]": r"\le"}[interval["right"]]
    if _INFINITE.fullmatch(low) and _INFINITE.fullmatch(high):
        return None
    if not ("infty" in text or "(" not in text or interval["right"] == "]" or interval["left"] == "["):
        return None  # (1, 2) may be a point
    if _INFINITE.fullmatch(low):
        return f"x {less[1]} {high}"
    if _INFINITE.fullmatch(high):
        return f"x {less[0].replace('<', '>').replace('le', 'ge')} {low}"
    return f"{low} {less[0]} x {less[1]} {high}"


def _is_number(text: str) -> bool:
    return _PLAIN.fullmatch(text) is not None


def _fraction(text: str) -> re.Match[str] | None:
    return re.fullmatch(r"(-?)\\d?frac\{([0-9]+)\}\{([0-9]+)\}", text)


def _scaled(text: str) -> str | None:
    found = _fraction(text)
    return found and f"{found[1]}\\frac{{{2 * int(found[2])}}}{{{2 * int(found[3])}}}"


def _mixed(text: str) -> str | None:
    found = _fraction(text)
    if not found or int(found[2]) <= int(found[3]) or int(found[2]) % int(found[3]) == 0:
        return None
    whole, rest = divmod(int(found[2]), int(found[3]))
    return f"{found[1]}{whole}\\frac{{{rest}}}{{{found[3]}}}"


def _decimal(text: str) -> str | None:
    found = _fraction(text)
    if not found or re.fullmatch("2*5*", _factors(int(found[3]))) is None or int(found[3]) > 1_000:
        return None
    return f"{found[1]}{int(found[2]) / int(found[3])}"


def _factors(number: int) -> str:
    found = ""
    for factor in (2, 5):
        while number % factor == 0:
            number, found = number // factor, found + str(factor)
    return found if number == 1 else "x"


def _grouped(text: str) -> str | None:
    return f"{int(text):,}" if _is_number(text) and len(text.lstrip("-")) > 3 else None


SAME: dict[str, Rewriting] = {
    "\\dfrac for \\frac": _replaced("\\frac", "\\dfrac"),
    "a/b for \\frac{a}{b}": lambda text: (f := _fraction(text)) and f"{f[1]}{f[2]}/{f[3]}",
    "(a)/(b) for \\frac{a}{b}": _matched(r"(?<![0-9 ])\\d?frac\{([^{}]+)\}\{([^{}]+)\}", r"(\1)/(\2)"),
    "\\frac ab": _matched(r"\\frac\{([0-9])\}\{([0-9])\}", r"\\frac \1\2"),
    "a fraction that isn't reduced": _scaled,
    "a mixed number": _mixed,
    "a decimal for a fraction": _decimal,
    "\\left( \\right)": lambda t: None if "left" in t else _matched(r"\(([^()]*)\)", r"\\left(\1\\right)")(t),
    "without \\left and \\right": lambda text: _changed(re.sub(r"\\(?:left|right)(?![a-z])\s*", "", text), text),
    "without spaces": lambda t: None if "\\" in t or re.search("[A-Za-z]{2}", t) else _changed(t.replace(" ", ""), t),
    "a space between number and letter": _matched(r"(?<![\w{\\_^.])([0-9]+)([a-z])(?![a-z0-9-])", r"\1 \2"),
    "unit dropped": lambda text: _changed(_UNITS.sub("", text), text) or None,
    "degree sign for ^\\circ": lambda text: _changed(re.sub(r"\s*\^\{?\s*\\circ\s*\}?", "°", text), text),
    "words without \\text": lambda t: _TEXT.sub(r"\1", t) if re.fullmatch(r"\\text\{[A-Za-z, ]+\}", t) else None,
    "other letter case": lambda t: (
        t.replace(t[6:-1], t[6:-1].upper()) if re.fullmatch(r"\\text\{[a-z ]{3,}\}", t) else None
    ),
    "thousands marked": _grouped,
    "thousands not marked": _matched(r"(?<=[0-9])(?:,\\!|\{,\})(?=[0-9]{3})", ""),
    "an inequality for an interval": _as_inequality,
    "a full stop": lambda text: f"{text}.",
    "$...$": lambda text: None if "$" in text else f"${text}$",
    "\\( ... \\)": lambda text: None if "$" in text else rf"\( {text} \)",
    "bold": lambda text: f"**{text}**" if _is_number(text) else None,
    "x = in front": lambda t: (
        None if re.search(r"[=<>,a-zA-Z]|\\(?:le|ge|in|text|begin)", t) and not _fraction(t) else f"x = {t}"
    ),
    "the answer is": lambda text: f"The answer is ${text}$" if "$" not in text else None,
    "\\pm written out": lambda t: (
        f"{t.replace(chr(92) + 'pm', '+')}, {t.replace(chr(92) + 'pm', '-')}"
        if t.count("\\pm") == 1 and not re.search(r"[,=]|\\begin|^\\pm", t)
        else None
    ),
    "a list with and": _listed(lambda parts: f"{', '.join(parts[:-1])} \\text{{ and }} {parts[-1]}"),
    "a list with or": _listed(lambda parts: " \\text{ or } ".join(parts)),
    "a list as a set": _listed(lambda parts: f"\\{{{', '.join(parts)}\\}}"),
    "a list backwards": _listed(lambda parts: ", ".join(parts[::-1])),
    "several boxes": _listed(lambda parts: ", ".join(f"\\boxed{{{part}}}" for part in parts)),
    "_{5} for _5": _matched(r"_([0-9])\b", r"_{\1}"),
    "base dropped": lambda text: _changed(re.sub(r"^([0-9]+)_\{?[0-9]+\}?$", r"\1", text), text),
    "√ for \\sqrt": _matched(r"\\sqrt\{([0-9]+)\}", r"√\1"),
    "sqrt() for \\sqrt": _matched(r"(?<![a-z])\\sqrt\{([^{}]+)\}", r"sqrt(\1)"),
    "π, ∞, ≤, ∪ for commands": lambda t: _changed(
        re.sub(r"\\(pi|infty|leq?|cup)(?![a-z])", lambda m: {"p": "π", "i": "∞", "l": "≤", "c": "∪"}[m[1][0]], t), t
    ),
    "− for -": _replaced("-", "−"),
    "\\cdot": _matched(r"(?<![\w{\\_^.])([0-9]+)(\\sqrt|\\pi|[a-z](?![a-z0-9-]))", r"\1 \\cdot \2"),
    "escaped twice": lambda t: (
        t.replace("\\", "\\\\") if re.search(r"\\[a-z]", t) and "\\\\" not in t and "\\{" not in t else None
    ),
    "\\displaystyle": lambda text: f"\\displaystyle {text}" if "\\frac" in text else None,
    "zero added": lambda text: (
        f"{text} + 0"
        if re.fullmatch(r"[-0-9a-z\\{}^+ ]+", text) and not re.search(r"text|mbox|pm|\^\\?c", text)
        else None
    ),
}
"""Name -> the rewriting: the value stays what it is"""


def _number_changed(text: str) -> str | None:
    found = list(_NUMBER.finditer(text))
    if not found or "_" in text:
        return None
    last = found[-1]
    return f"{text[: last.start()]}{float(last[0]) + 1 if '.' in last[0] else int(last[0]) + 1}{text[last.end() :]}"


def _bracket_changed(text: str) -> str | None:
    if not _INTERVAL.fullmatch(text.strip()) or "infty" in text:
        return None
    return text.replace("(", "[", 1) if "(" in text else text.replace("[", "(", 1)


def _swapped(text: str) -> str | None:
    pair = _INTERVAL.fullmatch(text.strip())
    if pair is None or pair["low"].strip() == pair["high"].strip():
        return None
    return f"{pair['left']}{pair['high']},{pair['low']}{pair['right']}"


def _negated(text: str) -> str | None:
    if (
        text in ("0", "\\pm")
        or "\\pm" in text
        or not re.fullmatch(r"[-+0-9a-z\\{}^ .]+", text)
        or re.search("text|mbox|circ", text)
    ):
        return None
    return f"-({text})"


OTHER: dict[str, Rewriting] = {
    "a number plus 1": _number_changed,
    "the sign": _negated,
    "twice": lambda text: (
        f"2({text})"
        if re.fullmatch(r"[-+0-9a-z\\{}^ .]+", text) and not re.search("text|mbox|circ", text) and text != "0"
        else None
    ),
    "or another": lambda text: f"{text} \\text{{ or }} 17" if "17" not in text and "$" not in text else None,
    "and another": lambda text: f"{text}, 17" if "17" not in text and "$" not in text else None,
    "an element less": _listed(lambda parts: ", ".join(parts[1:])),
    "a bracket": _bracket_changed,
    "the order": _swapped,
    "x for the value": lambda text: "x" if text != "x" else None,
    "a variable more": lambda text: (
        f"({text}) y"
        if re.fullmatch(r"[-+0-9a-z\\{}^ .]+", text) and not re.search("text|mbox|circ|y", text) and text != "0"
        else None
    ),
    "a hundredth": lambda text: f"{int(text) / 100}" if _is_number(text) and text != "0" else None,
    "another base": _matched(r"_\{?([0-9])\}?$", lambda m: f"_{int(m[1]) - 1}" if int(m[1]) > 2 else "_3"),  # type: ignore[arg-type]
    "the other relation": _matched(r"<|\\leq?(?![a-z])", ">"),
}
"""Name -> the rewriting: another value"""
