"""The command line: what is typed, parsed, and handed to its verb (`commands`); what goes wrong is one line."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from reasonloop import commands
from reasonloop.errors import InputError, RunError, Stopped
from reasonloop.files import bundled_recipes
from reasonloop.machine.launch import launched
from reasonloop.text import is_text
from reasonloop.usage import SHELLS, Parser, TopParser, complete
from reasonloop.version import VERSION


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 success, 1 the run failed or was stopped, 2 bad input. Without a verb: the help, and 2."""
    _prepare_streams()
    arguments = argparse.Namespace()
    try:
        if sys.platform == "win32":
            raise InputError("Windows lacks what runs need (file locks, signals); expected Linux, in WSL, or macOS")
        launch = launched()
        if launch.rank:
            return _follow(sys.argv[1:] if argv is None else argv)
        arguments = _parse(argv)
        if not hasattr(arguments, "verb"):
            arguments.parser.print_help()
            return 2
        if launch.world > 1 and arguments.verb is not commands.run:
            raise InputError(
                "torchrun: `reasonloop run` alone works on several devices; expected this one without torchrun"
            )
        arguments.verb(arguments)
        sys.stdout.flush()  # here, where a reader that has gone is no news
    except InputError as error:
        return _failed(error, 2)
    except RunError as error:
        return _failed(error)
    except Stopped as stopped:
        return _failed(f"stopped; the same command goes on with {stopped}")
    except KeyboardInterrupt:
        training = getattr(arguments, "verb", None) is commands.run
        return _failed("stopped at once" + "; the same command goes on from the last checkpoint" * training)
    except OSError as error:
        _drop_output()
        # the reader of our output has gone (`| head`): nothing to say, and nobody to say it to
        return 1 if isinstance(error, BrokenPipeError) else _failed(error)
    return 0


def _follow(argv: Sequence[str]) -> int:
    """What a rank of torchrun's but the first does. Rank 0 says what is wrong with the arguments."""
    if argv[:1] != ["run"] or not {"--dry-run", "-h", "--help"}.isdisjoint(argv):
        return 0
    from reasonloop.ranks.team import follow

    return follow()


def _failed(why: object, code: int = 1) -> int:
    print(f"reasonloop: {' '.join(str(why).splitlines())}", file=sys.stderr)
    return code


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


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    complete(parser)
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


def _parser() -> Parser:
    parser = TopParser(
        prog="reasonloop",
        description="From a causal language model and verifiable problems to a reasoning model that keeps generalising.",
    )
    parser.add_argument("--version", action="version", version=f"reasonloop {VERSION}")
    parser.set_defaults(parser=parser)
    verbs = parser.add_subparsers(metavar="VERB", parser_class=Parser)
    _add_runs(verbs)
    _add_readers(verbs)
    _add_models(verbs)
    _add_exchange(verbs)
    _add_tools(verbs)
    return parser


def _verb(
    verbs: argparse._SubParsersAction[Parser], call: Callable[[argparse.Namespace], None], name: str, about: str
) -> Parser:
    added = verbs.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
    added.set_defaults(verb=call)
    return added


def _add_runs(verbs: argparse._SubParsersAction[Parser]) -> None:
    """What trains, and what compares."""
    run = _verb(verbs, commands.run, "run", "start a recipe, or continue what --out holds")
    run.add_argument(
        "recipe",
        type=Path,
        metavar="RECIPE",
        help=f"a .toml file, or a bundled recipe's name: {', '.join(bundled_recipes())} (docs/recipes.md has all options)",
    )
    _add_overrides(run)
    run.add_argument("--out", type=Path, help="the run folder (default: runs/<recipe's name>)")
    run.add_argument(
        "--dry-run", action="store_true", help="check the recipe, print it whole with its stages, and stop"
    )

    compare = _verb(verbs, commands.compare, "compare", "finished runs as arms side by side, paired by seed")
    compare.add_argument("runs", nargs="+", metavar="[NAME=]RUN", help="run folders; runs of one recipe are one arm")
    compare.add_argument("--out", type=_new_file, metavar="FILE.html", help="also write a page with plots there")
    compare.add_argument("--json", type=_new_file, metavar="FILE", help="also write all numbers there")
    compare.add_argument(
        "--baseline", metavar="NAME", help="the arm to compare each with (default: the first with each)"
    )
    compare.add_argument("--all", action="store_true", help="also RLoop's last explored policy")

    study = _verb(verbs, commands.study, "study", "arms x seeds, each an ordinary run, and their comparison")
    study.add_argument("study", type=Path, metavar="STUDY.toml", help="or a folder that holds study.toml")
    study.add_argument("--runs", type=Path, metavar="DIR", help="where the runs go (default: runs/study-<its name>)")
    study.add_argument("--arms", nargs="+", metavar="ARM", help="only these (default: all)")
    study.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="only these (default: all)")
    study.add_argument("--jobs", type=_positive, help="runs at a time (default: cores / threads of a run; on a GPU 1)")
    study.add_argument(
        "--dry-run", action="store_true", help="check all arms, list the runs and what they cost, and stop"
    )
    study.add_argument("--compare-only", action="store_true", help="compare what is finished; train nothing")
    study.add_argument(
        "--train-again", action="store_true", help="also finished runs of which only the counts are there (finished/)"
    )


def _add_readers(verbs: argparse._SubParsersAction[Parser]) -> None:
    """What reads a run's folder."""
    report = _verb(verbs, commands.report, "report", "write a run's HTML report")
    report.add_argument("run", type=Path, metavar="RUN", help="the run folder, finished or not")
    report.add_argument("--out", type=_new_file, metavar="FILE.html", help="default: RUN/report.html")
    report.add_argument(
        "--follow", action="store_true", help="keep it fresh while the run goes on, or wait for it; Ctrl-C ends"
    )

    track = _verb(verbs, commands.track, "track", "send a run's metrics to wandb, trackio or TensorBoard")
    track.add_argument("run", type=Path, metavar="RUN", help="the run folder, finished or not")
    track.add_argument(
        "--to",
        nargs="+",
        metavar="TRACKER",
        help="wandb, trackio, tensorboard, module:Class (default: the recipe's own)",
    )
    track.add_argument("--follow", action="store_true", help="keep up with the run until it is done; Ctrl-C ends")
    track.add_argument("--project", help="the project there (default: the recipe's, else reasonloop)")
    track.add_argument("--name", help="what the run is called there (default: as its folder)")

    about = "SQL (DuckDB) over a run's rollouts, problems, metrics, evals, eval_problems, eval_rollouts"
    query = _verb(verbs, commands.query, "query", about)
    query.description = f"{about}. A table on a terminal; in a pipe tab-separated lines with a header, values in full."
    query.add_argument("run", type=Path, metavar="RUN", help="the run folder, finished or not")
    query.add_argument("sql", metavar="SQL", help="one SELECT (or DESCRIBE rollouts, SUMMARIZE rollouts, SHOW TABLES)")
    query.add_argument("--json", action="store_true", help="a JSON object a row")


def _add_models(verbs: argparse._SubParsersAction[Parser]) -> None:
    """What asks a model."""
    evaluate = _verb(verbs, commands.evaluate, "eval", "evaluate a model on a task's held-out problems")
    _add_model(evaluate)
    evaluate.add_argument("--samples", type=_positive, help="responses a problem (default: 32; 1 where greedy)")
    evaluate.add_argument(
        "--json",
        type=_result_file,
        metavar="FILE",
        help="also write the whole result there, and the responses into a Parquet file beside it",
    )

    sample = _verb(
        verbs, commands.sample, "sample", "what a model says to problems: prompt, responses, verdicts; or --chat"
    )
    _add_model(sample)
    sample.add_argument("-n", type=_positive, metavar="N", help="how many problems (default: 3)")
    sample.add_argument("--samples", type=_positive, help="responses a problem (default: 4; 1 where greedy)")
    sample.add_argument("--json", action="store_true", help="a JSON object a problem, on a line of its own")
    sample.add_argument("--chat", action="store_true", help="talk to the model instead; stdin may be a pipe")


def _add_model(verb: Parser) -> None:
    verb.add_argument(
        "model", metavar="MODEL", help="Hugging Face folder, run folder (its product), GGUF file or bundled name"
    )
    _add_overrides(verb)
    verb.add_argument(
        "--task", help="a name, problem file or module:Class, with ?key=value&... behind it (default: the run's own)"
    )
    verb.add_argument(
        "--split",
        choices=("test", "probe", "train"),
        default="test",
        help="which problems of the task (default: test; a problem file given as it is has these)",
    )


def _add_overrides(verb: Parser) -> None:
    verb.add_argument(
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="options of the recipe, laid over it (docs/recipes.md)",
    )


def _add_exchange(verbs: argparse._SubParsersAction[Parser]) -> None:
    """What goes between us and other trainers."""
    imports = _verb(verbs, commands.import_rollouts, "import", "other trainers' rollouts, judged again, as a run")
    imports.add_argument(
        "files", nargs="+", type=Path, metavar="FILE|FOLDER", help="what the trainer left (docs/import.md)"
    )
    imports.add_argument(
        "--from",
        dest="trainer",
        metavar="TRAINER",
        help="whose they are: areal, nemo-rl, oat, open-instruct, openrlhf, prime-rl, rllm, roll, skyrl, tinker, trl, "
        "verifiers, verl, or jsonl for one's own (default: told by their keys)",
    )
    imports.add_argument(
        "--task", required=True, help="the problems: a name, problem file or module:Class, as for eval"
    )
    imports.add_argument("--out", type=Path, required=True, metavar="RUN", help="the folder to make; it must be new")
    imports.add_argument("--model", help="whose tokenizer and chat template count (as for eval); needed for ids alone")
    imports.add_argument("--step", type=_whole, metavar="N", help="of rollouts whose files don't say it")
    imports.add_argument("--eval", action="store_true", help="also the evaluations beside the training")
    imports.add_argument(
        "--match",
        choices=("prompt", "id"),
        default="prompt",
        help="what a rollout's problem is found by (default: prompt)",
    )
    imports.add_argument(
        "--allow-unmatched",
        type=_share,
        default=0.05,
        metavar="SHARE",
        help="of the rollouts that may answer no problem of the task (default: 0.05)",
    )
    imports.add_argument(
        "--trust-scores", metavar="RULE", help="no verifier: right is what the trainer's numbers say, as 'score >= 1'"
    )

    experts = _verb(
        verbs, commands.experts, "experts", "a run's experts as files that other trainers' fine-tuning reads"
    )
    experts.add_argument("run", type=Path, metavar="RUN", help="the run folder, finished or not, or an imported one")
    _add_overrides(experts)
    experts.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the folder to make; it must be new")
    experts.add_argument(
        "--layout",
        choices=("messages", "prompt", "alpaca"),
        help="of the rows (default: messages for chat prompts, prompt and completion for text)",
    )


def _add_tools(verbs: argparse._SubParsersAction[Parser]) -> None:
    """What needs no run."""
    init = _verb(
        verbs, commands.init, "init", "a folder to start from: recipe, problems, verifier and reward of your own"
    )
    init.add_argument("folder", metavar="DIR", help="the folder to make; it must be new or empty")

    tasks = verbs.add_parser("tasks", help="list tasks, check their gold answers, show problems")
    tasks.set_defaults(parser=tasks)
    task_verbs = tasks.add_subparsers(metavar="list|check|show", dest="what", parser_class=Parser)
    listed = _verb(task_verbs, commands.tasks, "list", "the tasks there are, or all options of one")
    listed.add_argument("task", nargs="?", metavar="TASK", help="a task whose options are wanted")
    check = _verb(task_verbs, commands.tasks, "check", "verify every gold answer against itself")
    check.add_argument(
        "task", metavar="TASK", help="a name, module:Class, or a file, folder or hf:owner/name with problems"
    )
    show = _verb(task_verbs, commands.tasks, "show", "print some problems")
    show.add_argument("task", metavar="TASK", help="as for check")
    show.add_argument("-n", type=_positive, default=5, metavar="N", help="how many (default: 5)")
    show.add_argument("--model", help="show each prompt as this model gets it, chat template included")

    verify = _verb(verbs, commands.verify, "verify", 'JSONL {"answer", "gold"} on stdin, verdicts on stdout')
    verify.add_argument(
        "--kind", choices=("math", "numeric", "exact", "code"), required=True, help="how answers are compared"
    )
    verify.add_argument(
        "--extract",
        choices=("final", "boxed", "hash", "last_number", "bare", "all"),
        help="each answer is a whole response: where in it the answer stands, as in a problem file's task",
    )
    verify.add_argument("--percent", choices=("lenient", "strict"), help="strict: 10 and 10 %% are two answers")
    verify.add_argument("--deadline", type=float, default=5.0, help="seconds an answer may take (default: 5)")
    verify.add_argument("--workers", type=_positive, help="processes that judge (default: one a core, at most 4)")

    bench = _verb(
        verbs, commands.bench, "bench", "sampled and trained tokens/s of a model, and their share of the peak"
    )
    bench.add_argument("--model", default="countdown", help="as for eval (default: countdown)")
    bench.add_argument("--layout", help="instead of a model: random weights in this shape (qwen3-0.6b)")
    bench.add_argument("--context", type=_positive, help="train on one packed stream of so many tokens (8192, 16384)")
    bench.add_argument("--batch", type=_positive, nargs="+", default=[1, 64], help="responses sampled at once")
    bench.add_argument("--threads", type=_positive, help="CPU threads (default: all cores)")
    bench.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="what it computes in (default: float32)"
    )
    bench.add_argument("--json", type=_new_file, metavar="FILE", help="also write the whole result there")

    doctor = _verb(verbs, commands.doctor, "doctor", "what this machine can do, and what is missing")
    doctor.add_argument(
        "recipe", nargs="?", type=Path, metavar="RECIPE", help="also what this recipe takes: memory, disk, time"
    )
    _add_overrides(doctor)
    doctor.add_argument("--json", action="store_true", help="one JSON object")

    completion = _verb(verbs, commands.completion, "completion", "a script that makes your shell complete this command")
    completion.add_argument("shell", choices=SHELLS, help="which shell")


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


def _result_file(text: str) -> Path:
    path = _new_file(text)
    if path.suffix == ".parquet":
        raise argparse.ArgumentTypeError(f"{text}: the responses go into that file; expected another ending, as .json")
    return path


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, at least 1 and below a billion")
    return int(text)


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, at least 0 and below a billion")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise argparse.ArgumentTypeError(f"{text}: expected a share, from 0 to 1")
    return share


if __name__ == "__main__":
    sys.exit(main())
