"""The parts of `benchmarks/gpu/check.sh`, each in a process of its own with a time limit, so that none hides the others.

Writes DIR/check.json after every part, and DIR/check.log. Needs nothing but Python itself. Exit code: 0 when every part that
ran passed, else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DEADLINE = 530.0
"""Seconds after which no part goes on: the whole must stay below nine minutes"""
PACKAGES = (
    "torch",
    "transformers",
    "triton",
    "numpy",
    "pyarrow",
    "duckdb",
    "pydantic",
    "trl",
    "accelerate",
    "liger-kernel",
)
PEERS = {
    "rl 16384": "prime-rl 11,900 tokens/s, 11 % MFU",
    "sft 16384": "prime-rl 25,500 tokens/s, 24 % MFU",
    "sampling 256": "vLLM 0.19 12,100 tokens/s",
}
"""What others have published for Qwen3-0.6B on one H100"""
BARS = {"rl": 0.25, "sft": 0.40, "sampling": 0.40}
"""Shares of the matrix peak, and of the bandwidth limit, that we want to reach"""
DATASHEET = {"H100": 989.5e12, "H200": 989.5e12}
"""bfloat16 FLOP/s of the SXM cards, without sparsity: what published MFU is a share of"""

SHORT = (
    "rl.steps=2",
    "rl.problems_per_step=8",
    "rl.probe_every=2",
    "eval.samples=4",
    "eval.problems=8",
    "rft.epochs=1",
)
"""The quickstart with little work in each stage: what is learned doesn't matter here, that all stages run does"""


@dataclass(frozen=True)
class Part:
    name: str
    limit: float
    """Seconds"""
    command: Sequence[str]
    needs: tuple[str, ...] = ()
    """Modules without which it is left out"""
    result: str = ""
    """The JSON file that it writes"""
    environment: dict[str, str] = field(default_factory=dict)


def parts(gpu: bool, folder: Path) -> list[Part]:
    """Cheap and telling ones first."""
    ours = [sys.executable, "-m", "reasonloop"]
    tests = [sys.executable, "-m", "pytest", "tests/gpu", "--durations=5", "-p", "no:cacheprovider"]
    run = [*ours, "run", "quickstart", "--out", str(folder / "run"), *SHORT]
    store = ("pyarrow", "duckdb")

    def script(name: str, limit: float, command: Sequence[str], *more: str, needs: tuple[str, ...] = ()) -> Part:
        """A part that writes a result file, the last of `command`'s arguments before `more`."""
        result = str(folder / f"{name.replace(' ', '-')}.json")
        return Part(name, limit, [*command, result, *more], needs, result)

    if not gpu:
        return [
            Part("tests", 240, tests, environment={"REASONLOOP_TEST_DEVICE": "cpu"}),
            Part("quickstart", 240, [*run, "rloop.iterations=1", "rloop.vanilla=false"], store),
            script("bench", 240, [*ours, "bench", "--batch", "2", "--context", "128", "--json"]),
            script("attention", 240, [sys.executable, str(HERE / "attention.py"), "--cpu"]),
            script("trials", 240, [sys.executable, str(HERE / "trials.py"), "--cpu"]),
        ]
    layout = [*ours, "bench", "--layout", "qwen3-0.6b", "--dtype", "bfloat16"]
    step = [
        sys.executable,
        "benchmarks/step.py",
        "--device",
        "cuda",
        "--trl-engine",
        "generate",
        "--pairs",
        "3",
        "--out",
    ]
    return [
        Part("tests", 120, tests),
        script("bench 8k", 120, [*layout, "--batch", "1", "64", "256", "--context", "8192", "--json"]),
        script("bench 16k", 90, [*layout, "--batch", "256", "--context", "16384", "--json"]),
        script("attention", 45, [sys.executable, str(HERE / "attention.py")]),
        Part("quickstart", 75, run, store),
        script("trials", 100, [sys.executable, str(HERE / "trials.py")]),
        script("step against TRL", 90, step, needs=("trl", *store)),
    ]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path, metavar="DIR", help="where check.json and check.log are written")
    options.add_argument("--cpu", action="store_true", help="the same parts at toy sizes, without a GPU")
    options.add_argument("--only", nargs="+", default=[], metavar="PART", help="only these parts")
    options.add_argument("--deadline", type=float, default=DEADLINE, help="seconds for all of it")
    args = options.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    began, found = time.monotonic(), []
    report: dict[str, Any] = {"gpu": not args.cpu, "machine": machine(), "versions": versions(), "parts": found}
    with tempfile.TemporaryDirectory() as temporary, (args.folder / "check.log").open("w", encoding="utf-8") as log:
        print(json.dumps({key: report[key] for key in ("machine", "versions")}, indent=1), file=log, flush=True)
        for part in parts(not args.cpu, Path(temporary)):
            if args.only and part.name not in args.only:
                continue
            found.append(run(part, args.deadline - (time.monotonic() - began), log))
            report["seconds"] = time.monotonic() - began
            (args.folder / "check.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            for line in told(found[-1]):
                print(line, flush=True)
                print(line, file=log, flush=True)
    print(f"{report.get('seconds', 0.0):.0f} s in all: {args.folder / 'check.json'} and check.log")
    return int(any(part["status"] not in ("passed", "left out") for part in found))


def run(part: Part, left: float, log: Any) -> dict[str, Any]:
    """Runs a part, its output to the log, and no longer than its limit and what is `left` of the whole."""
    missing = [name for name in part.needs if find_spec(name) is None]
    if missing or left < 5:
        reason = f"needs {', '.join(missing)}" if missing else "no time left"
        return {"name": part.name, "status": "left out" if missing else "timeout", "reason": reason, "seconds": 0.0}
    print(f"\n=== {part.name}: {' '.join(map(str, part.command))}", file=log, flush=True)
    began, limit = time.monotonic(), min(part.limit, left)
    process = subprocess.Popen(
        list(map(str, part.command)),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that what it has started ends with it
        cwd=HERE.parents[1],
        env={**os.environ, **part.environment, "HF_HUB_OFFLINE": "1"},
    )
    try:
        code: int | None = process.wait(limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        code = None
    status = "timeout" if code is None else "failed" if code else "passed"
    told = {"name": part.name, "status": status, "exit_code": code, "seconds": time.monotonic() - began, "limit": limit}
    if part.result and Path(part.result).is_file():
        told["result"] = json.loads(Path(part.result).read_text(encoding="utf-8"))
    return told


def told(part: dict[str, Any]) -> list[str]:
    """Lines for a reader: how the part ended, and ours beside the peers' and the bars."""
    why = f", {part['reason']}" if "reason" in part else ""
    lines = [f"{part['status']:9} {part['name']} ({part['seconds']:.0f} s{why})"]
    result = part.get("result", {})
    gpu = result.get("machine", {}).get("gpu", "")
    for row in result.get("sampling", []):
        rate, share = row["tokens_per_second"], row["share_of_bandwidth"]
        lines.append(
            f"    sampling {row['batch']} at once: {rate:,.0f} tokens/s, {share:.0%} of the bandwidth limit"
            f"{beside('sampling', row['batch']) if gpu else ''}"
        )
    sheet = next((peak for name, peak in DATASHEET.items() if name in gpu), None)
    for row in result.get("training", []):
        rate = row["stream_tokens"] / row["targets"] * row["tokens_per_second"]
        mfu = f", {row['share_of_peak'] * result['peak']['flops'] / sheet:.0%} MFU by the data sheet" if sheet else ""
        lines.append(
            f"    {row['kind']} at {row['stream_tokens']:,} packed tokens: {rate:,.0f} tokens/s, "
            f"{row['share_of_peak']:.0%} of the matrix peak{mfu}"
            f"{beside(row['kind'], row['stream_tokens']) if gpu else ''}"
        )
    lines += [f"    {line}" for line in result.get("lines", [])]
    return lines


def beside(kind: str, size: int) -> str:
    """The bar, and what others have published for the same"""
    found = PEERS.get(f"{kind} {size}")
    return f" (bar {BARS[kind]:.0%})" + (f"; {found}" if found else "")


def machine() -> dict[str, Any]:
    found: dict[str, Any] = {"platform": platform.platform(), "cores": os.cpu_count()}
    if tool := shutil.which("nvidia-smi"):
        asked = "--query-gpu=name,memory.total,driver_version"
        answer = subprocess.run([tool, asked, "--format=csv,noheader"], capture_output=True, text=True, check=False)
        found["gpus"] = answer.stdout.splitlines()
    return found


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


if __name__ == "__main__":
    sys.exit(main())
