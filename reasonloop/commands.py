"""The verbs of the command line: each takes its arguments and calls what does the work, which is imported only then."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reasonloop.errors import InputError
from reasonloop.machine.launch import launched
from reasonloop.own import look_in


def run(arguments: argparse.Namespace) -> None:
    from reasonloop import config
    from reasonloop.execute import dry_run, execute
    from reasonloop.methods import checked_method

    file = config.recipe_file(arguments.recipe)
    recipe = config.load(file, arguments.overrides)
    look_in(file.parent)
    checked_method(recipe, str(file))
    folder = arguments.out or Path("runs") / file.stem
    if arguments.dry_run:
        dry_run(recipe, folder)
        return
    if launched().world == 1:
        execute(recipe, folder)
        return
    from reasonloop.ranks.team import assembled

    with assembled(recipe) as leader:
        execute(recipe, folder, leader=leader)


def evaluate(arguments: argparse.Namespace) -> None:
    from reasonloop.evaluation.standalone import evaluate_model

    evaluate_model(
        arguments.model, arguments.task, arguments.samples, arguments.split, arguments.json, arguments.overrides
    )


def sample(arguments: argparse.Namespace) -> None:
    if arguments.chat:
        from reasonloop.evaluation.chat import talk

        if arguments.task is not None or arguments.json or arguments.samples or arguments.n:
            raise InputError("sample --chat: it takes no --task, -n, --samples and --json; expected the model alone")
        talk(arguments.model, arguments.overrides)
        return
    from reasonloop.evaluation.sampled import sample_model

    sample_model(
        *(arguments.model, arguments.task, arguments.n or 3, arguments.samples, arguments.split, arguments.json),
        arguments.overrides,
    )


def compare(arguments: argparse.Namespace) -> None:
    from reasonloop.compare.command import compare_runs

    compare_runs(arguments.runs, arguments.out, arguments.json, arguments.all, arguments.baseline)


def study(arguments: argparse.Namespace) -> None:
    from reasonloop.study.command import Wanted, run_study

    wanted = Wanted(
        arguments.runs,
        arguments.seeds,
        arguments.arms,
        arguments.jobs,
        arguments.dry_run,
        arguments.compare_only,
        arguments.train_again,
    )
    run_study(arguments.study, wanted)


def report(arguments: argparse.Namespace) -> None:
    from reasonloop.report.follow import follow
    from reasonloop.report.page import write_report

    if arguments.follow:
        written = follow(arguments.run, arguments.out)
    elif (arguments.run / "config.toml").is_file():
        written = write_report(arguments.run, arguments.out)
    else:
        raise InputError(f"{arguments.run}: no run folder (no config.toml in it)")
    if written is not None:
        print(written)


def track(arguments: argparse.Namespace) -> None:
    from reasonloop.track.command import track_run

    given = {key: getattr(arguments, key) for key in ("to", "project", "name")}
    track_run(arguments.run, {key: value for key, value in given.items() if value is not None}, arguments.follow)


def tasks(arguments: argparse.Namespace) -> None:
    from reasonloop.tasks import parse_task_spec, show

    if arguments.what == "list":
        show.list_tasks(arguments.task)
    elif arguments.what == "check":
        show.check(*parse_task_spec(arguments.task))
    else:
        asked = None
        if arguments.model is not None:
            from reasonloop.policy.codec import Codec

            codec = Codec.load(arguments.model)
            asked = lambda problem: codec.decode_whole(codec.encode_prompt(problem))  # noqa: E731
        name, options = parse_task_spec(arguments.task)
        problems = show.show_task(name, options, n=arguments.n, asked=asked)
        if arguments.model is not None:
            from reasonloop.runs.notes import plain_prompts

            for line in plain_prompts(arguments.model, name, options, problems, how="'TASK?format=chat'"):
                print(line)


def verify(arguments: argparse.Namespace) -> None:
    from reasonloop.verify.stream import run_stream

    options = {key: value for key in ("extract", "percent") if (value := getattr(arguments, key)) is not None}
    run_stream(arguments.kind, sys.stdin.buffer, sys.stdout, arguments.deadline, arguments.workers, **options)


def query(arguments: argparse.Namespace) -> None:
    from reasonloop.store.database import query
    from reasonloop.store.show import print_rows

    print_rows(*query(arguments.run, arguments.sql), as_json=arguments.json)


def import_rollouts(arguments: argparse.Namespace) -> None:
    from reasonloop.exchange.importing import import_run
    from reasonloop.imports.reading import Asked
    from reasonloop.imports.scores import Rule

    asked = Asked(
        arguments.trainer,
        arguments.step,
        arguments.eval,
        arguments.match,
        arguments.allow_unmatched,
        None if arguments.trust_scores is None else Rule.parse(arguments.trust_scores),
    )
    import_run(arguments.files, arguments.task, arguments.out, asked, arguments.model)


def experts(arguments: argparse.Namespace) -> None:
    from reasonloop.exchange.experts import write_experts

    write_experts(arguments.run, arguments.out, arguments.layout, arguments.overrides)


def bench(arguments: argparse.Namespace) -> None:
    from reasonloop.bench.measure import Workload, bench
    from reasonloop.bench.result import write

    workload = Workload(tuple(arguments.batch), context=arguments.context or 0)
    result = bench(
        arguments.model,
        arguments.layout,
        workload,
        threads=arguments.threads or 0,
        dtype=arguments.dtype,
        tell=lambda line: print(line, flush=True),
    )
    if arguments.json:
        write(result, arguments.json)


def init(arguments: argparse.Namespace) -> None:
    from reasonloop.scaffold import init

    if not str(arguments.folder).strip():
        raise InputError("init: an empty name; expected a folder to make")
    print(init(Path(arguments.folder)))


def completion(arguments: argparse.Namespace) -> None:
    from reasonloop.usage import script

    print(script(arguments.shell), end="")


def doctor(arguments: argparse.Namespace) -> None:
    from reasonloop.bench.doctor import run_doctor

    if arguments.recipe is None:
        run_doctor(arguments.json)
        return
    from reasonloop import config
    from reasonloop.execute import needs_check
    from reasonloop.methods import checked_method

    file = config.recipe_file(arguments.recipe)
    recipe = config.load(file, arguments.overrides)
    look_in(file.parent)
    checked_method(recipe, str(file))
    run_doctor(arguments.json, {"recipe": lambda: needs_check(recipe, Path("runs") / file.stem)})
