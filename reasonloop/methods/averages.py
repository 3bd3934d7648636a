"""What an arm ends with, and the averages of it with what it began with (`[average]`).

Averaged weights keep more of what the start could do ("model soups", arXiv 2203.05482; WiSE-FT, arXiv 2109.01903).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from reasonloop.methods.arms import SFT
from reasonloop.records import Place
from reasonloop.runs.stages import BASE, Arm, Source, Stages


@dataclass(frozen=True)
class Ended:
    """A policy that an arm ends with."""

    policy: Source
    name: str
    """Of its evaluation"""
    place: Place
    arm: Arm
    rollouts: int = 0
    same_as: str = ""
    """As `Stages.evaluate` has it"""


def finish(run: Stages, start: Source, ended: Ended) -> Source:
    """Evaluates it, and its averages with the policy that its arm began with. Returns which of them is to be delivered."""
    options, arm = run.recipe.average, ended.arm
    chosen_later = options.deliver == "probe"
    trained = replace(ended, arm=replace(arm, product=arm.product and not chosen_later))
    run.evaluate(trained.policy, *_about(trained), rollouts=trained.rollouts, same_as=trained.same_as)
    every, places = {1.0: trained}, []
    for weight in options.weights:
        places.append(replace(ended.place, stage=f"{ended.place.stage}-x-{weight:g}"))
        policy = run.average(start, ended.policy, weight, places[-1])
        every[weight] = replace(trained, policy=policy, name=f"{ended.name}-x-{weight:g}", arm=weighed(arm, weight))
        run.evaluate(policy, *_about(every[weight]), rollouts=ended.rollouts)
    if not chosen_later:
        run.drop(places, keep=[])
        return ended.policy
    best = _chosen(run, start, every)
    found = every[1.0 if best is None else best]
    label = f"{arm.label}, averaged" + ("" if best is None else f" ({best:g})")
    changed = {**arm.changed, "average.deliver": "probe", "average.weights": list(options.weights)}
    of = replace(arm, name=f"{arm.name} averaged", label=label, changed=changed)
    run.evaluate(found.policy, f"{ended.name}-averaged", ended.place, of, rollouts=ended.rollouts, same_as=found.name)
    run.drop(places, keep=[found.policy])
    return found.policy


def weighed(arm: Arm, weight: float) -> Arm:
    """The arm whose policy an average with this weight is."""
    changed = {**arm.changed, "average.weight": weight}
    return replace(
        arm, name=f"{arm.name} x {weight:g}", label=f"{arm.label} x {weight:g}", changed=changed, product=False
    )


def _chosen(run: Stages, start: Source, every: Mapping[float, Ended]) -> float | None:
    """The largest weight whose pass@k on the probe isn't below the start's; the smallest where all are. None in a plan."""
    base = start == run.recipe.model.source
    began = Ended(start, "base", Place(stage="base"), BASE) if base else Ended(start, "sft", Place(stage="sft"), SFT)
    least = _on_probe(run, began)
    passed = {weight: _on_probe(run, one) for weight, one in every.items()}
    if least is None:
        return None
    return max((weight for weight, found in passed.items() if found is not None and found >= least), default=min(every))


def _on_probe(run: Stages, one: Ended) -> float | None:
    """pass@k there, of the largest k that is measured; None in a plan."""
    name, place, arm = _about(one)
    if run.recipe.eval.split == "probe":  # it is known already
        found = run.evaluate(one.policy, name, place, arm, rollouts=one.rollouts)
    else:
        found = run.evaluate(one.policy, f"{name}-probe", place, arm, rollouts=one.rollouts, split="probe")
    passes = {int(key.removeprefix("pass@")): value for key, value in found.items() if key.startswith("pass@")}
    return passes[max(passes)] if passes else None


def _about(one: Ended) -> tuple[str, Place, Arm]:
    return one.name, one.place, one.arm
