"""A campaign against runs and verifiers: processes killed, disks that fail or are full, files damaged, hostile and
greedy programs, and poison answers. Whatever happens, a run ends with the same bytes or says what is wrong, and every
verdict is kept.

    python benchmarks/faults.py                                          all of it, into benchmarks/results/faults.json
    python benchmarks/faults.py --only corruptions --corruptions 40      a part of it, into its place in that file

Seeded and bounded. Kills, corruptions and disks work on tiny runs (`faults/work.py`); each part is described in its file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pairs import machine_and_versions, note, parser, write

HERE = Path(__file__).parent
PARTS = ("kills", "corruptions", "disk", "programs", "answers", "memory")


def kills(args: Any) -> dict[str, Any]:
    import kills

    runs = kills.campaign(args.kills, args.seed, args.pairs)
    return {"kills": sum(len(run["kills"]) for run in runs), **_told(runs)}


def corruptions(args: Any) -> dict[str, Any]:
    import corruptions

    found = corruptions.campaign(args.corruptions, args.seed)
    return {"corruptions": len(found), "came": corruptions.told(found), "all": found}


def disk(args: Any) -> dict[str, Any]:
    import disk

    return _told(disk.campaign(args.operations, args.sizes, args.seed))


def programs(args: Any) -> dict[str, Any]:
    import programs

    return programs.campaign(args.seed)


def answers(args: Any) -> dict[str, Any]:
    import answers

    return answers.campaign(args.seed)


def memory(args: Any) -> dict[str, Any]:
    import greedy

    return greedy.campaign()


def _told(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"runs": len(found), "good": sum(bool(one["good"]) for one in found), "all": found}


def main() -> None:
    options = parser(__doc__, "faults", pairs=None)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--pairs", type=int, default=12, help="runs of two ranks among those killed")
    options.add_argument("--corruptions", type=int, default=300)
    options.add_argument("--operations", type=int, default=0, help="that fail, in each way; 0: all of a run")
    options.add_argument("--sizes", type=int, default=50, help="full disks")
    args = options.parse_args()
    sys.path += [str(HERE / "faults"), str(HERE / "hostile")]
    own: dict[str, Callable[[Any], dict[str, Any]]] = {
        "kills": kills,
        "corruptions": corruptions,
        "disk": disk,
        "programs": programs,
        "answers": answers,
        "memory": memory,
    }
    before = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else {}
    found = {name: before[name] for name in PARTS if name in before}
    for name in args.only:
        note(f"{name} ...")
        found[name] = {"processor": machine_and_versions(1)[0]["processor"], **own[name](args)}
        write({name: found[name] for name in PARTS if name in found}, args.out, threads=1)


if __name__ == "__main__":
    main()
