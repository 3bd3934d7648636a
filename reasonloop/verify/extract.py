r"""Where the final answer stands in a response. Pure, and linear in the length of the text.

Only what is said counts: the text behind the last ``</think>``; thinking that doesn't end has no answer. The styles:

- "boxed": what the last ``\boxed{...}`` holds, braces balanced; several boxes with nothing but commas, "and" and the like
  between them are a list. ``\fbox``, ``boxed{...}`` and ``\boxed 5`` are boxes, too. A last box that is never closed, as
  in a response that was cut off, gives None: nobody knows what it would have said.
- "hash": the first line after the last ``####`` (GSM8K).
- "last_number": the last numeral, its sign, ``$``, exponent, ``/denominator`` and ``%`` included.
- "final": what the last ``<answer>...</answer>`` holds, else the box if there is one (closed or not: the box decides), else
  hash, else what follows the last "answer is", "answer:" and the like, else the last formula or number. A number is never
  torn out of a formula.
- "bare": the box if there is one, else the whole text.
- "all": the whole text, stripped; thinking included.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

from reasonloop.errors import InputError

Style = Literal["boxed", "hash", "last_number", "final", "bare", "all"]
STYLES: tuple[str, ...] = get_args(Style)

# Possessive quantifiers (`++`): a run of ten million digits is walked once, whatever follows it.
_NUMERAL = (
    r"(?:(?<![\w)\]}])[-+\u2212])?(?:\\?\$[-\u2212]?)?(?<![A-Za-z0-9_])"
    r"(?:[0-9]{1,3}(?:[ \u00a0\u202f][0-9]{3})++(?![0-9])|[0-9]++(?:,[0-9]++)*+(?:\.[0-9]++)?+|(?<!\.)\.[0-9]++)"
    r"(?:[eE][-+]?[0-9]++(?![A-Za-z]))?+"
    r"(?:\s?/\s?[0-9]++(?![.,]?[0-9]))?+"
    r"(?:\s?\\?%|\s?percent\b)?+"
)
_NUMBER_IN_TEXT = re.compile(_NUMERAL)
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")
THINKING = re.compile(r"<(?P<closes>/)?(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_TAG = re.compile(r"<(?P<closes>/)?answer>", re.IGNORECASE)
# a box behind a line break (\\) is one, too
BOX_OR_BRACE = re.compile(
    r"\\[fd]?boxed\s*+\{|\\fbox\s*+\{|(?<![a-zA-Z])boxed\{|\\(?!\\?[fd]?boxed|\\?fbox).|[{}]", re.DOTALL
)
_UNBRACED = re.compile(
    r"\\boxed\s*+(?P<value>\$?-?[0-9]++(?:[.,/][0-9]++)*+|-?\\[dt]?frac\s*+(?:\{[^{}]*+\}\s*+\{[^{}]*+\}|[0-9]\s*+[0-9])"
    r"|[a-zA-Z](?![a-zA-Z]))"
)
_BETWEEN_BOXES = re.compile(
    r"(?:\\(?:text|mathrm|textrm)\s*+\{[\s,]*+(?:and|or)[\s,]*+\}|\\q?quad(?![a-z])|\\[ ,;!()\[\]]|[\s,;&$]++|(?:and|or)\b"
    r"|[a-zA-Z](?:_\{?\w\}?)?\s*+=)*+"
)
_OR = re.compile(r"\bor\b")
_LONGEST_BETWEEN = 60
_PHRASE = re.compile(
    r"\b(?:answers?|result)\b(?:"
    r"\s{0,5}+(?:\*{0,3}:|=|\bis\b|\bare\b)"
    r"|(?:\s{1,5}+(?:to|of|for|in)\b[^.:?!\n]{1,80}?|\s{1,5}+(?:must|will|would|should)\b[^.:?!\n]{0,20}?)\s(?:is\b|are\b|be\b|:|=)"
    r"|\*{0,3}\s{0,5}\n"
    r"|\s{1,5}+(?=[-$\\(]{0,3}[0-9]))"
    r"(?:\s|[:*_#`>])*+"
    r"(?!(?:not|still|yet|un(?:known|clear|likely)|wrong|incorrect|in?valid|right|correct|to|what|probably|likely)\b)",
    re.IGNORECASE,
)
_SENTENCE = 1_000
_SENTENCE_END = re.compile(r"(?<!\bRs)(?<!\bapprox)(?<!\bsq)(?<!\bNo)(?<!\b[ap]\.m)[.!?]\*{0,3}\s|\n")
_REASON = re.compile(
    r"(?<=\S)[,;]?\s+\(?(?:since|because|so|which|where|hence|thus|therefore|as\s+(?:the|we|it))\b", re.IGNORECASE
)
_FORMULA = re.compile(
    r"\$\$(?P<display>[^$]++)\$\$|(?<![\\$])\$(?P<inline>[^$\n]++)(?<!\\)\$(?![0-9])"
    r"|\\\((?P<round>(?:[^\\]|\\(?![()]))*+)\\\)|\\\[(?P<square>(?:[^\\]|\\(?![\[\]]))*+)\\\]"
)
_BARE_FORMULA = re.compile(r"(?:\\[a-zA-Z]++|\\[,;! ]|[0-9{}()\[\]^_+\-*/=.,!|<>%°√π²³\u2212·×]|\b[a-zA-Z]\b|[ \t])++")
_WORD = re.compile(r"[A-Za-z]{2,}")
_PROSE = re.compile(r"[-+*/=(,:]$|^\s*[0-9.,]++\s++[A-Za-z]{2}|(?<![\\A-Za-z])[A-Za-z]{3,}\s++[A-Za-z]{2,}")
_TEXT_INSIDE = re.compile(r"\\(?:text|mathrm|mbox|textbf)\s*+\{[^{}]*+\}")
_STATES = re.compile(r"\b(?:is|are|was|were|equals?|be)\b|(?<![<>!=\\])=", re.IGNORECASE)


def extract_answer(text: str, style: str) -> str | None:
    """The final answer in `text`, stripped, or None if the text has none where `style` looks for it.

    Time and memory are linear in len(text). Raises InputError for an unknown style.
    """
    if style not in STYLES:
        raise InputError(f"answer extraction: got {style!r}, expected one of {', '.join(STYLES)}")
    if style == "all":
        return text.strip() or None
    start = spoken_from(text)
    if start is None:
        return None
    text = text[start:] if start else text
    if style == "boxed":
        return _boxed(text)
    if style == "hash":
        return _after_hash(text)
    if style == "last_number":
        return _last_number(text)
    if style == "bare":
        return _boxed(text) if has_box(text) else text.strip() or None
    tagged = _in_tag(text)
    if tagged is not None:
        return (_boxed(tagged) if has_box(tagged) else tagged.strip()) or None
    if has_box(text):
        return _boxed(text)
    return _after_hash(text) or _after_phrase(text) or _last_value(text)


def gold_answer(text: str) -> str:
    r"""The gold answer in a worked solution: after ``####`` (GSM8K), else in ``\boxed{}`` (MATH), else the text itself.

    For tasks, when they load a file. Raises InputError if the mark is there and no answer with it.
    """
    for mark, style in (("####", "hash"), ("\\boxed", "boxed")):
        if mark in text:
            answer = extract_answer(text, style)
            if not answer:
                raise InputError(f"gold answer: got {text[-80:]!r}, expected an answer with its {mark}")
            return answer
    return text.strip()


def gold_response(answer: str, style: str) -> str:
    """A response whose answer `style` finds and reads as `answer`; to verify gold answers against themselves."""
    if style in ("boxed", "final"):
        return f"\\boxed{{{answer}}}"
    return f"#### {answer}" if style == "hash" else answer


def spoken_from(text: str) -> int | None:
    """Offset behind the thinking; 0 where there is none, None where it doesn't end."""
    start: int | None = 0
    if "<" not in text:
        return 0
    for tag in THINKING.finditer(text):
        start = tag.end() if tag["closes"] else None
    return start


def has_box(text: str) -> bool:
    return "box" in text and (bool(_boxes(text)[0]) or _boxes(text)[1])


def boxes_in(text: str) -> list[str]:
    """What the boxes of a solution hold that are no list: each that is followed by words and another one, and the last."""
    boxes = _boxes(text)[0]
    joined = [_joined(text, before, box) for before, box in pairwise(boxes)]
    return [box.inside for box, next_joined in zip(boxes, [*joined, False], strict=False) if not next_joined]


class Box(NamedTuple):
    start: int
    end: int
    inside: str


def _boxes(text: str) -> tuple[list[Box], bool]:
    """(the closed boxes in the order in which they open, whether one that opens behind them is never closed)."""
    open_: list[tuple[int, int] | None] = []  # (start, start of what it holds) of a box, None for another brace
    found: list[Box] = []
    for mark in BOX_OR_BRACE.finditer(text):
        sign = mark.group()
        if sign == "}":
            box = open_.pop() if open_ else None
            if box is not None:
                found.append(Box(box[0], mark.end(), text[box[1] : mark.start()].strip()))
        elif sign.endswith("{") and sign != "\\{":
            open_.append((mark.start(), mark.end()) if len(sign) > 1 else None)
    if "\\boxed" in text:
        found += [Box(box.start(), box.end(), box["value"]) for box in _UNBRACED.finditer(text)]
    found.sort()
    unclosed = [box for box in open_ if box is not None]
    return found, bool(unclosed) and (not found or unclosed[-1][0] > found[-1].start)


def _boxed(text: str) -> str | None:
    boxes, cut_off = _boxes(text)
    if cut_off or not boxes:
        return None
    listed = boxes[-1].inside
    for before, box in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        if not _joined(text, before, box):
            break
        listed = f"{before.inside} {'or' if _OR.search(text, before.end, box.start) else ','} {listed}"
    return listed or None


def _joined(text: str, before: Box, box: Box) -> bool:
    """Whether nothing but commas and the like stands between two boxes."""
    if not before.end <= box.start <= before.end + _LONGEST_BETWEEN:
        return False
    return _BETWEEN_BOXES.fullmatch(text, before.end, box.start) is not None


def _in_tag(text: str) -> str | None:
    opening, found = None, None
    for tag in _TAG.finditer(text):
        if not tag["closes"]:
            opening = tag.end()
        elif opening is not None:
            found, opening = text[opening : tag.start()], None
    return found


def _after_hash(text: str) -> str | None:
    at = text.rfind("####")
    if at < 0:
        return None
    start = at + 4
    end = text.find("\n", start)
    return text[start : end if end >= 0 else len(text)].strip() or None


def _after_phrase(text: str) -> str | None:
    last = None
    for last in _PHRASE.finditer(text):  # noqa: B007  (the last match is the one that counts)
        pass
    if last is None:
        return None
    sentence = text[last.end() : last.end() + _SENTENCE]
    end = _SENTENCE_END.search(sentence)
    sentence = sentence[: end.start()] if end else sentence
    reason = _REASON.search(sentence)
    sentence = sentence[: reason.start()] if reason else sentence
    return _value_in(sentence.strip().strip("*`").rstrip(".").strip())


def _value_in(sentence: str) -> str | None:
    """What a sentence says that the answer is: "The volume of the box is 120" is 120; text without a number is itself."""
    plain = _FORMULA.sub(lambda formula: "0" * len(formula.group()), _TEXT_INSIDE.sub("", sentence))
    first = re.search("[0-9]", plain)
    if first is None or not re.search(
        r"[A-Za-z]{2,}\s+\S*[A-Za-z]", plain[: first.start()] + " x"[: first.start() > 0]
    ):
        return sentence or None
    stated = None
    for stated in _STATES.finditer(sentence):  # noqa: B007
        pass
    if stated is not None and re.search("[0-9]|\\$", sentence[stated.end() :]):
        return sentence[stated.end() :].strip()
    return _last_value(sentence) if len(_NUMBER_IN_TEXT.findall(plain)) == 1 else sentence


def _last_value(text: str) -> str | None:
    """The last formula, or the last number that stands in none."""
    formula = None
    at = last_word = 0
    for word in _WORD.finditer(text):
        last_word = word.start()
    while match := _FORMULA.search(text, at):
        at = match.end()
        inside = next(group for group in match.groups() if group is not None).strip()
        if match["inline"] is not None and _PROSE.search(
            _TEXT_INSIDE.sub("", inside)
        ):  # $5 and then $6: two currencies
            at = match.end() - 1
        elif inside and not (len(inside) == 1 and inside.islower() and at <= last_word):
            formula = (match.end(), inside)
    start = formula[0] if formula else 0
    behind = text[start:]
    number = _last_number(behind)
    if number is None:
        return formula[1] if formula else None
    return _bare_formula(behind) or number


def _bare_formula(text: str) -> str | None:
    r"""The formula without marks that the last number stands in: \frac{3}{4}, 2x^2, 3√7; None if it stands alone."""
    run = None
    for match in _BARE_FORMULA.finditer(text):
        if any(character in "0123456789" for character in match.group()):
            run = match.group()
    if run is None or not re.search(r"\\[a-zA-Z]|[\^_√π²³]", run):
        return None
    return run.strip(" \t,;").rstrip(".") or None


def _last_number(text: str) -> str | None:
    last = None
    for last in _NUMBER_IN_TEXT.finditer(text):  # noqa: B007
        pass
    if last is None:
        return None
    numeral = last.group().strip()
    if "," in numeral and not _THOUSANDS.search(numeral):
        numeral = numeral.rsplit(",", 1)[1]  # "3,4" is a list: its last number is 4
    return numeral
