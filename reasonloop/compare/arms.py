"""Arms: which runs belong together, what they are called, and which of their policies stands for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonloop.compare.policies import Entry, entries, read_finished
from reasonloop.errors import InputError
from reasonloop.evaluation.table import STARTS, trunk_of
from reasonloop.report.run import RunData

Key = tuple[str, Any]
"""Of an arm: what it is, and the recipe's options that it depends on, hashable"""

SHORT = {
    "explored": "rloop explored",
    "vanilla": "vanilla",
    "early": "vanilla early-stopped",
    "sft": "sft",
    "base": "base",
}
"""What arms are called, in their order; before them the products, which are called by their method"""


@dataclass(frozen=True)
class ComparedArm:
    """One recipe apart from its seed: the evaluated policy of each seed, on the same problems."""

    name: str
    arm: str
    """"main" (a method's product), "explored", "vanilla", "early" (vanilla RL's best on the probe), "sft" or "base" """
    entries: tuple[Entry, ...]
    """By seed"""

    @property
    def seeds(self) -> list[int]:
        return [entry.seed for entry in self.entries]

    @property
    def trained(self) -> bool:
        """Whether it spent rollouts: arms that did are only compared at equal ones."""
        return self.arm not in STARTS

    @property
    def product(self) -> bool:
        """Whether it is what runs were given for, and doesn't only stand beside one."""
        return any(entry.product for entry in self.entries)

    @property
    def rollouts(self) -> int:
        """Training rollouts of a run; of adaptive runs, which differ from one another, the mean."""
        return round(float(np.mean([entry.rollouts for entry in self.entries])))

    @property
    def samples(self) -> int:
        return self.entries[0].samples

    @property
    def correct_SP(self) -> NDArray[np.int64]:
        """Right ones of `samples` responses, [seeds, problems], problems in order of their ids."""
        return np.stack([entry.correct_P for entry in self.entries])


@dataclass
class Arms:
    """All arms of a comparison, and what a reader must know of how they came about."""

    arms: list[ComparedArm]
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_arms(arguments: Sequence[str], every: bool = False) -> Arms:
    """The arms of the run folders in `arguments`, each a path or NAME=PATH.

    A run with vanilla RL beside it is two arms; what runs started from are the arms "base" and, where SFT came first,
    "sft". `every`: also RLoop's last explored policy. The arm of the first argument is the first; then come products,
    vanilla RL, SFT and the base, of each the named ones in the order of `arguments`.
    Raises InputError for folders that hold no finished run, seeds that an arm has twice, problems or samples that
    differ between arms, and training rollouts that do.
    """
    named = [_split(argument) for argument in arguments]
    if not named:
        raise InputError("compare: no run given; expected run folders")
    runs = [(name, read_finished(path)) for name, path in sorted(named, key=lambda item: str(item[1]))]
    groups: dict[Key, list[Entry]] = {}
    given: dict[Key, str] = {}
    asked: dict[Key, int] = {}  # the first argument whose run an arm is the product of
    places = {str(path): place for place, (_, path) in enumerate(named)}
    for name, run in runs:
        for entry in entries(run, every):
            key = (entry.arm, _frozen(entry.identity))
            groups.setdefault(key, []).append(entry)
            if entry.product:
                asked[key] = min(places[entry.run], asked.get(key, len(places)))
            if name and entry.product and given.setdefault(key, name) != name:
                raise InputError(f"{run.folder}: one recipe under two names, {given[key]!r} and {name!r}")
    beside = _beside(groups, given, places)
    names = _names(groups, given | beside)
    _same_problems([entry for found in groups.values() for entry in found])
    notes: list[str] = []
    kinds = {arm: place for place, arm in enumerate(SHORT, 1)}  # averages stand beside what they are of

    def place(key: Key) -> tuple[bool, int, int, str]:
        first = asked.get(key, len(places)) == min(asked.values())
        of = min(places[entry.run] for entry in groups[key]) if key in beside else 0
        at = asked.get(key, len(places) + of)
        return not first, kinds.get(trunk_of(key[0]), 0), at, names[key]

    keys = sorted(groups, key=place)
    arms = [ComparedArm(names[key], key[0], _one_a_seed(names[key], groups[key], notes)) for key in keys]
    _equal_rollouts(arms)
    machine, versions = _machine([run for _, run in runs])
    return Arms(arms, machine, versions, notes + _unlike(arms))


def _split(argument: str) -> tuple[str | None, Path]:
    """NAME=PATH, or a path (which may hold a "=" itself)."""
    name, equals, path = argument.partition("=")
    if not equals or Path(argument).exists():
        return None, Path(argument)
    if not name.strip() or not path:
        raise InputError(f"compare: {argument!r}: expected RUN or NAME=RUN")
    return name.strip(), Path(path)


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(sorted((key, _frozen(item)) for key, item in value.items()))
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _beside(
    groups: Mapping[Key, Sequence[Entry]], given: Mapping[Key, str], places: Mapping[str, int]
) -> dict[Key, str]:
    """Names of what stands beside runs that were named: of vanilla RL, where there is more than one such arm, "vanilla of
    gentle", after the first of the runs that it stands beside; of averages "gentle x 0.5", and of what they are of, where
    one of them is the product, "gentle x 1"."""
    products = [key for key in given if trunk_of(key[0]) == "main"]
    runs = {entry.run: given[key] for key in products for entry in groups[key] if entry.product}
    found: dict[Key, str] = {}
    for key in groups:
        if trunk_of(key[0]) == "main" and key not in given:
            beside = min((entry.run for entry in groups[key]), key=places.__getitem__)
            if beside in runs:
                found[key] = runs[beside] + (key[0].removeprefix("main") or " x 1")
    for arm in ("vanilla", "early"):
        keys = [key for key in groups if key[0] == arm and not any(entry.product for entry in groups[key])]
        if len(keys) > 1 and all(entry.run in runs for key in keys for entry in groups[key]):
            first = {key: min((entry.run for entry in groups[key]), key=places.__getitem__) for key in keys}
            found |= {key: f"{SHORT[arm]} of {runs[first[key]]}" for key in keys}
    return found


def _names(groups: Mapping[Key, Sequence[Entry]], given: Mapping[Key, str]) -> dict[Key, str]:
    """The given names; for other arms what they are and, where several are alike, the options that set them apart: those
    in which an arm is unlike most of the others. What is no run's product needn't be told apart from arms with a name."""
    found = dict(given)
    identities = {key: own[0].identity for key, own in groups.items()}
    families: dict[str, list[Key]] = {}
    for key, identity in identities.items():
        families.setdefault(_short(key[0], str(identity.get("method", "rloop"))), []).append(key)
    for family, keys in families.items():
        options = sorted({option for key in keys for option in identities[key]})
        for key in keys:
            if key in given:
                continue
            parts = [family]
            product = any(entry.product for entry in groups[key])
            others = [identities[other] for other in keys if product or other not in given]
            for option in options:
                own = identities[key].get(option)
                if sum(other.get(option) == own for other in others) <= len(others) / 2:
                    parts.append(f"{option.rpartition('.')[2]}={_plain(own)}")
            found[key] = " ".join(parts)
    first: dict[str, Key] = {}
    for key, name in found.items():
        other = first.setdefault(name, key)
        if other != key:
            a, b = identities[other], identities[key]
            differing = sorted(option for option in a.keys() | b.keys() if a.get(option) != b.get(option))
            unlike = [f"{option} = {a.get(option)!r} and {b.get(option)!r}" for option in differing]
            raise InputError(
                f"arm name {name!r} is given to two arms ({(unlike or ['two methods'])[0]}); expected runs whose recipes "
                "are equal but for the seed, or another NAME=RUN"
            )
    return found


def _short(arm: str, product: str) -> str:
    """`product`: what is said for the method's own arm."""
    trunk = trunk_of(arm)
    return SHORT.get(trunk, product) + arm.removeprefix(trunk)


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(_plain(item) for item in value) or "none"
    return "unset" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _one_a_seed(name: str, found: Sequence[Entry], notes: list[str]) -> tuple[Entry, ...]:
    kept: dict[int, Entry] = {}
    for entry in found:
        other = kept.setdefault(entry.seed, entry)
        if other is entry:
            continue
        # What several runs have in common (the base; vanilla RL beside two RLoop arms) is one and the same result.
        same = np.array_equal(other.correct_P, entry.correct_P)
        if trunk_of(entry.arm) == "main" or not (same or entry.arm == "base"):
            raise InputError(
                f"arm {name!r} has seed {entry.seed} twice, from {other.run} and {entry.run}; expected a seed of its own "
                "for each run (leave one out, or tell two recipes apart with NAME=RUN)"
            )
        if not same:
            notes.append(
                f"The base at seed {entry.seed} was measured a little differently by {other.run} and {entry.run} "
                "(another machine or number of threads?); the first counts."
            )
    return tuple(kept[seed] for seed in sorted(kept))


def _same_problems(every: Sequence[Entry]) -> None:
    first = every[0]
    for entry in every:
        if entry.ids != first.ids:
            odd = sorted(set(entry.ids) ^ set(first.ids))
            raise InputError(
                f"{entry.run}: evaluated on {len(entry.ids)} problems, {first.run} on {len(first.ids)}, and "
                f"{odd[0]!r} is in one of them only; expected the same test problems"
            )
        if entry.samples != first.samples:
            raise InputError(
                f"{entry.run}: evaluated with {entry.samples} samples a problem, {first.run} with {first.samples}; "
                "expected the same eval.samples"
            )
        for key in sorted(entry.drawn.keys() & first.drawn.keys()):
            if entry.drawn[key] != first.drawn[key]:
                raise InputError(
                    f"{entry.run}: evaluated with {key} = {entry.drawn[key]}, {first.run} with {first.drawn[key]}; "
                    "expected the same distribution (eval.temperature sets it apart from the training's)"
                )


def _equal_rollouts(arms: Sequence[ComparedArm]) -> None:
    spent: dict[int, tuple[ComparedArm, Entry]] = {}
    for arm in arms:
        for entry in arm.entries if arm.trained else ():
            first, other = spent.setdefault(entry.seed, (arm, entry))
            if other.rollouts != entry.rollouts:
                raise InputError(
                    f"unequal rollouts at seed {entry.seed}: {other.run} ({first.name}) spent {other.rollouts:,}, "
                    f"{entry.run} ({arm.name}) spent {entry.rollouts:,}; expected equal ones: leave one out, or run one "
                    "again with rl.steps, and rloop.iterations, that spend what the other spent"
                )


def _unlike(arms: Sequence[ComparedArm]) -> list[str]:
    """What makes arms that may be compared unlike in more than their recipes for training."""
    bases = [arm.entries[0].identity for arm in arms if arm.arm == "base"]
    keys = sorted({key for base in bases for key in base})
    differing = [key for key in keys if any(base.get(key) != bases[0].get(key) for base in bases)]
    lines = [f"The arms differ in where they start or in their problems: {', '.join(differing)}."] if differing else []
    for arm in arms:
        if other := arm.entries[0].identity.get("sft.experts_of"):
            lines.append(f"{arm.name} has learned from the experts of {other}, whose rollouts are not counted here.")
    return lines


def _machine(runs: Sequence[RunData]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of all runs; where they differ, a list of what there was."""
    tables = [run.config.get("ran_on") or {} for run in runs]
    machines = [{k: t[k] for k in ("processor", "cores", "threads", "platform") if k in t} for t in tables]
    versions = [({"python": t["python"]} if "python" in t else {}) | dict(t.get("versions") or {}) for t in tables]
    return _merged(machines), _merged(versions)


def _merged(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key in dict.fromkeys(key for table in tables for key in table):
        values = sorted({table[key] for table in tables if key in table}, key=lambda v: (str(type(v)), v))
        merged[key] = values[0] if len(values) == 1 else values
    return merged
