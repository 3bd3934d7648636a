"""How the command line explains itself: verbs in groups, an example or two for each, completion in the shell."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from reasonloop.errors import InputError
from reasonloop.files import bundled_recipes

GROUPS = {
    "Train": ("init", "run", "study"),
    "Look at results": ("report", "compare", "eval", "sample", "query", "track"),
    "Problems": ("tasks", "verify"),
    "This machine": ("doctor", "bench", "completion"),
}
"""The verbs, as the help lists them; those that stand in no group come last"""

EXAMPLES = {
    "init": ("reasonloop init my-problems", "cd my-problems && reasonloop run recipe.toml"),
    "run": (
        "reasonloop run recipes/quickstart.toml",
        "reasonloop run my.toml model.path=models/Qwen3-0.6B rl.steps=50 --out runs/b --dry-run",
    ),
    "eval": (
        "reasonloop eval runs/quickstart",
        "reasonloop eval models/Qwen3-0.6B --task test.jsonl --samples 8 --json result.json",
        "reasonloop eval runs/quickstart eval.temperature=0        # greedy, one response a problem",
    ),
    "sample": (
        "reasonloop sample runs/quickstart",
        "reasonloop sample models/Qwen3-0.6B --task 'test.jsonl?format=chat' -n 2 sampling.max_tokens=512",
        "reasonloop sample models/Qwen3-0.6B --chat",
        "echo '80 from 3 7 11 :' | reasonloop sample countdown --chat",
    ),
    "compare": (
        "reasonloop compare runs/a-0 runs/a-1 runs/b-0 runs/b-1",
        "reasonloop compare long=runs/a-0 short=runs/b-0 --out compare.html",
    ),
    "report": ("reasonloop report runs/quickstart", "reasonloop report runs/quickstart --follow"),
    "query": (
        'reasonloop query runs/quickstart "SELECT branch, step, avg(reward) FROM rollouts GROUP BY ALL ORDER BY ALL"',
        'reasonloop query runs/quickstart "SELECT prompt, answer, text FROM rollouts JOIN problems USING (problem_id) '
        "WHERE verdict = 'right' LIMIT 3\"",
        'reasonloop query runs/quickstart "SUMMARIZE eval_rollouts"',
    ),
    "track": (
        "reasonloop track runs/quickstart --to wandb",
        "reasonloop track runs/quickstart --to tensorboard --follow",
    ),
    "tasks list": ("reasonloop tasks list", "reasonloop tasks list jsonl"),
    "tasks check": ("reasonloop tasks check train.jsonl", "reasonloop tasks check 'train.csv?verifier=numeric'"),
    "tasks show": (
        "reasonloop tasks show countdown -n 2",
        "reasonloop tasks show 'test.jsonl?format=chat' --model models/Qwen3-0.6B",
    ),
    "verify": ("""echo '{"answer": "1/2", "gold": "0.5"}' | reasonloop verify --kind math""",),
    "bench": ("reasonloop bench", "reasonloop bench --layout qwen3-0.6b --dtype bfloat16"),
    "doctor": ("reasonloop doctor",),
    "completion": (
        'eval "$(reasonloop completion bash)"                      # in ~/.bashrc; zsh alike',
        "reasonloop completion fish > ~/.config/fish/completions/reasonloop.fish",
    ),
}
"""What to type, by verb"""

SHELLS = ("bash", "zsh", "fish")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as all verbs do."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        name = self.prog.partition(" ")[2]
        if name in EXAMPLES:
            self.epilog = "\n".join(["examples:", *(f"  {line}" for line in EXAMPLES[name])])

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; `{self.prog} --help` shows what is expected")


class TopParser(Parser):
    """The command itself: its help has the verbs in groups."""

    def format_help(self) -> str:
        about = {action.dest: action.help or "" for action in _listed(self)}
        grouped = {verb for verbs in GROUPS.values() for verb in verbs}
        groups = {**GROUPS, "More": tuple(verb for verb in about if verb not in grouped)}
        lines = [f"usage: {self.prog} VERB ...", "", self.description or ""]
        for title, verbs in groups.items():
            there = [verb for verb in verbs if verb in about]
            if there:
                lines += ["", f"{title}:", *(f"  {verb:<12}{about[verb]}" for verb in there)]
        lines += [
            "",
            f"`{self.prog} VERB --help` says more, with examples. `{self.prog} --version` says which this is.",
        ]
        return "\n".join(lines) + "\n"


def _listed(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action._get_subactions()


def script(shell: str) -> str:
    """What makes a shell complete our command: for `eval`, or for its folder of completions."""
    return str(_argcomplete().shellcode(["reasonloop"], shell=shell))


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers a shell that asks for completions, and ends the process; does nothing else where none asks."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    for action in actions(parser):
        if action.dest in _COMPLETERS:
            action.completer = _COMPLETERS[action.dest]  # type: ignore[attr-defined]
    _argcomplete().autocomplete(parser)


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All options and positional arguments of a parser and of its verbs."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from actions(inner)


def _argcomplete() -> Any:
    try:
        import argcomplete
    except ImportError:
        raise InputError(
            'completion needs the package argcomplete; expected it after: pip install "reasonloop[completion]"'
        ) from None
    return argcomplete


def _overrides(prefix: str, **_: Any) -> list[str]:
    from reasonloop.config import Recipe
    from reasonloop.config.section import known_keys, values

    key, equals = prefix.partition("=")[:2]
    if equals:
        from reasonloop.methods.method import METHODS

        listed = METHODS if key == "method" else values(Recipe, key)
        return [text for value in listed if (text := f"{key}={value}").startswith(prefix)]
    return [f"{key}=" for key in known_keys(Recipe) if key.startswith(prefix)]


def _recipes(prefix: str, **_: Any) -> Iterable[str]:
    return [*(name for name in bundled_recipes() if name.startswith(prefix)), *_files(prefix)]


def _tasks(prefix: str, **_: Any) -> Iterable[str]:
    from reasonloop.tasks import TASKS

    return [*(name for name in TASKS if name.startswith(prefix)), *_files(prefix)]


def _models(prefix: str, **_: Any) -> Iterable[str]:
    from reasonloop.policy.loading import bundled_names

    return [*(name for name in bundled_names() if name.startswith(prefix)), *_files(prefix)]


def _files(prefix: str) -> Iterable[str]:
    found: Iterable[str] = _argcomplete().completers.FilesCompleter()(prefix)
    return found


def _trackers(prefix: str, **_: Any) -> Iterable[str]:
    from reasonloop.config.sections import TRACKERS

    return [name for name in TRACKERS if name.startswith(prefix)]


_COMPLETERS = {"recipe": _recipes, "to": _trackers, "overrides": _overrides, "task": _tasks, "model": _models}
