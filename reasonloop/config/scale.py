"""Explorations side by side: how many, where, and how they differ. Free of torch."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from reasonloop.config.section import Section

MOST_BRANCHES = 1000

VARYING = ("rl", "ppo", "exploration", "sampling", "optimizer", "lora.rl")
"""Sections whose options branches may have otherwise, but for"""
COMMON = (
    *("rl.steps", "rl.problems_per_step", "rl.group_size", "rl.skip_solved", "rl.probe_every", "rl.keep_best"),
    *("sampling.max_tokens", "sampling.stop"),
)
"""these, which all of them share: rollouts are dealt by them, and prompts and problems checked against them"""


class Scale(Section):
    """Several explorations side by side in each iteration of RLoop, instead of one (docs/branches.md). Each starts from the
    iteration's policy with luck of its own; the iteration's rollouts are divided among them, and experts are chosen over all
    of them. What comes back is text alone, so that they may be on machines that share nothing."""

    branches: int = Field(1, ge=1, le=MOST_BRANCHES)
    """Explorations side by side. `rl.steps` are divided among them as evenly as it goes."""
    vary: tuple[tuple[str, ...], ...] = ()
    """What branches have otherwise: for each a list of `section.key=value`, as on the command line; empty for none. Fewer
    lists than branches are dealt in turn. Options of `[rl]`, `[ppo]`, `[exploration]`, `[sampling]`, `[optimizer]` and
    `[lora.rl]`, but for those that divide or size the work (steps, groups, `max_tokens`, `stop`, probes)."""
    address: str = Field("", examples=["auto", "local"])
    """The Ray cluster that branches are made on (needs `reasonloop[ray]`): `auto` (the one that this machine belongs to),
    `HOST:PORT`, or `local` (Ray on this machine alone: several GPUs). Empty: here, one after the other, with the same
    result."""
    files: tuple[str, ...] = ()
    """Files and folders that the task or your own modules read beside what the recipe names: they are brought to every
    machine. Relative to the current directory, and below it."""
    retries: int = Field(3, ge=0)
    """How often a branch is begun again whose machine or process has died."""
    deadline: float = Field(0.0, ge=0)
    """Seconds that a branch on Ray may take, from when it first begins. A later one is left behind: what came of it so far
    counts, and the iteration goes on without the rest. 0: as long as it takes."""

    @field_validator("address")
    @classmethod
    def _of_a_cluster(cls, value: str) -> str:
        if value.startswith("ray://"):
            raise ValueError("the command itself has to be on a machine of the cluster; expected auto, or HOST:PORT")
        return value

    @field_validator("vary")
    @classmethod
    def _known(cls, value: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        for override in (one for own in value for one in own):
            key = override.partition("=")[0].strip()
            if "=" not in override or key in COMMON or not key.startswith(tuple(f"{name}." for name in VARYING)):
                shared = ", which all branches share" if key in COMMON else ""
                raise ValueError(
                    f"{override!r}{shared}; expected key=value, of {', '.join(f'[{name}]' for name in VARYING)}, but for "
                    + ", ".join(COMMON)
                )
        return value

    @model_validator(mode="after")
    def _dealt(self) -> Self:
        if len(self.vary) > self.branches:
            raise ValueError(
                f"scale.vary has {len(self.vary)} lists for {self.branches} branch{'es' * (self.branches > 1)}; expected "
                "at most one for each"
            )
        if self.address and self.branches == 1:
            raise ValueError(f"scale.address = {self.address!r} needs scale.branches > 1")
        return self

    def overrides(self, branch: int) -> tuple[str, ...]:
        """What the branch with this number, from 1, has otherwise."""
        return self.vary[(branch - 1) % len(self.vary)] if self.vary else ()


def dealt(total: int, branches: int, step: int) -> list[int]:
    """What each of some explorations side by side spends of `total` rollouts: whole steps of `step` rollouts, the first ones
    one more where they don't come out even; the last step that there is may be cut short. Those that would have none are
    left out."""
    steps = -(-total // step)
    shares = [steps // branches + (k < steps % branches) for k in range(branches)]
    spent = [share * step for share in shares if share]
    spent[-1] -= steps * step - total
    return spent
