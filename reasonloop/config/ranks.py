"""Options of a run on several devices. Free of torch."""

from __future__ import annotations

from pydantic import Field

from reasonloop.config.section import Section
from reasonloop.records import LONGEST_DEADLINE


class Ranks(Section):
    """Where torchrun starts several processes for one run (docs/several-gpus.md)."""

    timeout: float = Field(300.0, ge=5, le=LONGEST_DEADLINE)
    """Seconds after which a rank that says nothing ends the run with its name: it is stopped, or its machine is gone. One
    that dies is noticed at once."""
