"""Text to tokens and back, as a model's tokenizer has it: prompts, demonstrations, stop tokens, context. Without weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reasonloop.config import Sampling
from reasonloop.errors import InputError, first_line
from reasonloop.policy.rotary import Rope
from reasonloop.records import Problem


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

    @classmethod
    def load(cls, path: str | Path) -> Codec:
        """Of the model at `path`, as `Policy.load` names it. Raises InputError where it can't be read."""
        from reasonloop.policy.loading import ALONE, hugging_face_folder, quiet, tokenizer_folder, unloadable

        source, tokens = hugging_face_folder(path, weights=False), tokenizer_folder(path)
        quiet()
        try:
            from transformers import AutoConfig, AutoTokenizer, GenerationConfig

            config = AutoConfig.from_pretrained(source, **ALONE)
            named = (source / "generation_config.json").is_file()
            generation = GenerationConfig.from_pretrained(source, local_files_only=True) if named else None
            tokenizer = AutoTokenizer.from_pretrained(tokens, **ALONE)
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
                ids = self.tokenizer.apply_chat_template(
                    list(problem.messages), add_generation_prompt=True, tokenize=True, return_dict=False
                )
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
        found: set[int] = set()
        for eos in (self.tokenizer.eos_token_id, getattr(self._generation, "eos_token_id", None)):
            found.update(eos if isinstance(eos, list | tuple) else [] if eos is None else [eos])
        found.update(ids[0] for ids in map(self._stop, texts) if len(ids) == 1)
        return frozenset(found)

    def stop_texts(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Those of `texts` that are several tokens: they are looked for in what a response's tokens say together."""
        return tuple(text for text in texts if len(self._stop(text)) != 1)

    def _stop(self, text: str) -> list[int]:
        """The tokens of a text that ends responses. Raises InputError for one that no response can say."""
        if not text:
            raise InputError("sampling.stop: '' is in every response; expected a text")
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
