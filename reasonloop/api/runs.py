"""`reasonloop.run`: a whole recipe from Python, and `reasonloop.Run`: a run's folder as an object. Torch is loaded by what
they call."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from reasonloop import config
from reasonloop.api.evaluation import Evaluation
from reasonloop.config import Recipe, flat
from reasonloop.errors import InputError
from reasonloop.evaluation.table import results_text
from reasonloop.execute import execute
from reasonloop.methods import checked_method
from reasonloop.own import look_in
from reasonloop.records import Rollout
from reasonloop.runs.folder import evaluations_in, metrics_in

if TYPE_CHECKING:
    from reasonloop.policy.policy import Policy


def run(
    recipe: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    progress: bool = True,
    overrides: Mapping[str, Any] | None = None,
    **sections: Any,
) -> Run:
    """Runs a recipe to its end, or goes on with what `out` holds, as `reasonloop run` does.

        done = reasonloop.run("quickstart", out="runs/mine", rl={"steps": 10})
        done = reasonloop.run({"method": "rl", "task": {"name": "countdown", "train": 256}, "rl.steps": 20}, out="runs/rl")

    `recipe`: a file, a bundled recipe's name ("quickstart"), or a table of options, nested or with dotted keys.
    `sections` (`rl={"steps": 10}`, `seed=1`) and `overrides` ({"rl.steps": 10}) are laid over it. `out`: the run's
    folder; unset runs/<the recipe's name>. `progress=False` says nothing on stderr.

    Raises InputError for a recipe that isn't right, before anything is written; RunError where the run fails. An interrupt
    stops it after its next checkpoint, with reasonloop.errors.Stopped; the same call goes on from there.
    """
    over = [*overriding(overrides or {}), *overriding(sections)]
    if isinstance(recipe, Mapping):
        where, folder = "recipe", out
        if not recipe:
            raise InputError("run: an empty recipe; expected at least its method, model or task")
        made = config.parse({}, [*overriding(recipe), *over], where)
    else:
        path = config.recipe_file(Path(recipe))
        where, folder = str(path), out or Path("runs") / path.stem
        made = config.load(path, over)
        look_in(path.parent)
    checked_method(made, where)
    if folder is None:
        raise InputError("run: no folder; expected out=, the folder of the run")
    with nullcontext() if progress else redirect_stderr(io.StringIO()):
        execute(made, Path(folder), show=False)
    return Run(folder)


def overriding(options: Mapping[str, Any]) -> list[str]:
    """A table of options as `section.key=value`, as the command line has them."""
    found = []
    for key, value in flat(options).items():
        value = str(value) if isinstance(value, Path) else value
        try:
            text = tomli_w.dumps({"value": value}).partition("=")[2].strip()
        except TypeError:
            raise InputError(f"{key} = {value!r}: expected a value that a recipe can hold") from None
        found.append(f"{key}={text}")
    return found


class Run:
    """A run by its folder, finished or under way.

    run = reasonloop.Run("runs/quickstart")
    run.evals[-1].average
    run.query("SELECT step, avg(reward) AS reward FROM rollouts GROUP BY step ORDER BY step")
    """

    def __init__(self, folder: str | Path) -> None:
        """Raises InputError if there is no run in the folder."""
        self.folder = Path(folder)
        if not (self.folder / "config.toml").is_file():
            raise InputError(f"{folder}: no run folder (no config.toml in it)")

    @property
    def recipe(self) -> Recipe:
        """Everything resolved, as RUN/config.toml has it"""
        return config.of_run(self.folder)

    @property
    def evals(self) -> list[Evaluation]:
        """Its evaluations, in the order in which they were made"""
        return [Evaluation(record) for record in evaluations_in(self.folder)]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of RUN/metrics.jsonl: one a step, with stage, branch, iteration, step (from 0), reward, ..."""
        return metrics_in(self.folder)

    def query(self, sql: str) -> list[dict[str, Any]]:
        """One SELECT on the run's rollouts, metrics, evals and eval_problems (DuckDB): a dict a row. InputError where it is
        wrong."""
        from reasonloop.store.database import query
        from reasonloop.store.show import told_apart

        columns, rows = query(self.folder, sql)
        names = told_apart(columns)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def rollouts(self, branch: str = "main", iteration: int | None = None) -> list[Rollout]:
        """Every rollout of a branch ("main", "vanilla", or "main.2" of several side by side) as it was sampled, of one
        iteration or of all. Raises InputError for a branch that has none."""
        from reasonloop.store.segments import TrajectoryStore

        found = TrajectoryStore(self.folder / "trajectories", self.folder.name).read(branch, iteration)
        if not found and iteration is None:
            known = ", ".join(row["branch"] for row in self.query("SELECT DISTINCT branch FROM rollouts ORDER BY 1"))
            raise InputError(f"{self.folder}: no rollouts of branch {branch!r}; it has: {known or 'none yet'}")
        return found

    def report(self, out: str | Path | None = None) -> Path:
        """Writes the HTML report, to RUN/report.html unless `out` says otherwise, and returns where it is."""
        from reasonloop.report.page import write_report

        return write_report(self.folder, Path(out) if out is not None else None)

    @property
    def model(self) -> Path:
        """The product, a Hugging Face folder. InputError until the run is done."""
        path = self.folder / "model"
        if not (path / "config.json").is_file():
            raise InputError(f"{self.folder}: a run without a finished model; run it to its end first")
        return path

    def policy(self, device: str = "auto", dtype: str = "auto") -> Policy:
        """The product, loaded."""
        from reasonloop.policy.policy import Policy

        return Policy.load(self.model, device, dtype)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def __str__(self) -> str:
        """The table of its evaluations"""
        return results_text(evaluations_in(self.folder))

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"
