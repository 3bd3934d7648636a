"""`reasonloop run`: opens the run folder, works through the method's stages, and ends with a table and a report."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from reasonloop.config import Recipe
from reasonloop.errors import InputError, RunError
from reasonloop.machine.threads import wait_briefly
from reasonloop.records import Problem
from reasonloop.run.folder import Run, check_folder


def plan(recipe: Recipe) -> list[str]:
    """The stages of a run in a line each, for `--dry-run`. Nothing is loaded."""
    rollouts = recipe.rl.rollouts
    lines = [f"evaluate the base policy: {recipe.eval.samples} samples a test problem"]
    if recipe.method == "sft" or recipe.sft_first:
        many = f"{recipe.sft.demonstrations} demonstrations" if recipe.sft.demonstrations else "all demonstrations"
        many = f"the experts of {recipe.sft.experts_of}" if recipe.sft.experts_of else many
        lines.append(f"SFT on {many}, {recipe.sft.epochs:g} epochs; evaluate")
    if recipe.method == "rl":
        lines.append(f"vanilla RL ({recipe.rl.objective}), {rollouts} rollouts; evaluate")
    if recipe.method == "rlsp":
        form = recipe.exploration.form if recipe.exploration.form != "none" else "no"
        lines.append(f"RL ({recipe.rl.objective}) with {form} exploration reward, {rollouts} rollouts; evaluate")
        if recipe.rlsp.vanilla:
            lines.append(f"vanilla RL (the outcome alone) beside it, {rollouts} rollouts; evaluate")
    if recipe.method == "rloop":
        if recipe.rloop.adaptive:
            lines.append(
                "explorations end early when pass@k on the probe falls; what they leave goes to more iterations"
            )
        for i in range(recipe.rloop.iterations):
            also = "; evaluate" if recipe.eval.explored or i == recipe.rloop.iterations - 1 else ""
            lines.append(f"iteration {i + 1}: explore with {recipe.rl.objective}, {rollouts} rollouts{also}")
            lines.append(
                f"iteration {i + 1}: select experts (success rate <= {recipe.rloop.hard_threshold:g}, at most "
                f"{recipe.rloop.cap} a problem), RFT from {recipe.rloop.reinitialise_from}, "
                f"{recipe.rft.epochs_of(i):g} epochs; evaluate"
            )
        if recipe.rloop.vanilla:
            often = f" after every {rollouts}" if recipe.rloop.iterations > 1 else ""
            lines.append(f"vanilla RL beside it, {rollouts * recipe.rloop.iterations} rollouts; evaluate{often}")
    return lines


def planned_units(run: Run) -> float:
    """The run's work in units of one evaluation rollout, for the estimate of the time left."""
    from reasonloop.stages import RL_ROLLOUT, TRAINED_EXAMPLE, expected_experts

    recipe = run.recipe
    evaluation = len(run.problems[recipe.eval.split]) * recipe.eval.samples
    rollouts = recipe.rl.rollouts
    units = float(evaluation)
    if recipe.method == "sft" or recipe.sft_first:
        examples = recipe.sft.demonstrations or len(run.problems["train"])
        units += evaluation + recipe.sft.epochs * examples * TRAINED_EXAMPLE
    if recipe.method in ("rl", "rlsp"):
        branches = 2 if recipe.rlsp.vanilla else 1
        units += branches * (evaluation + rollouts * RL_ROLLOUT)
    if recipe.method == "rloop":
        options = recipe.rloop
        evaluations = options.iterations * (2 if recipe.eval.explored else 1) + (not recipe.eval.explored)
        epochs = sum(recipe.rft.epochs_of(i) for i in range(options.iterations))
        units += evaluations * evaluation + options.iterations * rollouts * RL_ROLLOUT
        units += expected_experts(run) * epochs * TRAINED_EXAMPLE
        if options.vanilla:
            again = options.iterations - (
                1 if recipe.eval.explored else 0
            )  # the first exploration's policy is its, too
            units += max(1, again) * evaluation + (options.iterations - 1) * rollouts * RL_ROLLOUT
    return units


def finished_units(run: Run) -> float:
    """What earlier processes have done of `planned_units`."""
    from reasonloop.stages import RL_ROLLOUT, TRAINED_EXAMPLE

    batch = {"sft": run.recipe.sft.batch_size, "rft": run.recipe.rft.batch_size}
    units = sum(batch.get(line.get("stage", ""), 0) for line in run.metrics()) * TRAINED_EXAMPLE
    for evaluation in run.evaluations():
        units += len(evaluation["problems"]) * evaluation["samples"]
    return units + RL_ROLLOUT * (run.store.count() if (run.folder / "trajectories").is_dir() else 0)


def execute(recipe: Recipe, folder: Path) -> None:
    """Starts or continues the run in `folder`, to its end. Raises InputError for bad input before anything is written."""
    wait_briefly()
    check_folder(recipe, folder)
    if not (folder / "config.toml").is_file():
        check_inputs(recipe)
    run = Run(recipe, folder)
    try:
        if not run.done:
            _work(run)
        show_results(run)
    except (OSError, MemoryError) as error:
        raise RunError(_what_to_do(error, folder)) from error
    except RuntimeError as error:  # torch's, on CPU and GPU
        if "memory" not in str(error):
            raise
        raise RunError(_what_to_do(error, folder)) from error
    finally:
        run.close()


def _what_to_do(error: Exception, folder: Path) -> str:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return (
        f"{reason}; nothing that was stored is lost: make room (disk, or memory with a smaller "
        f"optimizer.microbatch_tokens or sampling.slots in a new run), then the same command goes on with {folder}"
    )


def check_inputs(recipe: Recipe) -> None:
    """All that can be wrong with the input, found before the run folder exists: task, gold answers, model, prompts."""
    from reasonloop.policy.folder import resolve
    from reasonloop.rewards.judge import check_judge
    from reasonloop.tasks import load_task, require_gold, row_name, task_problems
    from reasonloop.tasks.show import verifier_pool

    resolve(recipe.model.path)
    chosen = recipe.task
    task = load_task(chosen.name, chosen.options)
    problems = task_problems(task, chosen.name)
    check_problems(recipe, problems)
    if recipe.exploration.form == "judge":
        check_judge(recipe.exploration.judge, next((p for p in problems if p.split == "train"), None))
    with verifier_pool(chosen.name, chosen.options, chosen.verify_deadline, chosen.verify_workers) as pool:
        require_gold(task, problems, pool, chosen.name)

    from reasonloop.policy.policy import Policy, resolve_device
    from reasonloop.stages import demonstrations

    resolve_device(recipe.model.device)
    policy = Policy.load(recipe.model.path)
    policy.stop_tokens(recipe.sampling.stop)
    for problem in problems:
        policy.check_context(row_name(problem), policy.encode_prompt(problem), recipe.sampling)
    if recipe.method == "sft" or recipe.sft_first:
        # generating all demonstrations can take minutes; those that come with the problems are checked to the last one
        training = [problem for problem in problems if problem.split == "train"]
        demonstrations(recipe, task, policy, training, limit=16 if hasattr(task, "demonstrations") else None)


def check_problems(recipe: Recipe, problems: Sequence[Problem]) -> None:
    """Raises InputError unless each split has as many problems as the recipe needs."""
    name, sizes = recipe.task.name, Counter(problem.split for problem in problems)
    if not sizes[recipe.eval.split]:
        raise InputError(f"task {name!r} has no {recipe.eval.split} problems; expected some to evaluate on")
    if recipe.method == "sft":
        return
    if sizes["train"] < recipe.rl.problems_per_step:
        raise InputError(
            f"rl.problems_per_step = {recipe.rl.problems_per_step}: the task has {sizes['train']} training problems; "
            "expected at least as many"
        )
    rollouts, per_step = recipe.rl.rollouts, recipe.rl.rollouts_per_step
    if recipe.rl.skip_solved and sizes["train"] + per_step > rollouts:
        raise InputError(
            f"rl.skip_solved = true: it asks all {sizes['train']} training problems once, an exploration has {rollouts} "
            f"rollouts (rl.steps x rl.problems_per_step x rl.group_size), and one step takes {per_step} of them; expected "
            "more steps, or fewer training problems"
        )
    if recipe.rl.probe_every and not sizes["probe"]:
        raise InputError(
            f"rl.probe_every = {recipe.rl.probe_every}: task {name!r} has no probe problems; expected some, or 0"
        )


def _work(run: Run) -> None:

    from reasonloop.engine.team import worthwhile
    from reasonloop.machine.threads import prepare_threads
    from reasonloop.recipes import method
    from reasonloop.run.progress import Progress
    from reasonloop.stages.evaluate import show_held_out

    prepare_threads(run.threads)
    units = planned_units(run)
    run.processes = worthwhile(run.recipe.processes, units)
    with Progress(units, finished_units(run)) as progress, run.stoppable():
        run.progress = progress
        if run.resumed:
            progress.say(f"continuing {run.folder} at: {run.state.get('stage')}, step {run.state.get('step')}")
            if changed := run.changed():
                progress.say(f"  it may end with other bytes than an unbroken run ({'; '.join(changed)})")
            for evaluation in run.evaluations()[-1:]:
                show_held_out(run, evaluation)
        method(run.recipe.method)(run)


def show_results(run: Run) -> None:
    """Writes the report; prints the table of all evaluations, and where things are."""
    from reasonloop.report import write_report

    report = write_report(run.folder)
    print_results(run)
    print(f"model     {run.folder / 'model'}")
    print(f"report    {report}")
    print(f"rollouts  {run.folder / 'trajectories'}, for example:")
    place = shlex.quote(str(run.folder))
    print(f'          reasonloop query {place} "SELECT verdict, count(*) FROM rollouts GROUP BY ALL ORDER BY ALL"')


def print_results(run: Run) -> None:
    """The table of all evaluations: rich on a terminal, plain text in a pipe."""
    from reasonloop.evaluation.table import results_table, results_text

    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(results_table(run.evaluations(), run.recipe.method))
    else:
        print(results_text(run.evaluations(), run.recipe.method))
