"""The plain path: models that can't be computed on packed streams, through transformers' own forward pass and cache.

Sequences lie side by side in rows, each with its own copy of its prompt. Of unequal length they end in padding: what comes
after a token changes nothing for a causal model, whatever its layers are, so that no mask is needed. Responses are decoded
in lanes, batches of one length, in the family's own cache; or from whole sequences, computed anew in every step.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reasonloop.config import Sampling
from reasonloop.policy.logprobs import Head, NoHead, target_logprobs
from reasonloop.policy.scorer import Scored, Scorer
from reasonloop.policy.stream import Stream
from reasonloop.policy.transfer import sent

CACHES = ("cache", "past_key_values", "cache_params", "state")
"""What families call the argument and the output that hold what they keep between steps"""
WASTE = 1.25
"""Rows stand side by side where the longest has at most so many times the tokens of the shortest"""


class PlainScorer(Scorer):
    """See `Scorer`; what it gives for a stream is the same, in the same order."""

    path = "plain"
    shares_prompts = False

    def __init__(
        self, model: Any, separable: bool = True, pads: bool = True, cache: str | None = None, positions: bool = False
    ) -> None:
        """`separable`: the head is a matrix after the last hidden states, as `Scorer.head` has it; else logits are taken
        as the model gives them. `pads`: rows may end in padding. `cache`: the argument that holds the family's own, None
        where sequences are computed anew in every step; `positions`: whether it is told beside it where a token stands."""
        super().__init__(model)
        self.separable, self.pads, self.cache, self.positions = separable, pads, cache, positions

    def _on(self, model: Any) -> PlainScorer:
        return PlainScorer(model, self.separable, self.pads, self.cache, self.positions)

    @property
    def called(self) -> Any:
        """The module that is called: all of the model where its head isn't apart"""
        return trunk(self.model) if self.separable else self.model

    def cost(self) -> str:
        """What the path is and costs, for whoever starts a run."""
        decodes = "decodes from its own cache"
        if self.cache is None:
            decodes = (
                "computes each response anew for every token (its own cache isn't exact), which is slow for long ones"
            )
        return (
            "the model takes the plain path: its own forward pass, without shared prompts, several times as slow as packed; "
            f"it {decodes}; docs/models.md"
        )

    def head(self) -> Head | NoHead:
        return super().head() if self.separable else self._known(NoHead())

    def forward(self, stream: Stream, sampling: Sampling | None) -> Scored:
        """As `Scorer.forward`; hidden states are empty where log-probs are asked for."""
        lengths = [sum(length for _, length in spans) for spans in stream.sequences]
        ends = np.cumsum(stream.lengths)
        order: list[np.ndarray] = []
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for members in self._side_by_side(lengths):
            rows = np.zeros((len(members), lengths[members[-1]]), np.int64)  # the padding: any token
            places, targets = [], []
            for row, member in enumerate(members):
                own = [np.arange(start, start + length) for start, length in stream.sequences[member]]
                rows[row, : lengths[member]] = np.concatenate(own)
                last = row * rows.shape[1] + lengths[member]
                places.append(np.arange(last - stream.lengths[member], last))
                targets.append(np.arange(ends[member] - stream.lengths[member], ends[member]))
            order += targets
            ids = stream.tokens[sent(rows, stream.tokens.device)]
            index, of = (sent(np.concatenate(part), stream.tokens.device) for part in (places, targets))
            found.append(self._scored(ids, index, stream.targets[of], sampling))
        inverse = sent(np.argsort(np.concatenate(order)), stream.tokens.device)
        return Scored(*(torch.cat(part)[inverse] if len(part[0]) else part[0] for part in zip(*found, strict=True)))

    def _scored(
        self, ids: Tensor, index: Tensor, targets: Tensor, sampling: Sampling | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of rows [B, L]: hidden states, or log-probs and entropies of [T] targets, predicted from [T] of the B x L."""
        if sampling is None:
            hidden: Tensor = trunk(self.model)(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)[index]
            nothing = torch.empty(0, device=ids.device)
            return hidden, nothing, nothing
        outputs = self.rows(ids).flatten(0, 1)[index]
        return outputs[:0].float(), *target_logprobs(outputs, self.head(), targets, sampling)

    def _side_by_side(self, lengths: Sequence[int]) -> list[list[int]]:
        """Indices of rows that are computed together, the longest last."""
        most = WASTE if self.pads else 1.0
        parts: list[list[int]] = []
        for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
            if not parts or lengths[i] > most * lengths[parts[-1][0]]:
                parts.append([])
            parts[-1].append(i)
        return parts

    def rows(self, ids: Tensor) -> Tensor:
        """int64 [B, L] -> what `head` takes: final hidden states [B, L, D], or logits [B, L, V]."""
        outputs: Tensor = self._run(ids)[0]
        return outputs

    def _run(self, ids: Tensor, cache: Any = None, before: int = 0, keep: bool = False) -> tuple[Tensor, Any]:
        """What `rows` says, and the cache after it where it is to be kept. `before`: tokens that the cache holds."""
        given: dict[str, Any] = {}
        if before and self.cache is not None:
            given[self.cache] = cache
            if self.positions:
                given["position_ids"] = torch.arange(before, before + ids.shape[1], device=ids.device).expand(ids.shape)
        output = self.called(input_ids=ids, use_cache=keep, **given)
        found = output.last_hidden_state if self.separable else output.logits
        return found, getattr(output, self.cache) if keep and self.cache is not None else None


class Lane:
    """Sequences of one length that are decoded side by side."""

    def __init__(self, scorer: PlainScorer, ids: Tensor) -> None:
        """`ids`: int64 [B, L], computed here."""
        self._scorer, self._ids = scorer, ids
        outputs, self._cache = scorer._run(ids, keep=scorer.cache is not None)
        self.outputs = outputs[:, -1].clone()
        """[B, D]: of the last tokens, for the head"""

    def __len__(self) -> int:
        return len(self._ids)

    def taken(self, rows: Sequence[int]) -> Lane:
        """A lane with copies of these rows, in this order."""
        lane = copy.copy(self)
        lane._cache = copy.deepcopy(self._cache)
        lane.keep(rows)
        return lane

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all other rows; these stand in this order."""
        index = sent(np.array(rows), self._ids.device)
        self._ids, self.outputs = self._ids[index], self.outputs[index]
        self._cache = _selected(self._cache, index)

    def step(self, tokens: Tensor) -> Tensor:
        """Appends int64 [B] -> [B, D] for the head."""
        scorer = self._scorer
        before, self._ids = self._ids.shape[1], torch.cat([self._ids, tokens[:, None]], 1)
        if scorer.cache is None:
            self.outputs = scorer.rows(self._ids)[:, -1]
        else:
            outputs, self._cache = scorer._run(tokens[:, None], self._cache, before, keep=True)
            self.outputs = outputs[:, -1]
        return self.outputs


def _selected(cache: Any, index: Tensor) -> Any:
    if hasattr(cache, "reorder_cache"):
        cache.reorder_cache(index)
        for name, states in vars(cache).items():  # MiniMax keeps some beside the layers that transformers reorders
            if isinstance(states, list) and name != "layers":
                setattr(cache, name, _selected(states, index))
        return cache
    if isinstance(cache, Tensor):
        return cache.index_select(0, index)
    if isinstance(cache, list | tuple):
        return type(cache)(_selected(part, index) for part in cache)
    return cache


def trunk(model: Any) -> Any:
    """What gives the last hidden states: transformers' base model, which for some families is the whole model."""
    base = model.base_model
    return base if base is not model else model.model


def ways_on(model: nn.Module) -> list[tuple[str, bool]]:
    """How a module may be called to go on from what it has computed: `cache` and `positions` of `PlainScorer`."""
    names = inspect.signature(model.forward).parameters
    told = [True, False] if "position_ids" in names else [False]
    return [(name, positions) for name in CACHES if name in names for positions in told]
