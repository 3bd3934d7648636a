"""What decoders have in common that keep keys and values in slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from reasonloop.policy.slots import PrefillPlan, SlotCache
from reasonloop.policy.stream import Layout
from reasonloop.policy.transfer import sent


@dataclass(frozen=True)
class Prefilled:
    """A prompt that has been computed."""

    hidden: Tensor
    """[D]: the hidden state that responses start from"""
    where: Any
    """Where its keys and values are: its decoder knows"""


class SlotDecoder:
    """See `Decoder`."""

    lockstep = False
    cache: SlotCache

    def hidden(self, tokens: Tensor, positions: Tensor, plan: PrefillPlan) -> Tensor:
        """Hidden states of a packed stream of prompts, int64 [N], int64 [N] -> [N, D]; the plan keeps keys and values."""
        raise NotImplementedError

    def prefill(self, prompts: Sequence[np.ndarray]) -> list[Prefilled]:
        layout, device = Layout(), self.cache.device
        spans = layout.lay_prompts(prompts)
        plan = PrefillPlan(layout.segments, device)
        hidden = self.hidden(layout.tokens(device), layout.positions(device), plan)
        found = []
        for own in spans:
            stream = np.concatenate([np.arange(start, start + length) for start, length in own])
            found.append(Prefilled(hidden[stream[-1]].clone(), (plan, stream)))
        return found

    def admit(self, prefilled: Sequence[Prefilled], first: int) -> None:
        copies: dict[int, tuple[PrefillPlan, list[np.ndarray], list[np.ndarray], list[np.ndarray]]] = {}
        for slot, prompt in enumerate(prefilled, first):
            plan, stream = prompt.where
            _, streams, slots, places = copies.setdefault(id(plan), (plan, [], [], []))
            streams.append(stream)
            slots.append(np.full(len(stream), slot))
            places.append(np.arange(len(stream)))
        for plan, *lists in copies.values():
            self.cache.admit(plan, *(sent(np.concatenate(part), self.cache.device) for part in lists))

    def move(self, sources: Sequence[int], targets: Sequence[int], reach: int) -> None:
        self.cache.move(sources, targets, reach)
