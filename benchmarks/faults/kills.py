"""Runs that are killed again and again, and continued: by one process, and by two that learn together.

    python benchmarks/faults/kills.py --kills 20      # a sample

Half of the kills are just before the n-th change of a file, half at a moment; each process is killed later than the one
before, and at last the run is left alone. It must end with the same bytes as one that was never killed.
"""

from __future__ import annotations

import argparse
import json
import time
from random import Random
from typing import Any

from work import Case, differing, last, place, show, unbroken

PLANS = {"rl": "vanilla", "rloop": "RLoop", "rloop, branches, adapters": "RLoop", "rlsp": "RLSP"}
KILLS = 6
"""Of a run, at most"""


def one(plan: str, seed: int, kills: int = KILLS) -> dict[str, Any]:
    """A run that is killed up to so many times, every other time at a change of a file."""
    random, done = Random(seed), list[dict[str, Any]]()
    change, seconds, code = 0, 0.0, -9
    expected_seconds = _seconds(plan)
    with place() as folder:
        case = Case(plan, folder)
        for turn in range(kills):
            if turn % 2 == 0:
                change += random.randint(1, 40)
                code, said = case.work(watched=case.out, kill_at=change)
                how: dict[str, Any] = {"at_change": change}
            else:
                seconds = random.uniform(0.2, expected_seconds)
                code, said = case.killed_after(seconds)
                how = {"after_seconds": round(seconds, 3)}
            if code != -9:
                break
            done.append(how)
        if code == -9:
            code, said = case.work()
        result = {"plan": plan, "method": PLANS[plan], "processes": 1, "seed": seed, "kills": done, "code": code}
        changed = differing(case) if not code else []
        good = not code and not changed and "Traceback" not in said
        return result | {"differing": changed, "said": last(said) if code else "", "good": good}


_took: dict[str, float] = {}


def _seconds(plan: str) -> float:
    if plan not in _took:
        unbroken(plan)
        with place() as folder:
            began = time.monotonic()
            Case(plan, folder).work()
            _took[plan] = time.monotonic() - began
    return _took[plan]


def two(plan: str, seed: int, kills: int = 2) -> dict[str, Any]:
    """The same of two ranks, of which either is killed at a change of a file or, by the other's end, with it; compared with
    what two ranks that nothing happens to end with."""
    from processes import finish, run_ranks, said
    from run_fixtures import outcome

    random, done = Random(seed), list[dict[str, Any]]()
    with place() as folder:
        whole = Case(plan, folder / "whole")
        for process in run_ranks(2, whole.argv, log=whole.log):
            finish(process, 300)
        case, change = Case(plan, folder / "killed"), 0
        for turn in range(kills):
            change += random.randint(5, 60)
            rank = turn % 2 if random.random() < 0.3 else 0
            processes = run_ranks(2, case.argv, log=case.log, watched=case.out, killed=rank, kill_at=change)
            codes = [finish(process, 300) for process in processes]
            if not any(codes):
                break
            done.append({"at_change": change, "rank": rank, "codes": codes})
        codes = [finish(process, 300) for process in run_ranks(2, case.argv, log=case.log)]
        found, expected = (outcome(one.out) if one.out.is_dir() else {} for one in (case, whole))
        changed = [name for name in sorted({*found, *expected}) if found.get(name, "-") != expected.get(name, "-")]
        text = "".join(said(case.log, rank) for rank in range(2))
    good = not any(codes) and bool(expected) and not changed and "Traceback" not in text
    result = {"plan": plan, "method": PLANS[plan], "processes": 2, "seed": seed, "kills": done, "code": max(codes)}
    return result | {"differing": changed, "said": last(text) if any(codes) else "", "good": good}


def campaign(kills: int, seed: int = 0, pairs: int = 6) -> list[dict[str, Any]]:
    """Runs of all plans in turn until so many processes were killed; `pairs` of them by two ranks."""
    random, found = Random(seed), list[dict[str, Any]]()
    names = list(PLANS)
    for turn in range(pairs):
        found.append(two(["rl", "rloop", "rlsp"][turn % 3], random.randrange(1 << 30)))
        show(turn + 1, pairs, None if found[-1]["good"] else found[-1])
    while sum(len(run["kills"]) for run in found) < kills:
        found.append(one(names[len(found) % len(names)], random.randrange(1 << 30)))
        show(sum(len(run["kills"]) for run in found), kills, None if found[-1]["good"] else found[-1])
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    results = campaign(given.kills, given.seed, given.pairs)
    for result in results:
        print(json.dumps(result))
    killed = sum(len(result["kills"]) for result in results)
    print(
        f"{killed} kills in {len(results)} runs, {sum(result['good'] for result in results)} of them with the same bytes"
    )
