"""Imported rollouts, judged again: a step at a time, as the store takes them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reasonloop.errors import InputError
from reasonloop.imports.reading import Codec, Reading
from reasonloop.imports.rows import UNKNOWN, Row
from reasonloop.imports.scores import Agreement
from reasonloop.imports.spool import Kept
from reasonloop.records import Judgement, Place, Problem, Rollout, Verdict
from reasonloop.store.sources import Source
from reasonloop.text import shown
from reasonloop.verify.workers import VerifierPool

UNSAYABLE = 0.05
"""Share of the responses that a tokenizer may have no tokens for"""
# What ends a response where special tokens were kept: a trainer's text may hold it, a verified one doesn't.
_END = re.compile(
    r"(?:<\|[a-z_]+\|>|<\uff5c[^<>]{1,40}\uff5c>|</s>|<eos>|<end_of_turn>|<\|endoftext\|>|\[PAD\]|<pad>)\Z",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Imported:
    """The rollouts of one step, and where each of them comes from, in the same order."""

    rollouts: list[Rollout]
    sources: list[Source]
    evaluation: bool
    step: int
    """As the trainer counts it"""


def judged(
    reading: Reading, pool: VerifierPool | None, agreement: Agreement, place: Place, *, renumber: bool = False
) -> Iterator[Imported]:
    """The rollouts step by step, judged by `pool` (None: by `reading.asked.trust`), each of its step's place.

    Training's rollouts belong to `place` with the trainer's step, or with `renumber` with the number of that step among
    those that there are, from 0; an evaluation's to the branch "eval". Samples count up within (step, problem), in the
    order of the files. `agreement` is filled on the way. Raises InputError where most of the files' ids are not of the
    codec's tokenizer, once all steps were given.
    """
    numbers = {step: i for i, step in enumerate(reading.steps)}
    texts = _Texts(reading.codec)
    for evaluation, step in reading.keys:
        at = numbers[step] if renumber and not evaluation else step
        own = Place("eval", "eval", place.iteration, step) if evaluation else replace(place, step=at)
        yield _step(reading, pool, agreement, own, (evaluation, step), texts)
    texts.check()


def _step(
    reading: Reading,
    pool: VerifierPool | None,
    agreement: Agreement,
    place: Place,
    key: tuple[bool, int],
    texts: _Texts,
) -> Imported:
    waiting: list[tuple[Kept, dict[str, Any], Future[Judgement] | Judgement]] = []
    samples: Counter[int] = Counter()
    for kept in _scored_once(list(reading.spool.read(key)), reading):
        problem = reading.problems[kept.problem]
        known = texts.fields(kept.row, problem) | {"sample": samples[kept.problem]}
        samples[kept.problem] += 1
        waiting.append((kept, known, _judgement(reading, pool, kept.row, problem, known["text"])))
    rollouts, sources = [], []
    for kept, known, verdict in waiting:
        found = verdict.result() if isinstance(verdict, Future) else verdict
        known |= {"verdict": found.verdict, "detail": found.detail, "score": found.score}
        rollout = Rollout(**known, place=place, version=place.step)
        file = reading.files[kept.file]
        agreement.add(rollout.right, kept.row, lambda r=rollout, k=kept, f=file: _example(r, k, f))  # type: ignore[misc]
        rollouts.append(rollout)
        sources.append(Source(rollout, reading.trainer, file, kept.line, kept.row.right))
    return Imported(rollouts, sources, *key)


def _judgement(
    reading: Reading, pool: VerifierPool | None, row: Row, problem: Problem, text: str
) -> Future[Judgement] | Judgement:
    if pool is not None:
        return pool.submit(problem, text)
    rule = reading.asked.trust
    said = None if rule is None else rule.right(row.score, row.parts)
    if said is None:
        return Judgement(Verdict.UNPARSEABLE, "the trainer gave no such number")
    return Judgement(Verdict.RIGHT if said else Verdict.WRONG, f"by the trainer's numbers: {rule}")


def _scored_once(kept: list[Kept], reading: Reading) -> list[Kept]:
    """Of several outputs of one rollout, which have one score between them, the last one earned it."""
    last: dict[str, int] = {}
    for one in kept:
        if one.row.turn is not None:
            name, turn = one.row.turn
            last[name] = max(turn, last.get(name, turn))
    found = []
    for one in kept:
        if one.row.turn is not None and one.row.turn[1] < last[one.row.turn[0]]:
            reading.counts.note("scores that a later output earned", f"{reading.files[one.file]}:{one.line}")
            one = replace(one, row=replace(one.row, score=None, right=None))
        found.append(one)
    return found


def _example(rollout: Rollout, kept: Kept, file: str) -> str:
    score = "none" if kept.row.score is None else f"{kept.row.score:g}"
    said = "" if kept.row.right is None else f", said {'right' if kept.row.right else 'wrong'}"
    why = f" ({shown(rollout.detail, 60)})" if rollout.detail else ""
    tail = shown(rollout.text[-80:], 90)
    return f"{file}:{kept.line}: problem {rollout.problem_id}: verdict {rollout.verdict}{why}, score {score}{said}: {tail!r}"


class _Texts:
    """Makes tokens of texts and texts of tokens, as far as they aren't there."""

    def __init__(self, codec: Codec | None) -> None:
        """Without a codec a text's UTF-8 bytes stand for its tokens, where there are no ids."""
        self._codec = codec
        self._stops = codec.stop_tokens(()) if codec is not None else frozenset[int]()
        self._prompts: dict[str, np.ndarray] = {}
        self._unknown = None if codec is None else codec.tokenizer.unk_token_id
        self._foreign = self._own = self._unsayable = self._made = 0

    def fields(self, row: Row, problem: Problem) -> dict[str, Any]:
        """A rollout's, but for its place and verdict."""
        text, ended = _ended(row.response) if row.response is not None else ("", False)
        if row.prompt_tokens is not None and row.response_tokens is not None and self._means(row, text):
            prompt, response, logprobs, sampled = row.prompt_tokens, row.response_tokens, row.logprobs, row.sampled
            if self._codec is not None:
                text = self._codec.decode(response)
                ended |= bool(len(response)) and int(response[-1]) in self._stops
        else:
            prompt, response, logprobs, sampled = self._prompt(problem), np.empty(0, np.int32), None, None
        finish = row.finish if row.finish != UNKNOWN else "stop" if ended else UNKNOWN
        if prompt is not row.prompt_tokens:
            response = self._encoded(text, closed=finish != "length")
        return {
            "problem_id": problem.id,
            "prompt_tokens": prompt,
            "response_tokens": response,
            # what isn't known is no number: whatever is computed with it isn't one either
            "logprobs": np.full(len(response), np.nan, np.float32) if logprobs is None else logprobs,
            "sampled": sampled,
            "finish": finish,
            "text": text,
            "reward": np.nan if row.score is None else row.score,
            "reward_parts": row.parts,
        }

    def check(self) -> None:
        """Raises InputError if most of the ids say other texts than their files, or a tokenizer has no tokens for many
        texts: equal ids would then stand for unequal texts."""
        if self._foreign > self._own:
            raise InputError(
                f"--model: {self._foreign:,} of {self._foreign + self._own:,} rollouts with ids say another text by its "
                "tokenizer than in their file; expected the model that they were sampled from"
            )
        if self._unsayable > UNSAYABLE * self._made:
            raise InputError(
                f"--model: its tokenizer has no tokens for what {self._unsayable:,} of {self._made:,} responses say; "
                "expected the model that they were sampled from"
            )

    def _means(self, row: Row, text: str) -> bool:
        """Whether a row's ids are its text, as far as there is a tokenizer to say so."""
        if self._codec is None or row.response is None:
            return True
        assert row.response_tokens is not None
        try:
            said = self._codec.decode(row.response_tokens)
        except (OverflowError, IndexError, ValueError, TypeError):
            said = None
        # several turns have other words among them, and thoughts may be written apart from the answer
        same = said is not None and (
            said.strip() == text.strip() or row.sampled is not None or text.startswith("<think>")
        )
        self._own, self._foreign = self._own + same, self._foreign + (not same)
        return same

    def _prompt(self, problem: Problem) -> np.ndarray:
        if problem.id not in self._prompts:
            if self._codec is not None:
                self._prompts[problem.id] = self._codec.encode_prompt(problem)
            else:
                self._prompts[problem.id] = _bytes(problem.text)
        return self._prompts[problem.id]

    def _encoded(self, text: str, *, closed: bool) -> np.ndarray:
        if self._codec is None:
            return _bytes(text)
        found = self._codec.encode_response(text)
        self._made += 1
        self._unsayable += self._unknown is not None and bool((found[:-1] == self._unknown).any())
        return found if closed else found[:-1]


def _ended(text: str) -> tuple[str, bool]:
    """The text without the end tokens that it ends with, and whether there were some."""
    rest = text
    while match := _END.search(rest):
        rest = rest[: match.start()]
    return rest, rest != text


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(errors="replace"), np.uint8).astype(np.int32)


def headline(reading: Reading) -> str:
    """What was read, for a reader; `reading.counts.lines()` say what became of the rest."""
    steps = sorted({step for _, step in reading.keys})
    told = f"steps {steps[0]} to {steps[-1]}" if len(steps) > 1 else f"step {steps[0]}"
    if len(steps) <= steps[-1] - steps[0]:
        told = f"{len(steps):,} of the {told}"
    return (
        f"{reading.trainer}: {reading.counts.read:,} records in {len(reading.files):,} files: {reading.rollouts:,} rollouts "
        f"of {len(reading.matched):,} problems, {told}"
    )


def lines(reading: Reading, files: bool = True) -> list[str]:
    """All that there is to say of what was read, once it is judged; `files`: also of those that were not."""
    return [headline(reading), *reading.counts.lines(files)]
