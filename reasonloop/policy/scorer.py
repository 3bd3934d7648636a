"""The one way into a model for learning and scoring: a packed stream in; log-probs, entropies and hidden states out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from reasonloop.config import Sampling
from reasonloop.policy import attention
from reasonloop.policy.attention import Plan
from reasonloop.policy.logprobs import Head, NoHead, target_logprobs
from reasonloop.policy.rotary import Rope
from reasonloop.policy.stream import Packing, Stream


def has_plain_head(model: Any) -> bool:
    """Whether logits are a product with a matrix, as `Scorer.head` has it, and not a module's with more to it: a scale of
    each token may be one at first, and is trained."""
    head: Any = type(model.get_output_embeddings())
    return issubclass(head, nn.Linear) and head.forward is nn.Linear.forward


ComputePath = Literal["packed", "plain"]
"""How a policy computes: on packed streams with our attention, or by its own forward pass (policy/plain.py)"""


AnyHead = TypeVar("AnyHead", Head, NoHead)


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

    path: ComputePath = "packed"
    shares_prompts = True
    """Whether equal prompts of a stream are computed once"""
    unknown: tuple[int, ...] = ()
    """Tokens that are never drawn, in order (`Codec.unknown`)"""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self._absent: Tensor | None = None

    @property
    def packing(self) -> Packing:
        """What may stand in one of its streams."""
        return Packing(self.shares_prompts, Rope.of(self.model.config.get_text_config()))

    def on(self, model: Any) -> Scorer:
        """The same for another module tree of the same model."""
        twin = self._on(model)
        twin.unknown = self.unknown
        return twin

    def _on(self, model: Any) -> Scorer:
        return Scorer(model)

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

    def head(self) -> Head | NoHead:
        """The step from hidden states to logits, with the scalings that some model families add."""
        config = self.model.config.get_text_config()
        scale = float(getattr(config, "logit_scale", 1.0) or 1.0) / float(getattr(config, "logits_scaling", 1.0) or 1.0)
        output = self.model.get_output_embeddings()
        return self._known(Head(output.weight, output.bias, scale, getattr(config, "final_logit_softcapping", None)))

    def _known(self, head: AnyHead) -> AnyHead:
        """A head that says which tokens are never drawn."""
        if not self.unknown:
            return head
        if self._absent is None or self._absent.device != self.model.device:
            self._absent = torch.tensor(self.unknown, device=self.model.device)
        return replace(head, absent=self._absent)
