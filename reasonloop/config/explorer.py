"""Stages that a command of the user's own does, another trainer's, say: how it is called, and what it hands back."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, field_validator

from reasonloop.config.section import Section
from reasonloop.own import nearest

_PLACE = re.compile(r"\{(\{?)([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*)\}(\}?)")


def words_of(command: str) -> list[str]:
    """A command's words as a shell tells them apart; nothing else of a shell happens to them. Raises ValueError for quotes
    that stay open."""
    return shlex.split(command)


def places_in(command: str) -> list[str]:
    """The names in curly brackets for which a value will stand; doubled brackets are brackets."""
    return [name for opened, name, closed in _PLACE.findall(command) if not (opened and closed)]


def filled(command: str, values: Mapping[str, Any]) -> list[str]:
    """The command's words with the values in their places: a value stays in its word, whatever is in it."""

    def value(match: re.Match[str]) -> str:
        opened, name, closed = match.groups()
        if opened and closed:
            return f"{{{name}}}"
        return f"{opened}{values[name]}{closed}"

    return [_PLACE.sub(value, word) for word in words_of(command)]


class _Outside(Section):
    NEEDED: ClassVar[Sequence[str]] = ("model", "out")
    KNOWN: ClassVar[Sequence[str]] = ()

    command: str = ""
    model: str = ""
    resumes: bool = False
    """Whether the command, called again with the same {out}, goes on from what it finds there. Else what a try that was cut
    off has left is moved aside, and the next one begins anew."""
    patience_seconds: float = Field(3600.0, gt=0, allow_inf_nan=True)
    """End the command, and the run, where neither its output nor anything in {out} has changed for so long. inf: never."""

    @field_validator("command")
    @classmethod
    def _complete(cls, value: str) -> str:
        if not value:
            return value
        words_of(value)  # ValueError for quotes that stay open
        named = places_in(value)
        for name in cls.NEEDED:
            if name not in named:
                raise ValueError(f"expected {{{name}}} in it, among {', '.join(f'{{{known}}}' for known in cls.KNOWN)}")
        return value

    @property
    def handed_on(self) -> list[str]:
        """The names of what the command gets"""
        return places_in(self.command)

    def check_places(self, options: Mapping[str, Any], where: str) -> None:
        """Raises ValueError for a place that nothing stands for; `options`: the recipe's by dotted key."""
        plain = {key for key, value in options.items() if isinstance(value, str | int | float)}
        for name in places_in(self.command):
            if name not in self.KNOWN and name not in plain:
                known = self.KNOWN if "." not in name else plain
                raise ValueError(
                    f"{where}: nothing stands for {{{name}}}; {nearest(name, known)}; an option of the recipe is named as "
                    "{rl.group_size}, and {{...}} is left as brackets"
                )


class Explorer(_Outside):
    """RLoop around a trainer of your own (docs/on-your-cluster.md): its command explores in place of our RL, once an
    iteration, and its rollouts are read, judged again and kept as ours are. `rl.steps`, `rl.problems_per_step` and
    `rl.group_size` say what it is asked for; how it learns is its own."""

    KNOWN: ClassVar[Sequence[str]] = ("model", "problems", "steps", "rollouts", "seed", "iteration", "recipe", "out")

    command: str = ""
    """The command, without a shell: `python grpo.py {model} {problems} {steps} {out}`. {model}: the policy that starts the
    iteration, a Hugging Face folder. {problems}: the training problems, Parquet; {out}: a folder for what it writes.
    {steps}, {rollouts}, {seed}, {iteration}; {recipe}: RUN/config.toml; and each option by its name, as {rl.group_size}.
    Empty: our own RL explores."""
    rollouts: str = ""
    """Whose layout the rollouts in {out} have, as `reasonloop import --from` calls it: verl, prime-rl, trl, ..."""
    model: str = ""
    """Where in {out} the trained policy is, for evaluations of explored policies: a folder, or a pattern such as
    `checkpoint-*`, of which the highest number is taken. Empty: it isn't looked at."""


class Finetuner(_Outside):
    """Fine-tuning on the experts (RFT) by a command of your own (docs/on-your-cluster.md) in place of ours."""

    NEEDED: ClassVar[Sequence[str]] = ("model", "experts", "out")
    KNOWN: ClassVar[Sequence[str]] = ("model", "experts", "epochs", "seed", "iteration", "recipe", "out")

    command: str = ""
    """The command, as `explorer.command`. {model}: the policy to train; {experts}: a folder with examples, train.parquet,
    with `messages`, or `prompt` and `completion`; {epochs}: passes over them; {out}: a folder for what it writes. {seed},
    {iteration}, {recipe}, and each option by its name. Empty: we fine-tune."""
    model: str = ""
    """Where in {out} the trained policy is, a Hugging Face folder: a path, or a pattern such as `checkpoint-*`, of which the
    highest number is taken. Empty: {out} itself."""
