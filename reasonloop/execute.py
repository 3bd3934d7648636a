"""`reasonloop run`: opens the run folder, works through the method's stages, and ends with a table and a report."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from reasonloop import config
from reasonloop.config import Recipe
from reasonloop.errors import InputError, RunError, Unavailable, first_line
from reasonloop.machine.launch import launched
from reasonloop.machine.threads import wait_briefly
from reasonloop.methods import method, plan
from reasonloop.own import nearest
from reasonloop.records import Problem
from reasonloop.runs.command import require_program
from reasonloop.runs.dry import DryStages
from reasonloop.runs.folder import check_folder
from reasonloop.runs.models import commits_of, pinned, told
from reasonloop.runs.session import Session
from reasonloop.tasks import Task
from reasonloop.track import Followers, check_trackers

if TYPE_CHECKING:
    from reasonloop.bench.doctor import Check
    from reasonloop.policy.policy import Policy
    from reasonloop.ranks.channel import Leader
    from reasonloop.runs.cluster import Cluster


def execute(recipe: Recipe, path: Path, *, show: bool = True, leader: Leader | None = None) -> None:
    """Starts or continues the run in a folder, to its end. Raises InputError for bad input before anything is written.

    `show`: writes the report then, and prints the table of all evaluations and where things are. `leader`: of the ranks that
    work on it, where they are several.
    """
    if leader is None and launched().world > 1:
        raise InputError("torchrun has started several processes; expected `python -m reasonloop run` of them, or one")
    wait_briefly()
    check_folder(recipe, path)
    check_trackers(recipe.track.to)
    check_cluster(recipe)
    run = _opened(recipe, path, leader)
    for line in run.folder.told:
        print(line, file=sys.stderr)
    try:
        with Followers(path, recipe.track, lambda text: run.progress.say(text)):
            if not run.folder.done:
                _work(run)
            if show:
                show_results(run)
    except (OSError, MemoryError) as error:
        raise RunError(_what_to_do(error, path)) from error
    except RuntimeError as error:  # torch's, on CPU and GPU
        if "memory" not in str(error):
            raise
        raise RunError(_what_to_do(error, path)) from error
    finally:
        run.close()


def _opened(recipe: Recipe, path: Path, leader: Leader | None) -> Session:
    """The run in a folder; of a new one everything is checked before there is a folder."""
    if (path / "config.toml").is_file():
        return Session(recipe, path, leader=leader)
    commits = commits_of(recipe)
    try:
        policy = check_inputs(pinned(recipe, commits), path)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise RunError(
            f"{first_line(error)}: no room to load {recipe.model.source}; nothing is written: expected a smaller model, or "
            'model.dtype = "bfloat16"'
        ) from error
    cluster = reached_cluster(recipe)
    run = Session(recipe, path, commits, leader)
    run.hold(run.recipe.model.source, policy)
    if cluster is not None:
        run.cluster = cluster
    return run


def dry_run(recipe: Recipe, path: Path) -> None:
    """Checks what can be checked at once; prints the resolved recipe and its plan. Nothing is written."""
    from reasonloop.planning.told import planned
    from reasonloop.policy.adapter_folders import require_peft
    from reasonloop.policy.loading import resolve
    from reasonloop.rewards.functions import check_functions
    from reasonloop.runs.fit import UNKNOWN, needs_told, sizes_of
    from reasonloop.runs.notes import check_length, notes, plain_path
    from reasonloop.tasks import load_task, report_lines, require_gold, task_problems
    from reasonloop.tasks.show import verifier_pool

    missing = ""
    try:
        resolve(recipe.model.source)
        check_length(recipe.model.source, recipe.sampling.max_tokens)
    except Unavailable as error:  # the plan can be told all the same
        missing = str(error)
    check_functions(recipe.rewards, recipe.task.verify_deadline)
    task = load_task(recipe.task.name, recipe.task.options)
    dry, problems, read = plan(recipe), None, list[str]()
    if dry.adapters:
        require_peft()
    if hasattr(task, "files"):  # generating problems could take longer than a dry run should
        chosen, problems = recipe.task, task_problems(task, recipe.task.name)
        check_problems(recipe, problems, "explore" in dry.asked)
        with verifier_pool(chosen.name, chosen.options, chosen.verify_deadline, 1) as pool:
            require_gold(task, problems, pool, chosen.name)
        read = report_lines(task)
    if not missing and not (path / "config.toml").is_file():
        read = [*told(recipe), *read]
    told_of_model = [] if missing else [*notes(recipe, task, problems), *plain_path(recipe.model.source)]
    read = [*read, *told_of_model, *dry.notes()]
    check_folder(recipe, path)
    check_trackers(recipe.track.to)
    check_cluster(recipe)
    check_commands(recipe, problems or ())
    sized = plan(recipe, sizes_of(recipe, task, problems))
    if recipe.plan.devices:
        needed = [*([f"missing: {missing}"] if missing else []), *planned(recipe, sized, problems)]
    else:
        needed = [f"missing: {missing}", UNKNOWN] if missing else needs_told(recipe, sized, path, problems)
    print(config.dumps(recipe))
    for line in read:
        print(f"# {line}")
    for line in _code_told(recipe):
        print(f"# {line}")
    print(f"# into {path}")
    for line in dry.lines:
        print(f"# - {line}")
    for line in needed:
        print(f"# {line}")


def _code_told(recipe: Recipe) -> list[str]:
    """What of the recipe is somebody's code, a line each."""
    told = [f"runs your code: {key} = {value}" for key, value in config.own_code(recipe).items()]
    if recipe.model.trust_remote_code:
        told.append(f"runs the code in the model's folder: model.trust_remote_code = true ({recipe.model.source})")
    return told


def needs_check(recipe: Recipe, path: Path) -> Check:
    """For `reasonloop doctor`: what a run of the recipe takes here. Raises InputError where it can't fit."""
    from reasonloop.bench.doctor import Check
    from reasonloop.runs.fit import UNKNOWN, lines, needs_of, require_room, sizes_of
    from reasonloop.tasks import load_task, task_problems

    task = load_task(recipe.task.name, recipe.task.options)
    problems = task_problems(task, recipe.task.name) if hasattr(task, "files") else None
    needs = needs_of(recipe, plan(recipe, sizes_of(recipe, task, problems)), path, problems)
    if needs is None:
        return Check("advice", UNKNOWN)
    return Check("advice" if require_room(needs) else "ok", "\n  ".join(lines(needs)), needs.to_json())


def _what_to_do(error: Exception, folder: Path) -> str:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return (
        f"{reason}; nothing that was stored is lost: make room (disk, or memory with a smaller "
        f"optimizer.microbatch_tokens or engine.slots in a new run), then the same command goes on with {folder}"
    )


def check_inputs(recipe: Recipe, path: Path = Path(".")) -> Policy:
    """All that can be wrong with the input, found before the run folder exists: task, gold answers, model, prompts, and a
    machine that is too small for it. Returns the model's policy: its weights were looked at, too."""
    from reasonloop.policy.adapter_folders import require_peft
    from reasonloop.policy.loading import resolve
    from reasonloop.rewards.functions import check_functions
    from reasonloop.rewards.judge import check_judge
    from reasonloop.runs.fit import needs_noted, sizes_of
    from reasonloop.runs.notes import check_length, notes, told_of_text
    from reasonloop.tasks import load_task, require_gold, task_problems, tell
    from reasonloop.tasks.show import verifier_pool

    resolve(recipe.model.source)
    check_length(recipe.model.source, recipe.sampling.max_tokens)
    chosen = recipe.task
    task = load_task(chosen.name, chosen.options)
    problems = task_problems(task, chosen.name)
    dry = plan(recipe, sizes_of(recipe, task, problems))
    if dry.adapters:
        require_peft()
    check_problems(recipe, problems, "explore" in dry.asked)
    check_commands(recipe, problems)
    for name, outside in (("explorer", recipe.explorer), ("finetuner", recipe.finetuner)):
        if outside.command:
            require_program(outside.command, f"{name}.command")
    room = needs_noted(recipe, dry, path, problems)
    first = next((problem for problem in problems if problem.split == "train"), None)
    check_functions(recipe.rewards, chosen.verify_deadline, first)
    if recipe.exploration.form == "judge":
        check_judge(recipe.exploration.judge, first)
    with verifier_pool(chosen.name, chosen.options, chosen.verify_deadline, chosen.verify_workers) as pool:
        require_gold(task, problems, pool, chosen.name)

    policy = _checked_policy(recipe, task, problems, dry)
    tell(task)
    for line in [
        *told_of_text(policy.codec, problems, recipe.sampling.stop),
        *notes(recipe, task, problems),
        *dry.notes(),
        *policy.notes(),
        *room,
    ]:
        print(line, file=sys.stderr)
    return policy


def check_commands(recipe: Recipe, problems: Sequence[Problem]) -> None:
    """What commands of the user's own are asked for: rollouts that can be read, and problems of one kind."""
    if recipe.explorer.command:
        from reasonloop.imports.recognising import NAMES
        from reasonloop.store.for_trainers import text_alone

        if recipe.explorer.rollouts not in NAMES:
            raise InputError(
                f"explorer.rollouts = {recipe.explorer.rollouts!r}: {nearest(recipe.explorer.rollouts, NAMES)}"
            )
        text_alone(problem for problem in problems if problem.split == "train")


def check_cluster(recipe: Recipe) -> None:
    """What explorations on other machines need beside the run itself: Ray, and files that can be brought there."""
    if recipe.scale.address:
        from reasonloop.runs.cluster import require_ray
        from reasonloop.stages.packed import listed

        require_ray(recipe.scale.address)
        for name in recipe.scale.files:
            listed(name)


def reached_cluster(recipe: Recipe) -> Cluster | None:
    if not recipe.scale.address:
        return None
    from reasonloop.runs.cluster import Cluster

    return Cluster(recipe.scale.address)


def _checked_policy(recipe: Recipe, task: Task, problems: Sequence[Problem], dry: DryStages) -> Policy:
    """The recipe's parts that need torch, and its model, on which prompts and demonstrations are tried."""
    from reasonloop.engine.checked import CheckedEngine
    from reasonloop.engine.registry import engine_of
    from reasonloop.learner.losses import objective_of
    from reasonloop.learner.optimizers import check_optimizer
    from reasonloop.policy.adapters import check_targets
    from reasonloop.policy.loading import resolve_device
    from reasonloop.policy.policy import Policy
    from reasonloop.rewards.outcome import own_reward
    from reasonloop.stages.experts import demonstration_pairs
    from reasonloop.tasks import row_name

    device = resolve_device(recipe.model.device)
    check_optimizer(recipe.optimizer, device.partition(":")[0])
    varied = [recipe.of_branch(number) for number in range(1, len(recipe.scale.vary) + 1)]
    for one in (recipe, *varied):
        objective_of(one.rl)
    with closing(engine_of(recipe.engine)) as engine:
        if isinstance(engine, CheckedEngine):
            for sampling in (recipe.sampling, recipe.eval_sampling, *(one.sampling for one in varied)):
                engine.check(sampling)
    if recipe.rl.reward != "outcome":
        own_reward(recipe.rl.reward)
    policy = Policy.load(recipe.model.source, device, recipe.model.dtype, recipe.model.trust_remote_code)
    if policy.path == "plain" and launched().world > 1:
        raise InputError(
            f"model {policy.name}: it takes the plain path ({policy.reason}), which several ranks don't have; expected no "
            "torchrun"
        )
    codec = policy.codec
    codec.date = recipe.model.date
    for settings in dry.adapters:
        check_targets(policy.model, settings)
    codec.stop_texts(recipe.sampling.stop)
    for problem in problems:
        codec.check_context(row_name(problem), codec.encode_prompt(problem), recipe.sampling)
    if "demonstrations" in dry.asked:
        # generating all demonstrations can take minutes; those that come with the problems are checked to the last one
        training = [problem for problem in problems if problem.split == "train"]
        demonstration_pairs(recipe, task, codec, training, limit=16 if hasattr(task, "demonstrations") else None)
    return policy


def check_problems(recipe: Recipe, problems: Sequence[Problem], explores: bool) -> None:
    """Raises InputError unless each split has as many problems as the recipe needs."""
    name, sizes = recipe.task.name, Counter(problem.split for problem in problems)
    if not sizes[recipe.eval.split]:
        raise InputError(f"task {name!r} has no {recipe.eval.split} problems; expected some to evaluate on")
    if recipe.average.deliver == "probe" and not sizes["probe"]:
        raise InputError(f"average.deliver = 'probe': task {name!r} has no probe problems; expected some, or 'trained'")
    if not explores:
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


def _work(run: Session) -> None:
    from reasonloop.kernels import build
    from reasonloop.machine.threads import prepare_threads
    from reasonloop.policy.loading import resolve_device
    from reasonloop.runs.inputs import ASKED, Inputs
    from reasonloop.runs.progress import Progress
    from reasonloop.stages.evaluate import show_held_out
    from reasonloop.stages.live import LiveStages
    from reasonloop.store.texts import problems_file, write_problems

    prepare_threads(run.threads)
    dry = plan(run.recipe, {split: len(problems) for split, problems in run.problems.items()})
    run.planned = dry.finetunings
    prompts = {split: run.prompts(split) for split in ASKED}
    Inputs(run.recipe, run.date, run.problems, prompts).settle(run.folder.path, run.folder.write)
    if not problems_file(run.folder.path).is_file():
        every = (problem for own in run.problems.values() for problem in own)
        write_problems(run.folder.path, every, run.folder.write)
    with Progress(dry.units) as progress, run.stoppable():
        run.progress = progress
        progress.kept = run.folder.path / "progress.json"
        if run.folder.resumed:
            state = run.folder.state
            step = f", step {state['step']}" if "step" in state else ""
            progress.say(f"continuing {run.folder.path} at: {state.get('stage')}{step}")
            if changed := run.folder.changed():
                progress.say(f"  it may end with other bytes than an unbroken run ({'; '.join(changed)})")
            for evaluation in run.folder.evaluations()[-1:]:
                show_held_out(run, evaluation["split"], evaluation["metrics"])
        if resolve_device(run.recipe.model.device) == "cpu" and (advice := build.advice()):
            progress.say(advice)
        if run.ranks is not None:
            each = "1 thread" if run.threads == 1 else f"{run.threads} threads"
            progress.say(f"{run.ranks.world} ranks, {each} each, on {resolve_device(run.recipe.model.device)}")
        if not run.engine.exact:
            progress.say(
                f"engine {run.recipe.engine.name}: a run that is stopped and goes on may sample other rollouts and end with "
                "other bytes than an unbroken one; nothing that was stored is lost"
            )
        method(run.recipe.method).run(LiveStages(run))


def show_results(run: Session) -> None:
    """Writes the report; prints the table of all evaluations, who leads, what went wrong, and where things are."""
    from reasonloop.report.ending import ending
    from reasonloop.report.page import write_report

    path = run.folder.path
    report = write_report(path)
    print_results(run)
    print("\n".join(["", *ending(path)]))
    print(f"model     {path / 'model'}")
    print(f"report    {report}")
    print(f"rollouts  {path / 'trajectories'}, for example:")
    place = shlex.quote(str(path))
    print(f'          reasonloop query {place} "SELECT verdict, count(*) FROM rollouts GROUP BY ALL ORDER BY ALL"')


def print_results(run: Session) -> None:
    """The table of all evaluations: rich on a terminal, plain text in a pipe."""
    from reasonloop.evaluation.table import results_table, results_text

    evaluations = run.folder.evaluations()
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(results_table(evaluations))
    else:
        print(results_text(evaluations))
