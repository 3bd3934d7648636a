"""Explorations side by side: how many, where, and how they differ. Free of torch."""

from __future__ import annotations

from pydantic import Field

from reasonloop.config.section import Section

MOST_BRANCHES = 1000


class Scale(Section):
    """Several explorations side by side in each iteration of RLoop, instead of one (docs/branches.md). Each starts from the
    iteration's policy with luck of its own; the iteration's rollouts are divided among them, and experts are chosen over all
    of them. What comes back is text alone, so that they may be on machines that share nothing."""

    branches: int = Field(1, ge=1, le=MOST_BRANCHES)
    """Explorations side by side. `rl.steps` are divided among them as evenly as it goes."""


def dealt(total: int, branches: int, step: int) -> list[int]:
    """What each of some explorations side by side spends of `total` rollouts: whole steps of `step` rollouts, the first ones
    one more where they don't come out even; the last step that there is may be cut short. Those that would have none are
    left out."""
    steps = -(-total // step)
    shares = [steps // branches + (k < steps % branches) for k in range(branches)]
    spent = [share * step for share in shares if share]
    spent[-1] -= steps * step - total
    return spent
