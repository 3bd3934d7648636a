"""Where the prompt, the answer and the worked solution stand in a row: the layouts of public problem files, as a table.

A path is a key, or keys with dots between them (`reward_model.ground_truth`; `conversations.-1.value` is a list's last
item). Capitals don't matter, and what is null isn't there.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from reasonloop.tasks.files import Row


@dataclass(frozen=True, slots=True)
class Joined:
    """Keys whose texts make one prompt; none of them empty. Those with capitals are spelled exactly so."""

    keys: tuple[str, ...]
    between: str

    def __str__(self) -> str:
        return " + ".join(self.keys)


Tiers = tuple[tuple[str | Joined, ...], ...]
"""The first tier of which a row has something decides; what the row has of one tier must agree"""

CHAT = "conversations"
"""The key that is made up for a row that is a list of messages itself (Open-Reasoner-Zero)"""
PROMPTS: Tiers = (
    (Joined(("body", "question"), " "),),  # SVAMP, ASDiv
    ("prompt", "problem", "question"),
    ("messages", "context_messages", CHAT, "conversation"),  # OpenRLHF; ShareGPT
    (Joined(("instruction", "input"), "\n\n"),),  # Alpaca
    ("instruction",),
    ("input", "query"),  # OpenRLHF, simpleRL; MetaMath
)
ANSWERS: Tiers = (
    (
        "answer",
        "final_answer",  # DeepMath, OlympiadBench
        "expected_answer",  # OpenMathReasoning
        "ground_truth",
        "gt_answer",  # simpleRL
        "ground_truth_answer",
        "gt",
        "reward_model.ground_truth",  # verl
        f"{CHAT}.-1.ground_truth.value",  # Open-Reasoner-Zero
    ),
    ("label", "target"),  # OpenRLHF; only where there is no worked answer
)
RESPONSES: Tiers = (
    ("response",),
    ("solution",),
    ("completion", "output", "generated_solution", "r1_solution_1", "gt_cot"),
)
CHOICES = ("options", "choices")
"""Keys of the choices, which belong to the prompt: text, a list, or an object by letter"""
MARKED = "solution"
"""The worked solution in which the answer may stand, marked with \\boxed{} or ####, where no other key gives one"""
ID = "id"
READ = (
    "{prompt|problem|question|messages, answer}, {problem, solution with \\boxed{} or ####}, verl's {prompt, "
    "reward_model.ground_truth}, or {prompt|messages, response}; other keys are named with prompt_key and answer_key"
)
"""For messages"""


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """Keys that the user named, as paths; empty: by the table"""

    prompt: str = ""
    answer: str = ""
    response: str = ""
    id: str = ID
    """Empty: no row has an id of its own"""

    @property
    def prompts(self) -> Tiers:
        return ((self.prompt,),) if self.prompt else PROMPTS

    @property
    def answers(self) -> Tiers:
        return ((self.answer,),) if self.answer else ANSWERS

    @property
    def responses(self) -> Tiers:
        return ((self.response,),) if self.response else RESPONSES


class Fields:
    """What stands at the paths of a row."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self._keys = tuple(row)

    def at(self, path: str) -> Any:
        """None where nothing does."""
        for head, rest in ((path, ""), path.partition(".")[::2]):
            key = head if head in self.row else _folded(self._keys).get(head.lower())
            if key is not None:
                return _inside(self.row[key], rest.split(".") if rest else ())
        return None

    def found(self, tiers: Tiers) -> list[tuple[str, Any]]:
        """(path, value) of all that the deciding tier has; empty if the row has nothing of any."""
        for tier in _possible(self._keys, tiers):
            values = [(str(path), self._joined(path) if isinstance(path, Joined) else self.at(path)) for path in tier]
            present = [(path, value) for path, value in values if value is not None]
            if present:
                return present
        return []

    def _joined(self, joined: Joined) -> str | None:
        texts = [self.at(key) if key.islower() else self.row.get(key) for key in joined.keys]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            return None
        return joined.between.join(str(text).strip() for text in texts)

    def lack(self, named: str, tiers: Tiers, usual: Tiers) -> str:
        """What is said where nothing stands at `named` (of `tiers`): that it is null, or which key may have been meant, of
        the usual ones that the row has or of one nearly so."""
        asked = {path.lower() for tier in tiers for path in tier if isinstance(path, str)}
        empty = next((key for key in self.row if str(key).lower() in asked and self.row[key] is None), None)
        if empty is not None:
            return f"{empty!r} is null ({self})"
        there = [path for path, _ in self.found(usual)] if tiers != usual else []
        near = difflib.get_close_matches(named, self._keys, n=1, cutoff=0.7) if tiers != usual else []
        hint = f"; did you mean {(near or there)[0]!r}?" if near or there else ""
        return f"no {named!r} ({self}){hint}"

    def __str__(self) -> str:
        return f"keys: {', '.join(map(str, self.row)) or 'none'}"


@lru_cache(maxsize=100)
def _folded(keys: tuple[str, ...]) -> dict[str, str]:
    """The rows' keys (most rows of a file have the same) by their lower case."""
    return {str(key).lower(): key for key in reversed(keys)}


@lru_cache(maxsize=100)
def _possible(keys: tuple[str, ...], tiers: Tiers) -> Tiers:
    """The tiers without paths that a row with these keys can't have."""
    known = _folded(keys).keys()

    def possible(path: str | Joined) -> bool:
        heads = path.keys[:1] if isinstance(path, Joined) else (path, path.partition(".")[0])
        return any(head.lower() in known for head in heads)

    return tuple(tuple(path for path in tier if possible(path)) for tier in tiers)


def _inside(value: Any, parts: Sequence[str]) -> Any:
    for part in parts:
        if isinstance(value, Mapping):
            folded = {str(key).lower(): key for key in reversed(value)}
            value = value.get(part, value.get(folded.get(part.lower())))
        elif isinstance(value, list) and part.removeprefix("-").isdecimal() and -len(value) <= int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value
