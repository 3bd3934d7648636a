"""docs/cli.md, made from the command line's own parser: python docs/make_cli.py > docs/cli.md"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from reasonloop.cli import _parser

HEAD = """# Commands

Made from the command line's own help by `make docs`; do not edit.

Exit codes: 0 success; 1 the run failed or was stopped, and what to do next is printed; 2 bad input, and nothing was written.
Ctrl-C and SIGTERM stop after a checkpoint; a second one stops at once. Either way nothing that was stored is lost.
"""


def page() -> str:
    return HEAD + "".join(_section(name, parser, about) for name, parser, about in _verbs(_parser()))


def _verbs(parser: argparse.ArgumentParser, before: str = "") -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    """Every verb that does something, verbs of verbs among them, with its one line of help."""
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        about = {choice.dest: choice.help or "" for choice in action._choices_actions}
        for name, verb in action.choices.items():
            inner = [*_verbs(verb, f"{before}{name} ")]
            yield from inner or [(f"{before}{name}", verb, about.get(name, ""))]


def _section(name: str, parser: argparse.ArgumentParser, about: str) -> str:
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=100)
    usage = parser.format_usage().removeprefix("usage: ")
    lines = [
        f"\n## `{name}`\n",
        f"{_prose(about[:1].upper() + about[1:])}.\n",
        *(f"    {line}" for line in usage.splitlines()),
    ]
    rows = [row for action in parser._actions if (row := _row(action))]
    if rows:
        lines += ["\n| argument | meaning |\n|---|---|", *rows]
    if parser.epilog:
        lines += ["", *(f"    {line}".rstrip() for line in parser.epilog.splitlines())]
    return "\n".join(lines) + "\n"


def _row(action: argparse.Action) -> str:
    if action.help == argparse.SUPPRESS or isinstance(action, argparse._HelpAction):
        return ""
    names = ", ".join(f"`{option}`" for option in action.option_strings)
    value = action.metavar if isinstance(action.metavar, str) else None
    if action.nargs != 0:
        shown = value or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
        names = f"{names} `{shown}`" if names else f"`{shown}`"
    text = (action.help or "") % {"default": action.default, "prog": "reasonloop"}
    return f"| {names.replace('|', chr(92) + '|')} | {_prose(text).replace('|', chr(92) + '|')} |"


def _prose(text: str) -> str:
    """Help as Markdown: <its name> is no tag of HTML, outside of code."""
    parts = text.split("`")
    parts[::2] = [part.replace("<", "&lt;").replace(">", "&gt;") for part in parts[::2]]
    return "`".join(parts)


if __name__ == "__main__":
    print(page(), end="")
