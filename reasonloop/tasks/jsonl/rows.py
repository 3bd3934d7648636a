"""Rows of problem files: the usual JSONL layouts read into one, and every mistake named with its file and line."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonloop.errors import InputError
from reasonloop.text import is_text

LAYOUTS = (
    "{prompt|messages, answer}, {problem, answer}, {problem, solution with \\boxed{}}, {question, answer}, "
    "or {prompt|messages, response}"
)
_PROMPT_KEYS = ("prompt", "problem", "question")
_ROLES = ("system", "user", "assistant")
_CALCULATOR_NOTE = re.compile(r"<<[^<>\n]*>>")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a problem file, whatever its layout was."""

    path: Path
    line: int
    """From 1"""
    id: str
    """`<file stem>-<the row's own id, or a hash of its prompt>`: the same wherever the row stands in the file"""
    prompt: str | None
    messages: tuple[Mapping[str, str], ...] | None
    answer: str
    """The final gold answer alone; "" in a row that only demonstrates"""
    response: str | None
    """The worked answer, if the row has one"""

    @property
    def place(self) -> str:
        return f"{self.path.name} line {self.line}"

    @property
    def prompt_key(self) -> str:
        """The prompt with its white space folded: two rows with the same key are the same problem."""
        text = (
            self.prompt if self.messages is None else "\n".join(f"{m['role']}: {m['content']}" for m in self.messages)
        )
        return " ".join((text or "").split())


def read_rows(path: Path) -> list[Row]:
    """All rows of a file, blank lines left out. Raises InputError for the first row that isn't a problem."""
    rows: dict[str, Row] = {}
    for number, text in _lines(path):
        row = _row(path, number, text)
        if row.id in rows:
            raise InputError(
                f"{row.place}: {_short(row.id)} is already line {rows[row.id].line}; expected different prompts, or "
                "a different 'id' in every row"
            )
        rows[row.id] = row
    if not rows:
        raise InputError(f"{path}: the file is empty; expected one JSON object per line: {LAYOUTS}")
    return list(rows.values())


def refuse_overlap(held_out: list[Row], train: list[Row]) -> None:
    """Raises InputError if a held-out prompt is a training prompt too."""
    seen = {row.prompt_key: row for row in train}
    for row in held_out:
        if row.prompt_key in seen:
            raise InputError(
                f"{row.place} has the same prompt as {seen[row.prompt_key].place}; expected training and held-out "
                "problems to differ: take one of the two out"
            )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    raise InputError(f"{path.name} line {number}: not UTF-8 text") from None
                if text.strip():
                    yield number, text
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; expected a JSONL file of problems") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a JSONL file of problems") from None


def _row(path: Path, number: int, text: str) -> Row:
    place = f"{path.name} line {number}"
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        known = isinstance(error, json.JSONDecodeError | _NoConstantError)
        reason = str(getattr(error, "msg", error)) if known else "too large or too deep"
        raise InputError(f"{place}: not JSON ({reason}): {_short(text.strip())}; expected {LAYOUTS}") from None
    if not is_text(json.dumps(data, ensure_ascii=False)):
        raise InputError(f"{place}: half of a surrogate pair in {_short(text.strip())}; expected text")
    if not isinstance(data, dict):
        raise InputError(f"{place}: {_short(text.strip())} is no JSON object; expected {LAYOUTS}")
    prompt, messages = _prompt(place, data)
    answer, response = _answer(place, data)
    own = data.get("id")
    if own is not None and (isinstance(own, bool) or not isinstance(own, (str, int)) or not str(own).strip()):
        raise InputError(f"{place}: 'id' is {_short(own)}; expected text or an integer")
    row = Row(path, number, "", prompt, messages, answer, response)
    # demonstrations may show several responses to one prompt
    identity = row.prompt_key if answer else f"{row.prompt_key}\n{response}"
    name = str(own) if own is not None else hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return Row(path, number, f"{path.stem}-{name}", prompt, messages, answer, response)


class _NoConstantError(ValueError):
    pass


def _no_constant(name: str) -> None:
    raise _NoConstantError(f"{name} is no value of JSON's")


def _prompt(place: str, data: dict[str, Any]) -> tuple[str | None, tuple[Mapping[str, str], ...] | None]:
    present = [key for key in (*_PROMPT_KEYS, "messages") if data.get(key) is not None]
    if len(present) != 1:
        problem = "no 'prompt'" if not present else f"both {' and '.join(map(repr, present))}"
        raise InputError(f"{place}: {problem} (keys: {_keys(data)}); expected {LAYOUTS}")
    key, value = present[0], data[present[0]]
    if key != "messages":
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{place}: {key!r} is {_short(value)}; expected text")
        return value, None
    good = isinstance(value, list) and all(
        isinstance(m, dict) and m.get("role") in _ROLES and isinstance(m.get("content"), str) for m in value
    )
    if not good or not value or value[-1]["role"] != "user":
        raise InputError(
            f"{place}: 'messages' is {_short(value)}; expected [{{'role': 'system'|'user'|'assistant', "
            "'content': text}, ...] with a user message at the end"
        )
    return None, tuple({"role": m["role"], "content": m["content"]} for m in value)


def _answer(place: str, data: dict[str, Any]) -> tuple[str, str | None]:
    """The final gold answer, and the worked answer if the row has one."""
    worked = {key: _text(place, key, data[key]) for key in ("response", "solution") if data.get(key) is not None}
    response = worked.get("response", worked.get("solution"))
    if data.get("answer") is not None:
        answer = _text(place, "answer", data["answer"])
        if response is None and "####" in answer:  # GSM8K: a worked answer with calculator notes
            reasoning, _, final = _CALCULATOR_NOTE.sub("", answer).rpartition("####")
            response = f"{reasoning.rstrip()}\n#### {final.strip()}".lstrip()
        gold = _gold(place, answer)
    elif "\\boxed" in worked.get("solution", ""):
        gold = _gold(place, worked["solution"])
    elif "response" in worked:
        return "", response
    elif "solution" in worked:
        raise InputError(f"{place}: 'solution' has no \\boxed{{}} answer (keys: {_keys(data)}); expected {LAYOUTS}")
    else:
        raise InputError(f"{place}: no 'answer' (keys: {_keys(data)}); expected {LAYOUTS}")
    if not gold or not gold.strip():
        raise InputError(f"{place}: the gold answer is empty; expected {LAYOUTS}")
    return gold.strip(), response


def _gold(place: str, text: str) -> str:
    from reasonloop.verify.extract import gold_answer

    try:
        return gold_answer(text)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def _text(place: str, key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or not str(value).strip():
        raise InputError(f"{place}: {key!r} is {_short(value)}; expected text or a number")
    return str(value)


def _keys(data: dict[str, Any]) -> str:
    return ", ".join(map(str, data)) or "none"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
