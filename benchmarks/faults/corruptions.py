"""Files of a run that are damaged, lost, exchanged or doubled, at several moments; then the run goes on, or is read.

    python benchmarks/faults/corruptions.py --count 30

Each corruption is of one file of an unfinished or a finished run, chosen by the seed: all kinds of files, in all of the
ways of `WAYS`. Then one verb works on the folder, and its end is one of

- named: it ended with one line that names the file (or the file that it was exchanged with), or went on and said so;
- same: exit code 0, and what came out is what an untouched run gives;
- unread: exit code 0, and nothing but the file itself, which nobody had to read, is otherwise; then a query that reads all
  must name it;
- silent: exit code 0, and something else is otherwise; traceback; unnamed: one line that doesn't name the file.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from work import Case, differing, last, place, show, temporary

WAYS = ("empty", "half", "cut", "flip", "garbage", "zeros", "longer", "delete", "swap", "copy", "older")
TABLES = ("rollouts", "metrics", "evals", "eval_problems", "eval_rollouts", "problems", "sources")
BAD = ("silent", "traceback", "unnamed")
READ_ALL = " UNION ALL ".join(f"SELECT '{name}', bit_xor(hash(t)) FROM {name} t" for name in TABLES)
UNTOLD = (".lock", "report.html", "progress.json")
"""Files that nothing depends on"""
MOMENTS = (30, 60, 90, 140, 190, 0)
"""Changes of files after which the process was killed; 0: the run is finished"""
KEEP = ("keep_checkpoints=true",)
"""Policies stay, so that there is something to damage"""


@cache
def at_moment(plan: str, moment: int) -> Path:
    """A run that was killed there, in a folder that nobody changes."""
    case = Case(plan, temporary() / f"moment-{plan}-{moment}", KEEP)
    code, said = case.work(watched=case.out, kill_at=moment) if moment else case.work()
    if code not in (0, -9):
        raise RuntimeError(said)
    return case.out


def files(run: Path) -> dict[str, list[str]]:
    """By kind, the names of a run's files."""
    found: dict[str, list[str]] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_file() and name not in UNTOLD and ".partial" not in name:
            kind = f"{name.split('/')[0]}/{path.name}" if name.startswith(("checkpoints", "model")) else name
            kind = f"{path.parent.name}/*{path.suffix}" if name.startswith(("trajectories", "evals")) else kind
            found.setdefault(kind, []).append(name)
    return found


def corrupt(run: Path, name: str, way: str, random: Random, earlier: Path) -> str | None:
    """Does it; the other file that was touched, or None where the file can't be damaged in this way."""
    path = run / name
    content = bytearray(path.read_bytes())
    others = [p for p in sorted(path.parent.glob(f"*{path.suffix}")) if p != path and p.read_bytes() != content]
    if name.startswith("checkpoints/"):
        others = [
            p for p in sorted((run / "checkpoints").glob(f"*/{path.name}")) if p != path and p.read_bytes() != content
        ]
    other = ""
    if way == "delete":
        path.unlink()
    elif way in ("swap", "copy"):
        if not others:
            return None
        twin = random.choice(others)
        other = twin.relative_to(run).as_posix()
        if way == "swap":
            theirs = twin.read_bytes()
            twin.write_bytes(content)
            path.write_bytes(theirs)
        else:
            path.write_bytes(twin.read_bytes())
    elif way == "older":
        older = earlier / name
        if not older.is_file() or older.read_bytes() == content:
            return None
        path.write_bytes(older.read_bytes())
    else:
        if not content:
            return None
        path.write_bytes(_damaged(content, way, random))
    return other


def _damaged(content: bytearray, way: str, random: Random) -> bytes:
    if way in ("empty", "half", "cut"):
        return bytes(content[: {"empty": 0, "half": len(content) // 2, "cut": len(content) - 1}[way]])
    if way == "longer":
        return bytes(content) + random.randbytes(17)
    at = random.randrange(len(content))
    if way == "flip":
        content[at] ^= 1 << random.randrange(8)
        return bytes(content)
    size = min(64, len(content) - at)
    return (
        bytes(content[:at])
        + (random.randbytes(size) if way == "garbage" else bytes(size))
        + bytes(content[at + size :])
    )


def continued(case: Case, names: list[str], code: int, said: str) -> str:
    if code:
        return "named" if any(name in said for name in names) else "unnamed"
    changed = differing(case)
    if not changed:
        return "same"
    if any(name in said for name in names):
        return "named"
    if {*changed} <= {*names, "digests.jsonl"}:
        code, said = case.verb("query", case.out, READ_ALL)
        return "unread" if code and any(name in said for name in names) else "silent"
    return "silent"


def read(case: Case, names: list[str], code: int, said: str, sound: str) -> str:
    if any(name in said for name in names):
        return "named"
    return "unnamed" if code else "same" if said == sound else "silent"


def _verbs(case: Case) -> dict[str, Callable[[], tuple[int, str]]]:
    def report() -> tuple[int, str]:
        code, said = case.verb("report", case.out, "--out", case.folder / "page.html")
        page = case.folder / "page.html"
        return code, said + (page.read_text(encoding="utf-8") if page.is_file() else "")

    def experts() -> tuple[int, str]:
        code, said = case.verb("experts", case.out, "--out", case.folder / "experts")
        written = sorted((case.folder / "experts").glob("*.jsonl"))
        return code, said + "".join(path.read_text() for path in written)

    return {
        "run": case.work,
        "query": lambda: case.verb("query", case.out, READ_ALL),
        "experts": experts,
        "report": report,
        "sample": lambda: case.verb("sample", case.out, "--task", "countdown", "-n", "1", "--samples", "2"),
    }


@cache
def _sound(plan: str, moment: int, verb: str) -> str:
    """What a verb says of the untouched folder."""
    case = Case(plan, temporary() / "reader", KEEP)
    shutil.rmtree(case.out, ignore_errors=True)
    shutil.copytree(at_moment(plan, moment), case.out)
    return _plain(_verbs(case)[verb]()[1], case)


def _plain(said: str, case: Case) -> str:
    return said.replace(str(case.folder), "")


def one(plan: str, moment: int, kind: str, way: str, verb: str, seed: int) -> dict[str, Any] | None:
    """A corruption and what came of it; None where there is nothing to corrupt in this way."""
    random, there = Random(seed), at_moment(plan, moment)
    names = files(there).get(kind)
    if not names:
        return None
    name = random.choice(names)
    sound = _sound(plan, moment, verb) if verb != "run" else ""
    with place() as folder:
        case = Case(plan, folder, KEEP)
        shutil.copytree(there, case.out)
        earlier = at_moment(plan, max((m for m in MOMENTS if m and (m < moment or not moment)), default=MOMENTS[0]))
        other = corrupt(case.out, name, way, random, earlier)
        if other is None:
            return None
        code, said = _verbs(case)[verb]()
        # a checkpoint is one thing: where one of its files doesn't belong to the others, its folder is what is named
        told = [one.rpartition("/")[0] if one.startswith("checkpoints") else one for one in (name, other) if one]
        if verb == "run":
            came = continued(case, told, code, said)
        else:
            came = read(case, told, code, _plain(said, case), sound)
        if "Traceback (most recent call last)" in said:
            came = "traceback"
    about = {"plan": plan, "moment": moment, "file": name, "kind": kind, "way": way, "verb": verb, "seed": seed}
    return about | {"code": code, "came": came, "said": last(said) if verb != "report" else ""}


def campaign(count: int, seed: int = 0, plans: tuple[str, ...] = ("rloop", "rl")) -> list[dict[str, Any]]:
    """So many corruptions, over all kinds of files in turn."""
    random, found, turn = Random(seed), list[dict[str, Any]](), 0
    while len(found) < count:
        turn += 1
        plan, moment = plans[turn % len(plans)], random.choice(MOMENTS)
        kinds = sorted(files(at_moment(plan, moment)))
        verb = random.choice(["run", "run", "run", "query", "report", "experts", *(["sample"] if not moment else [])])
        if verb == "experts" and (plan == "rl" or moment):
            verb = "run"
        result = one(plan, moment, kinds[turn % len(kinds)], random.choice(WAYS), verb, random.randrange(1 << 30))
        if result is not None:
            found.append(result)
            show(len(found), count, result if result["came"] in BAD else None)
    return found


def told(found: list[dict[str, Any]]) -> dict[str, int]:
    return dict(Counter(result["came"] for result in found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    results = campaign(given.count, given.seed)
    for result in results:
        print(json.dumps(result))
    print(told(results))
