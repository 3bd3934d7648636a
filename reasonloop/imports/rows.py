"""What a trainer's file says of one rollout, in one form for all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reasonloop.records import number_of
from reasonloop.text import is_text

Messages = Sequence[Mapping[str, str]]
"""{"role", "content"}, both text"""
Prompt = str | Messages

UNKNOWN = "unknown"
"""`Rollout.finish` where nothing says how a response ended"""


class NoRollout(Exception):
    """A record that is no rollout; the message says what it is, in words that can be counted: "padding"."""


@dataclass(slots=True)
class Row:
    """One rollout as its trainer wrote it down."""

    prompts: tuple[Prompt, ...]
    """What was asked, in one form or several, the fullest first; empty where there are only its tokens"""
    response: str | None
    """None: only its tokens are there"""
    step: int | None = None
    id: str | None = None
    """The trainer's own name of the problem"""
    gold: Any = None
    score: float | None = None
    """The trainer's; None: it gave none, or no finite number"""
    parts: dict[str, float] = field(default_factory=dict)
    """What else it measured: what the score is made of, and metrics"""
    right: bool | None = None
    """What the trainer itself says of the response, where its file says it outright"""
    finish: str = UNKNOWN
    evaluation: bool = False
    own: str | None = None
    """A name that no other rollout has, where there is one: a repeat is known by it"""
    turn: tuple[str, int] | None = None
    """The rollout that this is an output of, and which one, where several share a score"""
    prompt_tokens: np.ndarray | None = None
    response_tokens: np.ndarray | None = None
    """int32 [T], whole, or None"""
    logprobs: np.ndarray | None = None
    """float32 [T] of the policy that sampled, or None"""
    sampled: np.ndarray | None = None
    """bool [T]; None: all"""


@dataclass(frozen=True, slots=True)
class Where:
    """The file of a record."""

    path: Path

    def step(self, pattern: str) -> int | None:
        """The number that `pattern` finds in the file's name, or else in the nearest of its folders (four at most)."""
        for name in reversed(self.path.parts[-5:]):
            if match := re.fullmatch(pattern, name):
                return int(match[1])
        return None

    def within(self, pattern: str, names: int = 3) -> bool:
        """Whether one of the last `names` names of its path, the file's own among them, matches as a whole."""
        return any(re.fullmatch(pattern, name, re.IGNORECASE) for name in self.path.parts[-names:])


Rows = Iterable["Row | NoRollout"]


@dataclass(frozen=True)
class Trainer:
    """How one trainer's files are read."""

    name: str
    fits: Callable[[Any], bool]
    """Whether a file's record is one of this trainer's, by its keys"""
    rows: Callable[[Any, Where], Rows]
    """The rollouts in a record. May raise KeyError, TypeError, ValueError, ... for one that is damaged"""
    step: str = ""
    """Of a file's or folder's name what the step is, for `Where.step`; empty: names don't tell it"""
    repeats: str = ""
    """How a rollout is known to stand twice, beside its own name and a file that is equal as a whole: by a "record" that is
    equal in everything, or by a "table" that is equal but for its step"""
    scored: bool = True
    """Whether right and wrong can be told by its score"""


def messages_of(value: Any) -> Messages | None:
    """Chat messages with plain text, or None for what is none. Of content in parts the texts are put together."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return None
    found = []
    for message in value:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            return None
        text = content_of(message)
        if text is None:
            return None
        found.append({"role": message["role"], "content": text})
    return found


def content_of(message: Mapping[str, Any]) -> str | None:
    """A message's text; None where it has none, or other things beside."""
    content = message.get("content")
    if isinstance(content, str):
        return clean(content)
    if isinstance(content, Sequence) and content:
        texts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        known = [text for text in texts if isinstance(text, str)]
        if len(known) == len(texts):
            return clean("".join(known))
    return None


def response_of(value: Any) -> str:
    """A response: text, or the messages that the policy wrote, the thoughts of a model that keeps them apart in front.

    Raises NoRollout where there is none. An empty one is one.
    """
    if isinstance(value, str):
        return clean(value)
    if value is None:
        raise NoRollout("no response")
    if not isinstance(value, Sequence):
        raise NoRollout("no text in the response")
    if value and all(isinstance(text, str) for text in value):
        raise NoRollout("several responses in a record (expected: a record for each)")
    texts = []
    for message in value:
        if not isinstance(message, Mapping):
            raise NoRollout("no text in the response")
        text = content_of(message)
        thought = next(
            (message[key] for key in ("reasoning_content", "reasoning", "thinking") if message.get(key)), None
        )
        if isinstance(thought, str):
            text = f"<think>\n{clean(thought)}\n</think>\n\n{text or ''}"
        if text is None and message.get("role") == "assistant" and message.get("tool_calls"):
            text = ""
        if text is None:
            raise NoRollout("no text in the response")
        texts.append(text)
    if not texts:
        raise NoRollout("no response")
    return "\n".join(texts)


def clean(text: str) -> str:
    """The text without halves of surrogate pairs, which have no UTF-8 form: each becomes '?'."""
    return text if is_text(text) else text.encode(errors="replace").decode()


def number(value: Any, *, text: bool = True) -> float | None:
    """A finite number. Truth values count as numbers, and what JSON couldn't write and so became text: "True", and with
    `text` "1.0", too."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        if value in ("True", "False"):
            return float(value == "True")
        try:
            value = float(value) if text else None
        except ValueError:
            return None
    found = number_of(value)
    return found if found == found else None


def parts_of(values: Mapping[str, Any]) -> dict[str, float]:
    """Those of the values that are numbers, or truth values."""
    return {str(key): found for key, value in values.items() if (found := number(value, text=False)) is not None}


_SAYS_RIGHT = re.compile(
    r"(?:^|_)(?:correct|correctness|is_correct|accuracy|acc|solved|exact_match)(?:_|$)", re.IGNORECASE
)
_OF_ELSE = re.compile(
    r"(?:^|_)(?:format|formatted|formatting|tags?|think|thinking|reasoning|xml|json|style|structure|length|language|syntax"
    r"|partial|partially|count|num|not|tools?|calls?|steps?)(?:_|$)",
    re.IGNORECASE,
)
"""Of what else than the answer a part may say that it is right: `correct_format`"""


def says_right(name: str) -> bool:
    """Whether a part of this name is about the answer's being right."""
    return _SAYS_RIGHT.search(name) is not None and _OF_ELSE.search(name) is None


def said_right(parts: Mapping[str, float]) -> bool | None:
    """What a trainer says outright: by a part that is called so (`acc`, `correct_answer`) and is 0 or 1 (or -1). None: there
    is none, or two that differ."""
    named = {value > 0 for name, value in parts.items() if says_right(name) and value in (-1.0, 0.0, 1.0)}
    return named.pop() if len(named) == 1 else None


def step_of(value: Any) -> int | None:
    """A step that is a whole number, or one as text or float (W&B's tables, NumPy's types)."""
    found = number(value)
    return int(found) if found is not None and found == int(found) else None


def finish_of(reason: Any) -> str:
    """What a stop reason says: "stop", "length", or unknown."""
    text = str(reason or "").lower()
    if text in ("stop", "eos", "stop_sequence", "end_turn", "completed", "env_done", "done"):
        return "stop"
    if text in ("length", "max_tokens", "truncated", "max_length") or re.fullmatch(r"max\w*_(?:tokens|length)", text):
        return "length"
    return UNKNOWN


def ids_of(values: Any) -> np.ndarray | None:
    """Token ids, int32 [T]; None for what is none."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        return None
    try:
        found = np.asarray(values)
    except (ValueError, OverflowError):
        return None
    if not len(found):
        return np.empty(0, np.int32)
    if found.ndim != 1 or found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= 2**31:
        return None
    return found.astype(np.int32)


def logprobs_of(values: Any, length: int) -> np.ndarray | None:
    """Log-probs, float32 [length]; None unless there is a finite one, not above 0, for each token."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != length:
        return None
    try:
        found = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found).all() and (found <= 1e-4).all() else None


def caught(rows: Callable[[], Rows]) -> Iterator[Row | NoRollout]:
    """The rows; of a record that isn't what its trainer writes the fault, to be counted."""
    try:
        yield from rows()
    except NoRollout as fault:
        yield fault
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError):
        yield NoRollout("damaged record")
