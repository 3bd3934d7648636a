"""reasoning-gym: which of its generators pass the gold check, and verdicts/s against calling their scorers in this process.

    pip install 'reasonloop[gym]' && python benchmarks/gym.py

Every generator is loaded as a task of --problems problems (`gym?dataset=NAME`), which looks whether its scores can be
trusted, and then all its gold answers are judged, each by a sandboxed process of its own. "passes" is what `reasonloop
tasks check` lets pass; anything else is refused, and "why" is the line that says so. Seconds are of all of it.

Speed: gold answers of a few generators are judged by a verifier pool with one worker, as runs do it; the peer calls
`score_answer` in a loop here, with nothing between it and the answers. The main workload is the first generator's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from pairs import alternate, note, paired, parser, write

from reasonloop.bench import measure as bench
from reasonloop.errors import InputError
from reasonloop.machine.threads import prepare_threads
from reasonloop.records import Problem, Verdict
from reasonloop.tasks import check_task
from reasonloop.tasks.gym.task import Gym
from reasonloop.tasks.show import verifier_pool

MEASURED = ("leg_counting", "countdown", "spiral_matrix")
"""One whose scorer compares text, and two whose scorers execute the answer"""


def main() -> None:
    options = parser(__doc__, "gym", pairs=3)
    options.add_argument("--problems", type=int, default=16, help="problems of each generator (default: 16)")
    options.add_argument("--verdicts", type=int, default=200, help="verdicts of a round (default: 200)")
    options.add_argument("--only", nargs="+", default=[], help="only these generators")
    args = options.parse_args()
    threads = prepare_threads(args.threads)

    checked = {name: gold_check(name, args.problems) for name in args.only or generators()}
    passing = sum(found["passes"] for found in checked.values())
    print(f"{passing} of {len(checked)} generators pass the gold check")
    speeds = [speed(name, args.verdicts, args.pairs) for name in MEASURED]
    whole = {**speeds[0], "workloads": speeds, "passing": passing, "generators": checked}
    write(whole, args.out, threads, {"reasoning-gym": version("reasoning-gym")})


def generators() -> Sequence[str]:
    """The names of all generators, but for the one that only mixes others."""
    from reasoning_gym.factory import DATASETS

    return sorted(set(DATASETS) - {"composite"})


def gold_check(name: str, problems: int) -> dict[str, Any]:
    """Whether a generator passes, why not, and the seconds that it took."""
    began = time.perf_counter()
    task = Gym(dataset=name, train=0, probe=0, test=problems)
    try:
        failed = check_task(task, task.problems())
        why = f"{len(failed)} gold answers of {problems}: {failed[0][1].detail}" if failed else ""
    except InputError as error:
        why = str(error)
    found = {"passes": not why, "why": why, "seconds": round(time.perf_counter() - began, 2)}
    note(f"{name}: {why or 'passes'} ({found['seconds']:.1f} s)")
    return found


def speed(name: str, verdicts: int, pairs: int) -> dict[str, Any]:
    """Verdicts on gold answers, `verdicts` a round, by the sandbox and by the scorer called in this process."""
    import reasoning_gym

    options = {"dataset": name, "train": 0, "probe": 0, "test": 50}
    task = Gym(**options)
    chosen = list(task.problems())
    items: list[tuple[Problem, str]] = [(p, task.gold_response(p)) for p in chosen for _ in range(verdicts // 50)]
    seed = task.first_number("test")
    dataset = reasoning_gym.create_dataset(name, seed=seed, size=1000)
    entries = [dataset[problem.meta["place"][1]] for problem, _ in items]

    def plain(turn: int) -> float:
        return bench.timed(lambda: [dataset.score_answer(entry["answer"], entry) for entry in entries])

    with verifier_pool("gym", options, 5.0, workers=1) as pool:

        def ours(turn: int) -> float:
            began = time.perf_counter()
            judgements = pool.verify(items)
            took = time.perf_counter() - began
            assert all(judgement.verdict is Verdict.RIGHT for judgement in judgements)
            return took

        seconds = alternate({"ours": ours, "plain": plain}, pairs)
    rates = {side: len(items) / (sum(times) / len(times)) for side, times in seconds.items()}
    print(f"{name}: verdicts/s: {', '.join(f'{side} {rate:,.0f}' for side, rate in rates.items())}")
    workload = {"generator": name, "responses": len(items)}
    return paired(
        seconds["ours"], seconds["plain"], "score_answer in this process", workload, verdicts_per_second=rates
    )


if __name__ == "__main__":
    main()
