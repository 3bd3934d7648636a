"""One row as a problem, whatever its layout; what is wrong with it otherwise."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from reasonloop.errors import InputError
from reasonloop.records import Problem
from reasonloop.tasks.files import Fault, RawRow, shown
from reasonloop.tasks.files.text import is_chat
from reasonloop.tasks.jsonl.layouts import ANSWERS, CHAT, CHOICES, ID, MARKED, PROMPTS, Fields, KeyOptions
from reasonloop.text import is_text
from reasonloop.verify.answers import same_value
from reasonloop.verify.extract import gold_answer
from reasonloop.verify.maths.choices import LETTERS

NO_PROMPT, NO_ANSWER = "no prompt", "no answer"
NO_OBJECT, UNREADABLE, SEVERAL = "no JSON object", "value of another type", "several prompts or answers"
_ROLES = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "human": "user",
    "gpt": "assistant",
}
"""By the role, or by ShareGPT's `from`"""
_MESSAGES = "[{'role': 'system'|'user'|'assistant', 'content': text}, ...] with a user message at the end"
_SHORT = 60
"""Characters of a solution of one word that may be the answer itself"""
_MARKED_CHOICE = re.compile(r"\s*\(?[A-J][).:]")
_CALCULATOR_NOTE = re.compile(r"<<[^<>\n]*>>")


@dataclass(frozen=True, slots=True)
class _Prompt:
    key: str
    text: str | None = None
    messages: tuple[dict[str, str], ...] | None = None
    response: str | None = None
    """The assistant's message at the end of a conversation"""

    @property
    def question(self) -> str:
        """Text that is the same for the same question, whether as text or as a message."""
        return folded(self.text if self.messages is None else self.messages[-1]["content"])


def read_problem(raw: RawRow, stem: str, keys: KeyOptions) -> Problem:
    """The problem as it stands in its row: the prompt or the messages, the final gold answer alone ("" in a row that only
    demonstrates), and the worked answer as the response, if there is one.

    The id is `<stem>-<the row's own id, or a hash of its prompt>`: the same wherever the row stands. Raises Fault.
    """
    if isinstance(raw.value, Fault):
        raise raw.value
    value = {CHAT: raw.value} if is_chat(raw.value) else raw.value
    if not isinstance(value, dict):
        raise Fault(NO_OBJECT, f"{shown(value)} is no JSON object")
    fields = Fields(value)
    prompt = _prompt(fields, keys)
    answer, response = _answer(fields, keys, prompt.response)
    asked = prompt_key(Problem("", prompt.text, prompt.messages))
    # demonstrations may show several responses to one prompt
    name = _own_id(fields, keys.id) or _hashed(asked if answer else f"{asked}\n{response}")
    return Problem(f"{stem}-{name}", prompt.text, prompt.messages, answer, response, meta=raw.meta)


def folded(text: str | None) -> str:
    """`text` with its white space folded."""
    return " ".join((text or "").split())


def prompt_key(problem: Problem) -> str:
    """The prompt with its white space folded: two rows with the same key are the same problem."""
    turns = [f"{turn['role']}: {turn['content']}" for turn in problem.messages or ()]
    return folded(problem.prompt or "\n".join(turns))


def _own_id(fields: Fields, key: str) -> str | None:
    # `id` is taken in this spelling alone: ids of rows that have another must not change
    name = fields.row.get(ID) if key == ID else fields.at(key) if key else None
    if name is None:
        return None
    if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip() or not is_text(str(name)):
        raise Fault(UNREADABLE, f'{key!r} is {shown(name)}; expected text or an integer (id_key = "" takes none)')
    return str(name)


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _prompt(fields: Fields, keys: KeyOptions) -> _Prompt:
    found = [_read_prompt(key, value) for key, value in fields.found(keys.prompts)]
    if not found:
        raise Fault(NO_PROMPT, fields.lack(keys.prompt or "prompt", keys.prompts, PROMPTS))
    if len({prompt.question for prompt in found}) > 1:
        names = " and ".join(repr(prompt.key) for prompt in found)
        raise Fault(SEVERAL, f"both {names}, which differ ({fields}): name the right one with prompt_key")
    return _with_choices(fields, found[0]) if not keys.prompt else found[0]


def _with_choices(fields: Fields, prompt: _Prompt) -> _Prompt:
    """With the choices that stand under a key of their own, unless the prompt lists them already."""
    given = next((value for key in CHOICES if (value := fields.at(key))), None)
    if prompt.text is None or given is None:
        return prompt
    if isinstance(given, Mapping) and isinstance(given.get("text"), list):  # {"text": [...], "label": [...]}
        given = dict(zip(given.get("label") or LETTERS, given["text"], strict=False))
    if isinstance(given, list):
        plain = [str(choice) for choice in given]
        marked = all(_MARKED_CHOICE.match(choice) for choice in plain)
        lines = plain if marked else [f"({letter}) {choice}" for letter, choice in zip(LETTERS, plain, strict=False)]
    else:
        lines = [f"({key}) {value}" for key, value in given.items()] if isinstance(given, Mapping) else [str(given)]
    if not lines or folded(lines[0]).split(maxsplit=1)[-1] in folded(prompt.text):
        return prompt
    return replace(prompt, text="\n".join([prompt.text.rstrip(), *(_whole("choices", line) for line in lines)]))


def _read_prompt(key: str, value: Any) -> _Prompt:
    if is_chat(value) or key == "messages":
        return _read_messages(key, value)
    if not isinstance(value, str) or not value.strip():
        kind = NO_PROMPT if isinstance(value, str) or value == [] else UNREADABLE
        raise Fault(kind, f"{key!r} is {shown(value)}; expected text, or {_MESSAGES}")
    return _Prompt(key, _whole(key, value))


def _read_messages(key: str, value: Any) -> _Prompt:
    turns = [_turn(turn) for turn in value] if isinstance(value, list) else []
    good = [turn for turn in turns if turn]
    last = good[-1] if len(turns) == len(good) > 1 else None
    response = None  # at the end of a prompt it would be a beginning to go on from: refused
    if last and last["role"] == "assistant" and key not in PROMPTS[1]:
        response = last["content"]
        turns, good = turns[:-1], good[:-1]
    if len(good) < len(turns) or not good or good[-1]["role"] != "user":
        raise Fault(UNREADABLE, f"{key!r} is {shown(value)}; expected {_MESSAGES}")
    for turn in good:
        _whole(key, turn["content"])
    return _Prompt(key, messages=tuple(good), response=_whole(key, response) if response else None)


def _turn(turn: Any) -> dict[str, str] | None:
    if not isinstance(turn, Mapping):
        return None
    role = turn.get("role", turn.get("from"))
    content = turn.get("content", turn.get("value"))
    if content is None and isinstance(turn.get("ground_truth"), Mapping):
        content = ""
    known = isinstance(role, str) and role in _ROLES and isinstance(content, str)
    return {"role": _ROLES[role], "content": content} if known else None


def _answer(fields: Fields, keys: KeyOptions, shown_last: str | None) -> tuple[str, str | None]:
    """The final gold answer, and the worked answer if the row has one."""
    worked = {key: text for key, value in fields.found(keys.responses) if (text := _worked(key, value))}
    key, response = next(iter(worked.items()), ("", shown_last))
    # beside a worked answer a label may be anything
    tiers = keys.answers[:1] if response else keys.answers
    answers = {key: _text(key, value) for key, value in fields.found(tiers)}
    if answers:
        golds = {key: _gold(text) for key, text in answers.items()}
        first = next(iter(golds.values()))
        if not all(same_gold(gold, first) for gold in golds.values()):
            got = " and ".join(f"{key!r} ({shown(gold)})" for key, gold in golds.items())
            raise Fault(SEVERAL, f"both {got}, which differ: name the right one with answer_key")
        text, gold = min(zip(answers.values(), golds.values(), strict=True), key=lambda pair: len(pair[1]))
        if response is None and "####" in text:
            response = _without_notes(text)
        return gold, None if key == MARKED and folded(response) == folded(gold) else response
    if keys.answer:
        raise Fault(NO_ANSWER, fields.lack(keys.answer, keys.answers, ANSWERS))
    solution = _worked(MARKED, fields.at(MARKED))
    if solution and "\\boxed" in solution:
        return _gold(solution), response
    if solution and key == MARKED and "####" in solution.strip().rpartition("\n")[2]:  # not a heading somewhere
        return _gold(solution), _without_notes(solution)
    if solution and key == MARKED and len(solution.split()) == 1 and len(solution) <= _SHORT:
        return _gold(solution), None
    if response is None or (key == MARKED and not keys.response and shown_last is None):
        if not solution:
            raise Fault(NO_ANSWER, fields.lack("answer", ANSWERS, ANSWERS))
        lack = f"{MARKED!r} has no \\boxed{{}} answer ({fields})"
        raise Fault(NO_ANSWER, f'{lack}: if it is the bare answer, answer_key = "{MARKED}"')
    return "", response


def same_gold(a: str, b: str) -> bool:
    """Whether two gold answers are one, written in two ways."""
    return folded(a) == folded(b) or same_value(a, b)


def _gold(text: str) -> str:
    try:
        gold = gold_answer(text).strip()
    except InputError as error:
        raise Fault(NO_ANSWER, str(error)) from None
    if not gold:
        raise Fault(NO_ANSWER, "the gold answer is empty")
    return gold


def _without_notes(text: str) -> str:
    """GSM8K's worked answer without its calculator notes."""
    reasoning, _, final = _CALCULATOR_NOTE.sub("", text).rpartition("####")
    return f"{reasoning.rstrip()}\n#### {final.strip()}".lstrip()


def _worked(key: str, value: Any) -> str | None:
    """Of several solutions the first; None for an empty one."""
    while isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, Mapping) and (turn := _turn(value)):
        value = turn["content"]
    return None if value is None or (isinstance(value, str) and not value.strip()) else _text(key, value)


def _text(key: str, value: Any) -> str:
    """A list of one is its element; one of several answers is written as "a, b"."""
    if isinstance(value, list) and any(item is not None for item in value):
        return ", ".join(_text(key, item) for item in value if item is not None)
    if isinstance(value, str | list) and not (isinstance(value, str) and value.strip()):
        raise Fault(NO_ANSWER, f"{key!r} is {shown(value)}; expected text or a number")
    good = isinstance(value, str | int | float | Decimal) and not isinstance(value, bool)
    if not good or (isinstance(value, float | Decimal) and not math.isfinite(value)):
        raise Fault(UNREADABLE, f"{key!r} is {shown(value)}; expected text or a number")
    return _whole(key, str(value))


def _whole(key: str, text: str) -> str:
    if not is_text(text):
        raise Fault(UNREADABLE, f"half of a surrogate pair in {key!r}, {shown(text)}; expected text")
    return text
