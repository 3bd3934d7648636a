"""`reasonloop sample --chat`: a talk with a model in the terminal, or over a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from reasonloop import config
from reasonloop.config import Recipe
from reasonloop.errors import InputError
from reasonloop.evaluation.standalone import loaded, stored_data
from reasonloop.machine.threads import wait_briefly
from reasonloop.records import Place, Problem
from reasonloop.text import readable

if TYPE_CHECKING:
    from reasonloop.engine.protocol import Completion, Engine, Request
    from reasonloop.policy.codec import Codec

MAX_TOKENS = 512
"""Of a reply, where neither a run nor an override says it"""
UNFINISHED = "\ufffd"
"""What half of a character is decoded as"""


def talk(model: str, overrides: list[str]) -> None:
    """Reads lines from stdin and prints the model's replies, token by token where the engine can, until /quit or the end.

    With a chat template the whole talk is the prompt (/new begins another); without one each line is continued by itself.
    """
    recipe = _recipe(model, overrides)
    wait_briefly()
    from reasonloop.policy.loading import resolve

    resolve(model)
    with loaded(model, recipe) as (codec, engine):
        chat = Chat(recipe, codec, engine)
        at_terminal = sys.stdin.isatty()
        if at_terminal:
            how = (
                "the whole talk is the prompt"
                if codec.has_chat_template
                else "no chat template: each line is continued"
            )
            _note(f"{model}, {how}. /new begins anew, /quit or Ctrl-D ends, Ctrl-C stops a reply.")
        for line in _lines(at_terminal):
            if line in ("/quit", "/exit"):
                break
            if line == "/new":
                chat = Chat(recipe, codec, engine)
            elif line.strip():
                try:
                    chat.reply(line)
                except InputError as error:
                    if not at_terminal:
                        raise
                    _note(str(error))


@dataclass
class Chat:
    """A talk: what was said so far."""

    recipe: Recipe
    codec: Codec
    engine: Engine
    messages: list[dict[str, str]] = field(default_factory=list)
    turns: int = 0

    def __post_init__(self) -> None:
        system = self.recipe.task.options.get("system")
        if system and isinstance(system, str):
            self.messages.append({"role": "system", "content": system})

    def reply(self, said: str) -> str:
        """The model's answer, printed as it comes; Ctrl-C ends it. Raises InputError where the prompt can't be made or
        leaves no room, and then what was said is forgotten."""
        asked = [*self.messages, {"role": "user", "content": said}]
        templated = self.codec.has_chat_template
        problem = Problem("chat", messages=tuple(asked)) if templated else Problem("chat", prompt=said)
        request, limit = self._request(problem)
        self.turns += 1
        text = self._printed(request, limit)
        if templated:
            self.messages = [*asked, {"role": "assistant", "content": text}]
        return text

    def _request(self, problem: Problem) -> tuple[Request, int]:
        """The request, and the most tokens that it may take."""
        from reasonloop.engine.protocol import Request

        prompt, sampling = self.codec.encode_prompt(problem), self.recipe.sampling
        limit = min(sampling.max_tokens, self.codec.context_length - len(prompt))
        if limit < 1:
            raise InputError(
                f"the talk has {len(prompt)} tokens, the model's context {self.codec.context_length}; /new begins anew"
            )
        draw = Place("chat", "chat", step=self.turns).draw(self.recipe.seed, problem.id, 0)
        stop = self.codec.stop_tokens(sampling.stop)
        return Request(prompt, draw, stop, stop_texts=self.codec.stop_texts(sampling.stop)), limit

    def _printed(self, request: Request, limit: int) -> str:
        written = _Writer(self.codec)
        if hasattr(self.engine, "on_token"):
            self.engine.on_token = lambda _, tokens: written.show(tokens)
        sampling = self.recipe.eval_sampling.model_copy(update={"max_tokens": limit})
        ending = ""
        try:
            done: Completion = self.engine.generate([request], sampling)[0]
            written.show(done.tokens, whole=True)
            if done.finish == "length":
                ending = f"cut off after {limit} tokens (sampling.max_tokens)"
        except KeyboardInterrupt:
            ending = "stopped"
        sys.stdout.write("\n")
        sys.stdout.flush()
        if ending:
            _note(f"[{ending}]")
        return written.text


class _Writer:
    """Prints a text that grows."""

    def __init__(self, codec: Codec) -> None:
        self.codec, self.text = codec, ""

    def show(self, tokens: np.ndarray, whole: bool = False) -> None:
        text = self.codec.decode(tokens)
        if not whole:
            text = text.rstrip(UNFINISHED)
        if text.startswith(self.text):  # else a tokenizer went back on what it said: the end shows it
            sys.stdout.write(readable(text[len(self.text) :]))
            self.text = text
        elif whole:
            sys.stdout.write("\n" + readable(text))
            self.text = text
        sys.stdout.flush()


def _lines(at_terminal: bool) -> Iterator[str]:
    """What is typed, or piped in, a line each."""
    if not at_terminal:
        for line in sys.stdin:
            yield line.rstrip("\n").encode(errors="surrogateescape").decode(errors="replace")
        return
    with suppress(ImportError):
        import readline  # noqa: F401  (input() then edits lines and has a history)
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            sys.stdout.write("\n")
            return


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _recipe(model: str, overrides: list[str]) -> Recipe:
    """The options of a talk: the run's own, if the model is a run folder."""
    data = stored_data(model)
    data["sampling"] = {"max_tokens": MAX_TOKENS, **data.get("sampling", {})}
    data["eval"] = {**data.get("eval", {}), "samples": 1, "probe_samples": 1}
    return config.parse(data, overrides, where=f"sample {model}")
