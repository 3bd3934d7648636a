"""Options of the Python API by keyword: names, defaults and checks are a recipe's. Free of torch.

Each table stands here twice, checked (a `Section`) and for editors (a `TypedDict`); tests hold them equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
from pydantic import Field

from reasonloop.config import Optimizer, Sampling, Section
from reasonloop.config.lora import Targets


class SampleOptions(Sampling):
    """`sample`: the distribution (`[sampling]`), and"""

    group_size: int = Field(8, ge=1)
    """Responses a problem (G)"""
    seed: int = Field(0, ge=0, lt=2**63)
    """Names the random draws, together with iteration, step, problem and sample"""
    iteration: int = Field(0, ge=0)
    step: int | None = Field(None, ge=0)
    """Which step of an exploration it is. Unset: the updates that the policy has had"""
    overlong_buffer: int = Field(0, ge=0)
    """Soft overlong penalty, as `rl.overlong_buffer`"""
    slots: int = Field(256, ge=1)
    """Responses in flight at once: memory against speed, never the result"""


class EvalOptions(Sampling):
    """`evaluate`: the distribution (`[sampling]`), and"""

    samples: int = Field(32, ge=1)
    """Responses a problem"""
    problems: int = Field(0, ge=0)
    """How many of the split's problems; 0: all"""
    seed: int = Field(0, ge=0, lt=2**63)
    """Policies that are compared should meet the same draws"""
    slots: int = Field(256, ge=1)


class LearnerOptions(Optimizer):
    """`Learner`: `[optimizer]`, and"""

    learning_rate: float = Field(1e-4, gt=0)
    """Of each step; the peak of a `finetune`"""
    gradient_checkpointing: bool = False
    """Less memory, about a third more time"""
    lora_rank: int = Field(0, ge=0)
    """Trains a LoRA adapter of this rank beside the policy's weights; 0: all weights, or the adapter that is there"""
    lora_alpha: float = Field(32.0, gt=0)
    lora_targets: Targets = Field("all-linear", min_length=1)
    """As `[lora]`'s"""


class StepOptions(Section):
    """`Learner.rl_step`: what `[rl]` has for one step."""

    clip_low: float | None = Field(None, gt=0)
    clip_high: float | None = Field(None, gt=0)
    updates_per_step: int = Field(1, ge=1)
    epochs: int = Field(1, ge=1)
    kl_coef: float = Field(0.0, ge=0)
    learning_rate: float | None = Field(None, gt=0)
    """Of this step. Unset: the learner's"""
    seed: int = Field(0, ge=0, lt=2**63)
    """Of the order of groups in a second epoch"""


class FinetuneOptions(Section):
    """`Learner.finetune`: what `[rft]` has."""

    epochs: float = Field(2.0, gt=0)
    batch_size: int = Field(64, ge=1)
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup: float = Field(0.05, ge=0, lt=1)
    learning_rate: float | None = Field(None, gt=0)
    """The peak. Unset: the learner's"""
    seed: int = Field(0, ge=0, lt=2**63)
    """Of the order of the examples"""


class ExpertOptions(Section):
    """`experts`: what `[rloop]` has."""

    hard_threshold: float = Field(0.5, gt=0, le=1)
    cap: int = Field(8, ge=1)
    seed: int = Field(0, ge=0, lt=2**63)


class _Sampling(TypedDict, total=False):
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    max_tokens: int
    stop: Sequence[str]


class SampleKeywords(_Sampling, total=False):
    group_size: int
    seed: int
    iteration: int
    step: int | None
    overlong_buffer: int
    slots: int


class EvalKeywords(_Sampling, total=False):
    samples: int
    problems: int
    seed: int
    slots: int


class LearnerKeywords(TypedDict, total=False):
    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    grad_clip: float
    microbatch_tokens: int
    state: Literal["float32", "8bit"]
    offload: bool
    gradient_checkpointing: bool
    lora_rank: int
    lora_alpha: float
    lora_targets: Literal["all-linear"] | Sequence[str]


class StepKeywords(TypedDict, total=False):
    advantage: str | Callable[[np.ndarray], np.ndarray] | None
    clip_low: float | None
    clip_high: float | None
    updates_per_step: int
    epochs: int
    kl_coef: float
    reference: Any
    off_policy: bool
    learning_rate: float | None
    seed: int


class FinetuneKeywords(TypedDict, total=False):
    epochs: float
    batch_size: int
    schedule: Literal["constant", "linear", "cosine"]
    warmup: float
    learning_rate: float | None
    seed: int


class ExpertKeywords(TypedDict, total=False):
    hard_threshold: float
    cap: int
    seed: int


def sampling_of(options: Sampling) -> Sampling:
    """The distribution alone."""
    return Sampling(**{name: getattr(options, name) for name in Sampling.model_fields})
