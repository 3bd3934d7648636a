"""Trainers that write more than a row: graphs of messages (prime-rl, verifiers), token ids (NeMo-RL, open-instruct), a step
in a line (ROLL), an episode in a file (rllm), a tree of a page (tinker-cookbook)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from reasonloop.imports.flat import has, prompt_of
from reasonloop.imports.rows import (
    UNKNOWN,
    NoRollout,
    Row,
    Rows,
    Trainer,
    Where,
    finish_of,
    ids_of,
    logprobs_of,
    messages_of,
    number,
    parts_of,
    response_of,
    said_right,
    step_of,
)


def _traces(record: Mapping[str, Any], where: Where) -> Rows:
    """A trace, or an episode with its traces."""
    if "nodes" in record:
        yield _trace(record, record, where)
        return
    if record.get("ok") is False or not record.get("traces"):
        yield NoRollout("failed")
        return
    for trace in record["traces"]:
        yield _trace(trace, record, where)


def _trace(trace: Mapping[str, Any], episode: Mapping[str, Any], where: Where) -> Row | NoRollout:
    if (trace.get("agent") or {}).get("trainable") is False:
        return NoRollout("a judge's trace")
    path = _path(trace["nodes"])
    first = next((i for i, node in enumerate(path) if node.get("sampled")), len(path))
    if not trace.get("ok", not trace.get("errors")) or first == len(path):
        return NoRollout("failed")
    parts, score = _rewards(trace)
    task = trace.get("task") or episode.get("task") or {}
    data = task.get("data") or {}
    asked = messages_of([node["message"] for node in path[:first]])
    named = data.get("id", data.get("idx"))
    run = episode.get("run") or {}
    work = run.get("work") or {}
    record_kind = trace.get("kind")  # up to 0.7
    steps = [step for step in (step_of(work.get("step")), step_of(run.get("step"))) if step is not None]
    dumped = where.step(r"step_(\d+)") is not None
    try:
        response = response_of([node["message"] for node in path[first:]])
    except NoRollout as fault:
        return fault
    return Row(
        prompts=(*((asked,) if asked else ()), *prompt_of(data.get("prompt"))),
        response=response,
        step=steps[0] if steps else None,
        id=None if named is None else str(named),
        gold=next((data[key] for key in ("answer", "ground_truth", "gold") if data.get(key) is not None), None),
        score=score,
        parts=parts,
        right=said_right(parts),
        finish=_finish(trace, path),
        # verifiers' own runs are evaluations all, and nothing else
        evaluation=(dumped or bool(steps))
        and ("eval" in (work.get("type") or run.get("type"), record_kind) or where.within("eval")),
        own=str(trace["id"]) if trace.get("id") else None,
        **_tokens(path),
    )


def _path(nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The nodes from the root to the last one that was sampled."""
    at: int | None = next((i for i in reversed(range(len(nodes))) if nodes[i].get("sampled")), len(nodes) - 1)
    found: list[Mapping[str, Any]] = []
    while at is not None and len(found) <= len(nodes) and nodes:
        found.append(nodes[at])
        at = nodes[at].get("parent")
    return found[::-1]


def _rewards(trace: Mapping[str, Any]) -> tuple[dict[str, float], float | None]:
    """The rewards by name, with the metrics; and their sum, weighted."""
    parts: dict[str, float] = {}
    total: float | None = None
    for name, value in (trace.get("rewards") or {}).items():
        given = value if isinstance(value, Mapping) else {"score": value}
        score, weight = number(given.get("score")), number(given.get("weight", 1.0))
        if score is not None:
            parts[name] = score
            total = (total or 0.0) + score * (1.0 if weight is None else weight)
    return {**parts_of(trace.get("metrics") or {}), **parts}, total


def _finish(trace: Mapping[str, Any], path: Sequence[Mapping[str, Any]]) -> str:
    reasons = [call.get("finish_reason") for call in trace.get("calls") or () if isinstance(call, Mapping)]
    said = finish_of(reasons[-1]) if reasons else UNKNOWN
    return said if said != UNKNOWN else finish_of(trace.get("stop_condition"))


def _tokens(path: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Prompt and response of the nodes one after another; nothing unless every node has all of its ids."""
    ids, mask, logprobs = [], [], []
    for node in path:
        own, where = ids_of(node.get("token_ids")), node.get("mask")
        if own is None or not len(own) or not isinstance(where, Sequence) or len(where) != len(own):
            return {}
        flags = np.asarray(where, dtype=bool)
        if flags.any() != bool(node.get("sampled")):
            return {}
        given = logprobs_of(node.get("logprobs") or [], int(flags.sum()))
        spread = np.full(len(own), np.nan if given is None else 0.0, np.float32)
        if given is not None:
            spread[flags] = given
        ids.append(own)
        mask.append(flags)
        logprobs.append(spread)
    return cut(np.concatenate(ids), np.concatenate(mask), np.concatenate(logprobs))


def cut(ids: np.ndarray, mask: np.ndarray, logprobs: np.ndarray | None) -> dict[str, Any]:
    """A row's tokens: the response from the first that was sampled to the last, what comes before is the prompt."""
    places = np.flatnonzero(mask)
    if not len(places) or not places[0]:
        return {}
    start, end = int(places[0]), int(places[-1]) + 1
    inside = mask[start:end]
    own = None if logprobs is None else logprobs[start:end]
    if own is not None and not np.isfinite(own[inside]).all():
        own = None
    if own is not None:
        own = np.where(inside, own, np.float32(0.0)).astype(np.float32)
    return {
        "prompt_tokens": ids[:start],
        "response_tokens": ids[start:end],
        "logprobs": own,
        "sampled": None if inside.all() else inside,
    }


def _nemo(record: Mapping[str, Any], where: Where) -> Rows:
    (told,) = record["content"]
    score = number(_only(record.get("rewards")))
    if isinstance(told[0], Mapping):  # validation
        said = [message for message in told if message["role"] != "environment"]
        last = max(i for i, message in enumerate(said) if message["role"] == "assistant")
        texts = [response_of([message]) for message in said[: last + 1]]
    else:  # the last text is the environment's
        texts = [response_of(text) for text in told[: -1 if len(told) > 2 else None]]
    parts = parts_of({"filtered_reward": _only(record.get("filtered_rewards"))})
    yield Row(
        prompts=("".join(texts[:-1]), texts[-2]) if len(texts) > 2 else (texts[0],),
        response=texts[-1],
        score=score,
        parts=parts,
        evaluation=isinstance(told[0], Mapping) or where.within(r"val_.*"),
        **_nemo_tokens(record),
    )


def _nemo_tokens(record: Mapping[str, Any]) -> dict[str, Any]:
    ids, mask, length = (_only(record.get(key)) for key in ("token_ids", "token_loss_mask", "input_lengths"))
    own, count = ids_of(ids), step_of(length)
    if (
        own is None
        or count is None
        or not isinstance(mask, Sequence)
        or len(mask) != len(own)
        or not 0 < count <= len(own)
    ):
        return {}
    flags = np.asarray(mask, dtype=float) > 0
    if flags[count:].any():
        return {}
    given = logprobs_of(_only(record.get("generation_logprobs")) or [], len(own))
    return cut(own[:count], flags[:count], None if given is None else given[:count])


def _only(values: Any) -> Any:
    """The one value of a list of length 1."""
    return values[0] if isinstance(values, list) and len(values) == 1 else values


def _open_instruct(record: Mapping[str, Any], where: Where) -> Rows:
    asked, answered = ids_of(record["prompt_tokens"]), ids_of(record["response_tokens"])
    if record["response_tokens"] is None:
        raise NoRollout("no response")
    if asked is None or answered is None or not len(asked):
        raise NoRollout("damaged record")
    score = number(record.get("reward"))
    given = record.get("logprobs")
    yield Row(
        prompts=(),
        response=None,
        step=step_of(record.get("step")),
        gold=_only(record.get("ground_truth")),
        score=score,
        finish=finish_of(record.get("finish_reason")),
        prompt_tokens=asked,
        response_tokens=answered,
        logprobs=None if given is None else logprobs_of(given, len(answered)),
    )


_ROLL = ("responses", "scores", "global_step")


def _roll(record: Mapping[str, Any], where: Where) -> Rows:
    count = len(record["responses"])
    columns = {key: values for key, values in record.items() if isinstance(values, list) and len(values) == count}
    if not all(key in columns for key in ("responses", "scores")):
        raise NoRollout("damaged record")
    for i in range(count):
        one = {key: values[i] for key, values in columns.items()}
        yield from _one_of_roll(one)


def _one_of_roll(one: Mapping[str, Any]) -> Iterator[Row | NoRollout]:
    messages = one.get("messages")
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except ValueError:
            messages = None
    score = number(one.get("scores"))
    named = one.get("id")
    try:
        response = response_of(one["responses"])
    except NoRollout as fault:
        yield fault
        return
    yield Row(
        prompts=(*prompt_of(messages), *prompt_of(one.get("prompt"))),
        response=response,
        step=step_of(one.get("global_step")),
        id=None if named is None else str(named),
        gold=one.get("ground_truth"),
        score=score,
    )


def _rllm(record: Any, where: Where) -> Rows:
    if isinstance(record, list):  # up to 0.2 the messages alone
        turns = messages_of(record)
        if turns is None or turns[-1]["role"] != "assistant":
            raise NoRollout("no response")
        yield Row(prompts=prompt_of(turns[:-1]), response=turns[-1]["content"])
        return
    task = record.get("task")
    data = task if isinstance(task, Mapping) else {"question": task}
    asked = next((data[key] for key in ("question", "prompt", "problem", "instruction") if data.get(key)), None)
    stated = record.get("is_correct")
    for k, trajectory in enumerate(record["trajectories"]):
        steps = trajectory.get("steps") or ()
        if not steps:
            yield NoRollout("failed")
            continue
        turns = steps[-1].get("chat_completions") or []
        answered = turns[-1:] if turns and turns[-1].get("role") == "assistant" else steps[-1].get("model_response")
        score = number(trajectory.get("reward"))
        parts = parts_of(record.get("metrics") or {})
        uid = trajectory.get("uid") or f"{record['episode_id']} {k}"
        yield Row(
            prompts=(*prompt_of(turns[:-1]), *prompt_of(asked)),
            response=response_of(answered),
            step=step_of(record.get("training_step")),
            id=None if data.get("id") is None else str(data["id"]),
            gold=next((data[key] for key in ("ground_truth", "answer") if data.get(key) is not None), None),
            score=score,
            parts=parts,
            right=stated if isinstance(stated, bool) and len(record["trajectories"]) == 1 else None,
            finish=finish_of(record.get("termination_reason")),
            evaluation=where.within(r"val_step_.*|eval_step_.*"),
            own=f"{record['episode_id']} {uid}",
        )


def _tinker(record: Mapping[str, Any], where: Where) -> Rows:
    """A page as a tree: a prompt, a response and a table of the reward follow one another."""
    prompt: Any = None
    response: Any = None
    for title, node in _sections(record["root"]):
        turns = _conversation(node)
        if title == "Prompt":
            prompt = turns
        elif title == "Policy Response":
            response = turns
        elif title == "Reward" and prompt is not None and response is not None:
            table = dict(_cells(node))
            score, parts = number(table.get("reward")), parts_of(table)
            yield Row(
                prompts=prompt_of(prompt),
                response=response_of(response),
                gold=table.get("reference_answer"),
                score=score,
                parts={key: value for key, value in parts.items() if key not in ("reward", "reference_answer")},
                right=said_right(parts),
                evaluation=where.within(r"eval.*_logtree\.json|test.*_logtree\.json"),
            )
            response = None


def _sections(node: Any) -> Iterator[tuple[str, Any]]:
    """Innermost titled sections, in order."""
    if not isinstance(node, Mapping):
        return
    children = node.get("children") or []
    if node.get("tag") == "section" and children and isinstance(children[0], Mapping):
        title = " ".join(text for text in children[0].get("children") or [] if isinstance(text, str))
        if title in ("Prompt", "Policy Response", "Reward"):
            yield title, node
            return
    for child in children:
        yield from _sections(child)


def _conversation(node: Any) -> Any:
    """The messages of the first conversation below a node."""
    if not isinstance(node, Mapping):
        return None
    data = node.get("data")
    if isinstance(data, Mapping) and data.get("type") == "conversation":
        return data.get("messages")
    return next((found for child in node.get("children") or [] if (found := _conversation(child)) is not None), None)


def _cells(node: Any) -> Iterator[tuple[str, str]]:
    """The rows of two cells in the tables below a node."""
    if not isinstance(node, Mapping):
        return
    if node.get("tag") == "tr":
        cells = ["".join(map(str, cell.get("children") or [])) for cell in node["children"] if cell.get("tag") == "td"]
        if len(cells) == 2:
            yield cells[0], cells[1]
    for child in node.get("children") or []:
        yield from _cells(child)


def _is_traces(record: Any) -> bool:
    return isinstance(record, Mapping) and (
        ("nodes" in record and "rewards" in record) or ("traces" in record and "env" in record)
    )


def _is_rllm(record: Any) -> bool:
    if isinstance(record, list):
        return bool(record) and isinstance(record[0], Mapping) and "role" in record[0]
    return has("episode_id", "trajectories")(record)


def _primes(record: Any) -> bool:
    """Whether a trace is of a training: which names a step, a group or its environment."""
    run, info = record.get("run") or {}, record.get("info") or {}
    return "step" in run or "work" in run or "env_name" in info or "group_id" in record


TRAINERS = (
    Trainer("prime-rl", lambda record: _is_traces(record) and _primes(record), _traces, r"step_(\d+)"),
    Trainer("verifiers", lambda record: _is_traces(record) and not _primes(record), _traces),
    Trainer("nemo-rl", has("content", "rewards", "idx"), _nemo, r"(?:train|val)_data_step(\d+)\.jsonl"),
    Trainer("open-instruct", has("prompt_tokens", "response_tokens", "prompt_idx"), _open_instruct, "", "record"),
    Trainer("roll", has(*_ROLL), _roll, r".*step_(\d+)\.jsonl"),
    Trainer("rllm", _is_rllm, _rllm, r"(?:(?:train|val|eval)_step_)?(\d+)(?:_epoch_\d+|\.jsonl)"),
    Trainer("tinker", has("title", "root", "started_at"), _tinker, r"iteration_(\d+)"),
)
