"""Evaluating a policy on held-out problems: sample, judge, count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reasonloop.engine.sample import Sampler
from reasonloop.errors import InputError, Stopped
from reasonloop.evaluation.majority import Answers, answers_of, classes, vote
from reasonloop.evaluation.metrics import as_mask, mean_interval, paired_bootstrap, summarise
from reasonloop.evaluation.texts import text_row
from reasonloop.files import append, write_atomically
from reasonloop.policy.policy import Weights
from reasonloop.records import Group, Place, Rollout
from reasonloop.runs.session import Session
from reasonloop.written.digests import sealed, unsealed

BLOCK = 3072  # responses after which an evaluation is saved


def evaluate_policy(run: Session, weights: Weights, split: str, samples: int) -> dict[str, Any]:
    """`samples` responses to each problem of a split, judged and counted (the result part of an evaluation file)."""
    return summary(answered(run, weights, split, samples), samples)


def answered(
    run: Session, weights: Weights, split: str, samples: int, saved: Path | None = None
) -> list[dict[str, Any]]:
    """A row (see `count`) for each problem of a split, with the policy's responses to it.

    Every policy of a run meets the same draws (common random numbers), so that differences between policies are sharper
    than the policies' own intervals. With `saved`, finished blocks are kept there and an evaluation that was cut off
    goes on behind them.
    """
    prompts = run.prompts(split)
    if not prompts:
        raise InputError(f"task {run.recipe.task.name!r} has no {split} problems to evaluate on")

    def on_done(rollout: Rollout) -> None:
        # without `saved` a stage is in the middle of its work: it stops at its own next checkpoint
        if run.stopping and saved is not None:
            raise Stopped(str(run.folder.path))

    run.engine.load(weights)
    done = _read_blocks(saved, block_size(samples), [prompt.problem.id for prompt in prompts])
    run.progress.skip(len(done) * samples)
    sampler = run.sampler(run.recipe.eval_sampling)
    for rows in blocks(sampler, prompts[len(done) :], samples, split, answers_of(run.task), on_done):
        done += rows
        run.progress.advance(len(rows) * samples)
        if saved is not None and len(done) < len(prompts):
            append(saved, "".join(map(sealed, rows)))
    run.engine.rest()
    return done


def block_size(samples: int) -> int:
    """Problems that are sampled together. The same wherever a policy is evaluated: in a batch of another size the last
    bit of a logit can differ, and with it, once in a long while, a token."""
    return max(1, BLOCK // samples)


def blocks(
    sampler: Sampler,
    prompts: Sequence[Group],
    samples: int,
    split: str,
    answers: Answers | None,
    on_done: Callable[[Rollout], None] | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """The rows of `count`, a block of problems at a time."""
    size = block_size(samples)
    for start in range(0, len(prompts), size):
        yield count(sampler, prompts[start : start + size], samples, split, answers, on_done)


def count(
    sampler: Sampler,
    prompts: Sequence[Group],
    samples: int,
    split: str,
    answers: Answers | None = None,
    on_done: Callable[[Rollout], None] | None = None,
) -> list[dict[str, Any]]:
    """One row for each held-out problem: id, n, correct, which samples those are (`right`), the sums that an evaluation
    reports, and under `rollouts` the responses (see `evaluation.texts`). With `answers` also `majority`: whether the vote of
    all samples is right."""
    rows = []
    for group in sampler.sample(prompts, samples, Place("eval", f"eval/{split}"), on_done):
        verdicts = Counter(str(rollout.verdict) for rollout in group.rollouts)
        rows.append(
            {
                "id": group.problem.id,
                "n": samples,
                "correct": verdicts["right"],
                "right": as_mask([rollout.right for rollout in group.rollouts]),
                **_scored(group.rollouts),
                **_voted(group, answers),
                "verdicts": dict(sorted(verdicts.items())),
                "tokens": sum(rollout.length for rollout in group.rollouts),
                "cut_off": sum(rollout.finish == "length" for rollout in group.rollouts),
                "rollouts": [text_row(rollout) for rollout in group.rollouts],
            }
        )
    return rows


def _scored(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """The sum of what a problem's responses are worth, where the verifier scores them."""
    scored = any(rollout.score is not None for rollout in rollouts)
    return {"score": sum(rollout.outcome for rollout in rollouts)} if scored else {}


def _voted(group: Group, answers: Answers | None) -> dict[str, bool]:
    """Whether most of a problem's responses have a right answer, where the task says what they answer."""
    if answers is None or len(group.rollouts) < 2:
        return {}
    given = classes([answers(group.problem, rollout.text) for rollout in group.rollouts])
    chosen = vote(given)
    return {"majority": chosen is not None and group.rollouts[given.index(chosen)].right}


def summary(rows: Sequence[dict[str, Any]], samples: int) -> dict[str, Any]:
    """Metrics with intervals, lengths, verdicts and the problems' counts."""
    total = len(rows) * samples
    verdicts: Counter[str] = Counter()
    for row in rows:
        verdicts.update(row["verdicts"])
    problems: list[dict[str, Any]] = [
        {key: row[key] for key in ("id", "n", "correct", "right", "majority") if key in row} for row in rows
    ]
    if any("score" in row for row in rows):  # where a problem has none, it is the right ones
        problems = [own | {"score": row.get("score", row["correct"])} for own, row in zip(problems, rows, strict=True)]
    metrics = summarise(problems)
    if all("majority" in row for row in rows):
        right = [float(row["majority"]) for row in rows]
        metrics[f"maj@{samples}"] = {"value": float(np.mean(right)), "ci95": list(mean_interval(right))}
    return {
        "samples": samples,
        "metrics": metrics,
        "mean_tokens": sum(row["tokens"] for row in rows) / total,
        "cut_off": sum(row["cut_off"] for row in rows) / total,
        "verdicts": dict(sorted(verdicts.items())),
        "problems": problems,
    }


def significantly_below(solved: Sequence[int], best: Sequence[int]) -> bool:
    """Whether fewer problems are solved now than at the best: the 95 % paired bootstrap interval is below zero."""
    _, _, high, _ = paired_bootstrap(np.asarray(solved, float), np.asarray(best, float))
    return high < 0


def _read_blocks(saved: Path | None, size: int, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of whole blocks, of the problems `ids` in their order; what is torn or damaged is cut off there and sampled
    again."""
    if saved is None or not saved.is_file():
        return []
    rows: list[dict[str, Any]] = []
    for line, problem in zip(saved.read_text(errors="replace").split("\n"), ids, strict=False):
        try:
            row = unsealed(line)
        except ValueError:
            break
        if row["id"] != problem:
            break
        rows.append(row)
    rows = rows[: len(rows) // size * size]
    write_atomically(saved, "".join(map(sealed, rows)))
    return rows
