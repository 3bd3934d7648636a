"""A policy: a causal language model of transformers' own with its tokenizer, loaded, saved, and run on packed streams."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from reasonloop.config import Sampling
from reasonloop.errors import InputError
from reasonloop.files import replace_folder, user_cache
from reasonloop.kernels.products import wide_products
from reasonloop.policy import attention
from reasonloop.policy.attention import PackedPlan, Plan, Segment
from reasonloop.policy.folder import resolve
from reasonloop.policy.logprobs import Head, target_logprobs
from reasonloop.records import Problem


class Policy:
    """A model and its tokenizer. `model` and `tokenizer` are plain transformers objects."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model: Any = model.eval()  # dropout would make the trained policy differ from the sampled one
        self.tokenizer = tokenizer
        self.placement = object()
        """Another one whenever the weights have moved in memory: who has handed on their place hands it on again"""
        self.model.set_attn_implementation(attention.NAME)

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu", dtype: str = "auto") -> Policy:
        """Loads what `policy.folder.resolve` finds at `path`, for a device, to compute in a dtype as `compute_in` has it.

        Raises InputError when there is no model there, when it cannot be loaded, or when the model computes
        something that packed streams cannot reproduce (checked on random tokens against its ordinary forward pass).
        """
        source = resolve(str(path))
        quiet()
        model: Any
        try:
            if source.suffix == ".gguf":
                source = _converted_gguf(source)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
            model, report = loaded
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
        except Exception as error:  # a damaged or foreign folder fails anywhere inside of transformers
            raise InputError(f"model {path}: cannot be loaded: {_first_line(error)}") from error
        if missing := sorted(report["missing_keys"]):  # transformers fills them with random numbers
            raise InputError(f"model {path}: its files lack {len(missing)} of its weights, {missing[0]} for one")
        policy = cls(model.to(device), tokenizer)
        policy._checked([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id], f"model {path}")
        policy._check_packing(str(path))  # in float32, where a difference is one of method, not of rounding
        policy.compute_in(dtype)
        return policy

    def compute_in(self, dtype: str) -> None:
        """Casts the weights to "float32" or "bfloat16"; "auto" is bfloat16 on a GPU, else float32.

        Buffers stay as they are: rotary frequencies in bfloat16 would mistake one position for another.
        """
        if dtype == "auto":
            dtype = "bfloat16" if self.device.type == "cuda" else "float32"
        for parameter in self.model.parameters():
            parameter.data = parameter.data.to(getattr(torch, dtype))
        self.placement = object()

    def save(self, folder: Path) -> None:
        """Writes a Hugging Face folder that AutoModelForCausalLM.from_pretrained loads. Whole or not at all (OSError)."""
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            self.model.save_pretrained(partial)
        except SafetensorError as error:  # a full disk is no OSError there
            raise OSError(f"{folder}: {error}") from error
        self.tokenizer.save_pretrained(partial)
        replace_folder(partial, folder)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def vocabulary(self) -> int:
        """Tokens that the model has logits for."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def context_length(self) -> int:
        """Most tokens that the model's positions reach: prompt and response together."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 1 << 30))

    def check_context(self, name: str, prompt: np.ndarray, sampling: Sampling) -> None:
        """Raises InputError, with the prompt's name, unless the context holds the prompt and max_tokens after it."""
        if len(prompt) + sampling.max_tokens > self.context_length:
            raise InputError(
                f"{name}: its prompt has {len(prompt)} tokens, with sampling.max_tokens = {sampling.max_tokens} "
                f"more than the model's context of {self.context_length}"
            )

    def head(self) -> Head:
        """The step from hidden states to logits, with the scalings that some model families add."""
        config = self.model.config.get_text_config()
        scale = float(getattr(config, "logit_scale", 1.0) or 1.0) / float(getattr(config, "logits_scaling", 1.0) or 1.0)
        output = self.model.get_output_embeddings()
        return Head(output.weight, output.bias, scale, getattr(config, "final_logit_softcapping", None))

    def hidden(self, tokens: Tensor, positions: Tensor, plan: Plan) -> Tensor:
        """Final hidden states of a packed stream: int64 [N], int64 [N] -> [N, D]."""
        output = self.model.base_model(
            input_ids=tokens[None],
            position_ids=positions[None],
            attention_mask=attention.mask_is_in_the_plan(tokens.device),
            use_cache=False,
            plan=plan,
        )
        return output.last_hidden_state[0]

    def encode_prompt(self, problem: Problem) -> np.ndarray:
        """Prompt tokens, int32 [P]: the text as the tokenizer lays it out, or the messages in its chat template."""
        if problem.messages is not None:
            from jinja2 import TemplateError

            if not getattr(self.tokenizer, "chat_template", None):
                raise InputError(
                    f"problem {problem.id}: has chat messages, but the model's tokenizer has no chat template"
                )
            try:
                ids = self.tokenizer.apply_chat_template(
                    list(problem.messages), add_generation_prompt=True, tokenize=True, return_dict=False
                )
            except (TemplateError, TypeError, ValueError) as error:  # templates refuse roles, orders, missing fields
                raise InputError(
                    f"problem {problem.id}: the model's chat template refuses its messages: {_first_line(error)}"
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
        vocabulary = self.vocabulary
        beyond = [i for i in ids if i >= vocabulary]
        if beyond:
            token = self.tokenizer.convert_ids_to_tokens(beyond[0])
            raise InputError(
                f"{name}: its tokenizer has {token!r} with id {beyond[0]}, the model has {vocabulary} token embeddings; "
                "expected as many as the tokenizer has tokens (transformers' resize_token_embeddings)"
            )
        return np.asarray(ids, dtype=np.int32)

    def decode(self, tokens: np.ndarray) -> str:
        """The text of a response without special tokens. Only for verifiers and readers: training keeps the tokens."""
        return self.tokenizer.decode(tokens.tolist(), skip_special_tokens=True)

    def stop_tokens(self, texts: Sequence[str]) -> frozenset[int]:
        """Ids that end a response: end of sequence (all that the model names) and each of `texts`."""
        found: set[int] = set()
        generation = getattr(self.model, "generation_config", None)
        for eos in (self.tokenizer.eos_token_id, getattr(generation, "eos_token_id", None)):
            found.update(eos if isinstance(eos, list | tuple) else [] if eos is None else [eos])
        for text in texts:
            ids = self.tokenizer(text, add_special_tokens=False).input_ids
            if len(ids) != 1:
                raise InputError(f"sampling.stop: {text!r} is {len(ids)} tokens of this tokenizer; expected one")
            if ids[0] == self.tokenizer.unk_token_id:
                raise InputError(f"sampling.stop: {text!r} is unknown to this tokenizer; expected one of its tokens")
            found.add(ids[0])
        return frozenset(found)

    def score(
        self, prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray], sampling: Sampling
    ) -> list[np.ndarray]:
        """Log-probs of each response's tokens after its prompt, float32 [T] each, nats, under `sampling`'s distribution.

        Token stream and shared prompts as in training; no gradient.
        """
        from reasonloop.policy.stream import pack, split_by_tokens

        scored: list[np.ndarray] = [np.empty(0, np.float32)] * len(prompts)
        for members in split_by_tokens(prompts, responses, 16384):
            stream = pack([prompts[i] for i in members], [responses[i] for i in members], self.device)
            with torch.inference_mode(), wide_products(self.model):
                hidden = self.hidden(stream.tokens, stream.positions, stream.plan)[stream.predict_from]
                logprobs, _ = target_logprobs(hidden, self.head(), stream.targets, sampling)
            for i, part in zip(members, stream.split(logprobs.cpu().numpy()), strict=True):
                scored[i] = part
        return scored

    def _check_packing(self, name: str) -> None:
        """Packed hidden states and our head must give the logits of the model's own forward pass.

        The stream holds a foreign prompt, then a prompt with two responses: a layer that mixes neighbours in the stream
        outside of attention (a convolution, a recurrent state) shows itself at the seams.
        """
        tokens = torch.from_numpy(np.random.default_rng(0).integers(0, self.vocabulary, 19)).to(self.device)
        rows = [torch.arange(4), torch.arange(4, 14), torch.cat([torch.arange(4, 9), torch.arange(14, 19)])]
        positions = torch.cat([torch.arange(4), torch.arange(10), torch.arange(5, 10)]).to(self.device)
        plan = PackedPlan(
            [Segment(0, 4), Segment(4, 5), Segment(9, 5, ((4, 5),)), Segment(14, 5, ((4, 5),))], self.device
        )
        worst = 0.0
        try:
            with torch.inference_mode():
                packed = self.head().logits(self.hidden(tokens, positions, plan))
                for row in rows:
                    expected = self.model(input_ids=tokens[row][None], use_cache=False).logits[0].float()
                    difference = (packed[row] - expected).abs().max() / expected.abs().max().clamp(min=1.0)
                    worst = max(worst, float(difference.nan_to_num(torch.inf)))
        except (TypeError, AttributeError, NotImplementedError, RuntimeError, ValueError, IndexError) as error:
            raise InputError(f"model {name}: does not run on packed streams: {_first_line(error)}") from error
        if not worst < 1e-3:
            raise InputError(
                f"model {name}: on a packed stream its logits differ by {worst:.2g} (relative) from its own forward "
                "pass; this architecture is not supported"
            )


def resolve_device(chosen: str) -> str:
    """ "auto" -> "cuda" where torch sees a GPU, else "cpu". Raises InputError for a GPU that isn't there."""
    available = torch.cuda.is_available()
    if chosen == "cuda" and not available:
        raise InputError("model.device = 'cuda': torch sees no GPU here; expected 'auto' or 'cpu'")
    return ("cuda" if available else "cpu") if chosen == "auto" else chosen


def quiet() -> None:
    """transformers' loading bars and advice are noise between our own progress lines."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _converted_gguf(file: Path) -> Path:
    """The Hugging Face folder of a GGUF file, made once and kept in the user's cache: reading GGUF takes half a minute."""
    stat = file.stat()
    converted = user_cache() / f"{file.stem}-{stat.st_size}-{int(stat.st_mtime)}"
    if not (converted / "config.json").is_file():
        model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        # the weights are plain now, but transformers would refuse to save them as "quantized with gguf"
        for owner, name in (
            (model, "hf_quantizer"),
            (model, "quantization_method"),
            (model.config, "quantization_config"),
        ):
            if hasattr(owner, name):
                delattr(owner, name)
        model.is_quantized = False
        partial = converted.with_name(f"{converted.name}.{os.getpid()}.partial")
        partial.mkdir(parents=True)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        replace_folder(partial, converted)
    return converted


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
