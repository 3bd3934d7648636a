"""Text at the edges: what comes from files, arguments and tasks."""

from __future__ import annotations

import re

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What model text may hold: escape sequences that drive a terminal (C0, DEL, C1), and marks that reorder what is shown"""


_CONTROL_BUT_LAYOUT = re.compile(f"(?![\n\t]){CONTROL.pattern}")


def visible(text: str) -> str:
    """The text with control characters written out (\\n, \\x1b, \\u202e), so that none reaches a terminal."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def readable(text: str) -> str:
    """The same with line breaks and tabs left as they are."""
    return _CONTROL_BUT_LAYOUT.sub(lambda match: visible(match[0]), text)


def shown(text: str, most: int) -> str:
    """The text in one line of at most `most` characters, an ellipsis where it is cut."""
    text = visible(text[: most + 1])
    return text if len(text) <= most else text[: most - 1] + "…"


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: half of a surrogate pair can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
