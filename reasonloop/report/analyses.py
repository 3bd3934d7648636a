"""What the analyses say of a run, as the report's figures and sentences: the rest of them, and all of them in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from reasonloop.errors import InputError, RunError
from reasonloop.report.behaviours import behaviours
from reasonloop.report.figures import Figure, rounded, signed
from reasonloop.report.findings import Analyses
from reasonloop.report.generalisation import scaling_figures, specialisation_figures
from reasonloop.report.run import Run, number

if TYPE_CHECKING:
    import duckdb

# Right responses whose n-grams are compared: beyond that a share of the problems is drawn, so that a report stays quick.
MAX_RESPONSES = 60_000
RESPONSES_PER_BIN = 8
MAX_CHECKPOINTS = 24
PART_COLOURS = {"outcome": "right", "exploration": "sft", "overlong": "timeout", "kl": "wrong"}


def analyse(run: Run) -> Analyses:
    """Every analysis that the run has data for. One that can't be made is named in `run.missing`, and costs no other."""
    found = Analyses()
    found.figures += [figure for series in run.rl_steps() for figure in _reward_parts(run, series)]
    _guarded(run, "Forgetting", lambda: _forgetting(run, found))
    _guarded(run, "Stability", lambda: _stability(run, found))
    _guarded(run, "The judge", lambda: _judge(run, found))
    _guarded(run, "The store", lambda: _of_the_store(run, found))
    return found


def _of_the_store(run: Run, found: Analyses) -> None:
    from reasonloop.store.database import connect

    if not run.lines and not run.evals:
        return
    with connect(run.folder) as database:
        _guarded(run, "Overfitting", lambda: _falls(run, database, found))
        _guarded(run, "Over-specialisation", lambda: specialisation_figures(run, database, found))
        _guarded(run, "Scaling", lambda: scaling_figures(run, database, found))
        if not any((run.folder / "trajectories").glob("*.parquet")):
            return
        _guarded(run, "Behaviours", lambda: behaviours(run, database, found))
        _guarded(run, "Diversity", lambda: _diversity(run, database, found))


def _guarded(run: Run, name: str, work: Callable[[], None]) -> None:
    import duckdb

    try:
        work()
    except (InputError, RunError, duckdb.Error, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        run.missing.append(f"{name}: could not be analysed ({reason}).")


def _reward_parts(run: Run, series: str) -> list[Figure]:
    """Mean of each part of the reward over the steps; a reward of one part alone is the reward curve again."""
    lines = [
        (i + 1, line) for i, line in enumerate(run.rl_steps()[series]) if isinstance(line.get("reward_parts"), dict)
    ]
    lines = lines[:: max(1, len(lines) // 300)]
    names = sorted({name for _, line in lines for name in line["reward_parts"]})
    if len(names) < 2:
        return []
    traces = []
    for place, name in enumerate(names):
        ys = [rounded(number(line["reward_parts"], name)) for _, line in lines]
        colour = PART_COLOURS.get(name, f"arm-{place % 7 + 1}")
        traces.append({"series": colour, "name": name, "kind": "line", "x": [x for x, _ in lines], "y": ys})
    return [{"id": f"parts-{series}", "x": "RL step", "traces": traces}]


def _forgetting(run: Run, found: Analyses) -> None:
    from reasonloop.analysis.arms import Evaluation
    from reasonloop.analysis.forgetting import SAMPLES, forgetting
    from reasonloop.evaluation.table import Row, result_rows

    ends = result_rows(run.evals, run.method)
    shown = [row.evaluation for row in ends]
    rows = []
    for row in ends:
        if row.arm == "vanilla":  # on its way, before its end
            way = [e for e in run.results if e.get("branch") == "vanilla" and e not in shown]
            rows += [Row(f"{row.label}, {e.get('rollouts', 0):,}", row.arm, e) for e in way]
        rows.append(row)
    rows = [row for row in rows if row.evaluation.get("problems")][-MAX_CHECKPOINTS:]
    if len(rows) < 2:
        return
    checkpoints = [
        Evaluation(
            name=row.label,
            stage=str(row.evaluation.get("stage")),
            branch=str(row.evaluation.get("branch", "main")),
            iteration=int(row.evaluation.get("iteration") or 0),
            rollouts=int(row.evaluation.get("rollouts") or 0),
            split=str(row.evaluation.get("split")),
            correct={str(p["id"]): int(p["correct"]) for p in row.evaluation["problems"]},
            samples={str(p["id"]): int(p["n"]) for p in row.evaluation["problems"]},
        )
        for row in rows
    ]
    result = forgetting(checkpoints)
    found.figures.append(
        {
            "id": "forgetting",
            "x": "the later policy",
            "rows": len(rows),
            "traces": [_heat("vanilla", result.names, result.names, result.matrix, "%{y} → %{x}: %{z:.1%} lost")],
        }
    )
    for series in ("vanilla", "main"):
        own = [
            c
            for c, row in zip(checkpoints, rows, strict=True)
            if row.arm == "base" or run.series(row.evaluation) == series
        ]
        tuned = any(c.stage == "rft" for c in own)
        own = [c for c in own if not (tuned and c.stage == "explore")]  # nothing went on from those
        if len(own) < 2:
            continue
        chain = forgetting(own)
        found.note(
            "forgetting-section",
            f"{run.name(series)}: of {chain.ever_solved} problems that one of its {len(own)} evaluated policies solved, "
            f"{chain.ever_solved_gap or 'none'} {'is' if chain.ever_solved_gap == 1 else 'are'} lost by the last one.",
        )
    if result.few_samples:
        found.note(
            "forgetting-section",
            f"With fewer than {SAMPLES} samples a problem, much of what looks lost is luck: compare with what a policy "
            "seems to lose against others of its own quality.",
        )


def _falls(run: Run, database: duckdb.DuckDBPyConnection, found: Analyses) -> None:
    from reasonloop.analysis.arms import by_arm, evaluations, largest_k
    from reasonloop.analysis.overfitting import fall_from_peak

    results = evaluations(database)
    for arm, own in by_arm(results).items():
        for metric in ("avg", f"pass@{largest_k(results)}") if arm in ("main", "vanilla") else ():
            fall = fall_from_peak(arm, own, metric)
            # The best of several noisy values is too high: the fall must hold where the peak was chosen on other problems.
            if fall is None or fall.ci95[0] <= 0 or not (fall.cross_fitted or 0) > 0:
                continue
            name = "vanilla RL" if arm == "vanilla" else run.name("main")
            found.note(
                "overfitting",
                f"{name}'s {'accuracy' if metric == 'avg' else metric} has fallen by {fall.fall:.3f} "
                f"({fall.ci95[0]:.3f} to {fall.ci95[1]:.3f}) from its best of {fall.peak:.3f} after "
                f"{fall.peak_rollouts:,} rollouts.",
            )


def _stability(run: Run, found: Analyses) -> None:
    from reasonloop.analysis.stability import SPIKE, arm_stability

    for series, lines in run.rl_steps().items():
        filled = [
            {"iteration": 0, "step": 0, "reward": None, "grad_norm": None, "rollouts": 0} | line for line in lines
        ]
        s = arm_stability(series, filled)
        norms = (
            f"; gradient norm {s.grad_norm_median:.3g} (median), {s.grad_norm_p99:.3g} (99th percentile)"
            if s.grad_norm_median is not None and s.grad_norm_p99 is not None
            else ""
        )
        found.note(
            "stability",
            f"{run.name(series)}, {s.steps} RL steps: {_many(len(s.spikes), 'spike')} of the gradient norm above "
            f"{SPIKE:g} times its running median, {_many(len(s.collapses), 'collapse')} of the reward, "
            f"{_many(s.skipped_updates, 'skipped update')}{norms}.",
        )


def _judge(run: Run, found: Analyses) -> None:
    for series, lines in run.rl_steps().items():
        failed = sum(number(line, "judge_failures") or 0 for line in lines)
        if failed:
            asked = sum(sum((line.get("verdicts") or {}).values()) for line in lines if "judge_failures" in line)
            found.note("parts", f"{run.name(series)}: the judge gave no score to {failed:,.0f} of {asked:,} responses.")


def _diversity(run: Run, database: duckdb.DuckDBPyConnection, found: Analyses) -> None:
    from reasonloop.analysis.diversity import diversity

    row = database.execute("SELECT count(*) FROM rollouts WHERE verdict = 'right'").fetchone()
    right = int(row[0]) if row else 0
    if right > MAX_RESPONSES:
        share = -(-right // MAX_RESPONSES)
        database.execute(
            f"CREATE TEMP VIEW rollouts AS SELECT * FROM memory.main.rollouts WHERE hash(problem_id) % {share} = 0"
        )
        found.note("diversity-section", f"Over one in {share} of the training problems, drawn at random.")
    branches = [r[0] for r in database.execute("SELECT DISTINCT branch FROM rollouts ORDER BY branch DESC").fetchall()]
    for branch in branches:
        if branch not in ("main", "vanilla"):
            continue
        series = run.series({"branch": branch, "stage": "explore"})
        result = diversity(database, branch, most_per_bin=RESPONSES_PER_BIN)
        if result.between is None and result.within is None:
            continue
        labels = [f"{first + 1}–{last + 1}" for first, last in result.bins]
        found.figures.append(
            {
                "id": f"diversity-{series}",
                "x": "RL step",
                "rows": len(labels),
                "traces": [_heat(series, labels, labels, result.matrix, "steps %{y} against %{x}: %{z:.3f}")],
            }
        )
        if result.excess is not None and result.excess_ci95 is not None:
            lo, hi = result.excess_ci95
            found.note(
                "diversity-section",
                f"{run.name(series)}: two right responses of one step differ by {result.within or 0:.3f}, of two stretches "
                f"by {result.between or 0:.3f}; on the same problems, moving on adds {signed(result.excess)} "
                f"({signed(lo)} to {signed(hi)}).",
            )


def _heat(series: str, xs: Sequence[str], ys: Sequence[str], z: Sequence[Sequence[float | None]], hover: str) -> Figure:
    values = [[None if v is None or v != v else rounded(v) for v in row] for row in z]
    return {"series": series, "name": "", "kind": "heat", "x": list(xs), "y": list(ys), "z": values, "hover": hover}


def _many(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"
