"""What all benchmarks share: sides that take turns, medians of their ratios, and the result file.

A result file: {"machine", "versions", "pairs": [{"ours": s, "peer": s}], "median_ratio": peer / ours, "peer", "workload"}.
Benchmarks with several workloads add a list under "workloads", each entry with the same keys; the top-level ones are the
main workload's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reasonloop.bench.result import machine_and_versions

RESULTS = Path(__file__).parent / "results"
Side = Callable[[int], float]
"""Does round i of the workload, and returns the seconds it took. Round 0 is the warm-up; later ones are counted."""


def alternate(sides: Mapping[str, Side], rounds: int, tell: Callable[[str], None] = print) -> dict[str, list[float]]:
    """Seconds of each side in each round, the warm-up left out. The order of the sides is reversed in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        order = list(sides) if turn % 2 else list(sides)[::-1]
        for name in order:
            took = sides[name](turn)
            if turn:
                seconds[name].append(took)
        if turn:
            tell(f"  round {turn}: " + ", ".join(f"{name} {times[-1]:.3f} s" for name, times in seconds.items()))
    return seconds


def paired(
    ours: Sequence[float], peers: Sequence[float], peer: str | None, workload: Any, **more: Any
) -> dict[str, Any]:
    """One workload's comparison with `peer`; without rounds of a peer there are no pairs and no ratio."""
    pairs = [{"ours": a, "peer": b} for a, b in zip(ours, peers, strict=False)]
    ratio = statistics.median([pair["peer"] / pair["ours"] for pair in pairs]) if pairs else None
    return {"pairs": pairs, "median_ratio": ratio, "peer": peer, "workload": workload, **more}


def commit_of(checkout: Path) -> str:
    """What a peer that is another checkout is called."""
    told = subprocess.run(["git", "-C", checkout, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return f"commit {told.stdout.strip()}"


def write(
    result: Mapping[str, Any], out: Path, threads: int, peer_versions: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The whole result, with machine and versions in front, printed and written to `out`."""
    machine, versions = machine_and_versions(threads)
    whole = {
        "machine": machine,
        "versions": {**versions, **({"peers": peer_versions} if peer_versions else {})},
        **result,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    ratio = whole.get("median_ratio")
    print(f"{out}: " + (f"{ratio:.2f} x {whole['peer']}" if ratio else "written"))
    return whole


def parser(description: str | None, name: str, pairs: int | None = 5) -> argparse.ArgumentParser:
    """The options that every benchmark has; `pairs` None where nothing is timed."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if pairs is not None:
        made.add_argument("--pairs", type=int, default=pairs, help=f"rounds after the warm-up (default: {pairs})")
    made.add_argument("--out", type=Path, default=RESULTS / f"{name}.json", help="result file")
    made.add_argument("--threads", type=int, default=0, help="CPU threads of either side (default: all cores)")
    return made


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
