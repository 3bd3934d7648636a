"""Multiple choice: the choices that a problem lists, by letter and by what they say."""

from __future__ import annotations

import re

_MARK = re.compile(
    r"(?:^|(?<=[\s$}\\])|(?<=quad))(?:\\(?:text|textbf|mathrm|mathbf)\s*\{\s*)?(?:\(([A-J])\)|([A-J])[.):])"
    r"(?:\s*\})?(?:[\s~:]|\\[ ,;:!]|\\q?quad)*",
    re.MULTILINE,
)
_BEHIND = ("\\qquad", "\\quad", "\\ ", "\\,", "\\;", "\\\\", ",", ";", "$", "~")
LETTERS = "ABCDEFGHIJ"


def choices_in(prompt: str) -> dict[str, str]:
    """{"A": "12", "B": "13"} of "... (A) 12 (B) 13": the last run of letters from A on; empty where there is none.

    Read: (A), A), A. and A:, each at the beginning of a line or behind white space, in \\text or \\textbf too.
    """
    found: dict[str, str] = {}
    marks = list(_MARK.finditer(prompt))
    for place, mark in enumerate(marks):
        letter = mark[1] or mark[2]
        if letter == "A":
            found = {}
        elif not found or letter != LETTERS[len(found)]:
            continue
        end = marks[place + 1].start() if place + 1 < len(marks) else _end_of(prompt, mark.end())
        found[letter] = prompt[mark.end() : _said_until(prompt, mark.end(), end)].strip()
    return found if len(found) > 1 and all(found.values()) else {}


def _said_until(prompt: str, start: int, end: int) -> int:
    """Where a choice ends without the spaces and signs that only part it from the next one."""
    while end > start:
        behind = next((mark for mark in _BEHIND if prompt.endswith(mark, start, end)), None)
        if behind is None and not prompt[end - 1].isspace():
            break
        end -= len(behind or " ")
    return end


def _end_of(prompt: str, start: int) -> int:
    """Where the last choice ends: with its line."""
    end = prompt.find("\n", start)
    return end if end >= 0 else len(prompt)
