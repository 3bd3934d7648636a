"""Which of a task's problems a trainer's rollout answers: by an id, or by what was asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from reasonloop.imports.rows import Row
from reasonloop.records import Problem

KEPT = 4096
"""Prompts whose problem is remembered: a group asks the same one"""


class Codec(Protocol):
    """What matching asks of a model's codec (`policy.codec`)."""

    def encode_prompt(self, problem: Problem) -> np.ndarray: ...

    def decode(self, tokens: np.ndarray) -> str: ...

    def decode_whole(self, tokens: np.ndarray) -> str: ...


class Unmatched(Exception):
    """No problem of the task, or not one alone."""


Index = Mapping[str, Sequence[int]]


class Matcher:
    """Finds a row's problem, by its number in `problems`.

    By id: the row's own is the problem's. By prompt: it is the problem's, to the character; or its last user message is; or
    it is what the model's template makes of the problem, with special tokens or without.
    """

    def __init__(self, problems: Sequence[Problem], by: str = "prompt", codec: Codec | None = None) -> None:
        """`by`: "prompt" or "id"."""
        self._problems, self._by, self._codec = problems, by, codec
        self._found = lru_cache(KEPT)(self._by_prompt)

    def find(self, row: Row, text: str = "") -> int:
        """The problem's number. `text`: the prompt where the row has its tokens alone. Raises Unmatched."""
        if self._by == "id":
            if row.id is None:
                raise Unmatched("no id")
            return _one(self._ids.get(row.id, ()))
        fault = Unmatched("no prompt")
        for prompt in row.prompts or ((text,) if text else ()):
            try:
                return self._found(prompt if isinstance(prompt, str) else _key(prompt))
            except Unmatched as error:
                fault = error
        raise fault

    def _by_prompt(self, key: str) -> int:
        found: Sequence[int] = self._exact.get(key, ())
        if len(found) == 1:
            return found[0]
        turns = _turns(key)
        several = bool(found)
        if turns is None:
            for places in (self._last.get(asked, ()) for asked in questions(key)):
                if len(places) == 1:
                    return places[0]
                several |= len(places) > 1
            found = self._rendered.get(key, ()) or self._rendered.get(key.strip(), ())
        else:
            users = [turn["content"] for turn in turns if turn["role"] == "user"]
            found = self._last.get(users[-1].strip(), ()) if users else ()
        if len(found) == 1:
            return found[0]
        raise Unmatched("several problems with this prompt" if several or found else "no such problem")

    @cached_property
    def _ids(self) -> Index:
        """Its own, and of a file's problem also the id that its row has: the task puts the file's name in front"""

        def named() -> Iterator[tuple[str | None, int]]:
            for i, problem in enumerate(self._problems):
                file = problem.meta.get("file")
                yield problem.id, i
                yield problem.id.removeprefix(f"{Path(file).stem}-") if isinstance(file, str) else None, i

        return _index(named())

    @cached_property
    def _exact(self) -> Index:
        return _index(
            (problem.prompt if problem.messages is None else _key(problem.messages), i)
            for i, problem in enumerate(self._problems)
        )

    @cached_property
    def _last(self) -> Index:
        """By the last user message, or the whole prompt where it is text"""

        def asked() -> Iterator[tuple[str | None, int]]:
            for i, problem in enumerate(self._problems):
                users = [turn["content"] for turn in problem.messages or () if turn["role"] == "user"]
                text = users[-1] if users else problem.prompt
                yield text and text.strip(), i

        return _index(asked())

    @cached_property
    def _rendered(self) -> Index:
        """As the model gets it, whole and without special tokens"""
        if self._codec is None:
            return {}
        codec = self._codec

        def rendered() -> Iterator[tuple[str, int]]:
            for i, problem in enumerate(self._problems):
                tokens = codec.encode_prompt(problem)
                for text in {codec.decode_whole(tokens), codec.decode(tokens), codec.decode(tokens).strip()}:
                    yield text, i

        return _index(rendered())


def _key(messages: Sequence[Mapping[str, str]]) -> str:
    """Messages as a key beside texts: no prompt begins so."""
    return "\0messages" + json.dumps([[turn["role"], turn["content"]] for turn in messages], ensure_ascii=False)


def _turns(key: str) -> list[dict[str, str]] | None:
    if not key.startswith("\0messages"):
        return None
    return [{"role": role, "content": content} for role, content in json.loads(key.removeprefix("\0messages"))]


def _one(found: Sequence[int]) -> int:
    if len(found) != 1:
        raise Unmatched("several problems with this id" if found else "no such problem")
    return found[0]


def _index(pairs: Iterator[tuple[str | None, int]]) -> Index:
    found: dict[str, list[int]] = {}
    for key, place in pairs:
        if key and place not in found.get(key, ()):
            found.setdefault(key, []).append(place)
    return found


# What a chat template puts before the last user message and behind it, where special tokens are kept and where they are
# stripped ("user\n...\nassistant\n"). Only a known problem's whole text between the two counts: words like "user" in it
# are its own.
_ROLE = re.compile(r"[Uu]ser|USER|[Hh]uman|\[INST\]|###\s*(?:Instruction|Question)s?")
_AFTER_ROLE = re.compile(r"[^\S\n]{0,60}(?::|<[^<>\n]{1,40}>|[|\uff5c]>|\n)")
_BEHIND = re.compile(
    r"(?:\s{1,60}|<[^<>\s]{1,40}>|\[/INST\]|(?:assistant|Assistant|ASSISTANT|model|gpt)\s{0,60}:?|###\s*Response:?)\Z"
)
_MOST = 16


def questions(text: str) -> Iterator[str]:
    """What may be the last user message of a prompt that a template was applied to: the longest first."""
    ends = [len(text)]
    while len(ends) < _MOST and (match := _BEHIND.search(text, max(0, ends[-1] - 60), ends[-1])):
        ends.append(match.start())
    starts = dict.fromkeys(_starts(text))
    seen = set()
    for start in [*list(starts)[:_MOST], *list(starts)[-_MOST:]]:
        for end in ends:
            if start < end and (asked := text[start:end].strip()) and asked not in seen:
                seen.add(asked)
                yield asked


def _starts(text: str) -> Iterator[int]:
    yield 0
    known = {0}  # what follows upon a place is the same for all that come there
    for at in (0, *(role.end() for role in _ROLE.finditer(text))):  # 0: a sequence's first token, say
        if text.endswith("[INST]", 0, at):
            yield at
        while (match := _AFTER_ROLE.match(text, at)) and match.end() not in known:
            known.add(at := match.end())
            yield at
