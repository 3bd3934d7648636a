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
from reasonloop.verify.prose import after_phrase, last_number, last_value, stated

Style = Literal["boxed", "hash", "last_number", "final", "bare", "all"]
STYLES: tuple[str, ...] = get_args(Style)

_THINKING = re.compile(r"<(?P<closes>/)?(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
ANSWER_TAG = re.compile(r"<(?P<closes>/)?answer>", re.IGNORECASE)
# a box behind a line break (\\) is one, too
_BOX_OR_BRACE = re.compile(
    r"\\[fd]?boxed\s*+\{|\\fbox\s*+\{|(?<![a-zA-Z])boxed\{|\\(?!\\?[fd]?boxed|\\?fbox).|[{}]", re.DOTALL
)
_UNBRACED = re.compile(
    r"\\boxed\s*+(?P<value>\$?-?[0-9]++(?>(?:[.,/][0-9]++)*)|-?\\[dt]?frac\s*+(?:\{[^{}]*+\}\s*+\{[^{}]*+\}|[0-9]\s*+[0-9])"
    r"|[a-zA-Z](?![a-zA-Z]))"
)
_BETWEEN_BOXES = re.compile(
    r"(?>(?:\\(?:text|mathrm|textrm)\s*+\{[\s,]*+(?:and|or)[\s,]*+\}|\\q?quad(?![a-z])|\\[ ,;!()\[\]]|[\s,;&$]++"
    r"|(?:and|or)\b|[a-zA-Z](?:_\{?\w\}?)?\s*+=)*)"
)
_OR = re.compile(r"\bor\b")
_LONGEST_BETWEEN = 60
_MARKUP = re.compile(r"</?(?:b|i|em|strong|solution|final)>")
_CALCULATOR = re.compile(r"<<[^<>\n]*+>>")
"""GSM8K's notes, which models copy: 2*3=<<2*3=6>>6"""
_HASHED = re.compile(r"####(?!#)([^\n#]*+)")
_HEADING = re.compile(
    r"[ \t*]*(?:[0-9]{1,2}[.)][ \t*]+[A-Za-z]{3}"
    r"|(?:step|final|answer|solution|conclusion|problem|part|check|verif|explan)[a-z]*+(?![^\n:=]*[:=][^\n]*[0-9]))",
    re.IGNORECASE,
)
"""A heading in Markdown, and no answer in GSM8K's style"""
_END_TOKEN = re.compile(r"<\|(?:im_end|im_start|endoftext|eot_id|end_of_text|end)\|>|</s>|<eos>|<end_of_turn>")


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
    text = _without_end_tokens(text[start:] if start else text)
    if style == "boxed":
        return _boxed(text)
    if style == "hash":
        return _after_hash(text)
    if style == "last_number":
        return last_number(text)
    if style == "bare":
        return _boxed(text) if has_box(text) else text.strip() or None
    tagged = _in_tag(text)
    if tagged is not None:
        return (_boxed(tagged) if has_box(tagged) else stated(tagged)) or None
    if has_box(text):
        return _boxed(text)
    hashed = _after_hash(text)
    if hashed:
        return hashed
    announced = after_phrase(text)
    return (last_value(text) if announced is None else announced) or None


def _without_end_tokens(text: str) -> str:
    """Up to the first <|im_end|> or the like, and without what only marks up."""
    for token in _END_TOKEN.finditer(text) if ">" in text else ():
        if before := text[: token.start()].rstrip():
            text = before
            break
    text = _MARKUP.sub("", text) if "</" in text else text
    return _CALCULATOR.sub("", text) if "<<" in text else text


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
    for tag in _THINKING.finditer(text):
        start = tag.end() if tag["closes"] else None
    return start


def has_box(text: str) -> bool:
    return "box" in text and (bool(boxes_of(text)[0]) or boxes_of(text)[1])


def boxes_in(text: str) -> list[str]:
    """What the boxes of a solution hold that are no list: each that is followed by words and another one, and the last.

    Boxes in boxes count with the outer one.
    """
    boxes: list[Box] = []
    for box in boxes_of(text)[0]:
        if not boxes or box.start >= boxes[-1].end:
            boxes.append(box)
    joined = [_joined(text, before, box) for before, box in pairwise(boxes)]
    return [box.inside(text) for box, next_joined in zip(boxes, [*joined, False], strict=False) if not next_joined]


class Box(NamedTuple):
    """Places only: what boxes in boxes hold is, taken together, as long as the square of the text."""

    start: int
    end: int
    opens: int
    closes: int

    def inside(self, text: str) -> str:
        return text[self.opens : self.closes].strip()


def boxes_of(text: str) -> tuple[list[Box], bool]:
    """(the closed boxes in the order in which they open, whether one that opens behind them is never closed)."""
    open_: list[tuple[int, int] | None] = []  # (start, start of what it holds) of a box, None for another brace
    found: list[Box] = []
    for mark in _BOX_OR_BRACE.finditer(text):
        sign = mark.group()
        if sign == "}":
            box = open_.pop() if open_ else None
            if box is not None:
                found.append(Box(box[0], mark.end(), box[1], mark.start()))
        elif sign.endswith("{") and sign != "\\{":
            open_.append((mark.start(), mark.end()) if len(sign) > 1 else None)
    if "\\boxed" in text:
        found += [Box(box.start(), box.end(), *box.span("value")) for box in _UNBRACED.finditer(text)]
    found.sort()
    unclosed = [box for box in open_ if box is not None]
    return found, bool(unclosed) and (not found or unclosed[-1][0] > found[-1].start)


def _boxed(text: str) -> str | None:
    boxes, cut_off = boxes_of(text)
    if cut_off or not boxes:
        return None
    listed = [boxes[-1].inside(text)]
    for before, box in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        if not _joined(text, before, box):
            break
        listed += ["or" if _OR.search(text, before.end, box.start) else ",", before.inside(text)]
    return " ".join(reversed(listed)) or None


def _joined(text: str, before: Box, box: Box) -> bool:
    """Whether nothing but commas and the like stands between two boxes."""
    if not before.end <= box.start <= before.end + _LONGEST_BETWEEN:
        return False
    return _BETWEEN_BOXES.fullmatch(text, before.end, box.start) is not None


def _in_tag(text: str) -> str | None:
    opening, found = None, None
    for tag in ANSWER_TAG.finditer(text):
        if not tag["closes"]:
            opening = tag.end()
        elif opening is not None:
            found, opening = text[opening : tag.start()], None
    return found


def _after_hash(text: str) -> str | None:
    last = None
    for line in _HASHED.finditer(text):
        if not _HEADING.match(text, line.start(1), line.end(1)):
            last = line
    return (last[1].strip() or None) if last else None
