"""Evaluating a policy on held-out problems: sample, judge, count."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reasonloop.config import Sampling
from reasonloop.engine.judged import sample_judged
from reasonloop.engine.protocol import Address, Engine, Prompt
from reasonloop.errors import InputError, Stopped
from reasonloop.evaluation.metrics import paired_bootstrap, summarise
from reasonloop.files import write_atomically
from reasonloop.policy.policy import Policy
from reasonloop.records import Problem

if TYPE_CHECKING:
    from reasonloop.run.folder import Run

BLOCK_OF_SLOTS = 12  # an evaluation is saved after so many fillings of the engine's slots


def evaluate_policy(run: Run, policy: Policy, split: str, samples: int, saved: Path | None = None) -> dict[str, Any]:
    """`samples` responses to each problem of a split, judged and counted (the result part of an evaluation file).

    Every policy of a run meets the same draws (common random numbers), so that differences between policies are sharper
    than the policies' own intervals. With `saved`, finished blocks are kept there and an evaluation that was cut off
    goes on behind them.
    """
    problems, sampling = run.problems[split], run.recipe.eval_sampling
    if not problems:
        raise InputError(f"task {run.recipe.task.name!r} has no {split} problems to evaluate on")

    def on_tokens(count: int) -> None:
        # without `saved` a stage is in the middle of its work: it stops at its own next checkpoint
        if run.stopping and saved is not None:
            raise Stopped(str(run.folder))

    run.engine.load(policy)
    size = block_size(sampling, samples)
    done = _read_blocks(saved, size)
    for start in range(len(done), len(problems), size):
        block = problems[start : start + size]
        rows = sample_and_count(
            run.engine, run.verifier, policy, block, samples, sampling, run.recipe.seed, split, on_tokens
        )
        done += rows
        run.progress.advance(len(block) * samples)
        if saved is not None and start + size < len(problems):
            with saved.open("a") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows))
    return summary(done, samples)


def block_size(sampling: Sampling, samples: int) -> int:
    """Problems that are sampled together. The same wherever a policy is evaluated: in a batch of another size the last
    bit of a logit can differ, and with it, once in a long while, a token."""
    return max(1, BLOCK_OF_SLOTS * sampling.slots // samples)


def sample_and_count(
    engine: Engine,
    verifier: Any,
    policy: Policy,
    problems: Sequence[Problem],
    samples: int,
    sampling: Sampling,
    seed: int,
    split: str,
    on_tokens: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """One row a problem: id, n, correct, and the sums that an evaluation reports."""
    prompts = [Prompt(problem.id, policy.encode_prompt(problem)) for problem in problems]
    address = Address(seed, f"eval/{split}", "eval")
    rollouts = sample_judged(engine, verifier, problems, prompts, samples, sampling, address, on_tokens)
    rows = []
    for i, problem in enumerate(problems):
        own = slice(i * samples, (i + 1) * samples)
        verdicts = Counter(str(rollout.verdict) for rollout in rollouts[own])
        rows.append(
            {
                "id": problem.id,
                "n": samples,
                "correct": verdicts["right"],
                "verdicts": dict(sorted(verdicts.items())),
                "tokens": sum(len(rollout.response_tokens) for rollout in rollouts[own]),
                "cut_off": sum(rollout.finish == "length" for rollout in rollouts[own]),
            }
        )
    return rows


def summary(rows: Sequence[dict[str, Any]], samples: int) -> dict[str, Any]:
    """Metrics with intervals, lengths, verdicts and the problems' counts."""
    total = len(rows) * samples
    verdicts: Counter[str] = Counter()
    for row in rows:
        verdicts.update(row["verdicts"])
    return {
        "samples": samples,
        "metrics": summarise(rows),
        "mean_tokens": sum(row["tokens"] for row in rows) / total,
        "cut_off": sum(row["cut_off"] for row in rows) / total,
        "verdicts": dict(sorted(verdicts.items())),
        "problems": [{"id": row["id"], "n": row["n"], "correct": row["correct"]} for row in rows],
    }


def significantly_below(solved: Sequence[int], best: Sequence[int]) -> bool:
    """Whether fewer problems are solved now than at the best: the 95 % paired bootstrap interval is below zero."""
    _, _, high, _ = paired_bootstrap(np.asarray(solved, float), np.asarray(best, float))
    return high < 0


def _read_blocks(saved: Path | None, size: int) -> list[dict[str, Any]]:
    """The rows of whole blocks; the torn end that a killed process may leave is cut off and sampled again."""
    if saved is None or not saved.is_file():
        return []
    rows: list[dict[str, Any]] = []
    for line in saved.read_text(errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    rows = rows[: len(rows) // size * size]
    write_atomically(saved, "".join(json.dumps(row) + "\n" for row in rows))
    return rows
