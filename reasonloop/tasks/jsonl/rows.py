"""Rows of problem files as problems: the usual layouts read into one, and every mistake named with its file and line."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from reasonloop.errors import InputError
from reasonloop.records import Problem
from reasonloop.tasks.files import Row, read_rows, row_name, shown
from reasonloop.text import is_text
from reasonloop.verify.extract import gold_answer

LAYOUTS = (
    "{prompt|messages, answer}, {problem, answer}, {problem, solution with \\boxed{}}, {question, answer}, "
    "or {prompt|messages, response}"
)
_PROMPT_KEYS = ("prompt", "problem", "question")
_ROLES = ("system", "user", "assistant")
_CALCULATOR_NOTE = re.compile(r"<<[^<>\n]*>>")


def read_problems(path: Path) -> list[Problem]:
    """The problems of a file as they stand there, whatever its layout: the prompt or the messages, the final gold answer
    alone ("" in a row that only demonstrates), and the worked answer as the response, if there is one.

    The id is `<file stem>-<the row's own id, or a hash of its prompt>`: the same wherever the row stands in the file.
    Raises InputError for the first row that isn't a problem.
    """
    return [_problem(path, line, row) for line, row in read_rows(path, LAYOUTS)]


def prompt_key(problem: Problem) -> str:
    """The prompt with its white space folded: two rows with the same key are the same problem."""
    turns = [f"{turn['role']}: {turn['content']}" for turn in problem.messages or ()]
    return " ".join((problem.prompt or "\n".join(turns)).split())


def refuse_overlap(held_out: Iterable[Problem], train: Iterable[Problem]) -> None:
    """Raises InputError if a held-out prompt is a training prompt too."""
    seen = {prompt_key(problem): problem for problem in train}
    for problem in held_out:
        if other := seen.get(prompt_key(problem)):
            raise InputError(
                f"{row_name(problem)} has the same prompt as {row_name(other)}; expected training and held-out "
                "problems to differ: take one of the two out"
            )


def _problem(path: Path, line: int, row: Row) -> Problem:
    place = f"{path.name} line {line}"
    if not is_text(json.dumps(row, ensure_ascii=False)):
        raise InputError(f"{place}: half of a surrogate pair in {shown(row)}; expected text")
    prompt, messages = _prompt(place, row)
    answer, response = _answer(place, row)
    problem = Problem("", prompt, messages, answer, response, meta={"file": str(path), "line": line})
    # demonstrations may show several responses to one prompt
    identity = prompt_key(problem) if answer else f"{prompt_key(problem)}\n{response}"
    name = row.get("id")
    if name is None:
        name = hashlib.sha256(identity.encode()).hexdigest()[:12]
    elif isinstance(name, bool) or not isinstance(name, (str, int)) or not str(name).strip():
        raise InputError(f"{place}: 'id' is {shown(name)}; expected text or an integer")
    return replace(problem, id=f"{path.stem}-{name}")


def _prompt(place: str, row: Row) -> tuple[str | None, tuple[dict[str, str], ...] | None]:
    present = [key for key in (*_PROMPT_KEYS, "messages") if row.get(key) is not None]
    if len(present) != 1:
        problem = "no 'prompt'" if not present else f"both {' and '.join(map(repr, present))}"
        raise InputError(f"{place}: {problem} ({_keys(row)}); expected {LAYOUTS}")
    key, value = present[0], row[present[0]]
    if key != "messages":
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{place}: {key!r} is {shown(value)}; expected text")
        return value, None
    good = isinstance(value, list) and all(
        isinstance(turn, dict) and turn.get("role") in _ROLES and isinstance(turn.get("content"), str) for turn in value
    )
    if not good or not value or value[-1]["role"] != "user":
        raise InputError(
            f"{place}: 'messages' is {shown(value)}; expected [{{'role': 'system'|'user'|'assistant', "
            "'content': text}, ...] with a user message at the end"
        )
    return None, tuple({"role": turn["role"], "content": turn["content"]} for turn in value)


def _answer(place: str, row: Row) -> tuple[str, str | None]:
    """The final gold answer, and the worked answer if the row has one."""
    given = {key: _text(place, key, row[key]) for key in ("response", "solution", "answer") if row.get(key) is not None}
    response = given.get("response", given.get("solution"))
    answer = given.get("answer")
    if answer is not None:
        if response is None and "####" in answer:  # GSM8K: a worked answer with calculator notes
            reasoning, _, final = _CALCULATOR_NOTE.sub("", answer).rpartition("####")
            response = f"{reasoning.rstrip()}\n#### {final.strip()}".lstrip()
    elif "\\boxed" in given.get("solution", ""):
        answer = given["solution"]
    elif "response" in given:
        return "", response
    else:
        lack = "'solution' has no \\boxed{} answer" if "solution" in given else "no 'answer'"
        raise InputError(f"{place}: {lack} ({_keys(row)}); expected {LAYOUTS}")
    try:
        gold = gold_answer(answer).strip()
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    if not gold:
        raise InputError(f"{place}: the gold answer is empty; expected {LAYOUTS}")
    return gold, response


def _text(place: str, key: str, value: Any) -> str:
    good = isinstance(value, (str, int, float)) and not isinstance(value, bool) and str(value).strip()
    if not good or (isinstance(value, float) and not math.isfinite(value)):
        raise InputError(f"{place}: {key!r} is {shown(value)}; expected text or a number")
    return str(value)


def _keys(row: Row) -> str:
    return f"keys: {', '.join(map(str, row)) or 'none'}"
