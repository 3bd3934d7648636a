"""Gold answers: whether the verifier can read them, so that another way to write one can be right at all.

Equal text is always right, which hides gold answers that nothing else will ever equal: "proof", "None", a whole solution.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from reasonloop.verify.answers import UNSUPPORTED, fold, one_line, parse_number, read_gold, same_value
from reasonloop.verify.extract import boxes_in
from reasonloop.verify.maths.forms import Words

Kind = Literal["readable", "text", "suspicious"]

_PLACEHOLDERS = frozenset(
    "proof prove proved none null nan notfound unknown true false answer solution omitted open see todo tbd -".split()
) | {"not found", "n/a", "see solution", "see above", "no answer", "qed", "q.e.d."}
LONGEST_ANSWER = 300
MOST_WORDS, FEW_WORDS = 25, 4
_WORD = re.compile(r"(?<!\\)\b[A-Za-z]{2,}\b")


@dataclass(frozen=True)
class Reading:
    """What the verifier makes of a gold answer."""

    kind: Kind
    """"readable": by value; "text": as words or as its text alone; "suspicious": probably no final answer"""
    reason: str = ""
    usable: bool = True
    """Whether a response could be right: nobody writes "proof" into a box"""


def gold_reading(answer: str, worked: str | None = None) -> Reading:
    """How `answer` is read as mathematics. `worked`: the worked solution that it was taken from, if there is one."""
    text = fold(answer)
    plain = text.strip(" .$*").casefold()
    if plain in _PLACEHOLDERS:
        usable = plain in ("true", "false")
        return Reading("suspicious", f"a placeholder: {one_line(answer, 30)!r}", usable)
    if len(text) > LONGEST_ANSWER or len(_WORD.findall(text)) > MOST_WORDS:
        return Reading("suspicious", f"a worked answer without a mark: {one_line(answer, 60)!r}", usable=False)
    boxes = boxes_in(worked) if worked is not None and worked.count("box") > 1 else []
    if len(set(boxes)) > 1 and not all(same_value(box, text) for box in boxes):
        return Reading(
            "suspicious", f"several boxes in its solution: {', '.join(one_line(box, 20) for box in boxes[:4])}"
        )
    if parse_number(text) is not None:
        return Reading("readable")
    reading = read_gold(text)
    if reading is UNSUPPORTED:
        return Reading("readable", "by math-verify")
    if isinstance(reading, str):
        return Reading("suspicious", one_line(f"{reading}: {text!r}"), usable=False)
    if reading.choice:
        return Reading("readable")
    if not reading.parts:
        whole = text.count("{") == text.count("}")
        short = reading.in_words or (whole and len(_WORD.findall(text)) <= FEW_WORDS)
        return Reading("text" if short else "suspicious", f"{reading.reason}: {one_line(answer, 60)!r}", usable=short)
    words = any(isinstance(part.form, Words) for part in reading.parts)
    return Reading("text" if words else "readable", one_line(answer, 60) if words else "")
