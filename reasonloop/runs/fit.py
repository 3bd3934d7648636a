"""Whether a run fits where it is to run: its needs, held against what is there; and what to set where it doesn't."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from reasonloop import config
from reasonloop.config import Recipe
from reasonloop.errors import InputError
from reasonloop.machine import room
from reasonloop.machine.devices import CORE, REFERENCE, Device, device_named
from reasonloop.machine.launch import launched
from reasonloop.machine.room import Room, shown
from reasonloop.machine.threads import available_cores
from reasonloop.policy.loading import shape_of
from reasonloop.records import Problem
from reasonloop.runs.dry import DryStages
from reasonloop.runs.hours import LENGTH, hours
from reasonloop.runs.needs import Disk, Need, Plan, disk, memory
from reasonloop.tasks import Task
from reasonloop.tasks.registry import task_class

LEAST_MICROBATCH, LEAST_SLOTS, RANK = 512, 8, 16


@dataclass(frozen=True)
class Where:
    """Where a run computes, and what room there is: for each rank, where torchrun has started several."""

    kind: str
    """ "cpu" or "cuda" """
    room: Room | None
    """None for a GPU that isn't there"""
    device: Device | None
    """None for a GPU that no data sheet is kept of"""
    name: str

    @classmethod
    def of(cls, recipe: Recipe) -> Where:
        wanted, found = recipe.model.device, room.gpus()
        if wanted == "cuda" and not found:
            return cls("cuda", None, REFERENCE, f"one {REFERENCE.name}")
        if wanted != "cpu" and found and not _cpu_build():
            return cls("cuda", found[0].room, device_named(found[0].name), found[0].name)
        there, beside = room.memory(), launched().local_world
        return cls("cpu", Room(there.free // beside, there.total // beside), CORE, "the CPU")


def _cpu_build() -> bool:
    """Whether torch is here without CUDA, as far as its version says."""
    try:
        return "+cpu" in metadata.version("torch")
    except metadata.PackageNotFoundError:
        return True


@dataclass(frozen=True)
class Needs:
    """A run's, and where it is to run."""

    plan: Plan
    where: Where
    out: Path
    memory: tuple[Need, ...]
    disk: Disk

    @property
    def largest(self) -> Need:
        return max(self.memory, key=lambda need: need.bytes)

    @property
    def certain(self) -> Need:
        return max(self.memory, key=lambda need: need.certain)

    def to_json(self) -> dict[str, Any]:
        """Bytes, and hours where they are estimated."""
        device, found = self.where.device, None
        if device is not None:
            found = hours(self.plan, device, self.plan.threads)
        stages = [
            {"stage": need.stage, "bytes": need.bytes, "certain": need.certain, **need.parts} for need in self.memory
        ]
        return {"on": self.where.name, "memory": stages, "disk": asdict(self.disk), "hours": found}


def needs_of(recipe: Recipe, dry: DryStages, out: Path, problems: Sequence[Problem] | None) -> Needs | None:
    """None where the model's shape isn't known. Raises InputError as `resolve`."""
    shape = shape_of(recipe.model.source)
    if shape is None:
        return None
    where, longest = Where.of(recipe), max((len(problem.text) for problem in problems or ()), default=0)
    plan = replace(Plan.of(recipe, dry, shape, where.kind, available_cores(), longest), ranks=launched().world)
    if where.kind == "cuda" and where.room is not None:
        plan = replace(plan, memory=where.room.total)
    return Needs(plan, where, out, tuple(memory(plan)), disk(plan))


def sizes_of(recipe: Recipe, task: Task, problems: Sequence[Problem] | None) -> dict[str, int]:
    """How many problems each split has: of those that are known, or as the task's options say."""
    if problems is None:
        fields = getattr(getattr(task_class(recipe.task.name), "Options", None), "model_fields", {})
        usual = {split: getattr(fields.get(split), "default", 0) for split in ("train", "probe", "test")}
        told = {split: recipe.task.options.get(split, size) for split, size in usual.items()}
        found = {split: size for split, size in told.items() if isinstance(size, int)}
    else:
        found = dict(Counter(problem.split for problem in problems))
    if recipe.eval.problems:
        found["test"] = min(found.get("test", 0), recipe.eval.problems)
    return found


def needs_told(recipe: Recipe, dry: DryStages, out: Path, problems: Sequence[Problem] | None) -> list[str]:
    """For `--dry-run`, after what `require_room` raises."""
    needs = needs_of(recipe, dry, out, problems)
    if needs is None:
        return [UNKNOWN]
    require_room(needs)
    return lines(needs)


def needs_noted(recipe: Recipe, dry: DryStages, out: Path, problems: Sequence[Problem] | None) -> list[str]:
    """For a run that begins: see `require_room`."""
    needs = needs_of(recipe, dry, out, problems)
    return require_room(needs) if needs else []


UNKNOWN = (
    "memory, disk and time: not known before the model's files have been read (no config.json with its shape at hand)"
)


def lines(needs: Needs) -> list[str]:
    """For `--dry-run`: a table of memory, disk, and hours."""
    where, plan = needs.where, needs.plan
    there = f"{shown(where.room.free)} free of {shown(where.room.total)}" if where.room else "which isn't here"
    found = [
        f"model: {plan.shape.count / 1e6:,.1f}M weights of {plan.element} bytes",
        f"memory, estimated, on {where.name} ({there}):",
        *(row(need) for need in needs.memory),
    ]
    if where.kind == "cuda" and plan.recipe.optimizer.offload:
        found.append("  the optimizer's moments are the CPU's where the GPU has too little room")
    if plan.recipe.engine.name not in ("native", "vllm"):
        found.append(f"  and what engine {plan.recipe.engine.name} takes for weights, keys and values of its own")
    free, on = room.disk(needs.out).free, needs.disk
    parts = f"checkpoints {shown(on.checkpoints)}, rollouts {shown(on.rollouts)}, texts {shown(on.texts)}"
    done = shown(on.left + on.rollouts + on.texts)
    found.append(
        f"disk, estimated, in {needs.out} ({shown(free)} free): {shown(on.most)} at most ({parts}); {done} when it is done"
    )
    return [*found, _time(needs), *_notes(needs)]


def row(need: Need) -> str:
    """What takes its memory, in a line."""
    parts = ", ".join(f"{name} {shown(size)}" for name, size in need.parts.items() if size >= 1 << 20)
    return f"  {need.stage:21} {shown(need.bytes):>9}: {parts}"


def _time(needs: Needs) -> str:
    where, plan = needs.where, needs.plan
    if where.device is None:
        return f"time: not estimated: no data sheet of {where.name} is known here"
    cores = plan.threads
    found = hours(plan, where.device, cores)
    on = f"{cores} cores" if where.kind == "cpu" else where.name
    if found is None:
        return "time: not estimated for a mixture of experts"
    told = f"{found:.1f} h" if found >= 1 else f"{60 * found:.0f} min"
    about = f"an estimate from {'what such cores reach' if where.kind == 'cpu' else 'data sheets, never run'}"
    also = ""
    if where.kind == "cpu" and found > 24:
        gpu = replace(plan, device="cuda")
        also = f"; on one {REFERENCE.name} about {hours(gpu, REFERENCE) or 0:.1f} h"
    if any(one.kind == "elsewhere" or (one.kind == "finetune" and not one.learn) for one in plan.stages):
        also += "; what the commands take is not in it"
    return f"time: about {told} on {on} ({about}, responses {LENGTH:.0%} of sampling.max_tokens long){also}"


def _notes(needs: Needs) -> list[str]:
    """Where the estimate is beyond what is free."""
    found = []
    if needs.where.room is not None and needs.largest.bytes > needs.where.room.free:
        need = needs.largest
        found.append(
            f"note: {need.stage} may need {shown(need.bytes)}, {shown(needs.where.room.free)} are free on "
            f"{needs.where.name}; {what_to_set(needs.plan, needs.where.room.free, certain=False)}"
        )
    free = room.disk(needs.out).free
    if needs.disk.most > free:
        found.append(
            f"note: {needs.out} may take {shown(needs.disk.most)}, {shown(free)} are free there; another --out has more"
        )
    return found


def require_room(needs: Needs) -> list[str]:
    """What a reader should know of a run that may not fit. Raises InputError for one that certainly doesn't."""
    where, need = needs.where, needs.certain
    if where.room is not None and need.certain > where.room.total:
        what = " + ".join(name for name in need.parts if name not in ("process", "activations", "panels"))
        raise InputError(
            f"{need.stage} needs {shown(need.certain)} for {what} alone, {where.name} has {shown(where.room.total)} in "
            f"all; {what_to_set(needs.plan, where.room.total, certain=True)}"
        )
    there = room.disk(needs.out)
    if needs.disk.checkpoints > there.total:
        raise InputError(
            f"--out {needs.out}: checkpoints take {shown(needs.disk.checkpoints)}, its disk has {shown(there.total)} in "
            "all; expected another --out"
        )
    return _notes(needs)


def what_to_set(plan: Plan, size: int, certain: bool) -> str:
    """The first of some settings that makes it fit, or the most that they do together."""
    for overrides in remedies(plan.recipe):
        changed = _changed(plan, overrides)
        most = max(need.certain if certain else need.bytes for need in memory(changed))
        if most <= size:
            return f"it fits with {' '.join(overrides)}"
    return "no setting makes it fit: a smaller model, or a larger machine"


def remedies(recipe: Recipe) -> Iterator[tuple[str, ...]]:
    """Settings that need less memory, those first that don't change the result; then all of them together."""
    smaller = recipe.optimizer.microbatch_tokens
    while smaller // 2 >= LEAST_MICROBATCH:
        smaller //= 2
        yield (f"optimizer.microbatch_tokens={smaller}",)
    fewer = int(recipe.engine.options.get("slots", 256)) if recipe.engine.name == "native" else 0
    while fewer // 2 >= LEAST_SLOTS:
        fewer //= 2
        yield (f"engine.slots={fewer}",)
    lowest = tuple([f"optimizer.microbatch_tokens={smaller}"] if smaller < recipe.optimizer.microbatch_tokens else [])
    checkpointed = () if recipe.model.gradient_checkpointing else ("model.gradient_checkpointing=true",)
    if checkpointed:
        yield checkpointed
        yield (*checkpointed, *lowest)
    if recipe.optimizer.state == "float32":
        yield ("optimizer.state=8bit",)
        yield ("optimizer.state=8bit", *checkpointed, *lowest)
    if not recipe.lora.rank:
        yield (f"lora.rank={RANK}",)
        yield (f"lora.rank={RANK}", *checkpointed, *lowest)
        yield (f"lora.rank={RANK}", *checkpointed, *lowest, *([f"engine.slots={fewer}"] if fewer else []))


def _changed(plan: Plan, overrides: Sequence[str]) -> Plan:
    table = tomllib.loads(config.dumps(plan.recipe))
    return replace(plan, recipe=config.parse(table, list(overrides), "recipe"))
