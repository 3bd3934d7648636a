"""A policy: a causal language model of transformers' own with its codec, loaded, saved, and run on packed streams."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from reasonloop.config import LoraSettings, Sampling
from reasonloop.errors import InputError
from reasonloop.files import replace_folder, usual_modes
from reasonloop.kernels.matmul import wide_matmul
from reasonloop.policy import adapters, attention, norms
from reasonloop.policy.adapters import Adapter
from reasonloop.policy.attention import Plan
from reasonloop.policy.check import check_packing
from reasonloop.policy.codec import Codec
from reasonloop.policy.copies import copied
from reasonloop.policy.finite import NotFinite, check_finite
from reasonloop.policy.loading import bundled_names, load_model, resolve_device
from reasonloop.policy.logprobs import Head, NoHead
from reasonloop.policy.plain import PlainScorer
from reasonloop.policy.plain_check import plain_scorer
from reasonloop.policy.scorer import ComputePath, Scorer
from reasonloop.policy.shape import SCORED_AT_ONCE
from reasonloop.policy.stream import in_streams

DTYPES = ("auto", "float32", "bfloat16")


class Policy:
    """A model with its tokenizer: `model` is a plain transformers object, `codec` turns text to tokens and back, and
    `scorer` is the only way in for learning and scoring.

        policy = reasonloop.Policy.load("countdown")
        policy.save("my-model")
    """

    version = 0
    """Of its weights: another one whenever a `reasonloop.Learner` has changed them. Rollouts carry it."""
    reason = ""
    """Why it isn't computed on packed streams, where it isn't"""
    adapter: Adapter | None = None
    """LoRA: what is trained instead of the weights, once `adapt` has put it there"""

    def __init__(self, model: Any, tokenizer: Any, name: str = "policy") -> None:
        """Checks the model as `load` does, with its errors."""
        self.name = name
        """What a reader calls it: where it was loaded from"""
        self.model: Any = model.eval()  # dropout would make the trained policy differ from the sampled one
        if getattr(model.config, "rescale_every", 0):  # RWKV halves its weights in place before it infers
            model.config.rescale_every = 0
        own: str = model.config._attn_implementation
        self._own_attention = "eager" if own == attention.NAME else own  # a model of another policy
        self.model.set_attn_implementation(attention.NAME)
        if self.device.type == "cuda":
            norms.fuse(self.model)
        self.codec = Codec(tokenizer, model.config, getattr(model, "generation_config", None))
        self.scorer: Scorer = Scorer(self.model)
        self.scorer.unknown = self.codec.unknown
        self.codec.check_end(name)
        check_finite(self.model, name)
        try:
            check_packing(self.scorer, self.vocabulary, name)
        except NotFinite:
            raise
        except InputError as error:
            self.go_plain(str(error.__cause__ or error))

    @classmethod
    def load(
        cls, path: str | Path, device: str = "auto", dtype: str = "auto", trust_remote_code: bool = False
    ) -> Policy:
        """The policy at `path`: a Hugging Face folder, a GGUF file, a run folder (its product), a bundled model's name
        ("countdown"), or a model of the Hugging Face hub ("owner/name", "owner/name@revision").

        `device`: "cpu", "cuda", "cuda:1", or "auto", which is a GPU when torch sees one. `dtype`: what it computes in,
        "float32", "bfloat16", or "auto" as `compute_in` has it. `trust_remote_code`: runs the Python code in the model's
        folder, which may do all that you may.

        Raises InputError when there is no model there, when it cannot be loaded, when not all of its weights are numbers
        (NotFinite), or when the model computes something that packed streams cannot reproduce (`policy.check`).
        """
        device = resolve_device(device)
        if dtype not in DTYPES:
            raise InputError(f"model.dtype = {dtype!r}: expected one of {', '.join(DTYPES)}")
        if dtype == "auto":
            dtype = default_dtype(device)
        return cls(*load_model(path, device, dtype, trust_remote_code), str(path))

    @property
    def path(self) -> ComputePath:
        """ "packed", or "plain" for a model that packed streams can't reproduce."""
        return self.scorer.path

    def go_plain(self, reason: str) -> None:
        """Computes by the model's own forward pass from now on. `reason`: why it isn't packed. Raises InputError where that
        isn't exact either."""
        self.model.set_attn_implementation(self._own_attention)
        self.scorer, self.reason = plain_scorer(self.model, self.vocabulary, self.name), reason
        self.scorer.unknown = self.codec.unknown

    def notes(self) -> list[str]:
        """What a reader should know of how it is computed, a line each."""
        return [f"{self.scorer.cost()} ({self.reason})"] if isinstance(self.scorer, PlainScorer) else []

    def on(self, model: Any) -> Policy:
        """The same policy on another module tree of the same model."""
        twin = copy.copy(self)
        twin.model, twin.scorer = model, self.scorer.on(model)
        return twin

    def compute_in(self, dtype: str) -> None:
        """Casts the weights to "float32" or "bfloat16"; "auto" is bfloat16 on a GPU, else float32.

        Buffers stay as they are: rotary frequencies in bfloat16 would mistake one position for another. So does an adapter,
        which is float32 always.
        """
        if dtype == "auto":
            dtype = default_dtype(str(self.device))
        for name, parameter in self.model.named_parameters():
            if not adapters.is_own(name):
                parameter.data = parameter.data.to(getattr(torch, dtype))

    def adapt(self, settings: LoraSettings, address: str = "", base: str | None = None) -> None:
        """Puts a LoRA adapter beside the weights: it is what is trained from now on. Computes the same at first.

        `address` names its random half; `base` is the model that it stands on, as its folder will say (unset: where the
        policy was loaded from). Raises InputError for layers that there aren't, without peft, and where there is one
        already.
        """
        if self.adapter is not None:
            raise InputError(f"the policy has an adapter already ({self.adapter.settings}); expected one without")
        adapters.attach(self.model, settings, address)
        if base is None:
            base = "" if self.version else _found_again(self.name)  # trained weights are in no folder yet
        self.adapter = Adapter(settings, base)

    def without_adapter(self) -> Policy:
        """The policy as it was before `adapt`, on the same weights, which it shares: what a KL is to."""
        twin = self.on(adapters.without(self.model))
        twin.adapter = None
        return twin

    def merged_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(name, weight) of each parameter as a plain Hugging Face model has it, with the adapter in it: summed in float32,
        rounded to the weight's dtype. One at a time, tied ones once; the policy's own weights are not touched."""
        return adapters.merged_parameters(self.model)

    def copy(self) -> Policy:
        """Another policy with the same weights: to explore with RL from here and then drop it, or as the reference of a KL.
        It takes as much memory again."""
        return self.on(copied(self.model))

    def __repr__(self) -> str:
        count = sum(p.numel() for name, p in self.model.named_parameters() if not adapters.is_own(name))
        dtype = str(next(self.model.parameters()).dtype).removeprefix("torch.")
        updates = f", {self.version} updates later" if self.version else ""
        beside = f" with LoRA of rank {self.adapter.settings.rank}" if self.adapter is not None else ""
        kind = f"{type(self.model).__name__} of {count:,} parameters{beside}"
        return f"Policy({self.name}{updates}: {kind}, {dtype}, {self.device})"

    def save(self, folder: str | Path) -> None:
        """Writes a Hugging Face folder that AutoModelForCausalLM.from_pretrained loads. Whole or not at all (OSError)."""
        folder = Path(folder)
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        self.write(partial)
        replace_folder(partial, folder)

    def write(self, folder: Path) -> None:
        """Model and tokenizer into an existing folder. An adapter is merged: RunError where that computes something else."""
        model = self.model
        if self.adapter is not None:
            model = adapters.merged(model)
            adapters.expect_agreement(
                adapters.trial(model),
                adapters.trial(self.model),
                "a policy and its adapter, merged and beside one another",
            )
        try:
            model.save_pretrained(folder)
        except SafetensorError as error:  # a full disk is no OSError there
            raise OSError(f"{folder}: {error}") from error
        self.codec.tokenizer.save_pretrained(folder)
        self.codec.write_ends(folder)
        usual_modes(folder)

    def save_adapter(self, folder: str | Path) -> None:
        """Writes the adapter alone, as peft has them: PeftModel.from_pretrained(base, folder) loads it. InputError for a
        policy without one."""
        if self.adapter is None:
            raise InputError(
                "save_adapter: the policy has no adapter; expected one that a Learner with lora_rank trains"
            )
        if not self.adapter.base:
            raise InputError(
                f"save_adapter: what the adapter stands on has been trained since it was loaded from {self.name}; expected "
                "that to be saved first, and the adapter trained on what is loaded from there"
            )
        Path(folder).mkdir(parents=True, exist_ok=True)
        adapters.save(self.model, self.adapter, Path(folder))
        usual_modes(Path(folder))

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in"""
        dtype: torch.dtype = next(self.model.parameters()).dtype
        return dtype

    @property
    def vocabulary(self) -> int:
        return self.codec.vocabulary

    def fingerprint(self) -> tuple[tuple[int, int], ...]:
        """Another one whenever the weights have been changed in place or moved, as far as torch counts that."""
        return tuple((parameter.data_ptr(), parameter._version) for parameter in self.model.parameters())

    def places(self) -> tuple[int, ...]:
        """Where the weights are in memory: the same until they are moved or cast."""
        return tuple(parameter.data_ptr() for parameter in self.model.parameters())

    def head(self) -> Head | NoHead:
        return self.scorer.head()

    def hidden(self, tokens: Tensor, positions: Tensor, plan: Plan) -> Tensor:
        """Final hidden states of a packed stream: int64 [N], int64 [N] -> [N, D]."""
        return self.scorer.hidden(tokens, positions, plan)

    def score(
        self, prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray], sampling: Sampling
    ) -> list[np.ndarray]:
        """Log-probs of each response's tokens after its prompt, float32 [T] each, nats, under `sampling`'s distribution.

        Token stream and shared prompts as in training; no gradient.
        """
        with wide_matmul(self.device):
            return in_streams(
                *(prompts, responses, SCORED_AT_ONCE, self.device),
                lambda stream: self.scorer(stream, sampling).logprobs,
                self.scorer.packing,
            )


def default_dtype(device: str) -> str:
    """What "auto" is there."""
    return "bfloat16" if device.startswith("cuda") else "float32"


def _found_again(name: str) -> str:
    """A model's name that means the same from any working directory."""
    return str(Path(name).resolve()) if name not in bundled_names() and Path(name).exists() else name


def expect_policy(where: str, policy: object) -> None:
    """Raises InputError for what is no policy: its name, or a model of transformers, say."""
    if not isinstance(policy, Policy):
        call = f"Policy.load({str(policy)!r})" if isinstance(policy, str | Path) else "Policy(model, tokenizer)"
        raise InputError(f"{where}: the policy is a {type(policy).__name__}; expected reasonloop.{call}")


@dataclass(frozen=True)
class Weights:
    """A policy's weights as they are now."""

    version: int = 0
    """The learner's updates before: with every update another one"""
    policy: Policy | None = None
    """Where they are in this process; or"""
    folder: Path | None = None
    """the Hugging Face folder that they can be loaded from"""
