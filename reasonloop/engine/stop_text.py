"""Stop texts, looked for while a response grows: only the end of its text is decoded again with each token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

LEAST = 16
"""Tokens below which a tail is not shortened"""


def stops(tail: np.ndarray, texts: Sequence[str], decode: Callable[[np.ndarray], str]) -> tuple[bool, int]:
    """Whether a response has one of `texts` (at least one) now that it has one token more, and how many of the tail's first
    tokens need not be looked at again.

    `tail`: its tokens, int [T], but for those that were dropped before. `decode`: `Codec.decode`. What is left of a tail is
    at least as long as the longest text, ends with a whole character, and reads alone as it does in the response (a tail
    that begins inside of a character doesn't). So the answer is that of the whole response, for decoders that join pieces
    from left to right and strip no more than what is in front.
    """
    text = decode(tail)
    if any(stop in text for stop in texts):
        return True, 0
    half = len(tail) // 2
    if len(tail) < LEAST or text.endswith("\ufffd"):  # the end of a character may be still to come
        return False, 0
    kept = decode(tail[half:])
    return False, half if len(kept) >= max(map(len, texts)) and text.endswith(kept) else 0
