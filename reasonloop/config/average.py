"""`[average]`: averages of what was trained with what it was trained from."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from reasonloop.config.section import Section


class Average(Section):
    """Averages of a trained policy with the one that its run began with, weight by weight: start + w (trained - start). They
    take no rollouts and no training. A smaller w gives up some of the average for pass@k (docs/averages.md)."""

    weights: tuple[float, ...] = Field((), examples=[0.25, 0.5, 0.75])
    """Each w, above 0 and below 1: what the method trains, and vanilla RL beside it, is averaged with them and evaluated."""
    deliver: Literal["trained", "probe"] = "trained"
    """What is delivered. probe: of all w, 1 among them, the largest whose pass@k on the probe problems isn't below the
    start's, and if all are the smallest; k is the largest that is measured, `eval.samples` or a little less."""

    @field_validator("weights", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, int | float) else value

    @field_validator("weights")
    @classmethod
    def _between(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < w < 1 for w in value):
            raise ValueError("expected numbers above 0 and below 1, such as [0.25, 0.5, 0.75]")
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _of_some(self) -> Self:
        if self.deliver == "probe" and not self.weights:
            raise ValueError("average.deliver = 'probe': there is nothing to choose from; expected average.weights")
        return self
