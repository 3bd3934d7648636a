"""The tables of README.md and docs/evidence*, made from result files: `python evidence/quoted.py` puts them in.

A cell is a reference as quoted.py has them, in one of the shapes below; a row names its arm once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from statistics import fmean

from quoted import find, number, read

AVG, PASS8, PASS32 = "avg@32", "pass@8", "pass@32"
THREE = (AVG, PASS8, PASS32)
GENTLE = "RLoop, 3e-4 x 2"


SPACE = "\u00a0"  # an interval isn't broken over two lines


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rows = [*rows]
    assert all(len(row) == len(head) for row in rows), head
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def value(where: str, like: str = "0.000") -> str:
    return number(find(where).value, like)


def sure(found_low: float, found_high: float, text: str) -> str:
    """Bold where the interval leaves out zero."""
    return f"**{text}**" if found_low > 0 or found_high < 0 else text


def between(where: str, like: str = "+0.000") -> str:
    """A difference with its interval."""
    found = find(where)
    low, high = found.low or 0.0, found.high or 0.0
    bounds = f"[{number(low, like[1:])},{SPACE}{number(high, like[1:])}]"
    return sure(low, high, f"{number(found.value, like)} {bounds}")


def relative(where: str) -> str:
    found = find(f"{where}, relative")
    low, high = found.low or 0.0, found.high or 0.0
    text = f"{number(100 * found.value, '+0')} % [{number(100 * low, '0')},{SPACE}{number(100 * high, '0')}]"
    return sure(low, high, text)


def arms(name: str, metrics: Sequence[str], rows: Sequence[tuple[str, str]]) -> list[list[str]]:
    """(what it is called, arm) -> its metrics."""
    return [[label, *(value(f"{name}: {arm}, {metric}") for metric in metrics)] for label, arm in rows]


def pairs(
    name: str, metrics: Sequence[str], rows: Sequence[tuple[str, str]], shape: Callable[[str], str] = between
) -> list[list[str]]:
    """(what it is called, "ARM - ARM") -> the difference in each metric."""
    return [[label, *(shape(f"{name}: {pair}, {metric}") for metric in metrics)] for label, pair in rows]


def seconds(study: str, arm: str, leave_out: int = 0) -> str:
    """Mean seconds of training; of the first seeds so many are left out."""
    held: list[float] = read(f"{study}/finishing")["arms"][arm]["training_seconds"]
    return f"{fmean(held[leave_out:]):.0f} s"


def both(name: str, arm: str, k: str = PASS32) -> str:
    average = AVG if k == PASS32 else k.replace("pass", "avg")
    return f"{value(f'{name}: {arm}, {average}')} / {value(f'{name}: {arm}, {k}')}"


def headline() -> str:
    """Three rows for the first page."""
    room, few, large = "rloop-room/stops", "rloop-room-96/stops", "rloop-smollm2"
    pair = "rloop@38400 - vanilla@38400"
    stopped = "rloop@38400 - vanilla@12800"
    own = "rloop - vanilla-1e-5"
    return table(
        ("task, training problems", "base", "vanilla RL", "RLoop", "average", "pass@k"),
        (
            [
                "Countdown, 2,048",
                *(both(room, arm) for arm in ("base", "vanilla@38400", "rloop@38400")),
                *(relative(f"{room}: {pair}, {metric}") for metric in (AVG, PASS32)),
            ],
            [
                "Countdown, 96; vanilla RL at a third of the rollouts",
                *(both(few, arm) for arm in ("base", "vanilla@12800", "rloop@38400")),
                *(relative(f"{few}: {stopped}, {metric}") for metric in (AVG, PASS32)),
            ],
            [
                "products, SmolLM2-135M; a variant of RLoop",
                *(both(large, arm, "pass@16") for arm in ("base", "vanilla-1e-5", "rloop")),
                *(relative(f"{large}: {own}, {metric}").replace("**", "") for metric in ("avg@16", "pass@16")),
            ],
        ),
    )


def grounds() -> str:
    """Every main comparison, RLoop against vanilla RL at equal rollouts."""
    confirm, small = "rloop-confirm", "sweep-long"
    listed = (
        ("2,048; 60 tokens", "1e-4", "1e-3 x 4", "4", "rloop-room", "vanilla", "rloop"),
        ("2,048; 60", "1e-4", "3e-4 x 2", "4", "rloop-room", "vanilla", "rloop-gentle-rft"),
        ("2,048; 34", "1e-4", "1e-3 x 2", "8", confirm, "vanilla-1e-4", "rloop-1e-4-epochs-2"),
        ("2,048; 34", "1e-4", "1e-3 x 4", "8", confirm, "vanilla-1e-4", "rloop-1e-4"),
        ("96; 60", "1e-4", "1e-3 x 4", "4", "rloop-room-96", "vanilla", "rloop"),
        ("96; 60", "1e-4", "3e-4 x 2", "4", "rloop-room-96", "vanilla", "rloop-gentle-rft"),
        ("96; 60, strict, on probe problems", "1e-4", "1e-3 x 2", "2", small, "vanilla", "gentle"),
        ("96; 60, strict", "3e-4", "1e-3 x 2", "4", "rloop-long", "vanilla", "rloop"),
        ("96; 34, strict", "3e-4", "1e-3 x 4", "5", "rloop", "vanilla", "rloop"),
        ("2,048; 34, 128 test problems", "3e-4", "1e-3 x 4", "7", "rloop-wide", "vanilla", "rloop"),
        ("2,048; 34", "3e-4", "1e-3 x 4", "8", confirm, "vanilla", "rloop"),
    )
    head = ("problems; tokens", "RL", "RFT", "seeds", "base", "vanilla RL", "RLoop", "average", "pass@32")
    rows = []
    for ground, rl, rft, seeds, name, vanilla, rloop in listed:
        shape = relative if int(seeds) > 2 else lambda where: relative(where).replace("**", "")
        cells = [both(name, arm) for arm in ("base", vanilla, rloop)]
        differences = [shape(f"{name}: {rloop} - {vanilla}, {metric}") for metric in (AVG, PASS32)]
        rows.append([ground, rl, rft, seeds, *cells, *differences])
    return table(head, rows)


def way(study: str) -> str:
    """Every point of the picture."""
    rows = []
    listed = [("base", "base")]
    listed += [("vanilla RL", f"vanilla@{n}") for n in (12800, 25600, 38400)]
    listed += [("vanilla RL", "vanilla-275-steps@70400")] * (study == "rloop-room")
    listed += [("RLoop, 1e-3 x 4", f"rloop@{n}") for n in (12800, 25600, 38400)]
    listed += [(GENTLE, f"rloop-gentle-rft@{n}") for n in (12800, 25600, 38400)]
    held = read(f"{study}/stops")["arms"]
    for label, arm in listed:
        updates = f"{held[arm]['rl_steps']} + {fmean(held[arm]['rft_updates']):.0f}"
        spent = f"{held[arm]['rollouts']:,}"
        cells = []
        for metric in THREE:
            found = find(f"{study}/stops: {arm}, {metric}")
            cells.append(f"{number(found.value, '0.000')} [{found.low:.2f},{SPACE}{found.high:.2f}]")
        rows.append([label, spent, *cells, updates])
    return table(("policy", "rollouts", *THREE, "updates, RL + RFT"), rows)


GROUNDS = {
    "rloop-room": "2,048; 60 tokens; 1e-4",
    "rloop-confirm": "2,048; 34; 3e-4",
    "rloop-wide": "2,048; 34; 3e-4; first asking",
    "rloop-room-96": "96; 60; 1e-4",
    "sweep-long": "96; 60; 1e-4; strict",
    "rloop-long": "96; 60; 3e-4; strict",
    "rloop": "96; 34; 3e-4; strict",
}


def lost() -> str:
    """Forgetting, diversity, stability, a row a ground; differences are RLoop's less vanilla RL's."""
    held = read("forgetting")["grounds"]
    rows = []
    for study, name in GROUNDS.items():
        counted, steps = (f"forgetting#/grounds/{study}/{part}" for part in ("lost_in_16", "dynamics"))
        cells = [""] * 7
        if "lost_in_16" in held[study]:
            shares = (find(f"{counted}/{policy}").value for policy in ("base", "vanilla", "rloop"))
            cells[:3] = [f"{number(100 * share, '0')} %" for share in shares]
            cells[3] = between(f"{counted}/rloop_minus_vanilla")
        if "dynamics" in held[study]:
            for place, quantity in ((4, "diversity_within_a_step"), (5, "diversity_excess")):
                where = f"{steps}/{quantity}/rloop_minus_vanilla"
                cells[place] = between(where) if find(where).low is not None else value(where, "+0.000")
            spikes = [held[study]["dynamics"]["spikes"][arm]["seeds"] for arm in ("vanilla", "rloop")]
            cells[6] = f"{sum(spikes[0]):.0f}, {sum(spikes[1]):.0f} in {len(spikes[0])}"
        rows.append([name, *cells])
    head = (
        "lost by chance",
        "by vanilla RL",
        "by RLoop",
        "difference",
        "diversity in a step",
        "added by steps",
        "spikes",
    )
    return table(("ground", *head), rows)


def during() -> str:
    """Diversity, entropy and gradients, a row a ground: RLoop / vanilla RL."""
    rows = []
    for study, name in GROUNDS.items():
        if "dynamics" not in read("forgetting")["grounds"][study]:
            continue

        def two(quantity: str, like: str, at: str = f"forgetting#/grounds/{study}/dynamics") -> str:
            return f"{value(f'{at}/{quantity}/rloop', like)} / {value(f'{at}/{quantity}/vanilla', like)}"

        rows.append(
            [
                name,
                two("diversity_within_a_step", "0.000"),
                two("diversity_between_steps", "0.000"),
                two("entropy_first", "0.000"),
                two("entropy_last", "0.000"),
                two("ever_solved", "0"),
                two("ever_solved_gap", "0"),
                two("grad_norm_median", "0.00"),
                two("grad_norm_p99", "0.00"),
            ]
        )
    quantities = (
        "in a step",
        "between steps",
        "entropy, first",
        "last",
        "ever solved",
        "of it lost",
        "gradient",
        "99 %",
    )
    return table(("ground", *quantities), rows)


def finishing(study: str, rows: Sequence[tuple[str, str]]) -> str:
    shares = ("right", "wrong", "cut_off", "right_of_finished")
    listed = [[name, *(value(f"{study}/finishing#/arms/{arm}/{share}") for share in shares)] for name, arm in rows]
    return table(("policy", "right", "wrong", "cut off", "right of the finished"), listed)


def controls(name: str, metrics: Sequence[str], rows: Sequence[tuple[str, str]], against: str) -> str:
    """Arms, and how far the main one is ahead of each."""
    of = [metrics[0], metrics[-1]]
    listed = []
    for label, arm in rows:
        cells = [value(f"{name}: {arm}, {metric}") for metric in metrics]
        ahead = [between(f"{name}: {against} - {arm}, {metric}") if arm != against else "" for metric in of]
        listed.append([label, *cells, *ahead])
    return table(("arm", *metrics, *(f"{'centre' if against == 'centre' else 'RLoop'} - it, {m}" for m in of)), listed)


def cost() -> str:
    """Equal rollouts and equal time."""
    room, more = "rloop-room", "rloop-room-time"
    head = ("policy", "rollouts", "training", *THREE)
    name = f"{more}/against"
    rows = (
        ("vanilla RL", "38,400", seconds(room, "vanilla"), "vanilla"),
        ("vanilla RL, longer", "70,400", seconds(more, "vanilla-275-steps"), "vanilla-275-steps"),
        ("RLoop, 1e-3 x 4", "38,400", seconds(room, "rloop", leave_out=1), "rloop"),
        (GENTLE, "38,400", seconds(room, "rloop-gentle-rft"), "rloop-gentle-rft"),
    )
    listed = [[*cells, *(value(f"{name}: {arm}, {metric}") for metric in THREE)] for *cells, arm in rows]
    for label, arm in (("RLoop - the longer one", "rloop"), ("gentler RFT - the longer one", "rloop-gentle-rft")):
        listed.append([label, "", "", *(relative(f"{name}: {arm} - vanilla-275-steps, {metric}") for metric in THREE)])
    return table(head, listed)


def kept() -> str:
    """What final policies have above or below the base."""
    listed = (
        ("2,048; 60 tokens: vanilla RL", "rloop-room", "vanilla", THREE),
        ("RLoop, 1e-3 x 4", "rloop-room", "rloop", THREE),
        (GENTLE, "rloop-room", "rloop-gentle-rft", THREE),
        ("the same after one iteration", "rloop-room/stops", "rloop-gentle-rft@12800", THREE),
        ("96; 60 tokens: vanilla RL", "rloop-room-96", "vanilla", THREE),
        ("RLoop, 1e-3 x 4", "rloop-room-96", "rloop", THREE),
        (GENTLE, "rloop-room-96", "rloop-gentle-rft", THREE),
        ("the same after one iteration", "rloop-room-96/stops", "rloop-gentle-rft@12800", THREE),
        ("SmolLM2: vanilla RL at 1e-5", "rloop-smollm2", "vanilla-1e-5", ("avg@16", "pass@8", "pass@16")),
        ("RLoop's variant", "rloop-smollm2", "rloop", ("avg@16", "pass@8", "pass@16")),
    )
    rows = [[label, *(between(f"{name}: {arm} - base, {m}") for m in metrics)] for label, name, arm, metrics in listed]
    return table(("policy - base", "average", "pass@8", "pass@32 (16)"), rows)


def rlsp() -> str:
    names = (
        ("base", "base", "base"), ("SFT", "sft", "SFT"), ("SFT + RL, outcome only", "vanilla", "SFT + outcome"),
        ("SFT + RL, length", "length", "SFT + length"),
        ("SFT + RL, difficulty x length", "difficulty", "SFT + difficulty x length"),
        ("SFT + RL, novelty", "novelty", "SFT + novelty"), ("RL, outcome only", "pure", "outcome, no SFT"),
        ("RL, length", "pure-length", "length, no SFT"),
    )  # fmt: skip
    means = read("rlsp/behaviours")["means"]
    rows = []
    for label, arm, shown in names:
        own = means[shown]
        back = own["per_1000_tokens"]["backtracking"]["mean"]
        cells = [value(f"rlsp: {arm}, {metric}") for metric in ("avg@16", "pass@16")]
        rows.append([label, *cells, f"{own['tokens']['mean']:.1f}", f"{back:.1f}", f"{own['nodes']['mean']:.2f}"])
    return table(("arm", "avg@16", "pass@16", "tokens", "backtracks per 1,000 tokens", "nodes searched"), rows)


SMOLLM2 = ("avg@16", "pass@8", "pass@16")
STOPPED = "vanilla early-stopped learning_rate="
TABLES: dict[str, Callable[[], str]] = {
    "headline": headline,
    "grounds": grounds,
    "way-2048": partial(way, "rloop-room"),
    "way-96": partial(way, "rloop-room-96"),
    "many": lambda: table(
        ("2,048 problems", *THREE),
        pairs(
            "rloop-room/stops", THREE,
            (
                ("RLoop - vanilla RL, both after 38,400", "rloop@38400 - vanilla@38400"),
                ("gentler RFT - vanilla RL, both after 38,400", "rloop-gentle-rft@38400 - vanilla@38400"),
                ("RLoop after 25,600 - vanilla RL after 70,400", "rloop@25600 - vanilla-275-steps@70400"),
                ("RLoop after 12,800 - vanilla RL after 38,400", "rloop@12800 - vanilla@38400"),
            ),
        ),
    ),
    "few": lambda: table(
        ("96 problems", *THREE),
        pairs(
            "rloop-room-96/stops", THREE,
            (
                ("RLoop after 38,400 - vanilla RL after 12,800", "rloop@38400 - vanilla@12800"),
                ("gentler RFT after 38,400 - vanilla RL after 12,800", "rloop-gentle-rft@38400 - vanilla@12800"),
                ("gentler RFT after 12,800 - vanilla RL after 12,800", "rloop-gentle-rft@12800 - vanilla@12800"),
                ("gentler RFT after 38,400 - vanilla RL after 25,600", "rloop-gentle-rft@38400 - vanilla@25600"),
                ("RLoop - vanilla RL, both after 38,400", "rloop@38400 - vanilla@38400"),
                ("gentler RFT - vanilla RL, both after 38,400", "rloop-gentle-rft@38400 - vanilla@38400"),
            ),
        ),
    ),
    "time": cost,
    "kept": kept,
    "lost": lost,
    "during": during,
    "parts": lambda: controls(
        "rloop", THREE,
        (
            ("RLoop", "rloop"), ("vanilla RL", "vanilla"), ("RAFT: no RL", "raft"), ("the RL weights are kept", "no-reset"),
            ("no hard filter", "no-filter"), ("the last step's experts alone", "last-step"),
        ),
        "rloop",
    ),
    "smollm2": lambda: table(
        ("policy", *SMOLLM2, "training"),
        [
            *(
                [*row, time]
                for row, time in zip(
                    arms(
                        "rloop-smollm2", SMOLLM2,
                        (
                            ("base", "base"), ("vanilla RL at 3e-5", "vanilla"),
                            ("the same, stopped early", f"{STOPPED}3e-05"), ("vanilla RL at 1e-5", "vanilla-1e-5"),
                            ("the same, stopped early", f"{STOPPED}1e-05"), ("RLoop's variant", "rloop"),
                        ),
                    ),
                    (
                        "", seconds("rloop-smollm2", "vanilla"), "", seconds("rloop-smollm2", "vanilla-1e-5"), "",
                        seconds("rloop-smollm2", "rloop"),
                    ),
                    strict=True,
                )
            ),
            *(
                [*row, ""]
                for row in pairs(
                    "rloop-smollm2", SMOLLM2,
                    (("RLoop - vanilla RL at 1e-5", "rloop - vanilla-1e-5"),
                     ("RLoop - the same, stopped early", f"rloop - {STOPPED}1e-05"),
                     ("RLoop - vanilla RL at 3e-5", "rloop - vanilla")),
                    lambda where: relative(where).replace("**", ""),
                )
            ),
        ],
    ),
    "rlsp": rlsp,
    "rlsp-differences": lambda: table(
        ("difference", "avg@16", "pass@16"),
        pairs(
            "rlsp", ("avg@16", "pass@16"),
            (
                ("SFT - base", "sft - base"), ("outcome only - SFT", "vanilla - sft"), ("length - SFT", "length - sft"),
                ("difficulty x length - SFT", "difficulty - sft"), ("length - outcome only", "length - vanilla"),
                ("difficulty x length - outcome only", "difficulty - vanilla"),
                ("novelty - outcome only", "novelty - vanilla"),
                ("length - length without SFT", "length - pure-length"), ("outcome - outcome without SFT", "vanilla - pure"),
                ("without SFT: length - outcome", "pure-length - pure"),
            ),
        ),
    ),
}  # fmt: skip
