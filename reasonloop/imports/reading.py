"""Another trainer's rollouts, found in its files and matched to a task's problems: what is known before any is judged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from reasonloop.errors import InputError
from reasonloop.imports.counts import NAMED, Counts
from reasonloop.imports.files import Found, digest, record_digest, records
from reasonloop.imports.flat import JSONL
from reasonloop.imports.matching import Codec as MatchingCodec
from reasonloop.imports.matching import Matcher, Unmatched
from reasonloop.imports.recognising import recognised
from reasonloop.imports.rows import NoRollout, Row, Trainer, Where, caught, clean
from reasonloop.imports.scores import Rule
from reasonloop.imports.spool import Kept, Seen, Spool
from reasonloop.records import Problem
from reasonloop.text import visible

UNMATCHED = 0.05
"""Share of the rollouts that may answer no problem of the task, unless asked otherwise"""
_MOST_STEP = 2**20 - 1


@dataclass(frozen=True)
class Asked:
    """How files are read."""

    trainer: str | None = None
    """Whose they are, one of `recognising.NAMES`; None: told by their keys"""
    step: int | None = None
    """Of rollouts whose files don't say it"""
    evaluation: bool = False
    """Also those of evaluations. Files that hold nothing else are read in any case"""
    match: str = "prompt"
    """How a problem is found: by its "prompt", or by "id\""""
    unmatched: float = UNMATCHED
    """Share of the rollouts that may answer no problem of the task"""
    trust: Rule | None = None
    """What counts as right by the trainer's own numbers, where no verifier shall say"""


class Codec(MatchingCodec, Protocol):
    """What an import asks of a model's codec (`policy.codec`)."""

    tokenizer: Any

    def encode_response(self, text: str) -> np.ndarray: ...

    def stop_tokens(self, texts: Sequence[str]) -> frozenset[int]: ...


@dataclass
class Reading:
    """The rollouts that were found, not judged yet. To be closed."""

    asked: Asked
    problems: Sequence[Problem]
    codec: Codec | None
    trainer: str
    files: list[str]
    """Those that were read, as they are called in `sources`"""
    counts: Counts
    spool: Spool
    whole_ids: int = 0
    """Rollouts with the ids of prompt and response"""
    matched: set[int] = field(default_factory=set)
    """Problems that are answered"""
    scored: bool = True
    """Whether right and wrong can be told by the trainer's score"""

    @property
    def keys(self) -> list[tuple[bool, int]]:
        """(evaluation, step), in order: where there are rollouts"""
        return self.spool.keys

    @property
    def steps(self) -> list[int]:
        """Of the training, in order"""
        return [step for evaluation, step in self.keys if not evaluation]

    @property
    def rollouts(self) -> int:
        return sum(map(self.spool.count, self.keys))

    def close(self) -> None:
        self.spool.close()

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def find_rollouts(
    given: Sequence[Path],
    problems: Sequence[Problem],
    asked: Asked = Asked(),
    codec: Codec | None = None,
    scratch: Path | None = None,
) -> Reading:
    """Reads the files and folders `given` and finds each rollout's problem.

    `codec`: the tokenizer of the model that is named with them: it says what ids mean, and makes ids of texts where there
    are none. `scratch`: a folder for a temporary file, as large as the rollouts' texts and ids.

    Raises InputError where nothing can be read, where it isn't clear what is there, where no step is told, or where more
    than `asked.unmatched` of the rollouts answer no problem.
    """
    counts = Counts()
    chosen = recognised(given, asked.trainer, counts)
    names = [visible(clean(_name(found.path, given))) for found, _ in chosen]
    reading = Reading(asked, problems, codec, chosen[0][1].name, names, counts, Spool(scratch))
    reading.scored = all(trainer.scored for _, trainer in chosen)
    seen = Seen()
    try:
        _read(reading, given, chosen, seen)
        _check(reading)
    except BaseException:
        reading.close()
        raise
    finally:
        seen.close()
    return reading


class _Homes:
    """Which run of the trainer each step is of: in a folder there may be several, whose steps would be one step here."""

    def __init__(self, given: Sequence[Path]) -> None:
        self._given = [folder for folder in given if folder.is_dir()]
        self._of: dict[tuple[Path, bool, int], tuple[Path, str]] = {}

    def expect_one(self, found: Found, trainer: Trainer, key: tuple[bool, int], name: str) -> None:
        """`key`: (evaluation, step). Raises InputError for a step of two runs, unless they were given by name."""
        folder = next((folder for folder in self._given if found.path.is_relative_to(folder)), None)
        if folder is None or trainer is JSONL:
            return
        home = _home(found.path, trainer)
        other, first = self._of.setdefault((folder, *key), (home, name))
        if other != home:
            raise InputError(
                f"{first} and {name}: both have rollouts of step {key[1]}: of two runs? expected the folder or the files of "
                "one, or each of them by name where they belong together"
            )


def _home(path: Path, trainer: Trainer) -> Path:
    """What all files of a trainer's run begin with: the folder with what names the step, or that of the files."""
    names = path.parts
    for i in reversed(range(max(0, len(names) - 5), len(names))):
        if trainer.step and re.fullmatch(trainer.step, names[i]):
            return Path(*names[:i])
    shard = re.fullmatch(r"(.*?)(?<!\d)\d+\.\w+", path.name)  # open-instruct's, of all runs in one folder
    return path.parent / (shard[1] if shard else "")


def _name(path: Path, given: Sequence[Path]) -> str:
    """What a file is called in `sources`: its path from the folder that was given on."""
    for folder in given:
        if folder.is_dir() and path.is_relative_to(folder):
            return str(path.relative_to(folder)) if len(given) == 1 else str(path)
    return path.name if len(given) == 1 else str(path)


def _read(reading: Reading, given: Sequence[Path], chosen: Sequence[tuple[Found, Trainer]], seen: Seen) -> None:
    """Keeps every rollout; those of evaluations are left out again where they weren't asked for."""
    matcher, homes = Matcher(reading.problems, reading.asked.match, reading.codec), _Homes(given)
    wanted = reading.asked.evaluation or not _hold_training(chosen)
    for number, (found, trainer) in enumerate(chosen):
        where = Where(found.path)
        told = where.step(trainer.step) if trainer.step else None
        repeated = _file_again(found, trainer, told, seen)
        for line, row, record in _rows(found, trainer, where):
            at = f"{reading.files[number]}:{line}"
            reading.counts.read += 1
            if isinstance(row, NoRollout):
                reading.counts.skip(str(row), at)
            elif repeated or _row_again(row, record, trainer, seen, (at, told)):
                reading.counts.skip("repeats", at)
            elif row.evaluation and not wanted:
                reading.counts.skip("evaluation (--eval takes it)", at)
            else:
                step = _step(row, told, reading, at)
                homes.expect_one(found, trainer, (row.evaluation, step), reading.files[number])
                _keep(reading, matcher, row, (number, line, step))


def _rows(found: Found, trainer: Trainer, where: Where) -> Iterator[tuple[int, Row | NoRollout, object]]:
    for line, record in records(found):
        if isinstance(record, NoRollout):
            yield line, record, None
        elif not trainer.fits(record):
            yield line, NoRollout("records without a rollout"), None
        else:
            for row in caught(lambda record=record: trainer.rows(record, where)):  # type: ignore[misc]
                yield line, row, record


def _hold_training(chosen: Sequence[tuple[Found, Trainer]]) -> bool:
    """Whether any of the files holds a rollout of the training."""
    return any(
        isinstance(row, Row) and not row.evaluation
        for found, trainer in chosen
        for _, row, _ in _rows(found, trainer, Where(found.path))
    )


def _file_again(found: Found, trainer: Trainer, step: int | None, seen: Seen) -> bool:
    if trainer.repeats == "table":
        return seen.again(b"table" + digest(found, "step"))
    return seen.again(f"file {step} ".encode() + digest(found))


def _row_again(row: Row, record: object, trainer: Trainer, seen: Seen, at: tuple[str, int | None]) -> bool:
    """Raises InputError for a name that two different rollouts of a step have: so it is none, of a group, say."""
    where, told = at
    if row.own is not None:  # a step's: some count from 0 in each
        name = json.dumps([row.own, row.step if row.step is not None else told, row.evaluation])
        ids = b"" if row.response_tokens is None else row.response_tokens.tobytes()
        text = json.dumps(row.response).encode() + ids
        if seen.again(b"rollout" + name.encode() + text):
            return True
        if seen.again(b"own" + name.encode()):
            raise InputError(
                f"{where}: its name (rollout_id, uid) {row.own!r} is another rollout's of this step, too, so that repeats "
                "can't be told; expected a name for each, or none"
            )
        return False
    return trainer.repeats == "record" and seen.again(b"record" + record_digest(record))


def _step(row: Row, told: int | None, reading: Reading, where: str) -> int:
    """`told`: by the file's name or folder"""
    if None not in (row.step, told) and row.step != told:
        reading.counts.note("steps that differ from the file's name or folder: the record's counts", where)
    step = row.step if row.step is not None else told if told is not None else reading.asked.step
    if step is None:
        raise InputError(
            f"{where}: nothing tells its step, no key and no name; expected --step N for all such rollouts"
        )
    return step


def _keep(reading: Reading, matcher: Matcher, row: Row, at: tuple[int, int, int]) -> None:
    number, line, step = at
    counts, where, codec = reading.counts, f"{reading.files[number]}:{line}", reading.codec
    if row.response is None and codec is None:
        raise InputError(f"{where}: has token ids and no text; expected --model, the model whose tokenizer they are of")
    if not 0 <= step <= _MOST_STEP:
        counts.skip(f"steps out of range ({step})", where)
        return
    try:
        asked = (
            codec.decode_whole(row.prompt_tokens) if codec and not row.prompts and row.prompt_tokens is not None else ""
        )
        found = matcher.find(row, asked)
    except Unmatched as error:
        counts.skip(f"without a problem of the task: {error}", where)
        return
    problem = reading.problems[found]
    if row.score is None:
        counts.note("without a score", where)
    if (gold := _text(row.gold)) is not None and problem.answer and gold != problem.answer.strip():
        counts.note("gold answers that are written otherwise in the task", where)
    if _padded(row, codec):
        if codec is None or row.response is None:
            counts.note("ids that begin or end with one id several times (padding?)", where)
        else:
            counts.note("ids with padding: made of the text instead", where)
            row = replace(row, prompt_tokens=None, response_tokens=None, logprobs=None, sampled=None)
    reading.matched.add(found)
    reading.whole_ids += row.prompt_tokens is not None and row.response_tokens is not None
    reading.spool.keep((row.evaluation, step), Kept(row, found, number, line))


def _padded(row: Row, codec: Codec | None) -> bool:
    """Whether a prompt begins, or prompt or response end, with tokens that only fill a batch up."""
    pad = None if codec is None else codec.tokenizer.pad_token_id
    stops = frozenset[int]() if codec is None else codec.stop_tokens(())
    for ids, ends in ((row.prompt_tokens, (0, -1)), (row.response_tokens, (-1,))):
        if ids is None or len(ids) < 2:
            continue
        for end in ends:
            last, next_to_it = int(ids[end]), int(ids[1 if end == 0 else -2])
            twice = last == next_to_it and (codec is None or last in stops or last == pad)
            if twice or (last == pad and last not in stops):
                return True
    return False


def _text(gold: object) -> str | None:
    if isinstance(gold, list) and len(gold) == 1:
        gold = gold[0]
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        return None
    return str(gold).strip()


def _check(reading: Reading) -> None:
    """Raises InputError where too many rollouts answer no problem, or some have ids and others would get those of bytes."""
    counts, total = reading.counts, reading.rollouts
    lost = {why: count for why, count in counts.skipped.items() if why.startswith("without a problem")}
    missing = sum(lost.values())
    if missing and (not total or missing > reading.asked.unmatched * (missing + total)):
        told = "; ".join(
            f"{why.removeprefix('without a problem of the task: ')}: {count:,} ({', '.join(counts.first[why])})"
            for why, count in lost.items()
        )
        raise InputError(
            f"{missing:,} of {missing + total:,} rollouts answer no problem of the task: {told}; expected the task that "
            "they were sampled on, --match id where their ids are its ids, --model for its chat template, or "
            "--allow-unmatched with the share that may be left out"
        )
    if not total:
        told = "; ".join(f"{why}: {count:,}" for why, count in counts.skipped.most_common())
        raise InputError(f"{', '.join(reading.files[:NAMED])}: no rollout in it ({told or 'it is empty'})")
    if reading.codec is None and 0 < reading.whole_ids < total:
        raise InputError(
            f"{total - reading.whole_ids:,} of {total:,} rollouts have no ids that are whole; expected --model, the model "
            "that they were sampled from: its tokenizer makes them"
        )
