"""What a study is: a recipe, arms that change it, and seeds; checked before anything runs."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from reasonloop import config
from reasonloop.compare.arms import SHORT
from reasonloop.compare.policies import identity_of
from reasonloop.config import Recipe, Section, flat, validated
from reasonloop.errors import InputError
from reasonloop.methods import checked_method
from reasonloop.own import nearest
from reasonloop.study.earlier import Recorder, recorded

BESIDE = ("base", "sft", "vanilla", "early")
"""What a run is compared as beside its product"""


class StudyFile(Section):
    """STUDY.toml."""

    recipe: str
    """A recipe file; the path is from STUDY.toml on."""
    seeds: list[int] = Field(min_length=1)
    """Each arm is run once with each."""
    arms: dict[str, list[str]] = Field(min_length=1)
    """By name: the `section.key=value` overrides that make the arm out of the recipe."""
    baseline: str | None = None
    """The arm that each is compared with. Unset: the first arm is compared with each."""
    threads: int = Field(1, ge=1, le=1024)
    """CPU threads of a run. Part of the result: bytes are the same for the same number only."""


@dataclass(frozen=True)
class Study:
    """A study file, read and checked."""

    file: Path
    recipe: Path
    seeds: tuple[int, ...]
    arms: Mapping[str, Sequence[str]]
    """Overrides by the arm's name"""
    baseline: str | None
    threads: int
    pins: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By arm: overrides that hold its models of the hub at one commit"""

    @property
    def name(self) -> str:
        return self.file.resolve().parent.name if self.file.stem == "study" else self.file.stem

    @property
    def results(self) -> Path:
        """The result file, beside the study's own"""
        return self._beside("results.json")

    @property
    def archive(self) -> Path:
        """Of each finished run what a comparison reads, packed"""
        return self._beside("finished")

    def _beside(self, name: str) -> Path:
        return self.file.with_name(name if self.file.stem == "study" else f"{self.file.stem}.{name}")

    def overrides(self, arm: str, seed: int) -> list[str]:
        return [*self.arms[arm], *self.pins.get(arm, ()), f"seed={seed}", f"threads={self.threads}"]

    def only(self, arms: Sequence[str] | None, seeds: Sequence[int] | None) -> Study:
        """The study with some of its arms and seeds. InputError for one that it hasn't."""
        for arm in arms or ():
            if arm not in self.arms:
                raise InputError(f"--arms {arm}: no such arm in {self.file}; {nearest(arm, self.arms)}")
        for seed in seeds or ():
            if seed not in self.seeds:
                known = ", ".join(map(str, self.seeds))
                raise InputError(f"--seeds {seed}: {self.file} has the seeds {known}; add it there first")
        chosen = {name: self.arms[name] for name in self.arms if name in (arms or self.arms)}
        return replace(self, arms=chosen, seeds=tuple(seed for seed in self.seeds if seed in (seeds or self.seeds)))


def load_study(path: Path) -> Study:
    """The study in a file, or in a folder's study.toml. Raises InputError naming the key, with the nearest known one."""
    file = path / "study.toml" if path.is_dir() else path
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file}: no such study file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read as a study: {error}") from None
    found = validated(StudyFile, data, str(file))
    for name in found.arms:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}", name):
            raise InputError(f"{file}: arm {name!r}: expected a name of letters, digits and . _ + - (it names folders)")
    twice = next((seed for i, seed in enumerate(found.seeds) if seed in found.seeds[:i]), None)
    if twice is not None:
        raise InputError(f"{file}: seeds: {twice} stands there twice")
    beside = [f"{SHORT[arm]} of {name}" for arm in ("vanilla", "early") for name in found.arms]
    if found.baseline is not None and found.baseline not in (*found.arms, *SHORT.values(), *beside):
        known = nearest(found.baseline, [*found.arms, *SHORT.values()])
        raise InputError(f"{file}: baseline = {found.baseline!r}: no arm of this name; {known}")
    recipe = file.parent / found.recipe
    return Study(file, recipe, tuple(found.seeds), found.arms, found.baseline, found.threads)


def checked_arms(study: Study) -> dict[str, Recorder]:
    """Each arm's recipe, at the first seed, and what it is going to do. Raises InputError, naming the arm, for a recipe that
    is wrong and for arms that couldn't be compared."""
    plans: dict[str, Recorder] = {}
    for name, overrides in study.arms.items():
        where = f"{study.file}: arm {name!r}"
        for override in overrides:
            key = override.partition("=")[0].strip()
            if key in ("seed", "threads"):
                raise InputError(f"{where}: {key} is the study's own; expected it outside of [arms]")
        try:
            recipe = config.load(study.recipe, study.overrides(name, study.seeds[0]))
            checked_method(recipe, str(study.recipe))
            plans[name] = recorded(recipe)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    _told_apart(study, plans)
    _comparable(study, plans)
    return plans


def _told_apart(study: Study, plans: Mapping[str, Recorder]) -> None:
    """What a comparison calls its arms by must be one thing each."""
    products: dict[str, str] = {}
    for name, plan in plans.items():
        key = _key(plan, _product(plan))
        other = products.setdefault(key, name)
        if other != name:
            raise InputError(f"{study.file}: arms {other!r} and {name!r} are the same recipe; expected one of them")
    for name, plan in plans.items():
        last = {str(told["arm"]): evaluation for evaluation, told in plan.evaluations.items()}
        for arm in BESIDE:
            if (
                arm in last
                and last[arm] != _product(plan)
                and SHORT[arm] in plans
                and _key(plan, last[arm]) not in products
            ):
                raise InputError(
                    f"{study.file}: arm {SHORT[arm]!r}: what stands beside {name!r} is called so; expected another name"
                )


def _product(plan: Recorder) -> str:
    return [name for name, told in plan.evaluations.items() if told["product"]][-1]


def _key(plan: Recorder, evaluation: str) -> str:
    told = plan.evaluations[evaluation]
    return json.dumps([told["arm"], identity_of(told["arm"], told["depends_on"])], sort_keys=True, default=str)


def _comparable(study: Study, plans: Mapping[str, Recorder]) -> None:
    first: dict[str, tuple[str, Any]] = {}
    for name, plan in plans.items():
        for key, value in _shared(plan).items():
            other, expected = first.setdefault(key, (name, value))
            if value != expected:
                raise InputError(
                    f"{study.file}: arms {other!r} and {name!r} can't be compared: {key} = {_told(expected)} and "
                    f"{_told(value)}; expected the same"
                )


def _shared(plan: Recorder) -> dict[str, Any]:
    """What arms must have in common: evaluations, and training rollouts where their number is known."""
    recipe = plan.recipe
    options = flat(recipe.model_dump(mode="json"))
    found = {key: options[key] for key in ("eval.samples", "eval.problems", "eval.split")}
    found |= {f"an evaluation's {key}": value for key, value in recipe.eval_sampling.model_dump(mode="json").items()}
    spent = plan.spends[_product(plan)]
    return found | ({"rollouts of a run": spent} if spent and not stops_early(recipe) else {})


def stops_early(recipe: Recipe) -> bool:
    """Whether the rollouts that it will spend aren't known before."""
    return recipe.rloop.adaptive


def _told(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else repr(value)
