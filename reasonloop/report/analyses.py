"""What the analyses say of a run, as the report's figures and sentences: the rest of them, and all of them in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from reasonloop.analysis.arms import EvaluatedPolicy, by_arm, evaluated, largest_k
from reasonloop.analysis.diversity import TRUNK, diversity
from reasonloop.analysis.forgetting import SAMPLES, forgetting
from reasonloop.analysis.overfitting import fall_from_peak
from reasonloop.analysis.stability import SPIKE, stability
from reasonloop.errors import InputError, RunError, first_line
from reasonloop.evaluation.table import PASSED, label_of, result_rows
from reasonloop.report.behaviours import behaviours
from reasonloop.report.figures import FEW_SOLVED, Analyses, Figure, of_arm, rounded, signed, thinned
from reasonloop.report.generalisation import scaling_figures, specialisation_figures
from reasonloop.report.run import RunData, number

if TYPE_CHECKING:
    import duckdb

# Right responses whose n-grams are compared: beyond that a share of the problems is drawn, so that a report stays quick.
MAX_RESPONSES = 60_000
RESPONSES_PER_BIN = 8
MAX_CHECKPOINTS = 24
PART_COLOURS = {"outcome": "right", "exploration": "sft", "overlong": "timeout", "kl": "wrong"}


def analyse(run: RunData) -> Analyses:
    """Every analysis that the run has data for. One that can't be made is named in `run.missing`, and costs no other."""
    found = Analyses()
    found.figures += [figure for arm in run.rl_steps() for figure in _reward_parts(run, arm)]
    _guarded(run, "Forgetting", lambda: _forgetting(run, found))
    _guarded(run, "Stability", lambda: _stability(run, found))
    _guarded(run, "The judge", lambda: _failures(run, found))
    _guarded(run, "Overfitting", lambda: _falls(run, found))
    _guarded(run, "Over-specialisation", lambda: specialisation_figures(run, found))
    _guarded(run, "Scaling", lambda: scaling_figures(run, found))
    if any((run.folder / "trajectories").glob("*.parquet")):
        _guarded(run, "The store", lambda: _of_the_store(run, found))
    return found


def _of_the_store(run: RunData, found: Analyses) -> None:
    from reasonloop.store.database import connect

    with connect(run.folder) as database:
        _guarded(run, "Behaviours", lambda: behaviours(run, database, found))
        _guarded(run, "Diversity", lambda: _diversity(run, database, found))


def _guarded(run: RunData, name: str, work: Callable[[], None]) -> None:
    import duckdb

    try:
        work()
    except (InputError, RunError, duckdb.Error, ValueError, KeyError, TypeError) as error:
        run.missing.append(f"{name}: could not be analysed ({first_line(error)}).")


def _reward_parts(run: RunData, arm: str) -> list[Figure]:
    """Mean of each part of the reward over the steps; a reward of one part alone is the reward curve again."""
    parts = list(thinned(run.rl_steps()[arm], "reward_parts"))
    names = sorted({name for _, table in parts for name in table})
    traces = []
    for place, name in enumerate(names if len(names) > 1 else []):
        ys = [rounded(number(table, name)) for _, table in parts]
        colour = PART_COLOURS.get(name, f"arm-{place % 7 + 1}")
        traces.append({"series": colour, "name": name, "kind": "line", "x": [step for step, _ in parts], "y": ys})
    return [of_arm(run, arm, "parts", x="RL step", xWhole=True, traces=traces)] if traces else []


def _forgetting(run: RunData, found: Analyses) -> None:
    checkpoints = []
    for row in result_rows(run.evals):
        for e in run.results:  # a policy's way, before its end
            if label_of(e) == label_of(row) and e.get("problems"):
                policy = EvaluatedPolicy.of(e)
                label = policy.label if e is row else f"{policy.label}, {policy.rollouts:,}"
                checkpoints.append(replace(policy, label=label))
    checkpoints = checkpoints[-MAX_CHECKPOINTS:]
    if len(checkpoints) < 2:
        return
    result, labels = forgetting(checkpoints), [e.label for e in checkpoints]
    if not result.ever_solved:
        return
    heat = _heat("vanilla", labels, result.matrix, "%{customdata} problems that %{y} solves,<br>%{x} doesn't")
    heat["text"] = [
        [f"{count} of {solved}" for count in row] for row, solved in zip(result.lost, result.solved, strict=True)
    ]
    heat["grey"] = [[solved < FEW_SOLVED] * len(labels) for solved in result.solved]
    found.figures.append({"id": "forgetting", "x": "not solved by", "rows": len(labels), "traces": [heat]})
    for arm, own in by_arm(checkpoints).items():
        if len(own) < 2 or arm in PASSED:
            continue
        chain = forgetting(own)
        lost = f"{chain.ever_solved_gap or 'none'} {'is' if chain.ever_solved_gap == 1 else 'are'} lost by the last one"
        solved = f"{_many(chain.ever_solved, 'problem')} that one of its {len(own)} evaluated policies solved"
        found.note("forgetting-section", f"{run.name(arm)}: of {solved}, {lost}.")
    if result.few_samples:
        found.note(
            "forgetting-section",
            f"With fewer than {SAMPLES} samples a problem, much of what looks lost is luck: compare with what a policy "
            "seems to lose against others of its own quality.",
        )


def _falls(run: RunData, found: Analyses) -> None:
    policies = evaluated(run.results)
    for arm, own in by_arm(policies).items():
        for metric in () if arm in PASSED else ("avg", f"pass@{largest_k(policies)}"):
            fall = fall_from_peak(own, metric)
            # The best of several noisy values is too high: the fall must hold where the peak was chosen on other problems.
            if fall is None or fall.ci95[0] <= 0 or not (fall.cross_fitted or 0) > 0:
                continue
            found.note(
                "overfitting",
                f"{run.name(arm)}'s {'accuracy' if metric == 'avg' else metric} has fallen by {fall.fall:.3f} "
                f"({fall.ci95[0]:.3f} to {fall.ci95[1]:.3f}) from its best of {fall.peak:.3f} after "
                f"{fall.best.rollouts:,} rollouts.",
            )


def _stability(run: RunData, found: Analyses) -> None:
    for arm, lines in run.rl_steps().items():
        s = stability(lines)
        norms = (
            f"; gradient norm {s.grad_norm_median:.3g} (median), {s.grad_norm_p99:.3g} (99th percentile)"
            if s.grad_norm_median is not None and s.grad_norm_p99 is not None
            else ""
        )
        found.note(
            "stability",
            f"{run.name(arm)}, {len(lines)} RL steps: {_many(len(s.spikes), 'spike')} of the gradient norm above "
            f"{SPIKE:g} times its running median, {_many(len(s.collapses), 'collapse')} of the reward, "
            f"{_many(s.skipped_updates, 'skipped update')}{norms}.",
        )


def _failures(run: RunData, found: Analyses) -> None:
    """How often a judge, or a reward function of the user's own, had nothing to say."""
    for arm, lines in run.rl_steps().items():
        named = sorted({key for line in lines for key in line if key.startswith("reward_failures_")})
        who = {"judge_failures": "the judge"} | {key: key.removeprefix("reward_failures_") for key in named}
        for key, name in who.items():
            failed = sum(number(line, key) or 0 for line in lines)
            if failed:
                asked = sum(sum((line.get("verdicts") or {}).values()) for line in lines if key in line)
                found.note("parts", f"{run.name(arm)}: {name} gave no score to {failed:,.0f} of {asked:,} responses.")


def _diversity(run: RunData, database: duckdb.DuckDBPyConnection, found: Analyses) -> None:
    row = database.execute("SELECT count(*) FROM rollouts WHERE verdict = 'right'").fetchone()
    right = int(row[0]) if row else 0
    if right > MAX_RESPONSES:
        share = -(-right // MAX_RESPONSES)
        database.execute(
            f"CREATE TEMP VIEW rollouts AS SELECT * FROM memory.main.rollouts WHERE hash(problem_id) % {share} = 0"
        )
        found.note("diversity-section", f"Over one in {share} of the training problems, drawn at random.")
    branches = [
        r[0]
        for r in database.execute(
            f"SELECT DISTINCT {TRUNK} AS trunk FROM rollouts WHERE branch <> 'eval' ORDER BY trunk DESC"
        ).fetchall()
    ]
    empty = False
    for branch in branches:
        arm = run.branches().get(branch, branch)
        result = diversity(database, branch, most_per_bin=RESPONSES_PER_BIN)
        if result.between is None and result.within is None:
            continue
        labels = [f"{first + 1}–{last + 1}" if last > first else f"{first + 1}" for first, last in result.bins]
        empty = empty or any(value is None for row in result.matrix for value in row)
        heat = _heat(arm, labels, result.matrix, "steps %{y} against %{x}: %{z:.3f}")
        found.figures.append(of_arm(run, arm, "diversity", x="RL steps", rows=len(labels), traces=[heat]))
        if result.excess is not None and result.excess_ci95 is not None:
            lo, hi = result.excess_ci95
            found.note(
                "diversity-section",
                f"{run.name(arm)}: two right responses of one step differ by {result.within or 0:.3f}, of two stretches "
                f"by {result.between or 0:.3f}; on the same problems, moving on adds {signed(result.excess)} "
                f"({signed(lo)} to {signed(hi)}).",
            )
    if empty:
        found.note("diversity-section", "Where a cell is empty, no problem has right responses to compare in it.")


def _heat(series: str, names: Sequence[str], z: Sequence[Sequence[float | None]], hover: str) -> Figure:
    """`z`: square, a row and a column for each of the names."""
    values = [[None if v is None or v != v else rounded(v) for v in row] for row in z]
    return {"series": series, "name": "", "kind": "heat", "x": names, "y": names, "z": values, "hover": hover}


def _many(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"
