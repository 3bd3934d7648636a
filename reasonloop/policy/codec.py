"""Text to tokens and back, as a model's tokenizer has it: prompts, demonstrations, stop tokens, context. Without weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from reasonloop.config import Sampling
from reasonloop.errors import InputError, first_line
from reasonloop.files import read_object
from reasonloop.policy.rotary import Rope
from reasonloop.records import Problem

_CLOCK = re.compile(r"""strftime_now\(\s*(?P<quote>['"])(?P<form>(?:(?!(?P=quote)).){0,200})(?P=quote)\s*\)""")
"""Where a chat template asks for the time, in a form that it spells out"""


def _told(day: date, asked: re.Match[str]) -> str:
    """What a template's clock says at the beginning of a day, as a text of its own."""
    return json.dumps(datetime.combine(day, time()).strftime(asked["form"]), ensure_ascii=False)


class Codec:
    """A tokenizer, and what of the model's configuration says how far it reaches. Free of torch."""

    def __init__(self, tokenizer: Any, config: Any, generation: Any = None) -> None:
        """All three are transformers' objects; `generation` names further tokens that end a text."""
        self.tokenizer = tokenizer
        text = config.get_text_config()
        self.vocabulary = int(text.vocab_size)
        """Tokens that the model has logits for"""
        self.context_length = int(getattr(text, "max_position_embeddings", None) or 1 << 30)
        """Most tokens that the model's positions reach: prompt and response together"""
        self.rope = Rope.of(text)
        self._generation = generation
        self.date: date | None = None
        """The date that a chat template writes which asks for today's; None: today's"""

    @cached_property
    def unknown(self) -> tuple[int, ...]:
        """Tokens that the model has logits for and the tokenizer doesn't have, in order (vocabularies are padded to round
        numbers): they say nothing, and are never sampled."""
        known = {*self.tokenizer.get_vocab().values(), *self._ends()}
        return tuple(i for i in range(self.vocabulary) if i not in known)

    def knows(self, response: np.ndarray) -> bool:
        """Whether a response has known tokens alone: another one isn't learned from."""
        return not self.unknown or not bool(np.isin(response, self.unknown).any())

    def _ends(self) -> set[int]:
        """All that the model names as an end of a text."""
        found: set[int] = set()
        for eos in (self.tokenizer.eos_token_id, getattr(self._generation, "eos_token_id", None)):
            found.update(eos if isinstance(eos, list | tuple) else [] if eos is None else [eos])
        return found

    @classmethod
    def load(cls, path: str | Path, trust_remote_code: bool = False) -> Codec:
        """Of the model at `path`, as `Policy.load` names it. Raises InputError where it can't be read."""
        from reasonloop.policy.asking import alone, quiet
        from reasonloop.policy.loading import hugging_face_folder, tokenizer_folder, unloadable
        from reasonloop.policy.tokenizers import load_tokenizer

        source, tokens = hugging_face_folder(path, weights=False), tokenizer_folder(path)
        quiet()
        try:
            from transformers import AutoConfig, GenerationConfig

            config = AutoConfig.from_pretrained(source, **alone(trust_remote_code))
            named = (source / "generation_config.json").is_file()
            generation = GenerationConfig.from_pretrained(source, **alone(trust_remote_code)) if named else None
            tokenizer = load_tokenizer(tokens, trust_remote_code)
        except Exception as error:  # a damaged or foreign folder fails anywhere inside of transformers
            raise unloadable(path, error) from error
        codec = cls(tokenizer, config, generation)
        codec.check_end(str(path))
        return codec

    def check_end(self, path: str) -> None:
        """Raises InputError if the model has no embedding for the end-of-sequence token."""
        eos = self.tokenizer.eos_token_id
        self._checked([] if eos is None else [eos], f"model {path}")

    def check_context(self, name: str, prompt: np.ndarray, sampling: Sampling) -> None:
        """Raises InputError, with the prompt's name, unless it has tokens and the context holds them and max_tokens."""
        if not len(prompt):
            raise InputError(f"{name}: its prompt has no tokens")
        if len(prompt) + sampling.max_tokens > self.context_length:
            raise InputError(
                f"{name}: its prompt has {len(prompt)} tokens, with sampling.max_tokens = {sampling.max_tokens} "
                f"more than the model's context of {self.context_length}"
            )
        if reason := self.rope.beyond(len(prompt), sampling.max_tokens):
            raise InputError(
                f"{name}: its prompt has {len(prompt)} tokens, and sampling.max_tokens = {sampling.max_tokens}: {reason}"
            )

    def encode_prompt(self, problem: Problem) -> np.ndarray:
        """Prompt tokens, int32 [P]: the text as the tokenizer lays it out, or the messages in its chat template."""
        if problem.messages is not None:
            from jinja2 import TemplateError

            if not self.has_chat_template:
                raise InputError(
                    f"problem {problem.id}: has chat messages, but the model's tokenizer has no chat template"
                )
            try:
                ids = self._laid_out(problem.messages)
            except (TemplateError, TypeError, ValueError) as error:  # templates refuse roles, orders, missing fields
                raise InputError(
                    f"problem {problem.id}: the model's chat template refuses its messages: {first_line(error)}"
                ) from error
        else:
            ids = self.tokenizer(problem.prompt).input_ids
            if ids and ids[-1] == self.tokenizer.eos_token_id:
                ids = ids[:-1]  # some tokenizers close a text; a prompt is not closed
        if not ids:
            raise InputError(f"problem {problem.id}: its prompt has no tokens")
        return self._checked(ids, f"problem {problem.id}")

    def _laid_out(self, messages: Sequence[Mapping[str, str]], reply: bool = True) -> list[int]:
        """The tokens of messages in the chat template. `reply`: with what begins the model's reply."""
        how: dict[str, Any] = {"add_generation_prompt": reply, "tokenize": True, "return_dict": False}
        template = self.tokenizer.chat_template
        if self.date is not None and isinstance(template, str) and "strftime_now" in template:
            how["chat_template"] = _CLOCK.sub(partial(_told, self.date), template)
        ids: list[int] = self.tokenizer.apply_chat_template(list(messages), **how)
        return ids

    def template_notes(self, problem: Problem) -> list[str]:
        """What is unusual about a problem's messages in the chat template, a line each: sampling goes on behind them."""
        if problem.messages is None or not self.has_chat_template:
            return []
        prompt = self.encode_prompt(problem)
        end = self.decode_whole(prompt[-12:])
        found = []
        if prompt.tolist() == self._laid_out(problem.messages, reply=False):
            found.append(
                f"the chat template has no generation prompt: a prompt ends with {end!r}, and the model goes on from there"
            )
        if prompt[-1] in self._ends():
            found.append(
                f"the chat template closes a prompt with an end-of-sequence token ({end!r}): the model answers behind it"
            )
        return found

    def end_notes(self, stop: Sequence[str]) -> list[str]:
        """A line where nothing ends a response: no token of the model's, and none of `stop`."""
        if stop or self._ends():
            return []
        return [
            "neither the tokenizer nor generation_config.json names an end-of-sequence token: every response runs to "
            "sampling.max_tokens; sampling.stop = [...] ends it at a text"
        ]

    def encode_response(self, text: str) -> np.ndarray:
        """Tokens of a demonstration, int32 [T], closed with the end-of-sequence token.

        Raises InputError if the tokenizer has none: the policy would learn never to stop.
        """
        if self.tokenizer.eos_token_id is None:
            raise InputError(
                "the model's tokenizer has no end-of-sequence token; expected one, to close demonstrations with"
            )
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        return self._checked([*ids, self.tokenizer.eos_token_id], f"response {text[:40]!r}")

    def _checked(self, ids: Sequence[int], name: str) -> np.ndarray:
        """The ids, int32. Raises InputError if the model has none of one: tokens were added to its tokenizer alone."""
        beyond = [i for i in ids if i >= self.vocabulary]
        if beyond:
            token = self.tokenizer.convert_ids_to_tokens(beyond[0])
            raise InputError(
                f"{name}: its tokenizer has {token!r} with id {beyond[0]}, the model has {self.vocabulary} token "
                "embeddings; expected as many as the tokenizer has tokens (transformers' resize_token_embeddings)"
            )
        return np.asarray(ids, dtype=np.int32)

    def decode(self, tokens: np.ndarray) -> str:
        """The text of a response without special tokens. Only for verifiers and readers: training keeps the tokens."""
        text: str = self.tokenizer.decode(tokens.tolist(), skip_special_tokens=True)
        return text

    @property
    def has_chat_template(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))

    def decode_whole(self, tokens: np.ndarray) -> str:
        """The text of tokens with the special ones among them: a prompt as the model gets it."""
        text: str = self.tokenizer.decode(tokens.tolist(), skip_special_tokens=False)
        return text

    def stop_tokens(self, texts: Sequence[str]) -> frozenset[int]:
        """Ids that end a response: end of sequence (all that the model names) and each of `texts` that is one token."""
        return frozenset(self._ends() | {ids[0] for ids in map(self._stop, texts) if len(ids) == 1})

    def write_ends(self, folder: Path) -> None:
        """Makes transformers' `generate` stop where sampling does: at the tokenizer's end of sequence, too."""
        file, ends = folder / "generation_config.json", sorted(self._ends())
        told = read_object(file) if file.is_file() else {}
        there = told.get("eos_token_id")
        if {*(there if isinstance(there, list) else [there])} - {None} == {*ends}:
            return
        told["eos_token_id"] = ends if len(ends) > 1 else ends[0]
        file.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def stop_texts(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Those of `texts` that are several tokens: they are looked for in what a response's tokens say together."""
        return tuple(text for text in texts if len(self._stop(text)) != 1)

    def _stop(self, text: str) -> list[int]:
        """The tokens of a text that ends responses. Raises InputError for one that no response can say."""
        if not text:
            raise InputError("sampling.stop: '' is in every response; expected a text")
        if "\ufffd" in text:  # decoders take characters back for it, which no tail shows (`engine.stop_text`)
            raise InputError(
                f"sampling.stop: {text!r} has U+FFFD, the sign for what is no text; expected a text without"
            )
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        if self.tokenizer.unk_token_id in ids:
            raise InputError(f"sampling.stop: {text!r} is unknown to this tokenizer; expected a text of its tokens")
        special = set(ids) & set(self.tokenizer.all_special_ids)
        if special and len(ids) > 1:
            token = self.tokenizer.convert_ids_to_tokens(min(special))
            raise InputError(
                f"sampling.stop: {text!r} has the special token {token!r} in it, which is no part of a response's text; "
                "expected a special token alone, or a text without one"
            )
        return ids
