"""Arms: which runs belong together, what they are called, and which of their policies stands for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonloop.compare.policies import Entry, entries, read_finished
from reasonloop.errors import InputError
from reasonloop.report.run import Run

ORDER = ("main", "explored", "vanilla", "early", "sft", "base")
SHORT = {
    "explored": "rloop explored",
    "vanilla": "vanilla",
    "early": "vanilla early-stopped",
    "sft": "sft",
    "base": "base",
}


@dataclass(frozen=True)
class Arm:
    """One recipe apart from its seed: the evaluated policy of each seed, on the same problems."""

    name: str
    kind: str
    """"main" (a method's product), "explored", "vanilla", "early" (vanilla RL's best on the probe), "sft" or "base" """
    entries: tuple[Entry, ...]
    """By seed"""

    @property
    def seeds(self) -> list[int]:
        return [entry.seed for entry in self.entries]

    @property
    def trained(self) -> bool:
        """Whether it spent rollouts: arms that did are only compared at equal ones."""
        return self.kind not in ("base", "sft")

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
    """All arms of a comparison, products first, and what a reader must know of how they came about."""

    arms: list[Arm]
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_arms(arguments: Sequence[str], every: bool = False) -> Arms:
    """The arms of the run folders in `arguments`, each a path or NAME=PATH.

    A run with vanilla RL beside it is two arms; what runs started from are the arms "base" and, where SFT came first,
    "sft". `every`: also RLoop's last explored policy. The result doesn't depend on the order of `arguments`.
    Raises InputError for folders that hold no finished run, seeds that an arm has twice, problems or samples that
    differ between arms, and training rollouts that do.
    """
    named = [_split(argument) for argument in arguments]
    if not named:
        raise InputError("compare: no run given; expected run folders")
    runs = [(name, read_finished(path)) for name, path in sorted(named, key=lambda item: str(item[1]))]
    notes: list[str] = []
    groups: dict[tuple[str, Any], list[Entry]] = {}
    identities: dict[tuple[str, Any], Mapping[str, Any]] = {}
    names: dict[tuple[str, Any], str] = {}
    for name, run in runs:
        for entry in entries(run, every):
            key = (entry.kind, _frozen(entry.identity))
            groups.setdefault(key, []).append(entry)
            identities[key] = entry.identity
            if name and entry.product and names.setdefault(key, name) != name:
                raise InputError(f"{run.folder}: one recipe under two names, {names[key]!r} and {name!r}")
    _one_recipe_a_name(names, identities)
    _same_problems([entry for found in groups.values() for entry in found])
    products = {key for key, found in groups.items() if any(entry.product for entry in found)}
    taken = _names(identities, names, products)
    arms = [Arm(taken[key], key[0], _one_a_seed(taken[key], key[0], found, notes)) for key, found in groups.items()]
    arms.sort(key=lambda arm: (ORDER.index(arm.kind), arm.name))
    _equal_rollouts(arms)
    notes += _unlike(taken, identities)
    machine, versions = _machine([run for _, run in runs])
    return Arms(arms, machine, versions, notes)


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


def _one_recipe_a_name(names: Mapping[tuple[str, Any], str], identities: Mapping[tuple[str, Any], Any]) -> None:
    first: dict[str, tuple[str, Any]] = {}
    for key, name in names.items():
        other = first.setdefault(name, key)
        if other != key:
            a, b = identities[other], identities[key]
            differing = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
            got = (
                f"{differing[0]} = {a.get(differing[0])!r} and {b.get(differing[0])!r}" if differing else "two methods"
            )
            raise InputError(f"arm {name!r}: its runs have different recipes ({got}); expected them equal but for seed")


def _names(
    identities: Mapping[tuple[str, Any], Mapping[str, Any]],
    given: Mapping[tuple[str, Any], str],
    products: Collection[tuple[str, Any]],
) -> dict[tuple[str, Any], str]:
    """The given names; for other arms what they are and, where several are alike, the options that set them apart: those
    in which an arm is unlike most of the others. What is no run's product needn't be told apart from arms with a name."""
    found = dict(given)
    families: dict[str, list[tuple[str, Any]]] = {}
    for key, identity in identities.items():
        families.setdefault(SHORT.get(key[0], str(identity.get("method", "rloop"))), []).append(key)
    for family, keys in families.items():
        options = sorted({option for key in keys for option in identities[key]})
        for key in keys:
            if key in found:
                continue
            parts = [family]
            others = [other for other in keys if key in products or other not in given]
            for option in options:
                values = [identities[other].get(option) for other in others]
                own = identities[key].get(option)
                if values.count(own) <= len(values) / 2:
                    parts.append(f"{option.rpartition('.')[2]}={_plain(own)}")
            found[key] = " ".join(parts)
    seen: dict[str, tuple[str, Any]] = {}
    for key, name in found.items():
        if seen.setdefault(name, key) != key:
            raise InputError(f"arm name {name!r} is given to two arms; expected another NAME=RUN")
    return found


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(_plain(item) for item in value) or "none"
    return "unset" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _one_a_seed(name: str, kind: str, found: Sequence[Entry], notes: list[str]) -> tuple[Entry, ...]:
    kept: dict[int, Entry] = {}
    for entry in found:
        other = kept.setdefault(entry.seed, entry)
        if other is entry or (other.ids == entry.ids and np.array_equal(other.correct_P, entry.correct_P)):
            # What several runs have in common (the base; vanilla RL beside two RLoop arms) is one and the same result.
            if other is not entry and kind == "main":
                raise InputError(_twice(name, other, entry))
            continue
        if kind != "base":
            raise InputError(_twice(name, other, entry))
        notes.append(
            f"The base at seed {entry.seed} was measured a little differently by {other.run} and {entry.run} "
            "(another machine or number of threads?); the first counts."
        )
    return tuple(kept[seed] for seed in sorted(kept))


def _twice(name: str, a: Entry, b: Entry) -> str:
    return (
        f"arm {name!r} has seed {a.seed} twice, from {a.run} and {b.run}; expected a seed of its own for each run "
        "(leave one out, or tell two recipes apart with NAME=RUN)"
    )


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


def _equal_rollouts(arms: Sequence[Arm]) -> None:
    spent: dict[int, tuple[Arm, Entry]] = {}
    for arm in arms:
        for entry in arm.entries if arm.trained else ():
            first, other = spent.setdefault(entry.seed, (arm, entry))
            if other.rollouts != entry.rollouts:
                raise InputError(
                    f"unequal rollouts at seed {entry.seed}: {other.run} ({first.name}) spent {other.rollouts:,}, "
                    f"{entry.run} ({arm.name}) spent {entry.rollouts:,}; expected equal ones: leave one out, or run one "
                    "again with rl.steps, and rloop.iterations, that spend what the other spent"
                )


def _unlike(names: Mapping[tuple[str, Any], str], identities: Mapping[tuple[str, Any], Mapping[str, Any]]) -> list[str]:
    """What makes arms that may be compared unlike in more than their recipes for training."""
    bases = [identity for (kind, _), identity in identities.items() if kind == "base"]
    keys = sorted({key for identity in bases for key in identity})
    differing = [key for key in keys if len({_frozen(base.get(key)) for base in bases}) > 1]
    lines = [f"The arms differ in where they start or in their problems: {', '.join(differing)}."] if differing else []
    for key, identity in identities.items():
        if other := identity.get("sft.experts_of"):
            lines.append(f"{names[key]} has learned from the experts of {other}, whose rollouts are not counted here.")
    return lines


def _machine(runs: Sequence[Run]) -> tuple[dict[str, Any], dict[str, Any]]:
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
