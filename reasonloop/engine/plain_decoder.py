"""Decoding on the plain path: lanes of responses whose prompts have one length, each lane a batch of the model's own."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reasonloop.config import Sampling
from reasonloop.engine.draw import drawn
from reasonloop.engine.slot_decoder import Prefilled
from reasonloop.kernels.matmul import wide_matmul
from reasonloop.policy.logprobs import Head, NoHead
from reasonloop.policy.plain import Lane, PlainScorer
from reasonloop.policy.policy import Policy
from reasonloop.policy.transfer import sent

LIVE = 0.75
"""A lane drops its finished rows when no more than this share of them is in flight: dropping copies the cache"""


@dataclass
class _Row:
    """Where the response in a slot is."""

    lane: Lane
    row: int


class PlainDecoder:
    """See `Decoder`. Its hidden states are what `PlainScorer.head` takes."""

    in_place = True
    lockstep = True

    def __init__(self, policy: Policy) -> None:
        assert isinstance(policy.scorer, PlainScorer)
        self._policy = weakref.ref(policy)
        self._slots: list[_Row] = []

    @property
    def _scorer(self) -> PlainScorer:
        policy = self._policy()
        assert policy is not None, "the decoder's policy is gone"
        assert isinstance(policy.scorer, PlainScorer)
        return policy.scorer

    def begin(self, slots: int, length: int) -> None:
        self._slots = []

    def worth_keeping(self) -> bool:
        return False

    def prefill(self, prompts: Sequence[np.ndarray]) -> list[Prefilled]:
        scorer = self._scorer
        found: list[Prefilled | None] = [None] * len(prompts)
        for length in sorted({len(prompt) for prompt in prompts}):
            members = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
            ids = sent(np.stack([prompts[i] for i in members]).astype(np.int64), scorer.model.device)
            with wide_matmul(ids.device):
                lane = Lane(scorer, ids)
            for row, i in enumerate(members):
                found[i] = Prefilled(lane.outputs[row], (lane, row))
        return [prompt for prompt in found if prompt is not None]

    def admit(self, prefilled: Sequence[Prefilled], first: int) -> None:
        del self._slots[first:]
        rows: dict[int, tuple[Lane, list[int]]] = {}
        for prompt in prefilled:
            lane, row = prompt.where
            rows.setdefault(id(lane), (lane, []))[1].append(row)
        lanes = {key: lane.taken(own) for key, (lane, own) in rows.items()}
        taken = dict.fromkeys(lanes, 0)
        for prompt in prefilled:
            key = id(prompt.where[0])
            self._slots.append(_Row(lanes[key], taken[key]))
            taken[key] += 1

    def move(self, sources: Sequence[int], targets: Sequence[int], reach: int) -> None:
        for source, target in zip(sources, targets, strict=True):
            self._slots[target] = self._slots[source]

    def step(self, tokens: np.ndarray, positions: np.ndarray) -> Tensor:
        del self._slots[len(tokens) :]
        lanes: dict[int, list[int]] = {}
        for slot, own in enumerate(self._slots):
            lanes.setdefault(id(own.lane), []).append(slot)
        parts = [self._advance(slots, tokens) for slots in lanes.values()]
        order = np.argsort(np.concatenate([*lanes.values()]))
        return torch.cat(parts)[sent(order, parts[0].device)]

    def _advance(self, slots: Sequence[int], tokens: np.ndarray) -> Tensor:
        """A step of the lane that these slots are in: [S, D], in their order."""
        lane = self._slots[slots[0]].lane
        if len(slots) <= LIVE * len(lane):
            lane.keep([self._slots[slot].row for slot in slots])
            for row, slot in enumerate(slots):
                self._slots[slot] = _Row(lane, row)
        rows = [self._slots[slot].row for slot in slots]
        given = np.zeros(len(lane), np.int64)  # finished rows go on with any token
        given[rows] = tokens[list(slots)]
        return lane.step(sent(given, lane.outputs.device))[rows]

    def head(self) -> Head | NoHead:
        return self._scorer.head()

    def sample(
        self, tokens: np.ndarray, positions: np.ndarray, uniforms: np.ndarray, sampling: Sampling
    ) -> tuple[np.ndarray, np.ndarray]:
        return drawn(self.head(), self.step(tokens, positions), uniforms, sampling)
