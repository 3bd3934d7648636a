"""What `--dry-run` plans with where the devices aren't here. Free of torch."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from reasonloop.config.section import Section


class Planned(Section):
    """Devices elsewhere that `--dry-run` reckons with: memory of each, hours, cost, and bytes over the network, on one
    machine and on several (docs/scale.md). It changes nothing of a run. What is left unset is reckoned from data sheets, or
    assumed, and the plan says so."""

    devices: int = Field(0, ge=0, le=1024)
    """GPUs of a machine, each a rank (`torchrun --nproc-per-node`). 0: no such plan."""
    device: str = "H100"
    """What they are: a name of the table of data sheets, such as A100, H100, L40S."""
    memory: float | None = Field(None, gt=0)
    """GB (1e9 bytes) of each. Unset: the data sheet's."""
    measured: str = ""
    """What was measured on such devices with this recipe's model: a result file of `reasonloop bench --json`, or the folder
    of a run of this recipe, whose first steps are enough. Empty: nothing was."""
    sampled: float | None = Field(None, gt=0)
    """Tokens a second that one of them samples, with all of `engine.slots` at work. Unset: the data sheet's bandwidth."""
    trained: float | None = Field(None, gt=0)
    """Response tokens a second that one of them trains in an RL update. Unset: the data sheet's FLOP/s."""
    response: float | tuple[float, float] | None = None
    """Mean tokens of a response: a number, or the lowest and the highest that you expect. Unset: a sixth to a half of
    `sampling.max_tokens`."""
    price: float | None = Field(None, gt=0)
    """Of a device for an hour, in your currency. Unset: no cost is told."""
    interruptions: float | None = Field(None, gt=0)
    """How often a machine is taken away in an hour, all its devices at once (spot). Unset: the plan has no such machines."""

    @field_validator("response")
    @classmethod
    def _in_order(cls, value: Any) -> Any:
        low, high = value if isinstance(value, tuple) else (value, value)
        if low is not None and not 0 < low <= high:
            raise ValueError("expected a number above 0, or the lowest and the highest")
        return value

    @property
    def expected(self) -> tuple[float, float] | None:
        """Tokens of a response, lowest and highest mean; None where nobody says"""
        if self.response is None or isinstance(self.response, tuple):
            return self.response
        return self.response, self.response
