"""What methods are made of: the stages that a recipe's method calls, one after another.

A method is a function of `Stages`. It is run twice: against `DryStages` for its plan (`--dry-run`, the time left), and for
real. Free of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from reasonloop.config import Recipe, Training, flat
from reasonloop.records import Place, Rollout

Source = str | Path
"""Where a policy is: what a recipe's `model.path` may be (with `@revision`), or a stage's checkpoint"""


@dataclass(frozen=True)
class Arm:
    """One side of a comparison within a run: what is written into each of its metrics lines and evaluations."""

    name: str
    """"main" (the method itself), "explored" (its RL policies, which nothing goes on from), "vanilla", "early" (vanilla RL's
    best on the probe), "sft" or "base" """
    label: str
    """What a reader calls it"""
    uses: tuple[str, ...] = ()
    """The recipe's sections that its policies depend on; "" for the options outside of sections"""
    changed: Mapping[str, Any] = field(default_factory=dict)
    """Options by dotted key that it has otherwise than the recipe says"""
    product: bool = False
    """Whether the policy at hand is what the run is for"""

    def named(self, label: str, product: bool = False) -> Arm:
        """The arm as it stands beside one of its policies, which a reader calls so."""
        return replace(self, label=label, product=product)

    def using(self, *sections: str) -> Arm:
        """The arm with further sections that it depends on."""
        return replace(self, uses=tuple(dict.fromkeys((*self.uses, *sections))))

    @property
    def keys(self) -> dict[str, Any]:
        """As they stand in metrics.jsonl and evaluations"""
        return {"arm": self.name, "label": self.label, "product": self.product}

    def options(self, recipe: Recipe) -> dict[str, Any]:
        """The recipe's options that its policies depend on, by dotted key: equal ones are the same arm in any run. Adapters
        are among them as the stages have them, by [rl], [rft] and [sft]."""
        every = flat(recipe.model_dump(mode="json"))
        section = {key: key.partition(".")[0] if "." in key else "" for key in every}
        own = {key: value for key, value in every.items() if section[key] in self.uses}
        for stage in ("rl", "rft", "sft"):
            settings = recipe.lora.of(stage) if stage in self.uses else None
            own |= {f"lora.{stage}.{key}": value for key, value in settings.to_json().items()} if settings else {}
        return own | dict(self.changed)


BASE = Arm("base", "base", ("model", "task"))

FEW_EXAMPLES = 8
"""A fine-tuning on fewer is worth a warning"""


@dataclass(frozen=True)
class Examples:
    """What a fine-tuning trains on."""

    pairs: Sequence[tuple[np.ndarray, np.ndarray]] = ()
    """(prompt, response), int32 each"""
    weights: Sequence[float] | None = None
    """Of each response; None: 1"""
    sampled: Sequence[np.ndarray | None] | None = None
    """Which tokens of each response count, bool [T]; None: all"""
    rollouts: Sequence[Rollout] = ()
    """What they were, where they are a run's own"""
    expected: int = 0
    """How many there will be, where a plan is made and they aren't known"""

    def __len__(self) -> int:
        return len(self.pairs) or self.expected


@dataclass(frozen=True)
class Budget:
    """What an exploration may spend, and how."""

    until: int
    """Rollouts"""
    planned: int = 0
    """The rollouts that it will go on to, which schedules reach to; 0: `until`, where it ends"""
    learn: bool = True
    """False samples without learning"""
    outcome_only: bool = False
    """Leaves the exploration reward out"""
    keep_best: bool = False
    """Also keeps the policy that does best on the probe problems"""
    shared_with: Arm | None = None
    """Another arm whose steps these are, too, and which goes on from here"""

    whole: bool = False
    """Whether the step that reaches `until` is a whole one, as if nothing ended there: the arm goes on to `planned`"""
    kept: bool = True
    """Whether the policy that comes out is; else nothing of it is written"""
    before: int | None = None
    """What its arm has spent before; None: what earlier explorations of its branch have"""
    beside: tuple[int, ...] = ()
    """What each of the explorations side by side spends, this one among them"""

    def counted(self, rollouts: int) -> int:
        """What the arm has spent of it when this exploration has spent so many, and those beside it are as far."""
        return sum(min(rollouts, own) for own in self.beside) if self.beside else rollouts

    @property
    def end(self) -> int:
        """The rollouts that all explorations from here on will have spent"""
        return self.planned or self.until

    @property
    def ends(self) -> bool:
        """Whether nothing goes on from where it is spent"""
        return self.shared_with is None and self.planned <= self.until


@dataclass(frozen=True)
class Explored:
    """What an exploration came to."""

    policy: Source | None
    """The policy that came out; None where it wasn't kept: of an exploration elsewhere nothing but rollouts comes back"""
    rollouts: int
    """Rollouts that were spent"""
    best: Source | None = None
    """The policy that did best on the probe problems, where `keep_best` asked for it"""

    @property
    def made_here(self) -> Source:
        """The policy that came out, of an exploration that is never made elsewhere"""
        assert self.policy is not None
        return self.policy


class Stages(Protocol):
    """Each can be killed at any moment: called again it goes on from its last checkpoint, and a finished one returns at once
    what it made."""

    recipe: Recipe

    def evaluate(
        self,
        policy: Source,
        name: str,
        place: Place,
        arm: Arm,
        *,
        rollouts: int = 0,
        same_as: str = "",
        split: str = "",
    ) -> Mapping[str, float]:
        """Evaluates a policy on the problems of a split, `eval.split` unless another is named; RUN/evals/<name>.json holds
        what came out. Returns its metrics, avg@n and pass@k; a plan knows none.

        `rollouts`: what its arm has spent. `same_as`: the name of an evaluation of the same policy, whose counts are taken
        over where there is one.
        """
        ...

    def explore(self, start: Source, place: Place, arm: Arm, budget: Budget) -> Explored:
        """RL from the policy `start` until the budget's rollouts are spent; every one of them goes to the store. Called
        again with more rollouts it goes on, where the budget before had them in `planned`."""
        ...

    def share(self, place: Place, other: Place) -> None:
        """The exploration at `other` goes on from where the one at `place` stands: its budget was `shared_with` that arm."""
        ...

    def experts(self, place: Place, start: Source, arm: Arm) -> Examples:
        """The expert set of the exploration at `place`, as the recipe's `[rloop]` chooses it; `start` is the policy that
        started it."""
        ...

    def demonstrations(self) -> Examples:
        """The demonstrations that the recipe's `[sft]` names."""
        ...

    def finetune(
        self,
        start: Source,
        place: Place,
        arm: Arm,
        examples: Callable[[], Examples],
        options: Training,
        epochs: float,
    ) -> Source:
        """Supervised training of `start` on the examples, which are asked for when they are needed. Returns the trained
        policy, or `start` when there are none."""
        ...

    def average(self, start: Source, trained: Source, weight: float, place: Place) -> Source:
        """The policy start + weight (trained - start); `place` is its own."""
        ...

    def drop(self, places: Sequence[Place], keep: Sequence[Source]) -> None:
        """Frees the disk that finished stages' policies take, but for those to keep."""
        ...

    def deliver(self, policy: Source) -> None:
        """The product: RUN/model, a Hugging Face folder. The last that a method asks for: the policies of all stages go."""
        ...
