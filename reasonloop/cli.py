"""The command line: verbs only. Parse, call, print. Everything heavy is imported by the verb that needs it."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from reasonloop import __version__
from reasonloop.errors import InputError, RunError, Stopped
from reasonloop.text import is_text


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 success, 1 the run failed or was stopped, 2 bad input."""
    _prepare_streams()
    try:
        arguments = _parse(argv)
        verb: Callable[[argparse.Namespace], None] = arguments.verb
        verb(arguments)
        sys.stdout.flush()  # here, where a reader that has gone is no news
    except InputError as error:
        print(f"reasonloop: {_one_line(error)}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"reasonloop: stopped; the same command goes on with {stopped}", file=sys.stderr)
        return 1
    except RunError as error:
        print(f"reasonloop: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("reasonloop: stopped at once; the same command goes on from the last checkpoint", file=sys.stderr)
        return 1
    except BrokenPipeError:
        _drop_output()  # the reader of our output has gone (`| head`): nothing to say, and nobody to say it to
        return 1
    except OSError as error:
        print(f"reasonloop: {_one_line(error)}", file=sys.stderr)
        _drop_output()
        return 1
    return 0


def _prepare_streams() -> None:
    """Output that is closed goes nowhere, and what a terminal's encoding can't say is written as an escape."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """What is still buffered can't be written: without this the interpreter would say so once more at its end."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split("\n"))


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as all verbs do."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; `{self.prog} --help` shows what is expected")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    given = sys.argv[1:] if argv is None else argv
    for text in given:
        if not is_text(text):
            parser.error(f"argument {text!r}: not UTF-8")
    arguments, rest = parser.parse_known_args(given)
    # argparse takes positional arguments in one piece: overrides behind an option are left over
    unknown = [text for text in rest if text.startswith("-") or not hasattr(arguments, "overrides")]
    if unknown:
        parser.error(f"unknown argument {unknown[0]}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="reasonloop",
        description="From a causal language model and verifiable problems to a reasoning model that keeps generalising.",
    )
    parser.add_argument("--version", action="version", version=f"reasonloop {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    run = verbs.add_parser("run", help="start a recipe, or continue what --out holds")
    run.add_argument("recipe", type=Path, metavar="RECIPE.toml")
    run.add_argument("overrides", nargs="*", metavar="section.key=value")
    run.add_argument("--out", type=Path, help="the run folder (default: runs/<recipe's name>)")
    run.add_argument(
        "--dry-run", action="store_true", help="check the recipe, print it whole with its stages, and stop"
    )
    run.set_defaults(verb=_run)

    evaluate = verbs.add_parser("eval", help="evaluate a model on a task's held-out problems")
    evaluate.add_argument("model", help="Hugging Face folder, run folder, GGUF file or bundled name")
    evaluate.add_argument("overrides", nargs="*", metavar="section.key=value")
    evaluate.add_argument("--task", help="name[?key=value&...], a .jsonl file or module:Class (default: the run's own)")
    evaluate.add_argument("--samples", type=_positive, default=32)
    evaluate.add_argument("--split", choices=("test", "probe", "train"), default="test")
    evaluate.add_argument("--json", type=_new_file, metavar="FILE", help="also write the whole result there")
    evaluate.set_defaults(verb=_eval)

    compare = verbs.add_parser("compare", help="finished runs as arms side by side, paired by seed")
    compare.add_argument("runs", nargs="+", metavar="[NAME=]RUN", help="run folders; runs of one recipe are one arm")
    compare.add_argument("--out", type=_new_file, metavar="FILE.html", help="also write a page with plots there")
    compare.add_argument("--json", type=_new_file, metavar="FILE", help="also write all numbers there")
    compare.add_argument("--all", action="store_true", help="also RLoop's last explored policy")
    compare.set_defaults(verb=_compare)

    report = verbs.add_parser("report", help="write a run's HTML report")
    report.add_argument("run", type=Path)
    report.add_argument("--out", type=_new_file, metavar="FILE.html", help="default: RUN/report.html")
    report.add_argument("--follow", action="store_true", help="serve it on this machine and keep it fresh; Ctrl-C ends")
    report.add_argument("--port", type=_port, default=0, help="of --follow (default: a free one)")
    report.set_defaults(verb=_report)

    tasks = verbs.add_parser("tasks", help="list tasks, check their gold answers, show problems")
    task_verbs = tasks.add_subparsers(metavar="list|check|show", required=True)
    task_verbs.add_parser("list").set_defaults(verb=_tasks_list)
    check = task_verbs.add_parser("check", help="verify every gold answer against itself")
    check.add_argument("task")
    check.set_defaults(verb=_tasks_check)
    show = task_verbs.add_parser("show", help="print some problems")
    show.add_argument("task")
    show.add_argument("-n", type=_positive, default=5)
    show.set_defaults(verb=_tasks_show)

    verify = verbs.add_parser("verify", help='JSONL {"answer", "gold"} on stdin, verdicts on stdout')
    verify.add_argument("--kind", choices=("math", "numeric", "exact", "code"), required=True)
    verify.add_argument("--deadline", type=float, default=5.0, help="seconds an answer may take (default: 5)")
    verify.add_argument("--workers", type=_positive)
    verify.set_defaults(verb=_verify)

    query = verbs.add_parser("query", help="DuckDB SQL over a run's rollouts, metrics, evals, eval_problems")
    query.add_argument("run", type=Path)
    query.add_argument("sql")
    query.add_argument("--json", action="store_true", help="a JSON object a row")
    query.set_defaults(verb=_query)

    bench = verbs.add_parser("bench", help="sampled and trained tokens/s of a model, and their share of the peak")
    bench.add_argument("--model", default="countdown", help="as for eval (default: countdown)")
    bench.add_argument("--layout", help="instead of a model: random weights in this shape (qwen3-0.6b)")
    bench.add_argument("--context", type=_positive, help="train on one packed stream of so many tokens (8192, 16384)")
    bench.add_argument("--batch", type=_positive, nargs="+", default=[1, 64], help="responses sampled at once")
    bench.add_argument("--threads", type=_positive, help="CPU threads (default: all cores)")
    bench.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    bench.add_argument("--json", type=_new_file, metavar="FILE", help="also write the whole result there")
    bench.set_defaults(verb=_bench)

    doctor = verbs.add_parser("doctor", help="what this machine can do, and what is missing")
    doctor.add_argument("--json", action="store_true", help="one JSON object")
    doctor.set_defaults(verb=_doctor)
    return parser


def _new_file(text: str) -> Path:
    """Checked before any work is done: hours of it could not be written down."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: no such folder {path.parent}")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: a folder; expected a file")
    if not os.access(path if path.exists() else path.parent, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text}: cannot be written there; expected a place that can")
    return path


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, at least 1 and below a billion")
    return int(text)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5 or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text}: expected 0 to 65535")
    return int(text)


def _run(arguments: argparse.Namespace) -> None:
    from reasonloop import config

    recipe = config.load(arguments.recipe, arguments.overrides)
    folder = arguments.out or Path("runs") / arguments.recipe.stem
    from reasonloop.execute import check_problems, execute, plan

    if arguments.dry_run:
        from reasonloop.policy.folder import resolve
        from reasonloop.run.folder import check_folder
        from reasonloop.tasks import load_task, task_problems

        resolve(recipe.model.path)
        task = load_task(recipe.task.name, recipe.task.options)
        if hasattr(task, "files"):  # generating problems could take longer than a dry run should
            check_problems(recipe, task_problems(task, recipe.task.name))
        check_folder(recipe, folder)
        print(config.dumps(recipe))
        print(f"# into {folder}")
        for line in plan(recipe):
            print(f"# - {line}")
        return
    execute(recipe, folder)


def _eval(arguments: argparse.Namespace) -> None:
    from reasonloop.evaluation.standalone import evaluate_model

    evaluate_model(
        arguments.model, arguments.task, arguments.samples, arguments.split, arguments.json, arguments.overrides
    )


def _compare(arguments: argparse.Namespace) -> None:
    from reasonloop.compare import compare_runs

    compare_runs(arguments.runs, arguments.out, arguments.json, arguments.all)


def _report(arguments: argparse.Namespace) -> None:
    from reasonloop.report import follow, write_report

    if not (arguments.run / "config.toml").is_file():
        raise InputError(f"{arguments.run}: no run folder (no config.toml in it)")
    if arguments.follow:
        if arguments.out:
            raise InputError("--out: --follow serves the report and writes no file; leave one of them out")
        follow(arguments.run, arguments.port)
        return
    print(write_report(arguments.run, arguments.out))


def _tasks_list(arguments: argparse.Namespace) -> None:
    from reasonloop.tasks.show import list_tasks

    list_tasks()


def _tasks_check(arguments: argparse.Namespace) -> None:
    from reasonloop.tasks import parse_task_spec
    from reasonloop.tasks.show import check

    check(*parse_task_spec(arguments.task))


def _tasks_show(arguments: argparse.Namespace) -> None:
    from reasonloop.tasks import parse_task_spec
    from reasonloop.tasks.show import show_task

    show_task(*parse_task_spec(arguments.task), n=arguments.n)


def _verify(arguments: argparse.Namespace) -> None:
    from reasonloop.verify.stream import run_stream

    run_stream(arguments.kind, sys.stdin.buffer, sys.stdout, arguments.deadline, arguments.workers)


def _query(arguments: argparse.Namespace) -> None:
    from reasonloop.store.database import query
    from reasonloop.store.show import print_rows

    print_rows(*query(arguments.run, arguments.sql), as_json=arguments.json)


def _bench(arguments: argparse.Namespace) -> None:
    from reasonloop.bench.measure import Workload, bench, write

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


def _doctor(arguments: argparse.Namespace) -> None:
    from reasonloop.bench.doctor import run_doctor

    run_doctor(arguments.json)


if __name__ == "__main__":
    sys.exit(main())
