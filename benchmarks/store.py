"""The trajectory store at scale: rollouts written per second, and expert selection over millions of them.

    python benchmarks/store.py --rollouts 10000000

Makes a store of short-response rollouts (one RL iteration), then selects its experts in a process of its own, whose
time and peak resident memory are reported. Writing is timed separately on a few steps of `Rollout` objects; the store
itself is made column by column, which is faster and gives the same kind of file. There is no peer: nothing else stores
rollouts, so the result has no pairs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from pairs import RESULTS, paired, write

from reasonloop.machine.threads import available_cores
from reasonloop.records import Place, Rollout, Verdict
from reasonloop.store.experts import select_experts
from reasonloop.store.schema import SCHEMAS, response_hash
from reasonloop.store.segments import TrajectoryStore, encode

GROUP = 8
STEP_ROLLOUTS = 4096
VOCABULARY = 512


def problem_count(rollouts: int) -> int:
    return max(64, rollouts // 500)


def make_store(folder: Path, rollouts: int) -> None:
    """Steps of 512 problems x 8 samples; success rates from Beta(0.7, 0.7); a tenth of the responses are repeats."""
    import pyarrow as pa

    folder.mkdir(parents=True)
    problems = problem_count(rollouts)
    rng = np.random.default_rng(0)
    ease = rng.beta(0.7, 0.7, problems)
    for step in range(-(-rollouts // STEP_ROLLOUTS)):
        n = min(STEP_ROLLOUTS, rollouts - step * STEP_ROLLOUTS)
        asked = rng.choice(problems, -(-n // GROUP), replace=problems < -(-n // GROUP))
        problem = np.repeat(asked, GROUP)[:n]
        sample = np.arange(n) % GROUP
        right = rng.random(n) < ease[problem]
        length = rng.integers(8, 25, n)
        length[rng.random(n) < 0.1] = 6
        offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int32)
        tokens = rng.integers(0, VOCABULARY, offsets[-1], dtype=np.int32)
        short = np.repeat(length == 6, length)
        # Six tokens that depend on the problem only: exact duplicates from step to step.
        tokens[short] = np.repeat(problem, length)[short] % VOCABULARY
        hashes = np.array([response_hash(tokens[a:b]) for a, b in pairwise(offsets)], np.uint64)
        prompt = np.repeat(problem, 12).astype(np.int32) % VOCABULARY
        columns = {
            "run": ["bench"] * n,
            "branch": ["main"] * n,
            "stage": ["explore"] * n,
            "iteration": np.zeros(n, np.int32),
            "step": np.full(n, step, np.int32),
            "problem_id": [f"train-{p:07d}" for p in problem],
            "sample": sample.astype(np.int32),
            "verdict": np.where(right, "right", "wrong").tolist(),
            "reward": right.astype(np.float64),
            "reward_parts": [[("outcome", float(value))] for value in right],
            "finish": ["stop"] * n,
            "version": np.zeros(n, np.int32),
            "detail": [""] * n,
            "n_tokens": length.astype(np.int32),
            "response_hash_hi": hashes[:, 0],
            "response_hash_lo": hashes[:, 1],
            "text": [""] * n,
            "prompt_tokens": pa.ListArray.from_arrays(np.arange(0, 12 * n + 1, 12, dtype=np.int32), prompt),
            "response_tokens": pa.ListArray.from_arrays(offsets, tokens),
            "sampled": [[]] * n,
            "logprobs": pa.ListArray.from_arrays(offsets, -rng.random(offsets[-1], np.float32)),
        }
        arrays = [
            columns[f.name].cast(f.type) if isinstance(columns[f.name], pa.Array) else pa.array(columns[f.name], f.type)
            for f in SCHEMAS[2]
        ]
        data = encode(pa.Table.from_arrays(arrays, schema=SCHEMAS[2]))
        (folder / f"main-i000-s{step:05d}.parquet").write_bytes(data)


def time_writing(steps: int = 8) -> float:
    """Rollouts per second through `TrajectoryStore.write`, fsync included; responses of 64 tokens."""
    rng = np.random.default_rng(0)
    written = 0
    with tempfile.TemporaryDirectory() as folder:
        store = TrajectoryStore(Path(folder), "bench")
        seconds = 0.0
        for step in range(steps):
            rollouts = [
                Rollout(
                    problem_id=f"train-{i // GROUP:07d}",
                    prompt_tokens=np.arange(12, dtype=np.int32),
                    response_tokens=rng.integers(0, VOCABULARY, 64, dtype=np.int32),
                    logprobs=-rng.random(64, np.float32),
                    text="a response",
                    verdict=Verdict.RIGHT if i % 3 else Verdict.WRONG,
                    reward_parts={"outcome": 1.0},
                    place=Place(step=step),
                    sample=i % GROUP,
                )
                for i in range(STEP_ROLLOUTS)
            ]
            start = time.perf_counter()
            store.write(rollouts, Place(step=step))
            seconds += time.perf_counter() - start
            written += len(rollouts)
    return written / seconds


def select(folder: Path) -> None:
    """What the measured process does; prints one JSON object."""
    start = time.perf_counter()
    experts = select_experts(folder, iteration=0)
    seconds = time.perf_counter() - start
    counts = {
        name: getattr(experts, name)
        for name in ("seen", "right", "problems", "hard_problems", "deduplicated", "selected")
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"seconds": round(seconds, 2), "peak_bytes": peak, **counts}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="keep the store here, and use it again if it is there")
    parser.add_argument("--out", type=Path, default=RESULTS / "store.json", help="result file")
    parser.add_argument("--select", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.select:
        select(args.select)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary) / "trajectories"
        if not folder.exists():
            make_store(folder, args.rollouts)
        size = sum(path.stat().st_size for path in folder.iterdir())
        child = subprocess.run(
            [sys.executable, __file__, "--select", str(folder)], check=True, capture_output=True, text=True
        )
    workload = {"rollouts": args.rollouts, "problems": problem_count(args.rollouts), "stored_bytes": size}
    more = {"written_per_second": round(time_writing()), "selection": json.loads(child.stdout)}
    print(json.dumps(more, indent=1))
    write(paired([], [], None, workload, **more), args.out, available_cores())


if __name__ == "__main__":
    main()
