"""Trainers that write a rollout a row, prompt and response as text or messages: verl, TRL, SkyRL, AReaL, verifiers 0.1 and
prime-rl 0.6, OpenRLHF, oat, and JSON Lines of one's own."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from reasonloop.imports.files import record_digest
from reasonloop.imports.rows import (
    UNKNOWN,
    Messages,
    NoRollout,
    Prompt,
    Row,
    Rows,
    Trainer,
    Where,
    clean,
    finish_of,
    ids_of,
    logprobs_of,
    messages_of,
    number,
    parts_of,
    response_of,
    said_right,
    says_right,
    step_of,
)

_MOST_QUOTED = 1 << 18
"""Characters of messages that are written down as text"""


def has(*keys: str, without: tuple[str, ...] = ()) -> Any:
    """Whether a record is an object with these keys."""
    return lambda record: (
        isinstance(record, Mapping) and all(k in record for k in keys) and not any(k in record for k in without)
    )


def prompt_of(value: Any) -> tuple[Prompt, ...]:
    """A prompt that is text or messages; one that is neither is no prompt."""
    if isinstance(value, str):
        return (clean(value),)
    found = messages_of(value)
    return () if found is None else (found,)


def _asked_and_answered(asked: Any, answered: Any) -> tuple[tuple[Prompt, ...], str]:
    """Prompt and response. Where both are messages that were written down as text, they are read as messages, too."""
    prompts, asked_turns, turns = prompt_of(asked), _quoted(asked), _quoted(answered)
    if asked_turns is None:
        return prompts, response_of(answered)
    return (*prompts, asked_turns), response_of(answered if turns is None else turns)


def _quoted(value: Any) -> Messages | None:
    """The messages of a text that shows them, as JSON or as Python does."""
    if not isinstance(value, str) or not value.startswith("[{") or len(value) > _MOST_QUOTED:
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            return messages_of(read(value))
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def _verl(record: Mapping[str, Any], where: Where) -> Rows:
    asked, answered, uid = record["input"], record["output"], record.get("uid")
    if (isinstance(uid, str) and uid.startswith("pad")) or (asked == "" and answered == ""):
        yield NoRollout("padding")
        return
    score = number(record.get("score"))
    own = {"input", "output", "gts", "score", "step", "uid", "request_id", "pred"}
    parts = parts_of({key: value for key, value in record.items() if key not in own})
    turn = re.fullmatch(r"(.+_\d+)_(\d+)", uid) if isinstance(uid, str) else None
    yield Row(
        prompts=prompt_of(asked),
        response=response_of(answered),
        step=step_of(record.get("step")),
        gold=record.get("gts"),
        score=score,
        parts=parts,
        right=said_right(parts),
        # a validation's rows have the sum of token scores beside the score; so may a reward function's in training
        evaluation=("reward" in record and not where.within(r".*(?:train|rollout).*", 2))
        or where.within(r"(?:.*[_-])?(?:val|valid|validation|eval)(?:[_-].*)?", 2),
        own=uid if turn else None,  # any other may be a group's
        turn=(turn[1], int(turn[2])) if turn else None,
    )


def _trl(record: Mapping[str, Any], where: Where) -> Rows:
    # its reward functions' columns, by their names; `advantage` is made of all of them, and their weights are nowhere
    rewards = {key: value for key, value in record.items() if key not in ("step", "prompt", "completion", "advantage")}
    parts = parts_of(rewards)
    # by the columns that there are, not by this row's: a function that had nothing to say leaves its place empty
    columns = [name for name, value in rewards.items() if value is None or isinstance(value, int | float)]
    named = [name for name in columns if says_right(name)]
    alone = named if len(named) == 1 else columns
    prompts, response = _asked_and_answered(record["prompt"], record["completion"])
    yield Row(
        prompts=prompts,
        response=response,
        step=step_of(record["step"]),
        gold=_first(record, "answer", "solution", "ground_truth"),
        score=parts.get(alone[0]) if len(alone) == 1 else None,
        parts=parts,
        right=said_right(parts),
    )


def _skyrl(record: Mapping[str, Any], where: Where) -> Rows:
    scores = record.get("score")
    if isinstance(scores, list):  # one a token, all but the last of them zero
        found = [number(value) for value in scores]
        score = None if None in found or not found else sum(value for value in found if value is not None)
    else:
        score = number(scores)
    extras = record.get("env_extras")
    spec = extras.get("reward_spec") if isinstance(extras, Mapping) else None
    yield Row(
        prompts=prompt_of(record["input_prompt"]),
        response=response_of(record["output_response"]),
        gold=spec.get("ground_truth") if isinstance(spec, Mapping) else None,
        score=score,
        finish=finish_of(record.get("stop_reason")),
        evaluation=True,
    )


def _areal(record: Mapping[str, Any], where: Where) -> Rows:
    yield Row(
        prompts=prompt_of(record["prompt"]),
        response=response_of(record["completion"]),
        step=step_of(record.get("tail_version")),
        score=number(record.get("reward")),
        evaluation=where.within(r"eval[_-].*"),
    )


_VERIFIERS = {
    "example_id", "prompt", "completion", "answer", "task", "info", "reward", "error", "timing", "is_completed",
    "is_truncated", "stop_condition", "metrics", "tool_defs", "token_usage", "average_reward", "env_name", "group_id",
    "policy_version", "off_policy_steps", "rollout_id", "advantage", "is_filtered", "filters", "sampling_args",
    "eval_step", "trajectory", "trajectory_id", "id",
}  # fmt: skip


def _verifiers(record: Mapping[str, Any], where: Where) -> Rows:
    if record.get("error") is not None:
        yield NoRollout("failed")
        return
    score = number(record.get("reward"))
    metrics = record.get("metrics")
    if not isinstance(metrics, Mapping):  # before 0.1.9 they stood at the top alone
        metrics = {key: value for key, value in record.items() if key not in _VERIFIERS}
    parts = parts_of(metrics)
    finish = UNKNOWN
    if "is_truncated" in record:
        finish = "length" if record["is_truncated"] else "stop" if record.get("is_completed") else UNKNOWN
    named, own = record.get("example_id"), record.get("rollout_id")
    if own is None and "timing" in record:  # to the microsecond: no other rollout has the same
        own = record_digest(record).hex()
    yield Row(
        prompts=prompt_of(record["prompt"]),
        response=response_of(record["completion"]),
        step=step_of(record.get("eval_step")),
        id=None if named is None else str(named),
        gold=record.get("answer"),
        score=score,
        parts=parts,
        right=said_right(parts),
        finish=finish,
        evaluation="eval_step" in record or where.within(r"eval_rollouts.*", 1),
        own=None if own is None else str(own),
    )


def _openrlhf(record: Mapping[str, Any], where: Where) -> Rows:
    # a reward model's number has no scale: no verdict follows from it
    yield Row(
        prompts=prompt_of(record["input"]), response=response_of(record["output"]), score=number(record.get("reward"))
    )


def _oat(record: Mapping[str, Any], where: Where) -> Rows:
    template = next(
        (key for key in record if key.startswith("format_") and key.removeprefix("format_") in record), None
    )
    asked = record[template.removeprefix("format_")] if template else record["input"]
    score = number(record.get("scores"))
    yield Row(
        prompts=(*prompt_of(asked), *(prompt_of(record[template]) if template else ())),
        response=response_of(record["output"]),
        gold=record.get("reference"),
        score=score,
        evaluation=True,
    )


def _first(record: Mapping[str, Any], *keys: str) -> Any:
    return next((record[key] for key in keys if record.get(key) is not None), None)


def _jsonl(record: Mapping[str, Any], where: Where) -> Rows:
    response = next((record[key] for key in _ANSWERED if key in record), None)
    prompts, response = _asked_and_answered(_first(record, "messages", "prompt", "input", "question"), response)
    ids = ids_of(record.get("response_tokens"))
    score, parts = number(_first(record, "score", "reward")), record.get("reward_parts")
    parts = parts_of(parts) if isinstance(parts, Mapping) else {}
    named, stated = _first(record, "problem_id", "id"), _first(record, "right", "correct", "is_correct")
    own = record.get("rollout_id")
    yield Row(
        prompts=prompts,
        response=response,
        step=step_of(record.get("step")),
        id=None if named is None else str(named),
        gold=_first(record, "answer", "gold", "ground_truth"),
        score=score,
        parts=parts,
        right=stated if isinstance(stated, bool) else said_right(parts),
        finish=finish_of(_first(record, "finish", "finish_reason", "stop_reason")),
        evaluation=record.get("split") in ("eval", "val", "validation", "test"),
        own=None if own is None else str(own),
        prompt_tokens=ids_of(record.get("prompt_tokens")),
        response_tokens=ids,
        logprobs=None if ids is None else logprobs_of(record.get("logprobs"), len(ids)),
    )


def _any_of(*keys: str) -> Any:
    return lambda record: isinstance(record, Mapping) and any(key in record for key in keys)


_is_verifiers = has("prompt", "completion", "reward", without=("rollout_id", "task_id", "sample_idx", "step"))
_ANSWERED = ("response", "completion", "output", "text", "responses", "completions", "outputs")
_answered, _asked = (
    _any_of(*_ANSWERED),
    _any_of("messages", "prompt", "input", "question", "problem_id", "id"),
)

TRAINERS = (
    Trainer("verl", has("input", "output", "step"), _verl, r"(\d+)\.jsonl"),
    Trainer(
        "trl",
        has("step", "prompt", "completion", without=("rollout_id",)),
        _trl,
        r"completions_(\d+)\.parquet",
        "table",
    ),
    Trainer("skyrl", has("input_prompt", "output_response"), _skyrl, r"global_step_(\d+)_evals"),
    Trainer("areal", has("task_id", "sample_idx", "prompt", "completion", "tail_version"), _areal, r"(\d+)", "record"),
    Trainer("prime-rl", has("prompt", "completion", "rollout_id", "env_name"), _verifiers, r"step_(\d+)"),
    Trainer("verifiers", _is_verifiers, _verifiers),
    Trainer(
        "openrlhf",
        has("input", "output", without=("step", "generator", "scores", "instruction")),
        _openrlhf,
        scored=False,
    ),
    Trainer("oat", has("output", "scores", "generator"), _oat, r"(\d+)\.json"),
)
JSONL = Trainer("jsonl", lambda record: _answered(record) and _asked(record), _jsonl)
"""Of one's own making, or another trainer's with a little renaming: only where it is asked for"""
