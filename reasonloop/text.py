"""Text at the edges: what comes from files, arguments and tasks."""

from __future__ import annotations


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: half of a surrogate pair can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
