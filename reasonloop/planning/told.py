"""The plan of a recipe with `[plan]`, in lines: memory of each device, work, hours, cost, and bytes over the network.

Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from reasonloop.config import Recipe
from reasonloop.errors import InputError, Unavailable
from reasonloop.machine.room import shown
from reasonloop.planning.figures import Figures, figures_of, planned_device
from reasonloop.planning.hours_table import between, hours_table, rounded
from reasonloop.planning.shapes import published
from reasonloop.planning.traffic import of_branches, synchronous, to_samplers
from reasonloop.planning.ways import Iteration, Way, iterations, ways
from reasonloop.policy.loading import shape_of
from reasonloop.policy.shape import Shape
from reasonloop.records import Problem
from reasonloop.runs.dry import DryStages
from reasonloop.runs.fit import UNKNOWN, row, what_to_set
from reasonloop.runs.needs import Plan, memory


def planned(recipe: Recipe, dry: DryStages, problems: Sequence[Problem] | None) -> list[str]:
    """For `--dry-run`. `problems`: None where they aren't known. Raises InputError as `told`."""
    source, shape = recipe.model.source, None
    with suppress(Unavailable):
        shape = shape_of(source)
    known = shape or published(source)
    if known is None:
        return [UNKNOWN]
    longest = max((len(problem.text) for problem in problems or ()), default=0)
    lines = told(recipe, dry, known, longest)
    return lines if shape else ["the model's shape is that of its published config.json", *lines]


def told(recipe: Recipe, dry: DryStages, shape: Shape, longest: int = 0) -> list[str]:
    """`longest`: characters of the longest prompt; 0 where it isn't known. Raises InputError where `[plan]` can't be, and
    where a device has too little memory for what is certain."""
    plan = plan_of(recipe, dry, shape, longest)
    head = f"plan for machines of {plan.ranks} x {planned_device(plan).name}; nothing of it was run"
    found = [head, *_memory(plan)]
    if shape.mixture:
        return [*found, "hours: not estimated for a mixture of experts"]
    if not iterations(plan.stages):
        return [*found, f"hours: not estimated: method = {recipe.method!r} explores nothing"]
    figures, chosen = figures_of(plan), ways(plan, dry.sizes)
    return [
        *found,
        *_figures(figures),
        *_work(plan, figures),
        *hours_table(chosen, figures),
        *_network(chosen, figures),
    ]


def plan_of(recipe: Recipe, dry: DryStages, shape: Shape, longest: int = 0) -> Plan:
    """On the devices of `[plan]`."""
    found = Plan.of(recipe, dry, shape, "cuda", 1, longest)
    return replace(found, ranks=recipe.plan.devices, memory=planned_device(found).memory)


def _memory(plan: Plan) -> list[str]:
    needs, size = memory(plan), plan.memory
    certain, most = max(needs, key=lambda need: need.certain), max(needs, key=lambda need: need.bytes)
    if certain.certain > size:
        parts = " + ".join(name for name in certain.parts if name not in ("process", "activations"))
        raise InputError(
            f"{certain.stage} needs {shown(certain.certain)} of each device for {parts} alone, plan.device = "
            f"{plan.recipe.plan.device!r} has {shown(size)}; {what_to_set(plan, size, certain=True)}"
        )
    weights = f"{plan.shape.count / 1e6:,.0f}M weights of {plan.element} bytes"
    found = [f"memory of each device, estimated, of {shown(size)} ({weights}):", *map(row, needs)]
    if most.bytes > size:
        found.append(f"note: {most.stage} may need more; {what_to_set(plan, size, certain=False)}")
    return found


def _figures(figures: Figures) -> list[str]:
    found = [f"{'what hours depend on:':29}{'lowest':>11}{'highest':>11}  from"]
    for one in figures.said:
        low, high = map(one.show, one.ends)
        found.append(f"  {one.name:27}{low:>11}{high:>11}  {one.source}")
    return found


def _work(plan: Plan, figures: Figures) -> list[str]:
    """Tokens of an iteration."""
    every, recipe = iterations(plan.stages), plan.recipe
    one, rl = every[0], recipe.rl
    steps, updates = _steps(plan, one)
    cases = (figures.shorter, figures.longer)
    sampled = [one.rollouts * case.guess.mean for case in cases]
    learned = [tokens * case.guess.taught * rl.epochs for tokens, case in zip(sampled, cases, strict=True)]
    tuned = [one.examples * case.guess.mean for case in cases]
    experts = f"; RFT on {one.examples:,.0f} experts, each as often as it is taken (a guess)" if one.examples else ""
    return [
        f"iteration 1 of {len(every)}: {rounded(steps)} RL steps of {rl.problems_per_step} x {rl.group_size} responses, "
        f"{rounded(updates)} updates{experts}; {one.answers:,.0f} answers in evaluations",
        f"  tokens: {_millions(sampled)} sampled in RL, {_millions(learned)} trained in RL"
        + (f", {_millions(tuned)} in RFT" if one.examples else ""),
    ]


def _steps(plan: Plan, one: Iteration) -> tuple[float, float]:
    """RL steps of an iteration, of all its explorations together, and optimizer updates in them."""
    rl = plan.recipe.rl
    steps = one.rollouts / rl.rollouts_per_step
    return steps, steps * rl.updates_per_step * rl.epochs


def _network(chosen: Sequence[Way], figures: Figures) -> list[str]:
    """Bytes of an iteration between machines, against one run over all of them."""
    way = next((one for one in chosen if one.machines > 1), None)
    if way is None:
        return []
    plan, one = way.plan, way.iteration
    steps, updates = _steps(plan, one)
    ends = (figures.shorter.guess.mean, figures.longer.guess.mean)
    (out, least), (_, most) = (of_branches(way.machines, plan.weights, one.rollouts, mean) for mean in ends)
    ring = synchronous(way.machines, plan.trained("explore"), updates)
    synced = to_samplers(way.machines, plan.weights, steps)
    return [
        f"network between {way.machines} machines, an iteration:",
        f"  in branches: weights out {_bytes(out)}, text back {_bytes(least)} to {_bytes(most)}",
        f"  one RL run over all of them: at least {_bytes(ring)}, {ring / (out + most):,.0f} to "
        f"{ring / (out + least):,.0f} times as much: gradients alone,",
        f"    2 (M - 1) x 4 bytes x weights x {rounded(updates)} updates (a ring's sums: Patarasuk and Yuan 2009)",
        f"  and {_bytes(synced)} of weights on top to as many machines that only sample, once a step",
    ]


def _millions(both: Sequence[float]) -> str:
    return between([value / 1e6 for value in both]) + " M"


def _bytes(size: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{rounded(size / unit)} {name}"
    return f"{size:,.0f} bytes"
