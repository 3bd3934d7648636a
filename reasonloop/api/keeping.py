"""A sampler that keeps what it has made, for whom counts alone aren't enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from reasonloop.engine.sample import Sampler
from reasonloop.records import Group, Place, Rollout


@dataclass(frozen=True)
class KeepingSampler(Sampler):
    kept: list[Group] = field(default_factory=list)

    def sample(
        self, groups: Sequence[Group], n: int, place: Place, on_done: Callable[[Rollout], None] | None = None
    ) -> list[Group]:
        found = super().sample(groups, n, place, on_done)
        self.kept.extend(found)
        return found
