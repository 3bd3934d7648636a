"""The one way into a model for learning and scoring: a packed stream in; log-probs, entropies and hidden states out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from reasonloop.config import Sampling
from reasonloop.policy import attention
from reasonloop.policy.attention import Plan
from reasonloop.policy.logprobs import Head, target_logprobs
from reasonloop.policy.stream import Stream


@dataclass(frozen=True)
class Scored:
    """Of a stream's M target tokens."""

    hidden: Tensor
    """[M, D]: the final hidden states that predict them"""
    logprobs: Tensor
    """float32 [M], nats, of the distribution that is sampled from; empty where it wasn't asked for"""
    entropies: Tensor
    """float32 [M], nats, of the same; without a gradient"""


class Scorer(nn.Module):
    """A causal model of transformers' own, run on packed streams: what a wrapper for several devices wraps."""

    def __init__(self, model: Any, unknown: Sequence[int] = ()) -> None:
        """`unknown`: tokens that are never sampled, in order: the distribution is one without them (`Codec.unknown`)."""
        super().__init__()
        self.model, self.unknown = model, tuple(unknown)
        self._absent: Tensor | None = None

    def forward(self, stream: Stream, sampling: Sampling | None) -> Scored:
        """`sampling`: the distribution; None for the hidden states alone (a critic's trunk)."""
        hidden = self.hidden(stream.tokens, stream.positions, stream.plan)[stream.predict_from]
        if sampling is None:
            nothing = torch.empty(0, device=hidden.device)
            return Scored(hidden, nothing, nothing)
        return Scored(hidden, *target_logprobs(hidden, self.head(), stream.targets, sampling))

    def hidden(self, tokens: Tensor, positions: Tensor, plan: Plan) -> Tensor:
        """Final hidden states of a packed stream: int64 [N], int64 [N] -> [N, D]."""
        output = self.model.base_model(
            input_ids=tokens[None],
            position_ids=positions[None],
            attention_mask=attention.mask_is_in_the_plan(tokens.device),
            use_cache=False,
            plan=plan,
        )
        hidden: Tensor = output.last_hidden_state[0]
        return hidden

    def head(self) -> Head:
        """The step from hidden states to logits, with the scalings that some model families add."""
        config = self.model.config.get_text_config()
        scale = float(getattr(config, "logit_scale", 1.0) or 1.0) / float(getattr(config, "logits_scaling", 1.0) or 1.0)
        output = self.model.get_output_embeddings()
        head = Head(output.weight, output.bias, scale, getattr(config, "final_logit_softcapping", None))
        if not self.unknown:
            return head
        words, scattered = apart(self.unknown, len(output.weight))
        if scattered and (self._absent is None or self._absent.device != output.weight.device):
            self._absent = torch.zeros(words, dtype=torch.bool)
            self._absent[list(scattered)] = True
            self._absent = self._absent.to(output.weight.device)
        return replace(head, words=words, absent=self._absent)


def apart(unknown: Sequence[int], vocabulary: int) -> tuple[int, Sequence[int]]:
    """How many tokens are left without the unknown ones at a vocabulary's end, and the unknown ones among them."""
    words = vocabulary
    ending = len(unknown)
    while ending and unknown[ending - 1] == words - 1:
        words, ending = words - 1, ending - 1
    return words, unknown[:ending]
