"""Which rollouts the report carries: a bounded sample of the store, examples of experts, and of what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb

from reasonloop.errors import InputError, RunError, first_line
from reasonloop.records import Problem, Rollout
from reasonloop.report.problems import problems_of
from reasonloop.report.run import RunData
from reasonloop.store.database import connect, look_for_damage
from reasonloop.store.experts import SuccessRate, chosen_experts
from reasonloop.verify.verifiers import prompt_text

Address = tuple[Any, ...]
"""(problem id, branch, iteration, step, sample)"""

MAX_ROLLOUTS = 300
RARE_ROLLOUTS = 60
SAMPLED_PROBLEMS = 24
MAX_CHARS = 4000
MAX_GOLD = 600
EXAMPLES = 3

# Reproducible and independent of the order of rows: the same store always gives the same sample.
_SHUFFLED = "md5(concat_ws('|', problem_id, branch, iteration, step, sample))"

# Few problems, and many rollouts of each: how answers to one problem change over the steps is what a reader looks for.
# Within a problem every branch and verdict has its turn; what verifiers rarely say comes from all problems.
_SAMPLE = f"""
WITH problems AS (
    SELECT problem_id FROM (SELECT DISTINCT problem_id FROM rollouts) ORDER BY md5(problem_id) LIMIT {SAMPLED_PROBLEMS}
), rare AS (
    SELECT problem_id, branch, iteration, step, sample,
           row_number() OVER (PARTITION BY verdict, finish ORDER BY {_SHUFFLED}) AS turn, 0 AS common
    FROM rollouts WHERE verdict NOT IN ('right', 'wrong') OR finish = 'length'
    ORDER BY turn, {_SHUFFLED} LIMIT {RARE_ROLLOUTS}
), common AS (
    SELECT problem_id, branch, iteration, step, sample,
           row_number() OVER (PARTITION BY problem_id, branch, iteration, verdict ORDER BY {_SHUFFLED}) AS turn,
           1 AS common
    FROM rollouts SEMI JOIN problems USING (problem_id)
)
SELECT problem_id, branch, iteration, step, sample FROM (SELECT * FROM rare UNION ALL SELECT * FROM common)
GROUP BY problem_id, branch, iteration, step, sample ORDER BY min(common), min(turn), {_SHUFFLED} LIMIT {MAX_ROLLOUTS}
"""

_FULL = """
SELECT a.problem_id AS problem, a.branch, a.iteration, a.step, a.sample, verdict, reward, finish = 'length' AS cut, detail,
       n_tokens AS tokens, text, prompt_tokens
FROM addresses a JOIN rollouts r USING (problem_id, branch, iteration, step, sample)
ORDER BY a.branch, a.iteration, a.step, a.problem_id, a.sample
"""


# The last ones with a verdict, of different problems.
_LATEST = f"""
SELECT problem_id, branch, iteration, step, sample FROM (
    SELECT problem_id, branch, iteration, step, sample,
           row_number() OVER (PARTITION BY problem_id ORDER BY iteration DESC, step DESC, {_SHUFFLED}) AS turn
    FROM rollouts WHERE verdict = $verdict
) WHERE turn = 1 ORDER BY iteration DESC, step DESC, {_SHUFFLED} LIMIT {EXAMPLES}
"""


def browse(run: RunData, verdict: str = "") -> dict[str, Any]:
    """{"stored": rollouts in the store, "rollouts": [at most MAX_ROLLOUTS], "experts": examples with their "rate",
    "samples": the last few with this `verdict`}; each with its problem's "gold" answer where the task has it.

    What can't be read is named in `run.missing`, and the report goes on without it.
    """
    empty: dict[str, Any] = {"stored": 0, "rollouts": [], "experts": [], "samples": []}
    if not any((run.folder / "trajectories").glob("*.parquet")):
        if not run.done or run.stage("explore"):
            run.missing.append("Rollouts: none has been stored yet.")
        return empty
    try:
        with connect(run.folder) as database:
            stored = database.execute("SELECT count(*) FROM rollouts").fetchone()
            cards = _Cards(database, prompt_decoder(run.folder), problems_of(run))
            rollouts = cards.of(database.execute(_SAMPLE).fetchall())
            samples = cards.of(database.execute(_LATEST, {"verdict": verdict}).fetchall())
            chosen: dict[Address, SuccessRate] = {}
            try:
                chosen = _examples(run)
            except (InputError, RunError) as error:  # another version's recipe, or a store that isn't whole
                run.missing.append(f"Examples of experts: they could not be chosen again ({error}).")
            experts = cards.of(list(chosen))
            for example in experts:
                rate = chosen[tuple(example[key] for key in ("problem", "branch", "iteration", "step", "sample"))]
                example["rate"], example["seen"] = rate.rate, rate.seen
    except (duckdb.Error, InputError, RunError) as error:
        run.missing.append(f"Rollouts: the store could not be read ({_why(run.folder, error)}).")
        return empty
    return {"stored": stored[0] if stored else 0, "rollouts": rollouts, "experts": experts, "samples": samples}


def _why(folder: Path, error: Exception) -> str:
    try:
        if isinstance(error, duckdb.Error):
            look_for_damage(folder, error)
    except RunError as damage:
        return first_line(damage)
    return first_line(error)


def latest(run: RunData, verdict: str) -> list[dict[str, Any]]:
    """The "samples" of `browse` alone; none where the store can't be read."""
    try:
        with connect(run.folder) as database:
            cards = _Cards(database, prompt_decoder(run.folder), problems_of(run))
            return cards.of(database.execute(_LATEST, {"verdict": verdict}).fetchall())
    except (duckdb.Error, InputError, RunError):
        return []


def _shuffled(rollout: Rollout) -> bytes:
    return sha256(f"{rollout.problem_id}/{rollout.step}/{rollout.sample}".encode()).digest()


def _examples(run: RunData) -> dict[Address, SuccessRate]:
    """A few experts of each iteration, of different problems, and how often exploration solved their problem."""
    found: dict[Address, SuccessRate] = {}
    for line in run.stage("select"):
        chosen = chosen_experts(run.recipe(), run.folder, line["iteration"])
        rates = {rate.problem_id: rate for rate in chosen.rates}
        one_each: dict[str, Rollout] = {}
        for rollout in sorted(chosen.rollouts, key=_shuffled):
            one_each.setdefault(rollout.problem_id, rollout)
        for r in list(one_each.values())[:EXAMPLES]:
            found[r.problem_id, r.branch, r.iteration, r.step, r.sample] = rates[r.problem_id]
    return found


@dataclass(frozen=True)
class _Cards:
    """Makes what a card shows of rollouts."""

    database: duckdb.DuckDBPyConnection
    decode: Callable[[Sequence[int]], str]
    problems: Mapping[str, Problem]

    def of(self, addresses: Sequence[Address]) -> list[dict[str, Any]]:
        """In the order of branches and steps."""
        if not addresses:
            return []
        columns = ("problem_id", "branch", "iteration", "step", "sample")
        lists = [list(column) for column in zip(*addresses, strict=True)]
        unnest = ", ".join(f"unnest(${i + 1}) AS {name}" for i, name in enumerate(columns))
        # Parameters, not literals: problem ids are the user's text.
        found = self.database.execute(f"WITH addresses AS (SELECT {unnest}) {_FULL}", lists)
        names = [column[0] for column in found.description or []]
        return [self._card(dict(zip(names, row, strict=True))) for row in found.fetchall()]

    def _card(self, rollout: dict[str, Any]) -> dict[str, Any]:
        problem = self.problems.get(rollout["problem"])
        prompt = self.decode(rollout.pop("prompt_tokens")) or (prompt_text(problem) if problem else "")
        rollout |= {"hidden": max(0, len(rollout["text"]) - MAX_CHARS), "prompt": prompt[-MAX_CHARS:]}
        rollout |= {key: rollout[key][:MAX_CHARS] for key in ("text", "detail")}
        if problem is not None and problem.answer:
            rollout["gold"] = problem.answer[:MAX_GOLD]
        return rollout


def prompt_decoder(folder: Path) -> Callable[[Sequence[int]], str]:
    """Prompt tokens as text, by the tokenizer of the run's model or of one of its checkpoints; empty where there is none."""
    from tokenizers import Tokenizer

    found = [folder / "model" / "tokenizer.json", *sorted((folder / "checkpoints").glob("**/tokenizer.json"))]
    for path in found:
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception:  # the library raises plain Exception for a missing or foreign file
            continue
        return lambda tokens: str(tokenizer.decode(list(tokens), skip_special_tokens=True))
    return lambda tokens: ""
