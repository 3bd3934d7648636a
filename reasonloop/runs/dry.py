"""The stages of a method without doing them: its plan in lines, and its work in units."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reasonloop.config import LoraSettings, Recipe, Rl, Training, dealt
from reasonloop.policy.loading import bundled_names
from reasonloop.records import Place
from reasonloop.runs.handed import explorer_values, finetuner_values, stage_folder, words_of
from reasonloop.runs.stages import Arm, Budget, Examples, Explored, Source

# work in units of one evaluation rollout: training on a rollout costs about as much again, and a bit
RL_ROLLOUT, TRAINED_EXAMPLE = 2.5, 1.5

RUN = Path("RUN")
"""A run's folder, in a plan"""


def expected_experts(recipe: Recipe, train: int) -> int:
    """A guess at how many experts an iteration finds, until they are known: one for every second problem that it visits."""
    visited = recipe.rl.steps * recipe.rl.problems_per_step
    return (min(train, visited) if train else visited) // 2


@dataclass(frozen=True)
class Asked:
    """A stage as the method asked for it, for what it will need."""

    kind: str
    """explore, elsewhere (an exploration by a command), share, finetune, evaluate, drop, leave (its policy goes, whatever is
    kept), average or deliver"""
    name: str
    """`Place.name`, or the policy's"""
    stage: str = ""
    """Of explorations and fine-tunings: explore, sft or rft"""
    amount: float = 0.0
    """Rollouts of an exploration or evaluation, examples times epochs of a fine-tuning"""
    learn: bool = True
    """Whether it is trained here"""
    ends: bool = True
    """Whether nothing goes on from it"""
    keep_best: bool = False
    others: tuple[str, ...] = ()
    """Who shares it; what is kept"""


class DryStages:
    """See `Stages`. `sizes`: problems by split; splits that it lacks count nothing."""

    def __init__(self, recipe: Recipe, sizes: Mapping[str, int] | None = None) -> None:
        self.recipe, self.sizes = recipe, sizes or {}
        self.lines: list[str] = []
        self.stages: list[Asked] = []
        """In their order"""
        self.asked: set[str] = set()
        """The stages that the method has"""
        self.units = 0.0
        self.finetunings: dict[str, float] = {}
        """Of the units, those of each fine-tuning (`Place.name`): how many examples it will have is a guess"""
        self.adapters: list[LoraSettings] = []
        """Those that the stages train"""
        self.rates: dict[str, float] = {}
        """By key, the rates of adapters that are the defaults for all weights"""
        self._spent: dict[str, int] = {}
        self._evaluated: set[str] = set()

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
        options = self.recipe.eval
        split = split or options.split
        if name in self._evaluated:
            return {}
        self._say("evaluate", f"{arm.label}: evaluate, {options.samples} samples of each {split} problem")
        if same_as not in self._evaluated:
            self.stages.append(Asked("evaluate", name, amount=self.sizes.get(split, 0) * options.samples))
            self.units += self.sizes.get(split, 0) * options.samples
        self._evaluated.add(name)
        return {}

    def explore(self, start: Source, place: Place, arm: Arm, budget: Budget) -> Explored:
        spent, until, options = self._spent.get(place.name, 0), budget.until, self.recipe.rl
        if until > spent:
            how = f"RL ({options.objective})" if budget.learn else "sampling without RL"
            how += self._adapter("rl", options) if budget.learn else ""
            reward = self.recipe.exploration.form
            how += f" with {reward} exploration reward" if reward != "none" and not budget.outcome_only else ""
            if self._by_command(arm):
                how = f"exploration by explorer.command ({self.recipe.explorer.rollouts})"
            self._say("explore", f"{arm.label}: {how} from {start} to {until:,} rollouts{self._side_by_side(arm)}")
            if self._by_command(arm):
                self._command("explorer", start, place, explorer_values(self.recipe, RUN, until))
            self.units += (until - spent) * (RL_ROLLOUT if budget.learn else 1)
            self.stages += self._explorations(place, until - spent, budget, arm)
            self._spent[place.name] = until
        policy = None if self._elsewhere(arm) and not self.recipe.explorer.model else place.name
        return Explored(policy, max(until, spent), f"{place.name}'s best" if budget.keep_best else None)

    def _elsewhere(self, arm: Arm) -> bool:
        return arm.name == "main" and bool(self.recipe.elsewhere)

    def _by_command(self, arm: Arm) -> bool:
        return self._elsewhere(arm) and bool(self.recipe.explorer.command)

    def _command(self, which: str, start: Source, place: Place, given: Mapping[str, Any]) -> None:
        """The command as it will be run."""
        model: Path | str = RUN / "checkpoints" / str(start)
        if start == self.recipe.model.source:
            there = start not in bundled_names() and Path(start).is_dir()
            model = start if there else stage_folder(RUN, place) / "model"
        self.lines.append(f"  $ {shlex.join(words_of(self.recipe, which, RUN, place, model, given))}")

    def _side_by_side(self, arm: Arm) -> str:
        branches = self.recipe.scale.branches if self._elsewhere(arm) else 1
        address = self.recipe.scale.address
        where = f", on Ray ({address})" if address else ""
        return f", in {branches} branches{where}" if branches > 1 else ""

    def _explorations(self, place: Place, rollouts: int, budget: Budget, arm: Arm) -> list[Asked]:
        """One, or several side by side, whose policies go when they end."""
        if self._by_command(arm):
            return [Asked("elsewhere", place.name, "explore", rollouts)]
        asked = Asked("explore", place.name, "explore", rollouts, budget.learn, budget.ends, budget.keep_best)
        if not self._side_by_side(arm):
            return [asked]
        shares = dealt(rollouts, self.recipe.scale.branches, self.recipe.rl.rollouts_per_step)
        names = [replace(place, branch=f"{place.branch}.{k}").name for k in range(1, len(shares) + 1)]
        each = [replace(asked, name=name, amount=share) for name, share in zip(names, shares, strict=True)]
        return [one for own in each for one in (own, Asked("leave", own.name))]

    def share(self, place: Place, other: Place) -> None:
        self.stages.append(Asked("share", place.name, others=(other.name,)))
        self._spent.setdefault(other.name, self._spent.get(place.name, 0))

    def experts(self, place: Place, start: Source, arm: Arm) -> Examples:
        options = self.recipe.rloop
        self._say(
            "experts",
            f"{arm.label}: select experts of iteration {place.iteration + 1} (success rate <= {options.hard_threshold:g}, "
            f"at most {options.cap} a problem)",
        )
        return Examples(expected=expected_experts(self.recipe, self.sizes.get("train", 0)))

    def demonstrations(self) -> Examples:
        options = self.recipe.sft
        self.asked.add("demonstrations")
        return Examples(expected=options.demonstrations or self.sizes.get("train", 0))

    def finetune(
        self,
        start: Source,
        place: Place,
        arm: Arm,
        examples: Callable[[], Examples],
        options: Training,
        epochs: float,
    ) -> Source:
        found = examples()
        outside = place.stage == "rft" and bool(self.recipe.finetuner.command)
        how = " by finetuner.command" if outside else self._adapter(place.stage, options)
        self._say("finetune", f"{arm.label}: {place.stage.upper()}{how} from {start}, {epochs:g} epochs")
        if outside:
            self._command("finetuner", start, place, finetuner_values(RUN, place, epochs))
        self.stages.append(Asked("finetune", place.name, place.stage, len(found) * epochs, learn=not outside))
        self.finetunings[place.name] = len(found) * epochs * TRAINED_EXAMPLE
        self.units += self.finetunings[place.name]
        return place.name

    def average(self, start: Source, trained: Source, weight: float, place: Place) -> Source:
        self._say("average", f"average {start} and {trained}, the latter's weight {weight:g}")
        self.stages.append(Asked("average", place.name))
        return place.name

    def drop(self, places: Sequence[Place], keep: Sequence[Source]) -> None:
        kept = tuple(map(str, keep))
        self.stages += [Asked("drop", place.name) for place in places if place.name not in kept]

    def deliver(self, policy: Source) -> None:
        self.stages.append(Asked("deliver", str(policy)))
        self._say("deliver", f"deliver {policy} as the model")

    def _adapter(self, stage: str, options: Rl | Training) -> str:
        """What a line says of the stage's adapter; notes a rate that was meant for all weights."""
        settings = self.recipe.lora.of(stage)
        if settings is None:
            return ""
        self.adapters.append(settings)
        if options.learning_rate == type(options).model_fields["learning_rate"].default:
            self.rates.setdefault(f"{stage}.learning_rate", options.learning_rate)
        return f" with LoRA rank {settings.rank}"

    def notes(self) -> list[str]:
        """What a reader should know before the run, a line each."""
        if not self.rates:
            return []
        told = ", ".join(f"{key} = {rate:g}" for key, rate in self.rates.items())
        return [
            f"{told}: what all weights are trained with by default; adapters (LoRA) usually take about ten times as much "
            "(docs/lora.md)"
        ]

    def _say(self, stage: str, line: str) -> None:
        self.asked.add(stage)
        self.lines.append(line)
