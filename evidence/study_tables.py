"""The tables of docs/evidence/studies.md, and of the pages that have a study of their own: a few for each study."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import fmean

from page_tables import (
    AVG,
    PASS8,
    PASS32,
    THREE,
    arms,
    between,
    both,
    controls,
    during,
    finishing,
    pairs,
    relative,
    table,
    value,
)  # fmt: skip
from quoted import read

CONFIRM = (
    ("base", "base"), ("vanilla RL at 1e-4", "vanilla-1e-4"), ("RLoop, exploring at 1e-4", "rloop-1e-4"),
    ("the same, RFT for 2 epochs", "rloop-1e-4-epochs-2"), ("vanilla RL at 3e-4", "vanilla"),
    ("the same, stopped early", "vanilla early-stopped"), ("RLoop, exploring at 3e-4", "rloop"),
)  # fmt: skip
CONFIRMED = (
    ("1e-4, RFT 1e-3 x 4", "rloop-1e-4 - vanilla-1e-4"), ("1e-4, RFT 1e-3 x 2", "rloop-1e-4-epochs-2 - vanilla-1e-4"),
    ("RFT x 4 - RFT x 2, both 1e-4", "rloop-1e-4 - rloop-1e-4-epochs-2"),
    ("RLoop at 3e-4 - vanilla RL at 1e-4", "rloop - vanilla-1e-4"),
    ("vanilla RL at 3e-4 - at 1e-4", "vanilla - vanilla-1e-4"),
    ("3e-4, RFT 1e-3 x 4", "rloop - vanilla"), ("the same, against early stopping", "rloop - vanilla early-stopped"),
    ("vanilla RL at 3e-4 - base", "vanilla - base"), ("RLoop at 3e-4 - base", "rloop - base"),
)  # fmt: skip
WIDE = (
    ("base", "base"), ("vanilla RL", "vanilla"), ("the same, stopped early", "vanilla early-stopped"), ("RLoop", "rloop"),
)  # fmt: skip
FIRST = (
    ("RLoop - vanilla RL", "rloop - vanilla"), ("RLoop - early stopping", "rloop - vanilla early-stopped"),
)  # fmt: skip
FEW = (
    ("RLoop", "rloop"), ("base", "base"), ("vanilla RL", "vanilla"), ("the same, stopped early", "vanilla early-stopped"),
    ("the RL weights are kept", "no-reset"), ("no hard filter", "no-filter"), ("the last step's experts alone", "last-step"),
    ("RAFT: no RL", "raft"), ("adaptive exploration", "adaptive"), ("importance-weighted RFT", "weighted"),
    ("MaxRL advantages", "maxrl"), ("pass@4 advantages", "pass-k"), ("experts of all iterations", "accumulate"),
)  # fmt: skip
PROBED = (
    ("base", "base"), ("vanilla RL", "vanilla"), ("RLoop, 1e-3 x 2", "gentle"),
    ("hard <= 0.9", "gentle-nine-tenths"), ("RFT from the base, all experts", "gentle-base"),
    ("RFT at 3e-4", "gentle-rft-3e-4"),
)  # fmt: skip
SWEPT = (
    ("centre", "centre"), ("base", "base"), ("hard <= 0.9", "nine-tenths"), ("cap 4", "cap-4"), ("cap 64", "cap-64"),
    ("8 iterations of 20 steps", "steps-20"), ("2 iterations of 80 steps", "steps-80"), ("RFT for 2 epochs", "epochs-2"),
    ("RFT for 8 epochs", "epochs-8"), ("RFT at 3e-4", "rate-3e-4"), ("RFT at 2e-3", "rate-2e-3"),
)  # fmt: skip
LORA = (
    ("base", "base"), ("all weights in both", "full"), ("rank 4 explores, RFT of all weights", "explore-4"),
    ("rank 4 explores, RFT with rank 4", "explore-4-rft-4"), ("rank 4 explores, RFT with rank 32", "explore-4-rft-32"),
)  # fmt: skip
LORA_SMOLLM2 = (
    ("base", "base"), ("all weights in both", "full"), ("rank 8 explores, RFT of all weights", "explore-8"),
    ("rank 8 explores, RFT with rank 64", "explore-8-rft-64"),
)  # fmt: skip
SIXTEEN = ("avg@16", "pass@8", "pass@16")
ROOM = (
    ("RLoop, 1e-3 x 4", "rloop - vanilla"), ("RLoop, 3e-4 x 2", "rloop-gentle-rft - vanilla"),
)  # fmt: skip


def subsets() -> str:
    rows = []
    for name, part in (("the 256 not looked at before", "unseen"), ("the 128 that the recipe was tuned on", "seen")):
        rows += pairs(f"rloop-confirm/subsets#{part}", THREE, ((name, "rloop - vanilla"),), relative)
    unseen = "rloop-confirm/subsets#unseen"
    rows += pairs(unseen, THREE, (("the 256, against early stopping", "rloop - vanilla early-stopped"),), relative)
    return table(("problems", *THREE), rows)


def iterations() -> str:
    """Average / pass@32 after each iteration."""
    listed = (
        ("2,048; 34 tokens; 3e-4: RLoop", "rloop-confirm", "rloop", 12800, 3),
        ("2,048; 34; 1e-4, RFT x 2", "rloop-confirm", "rloop-1e-4-epochs-2", 12800, 3),
        ("96; 34; 3e-4; strict: RLoop", "rloop", "rloop", 5120, 4),
        ("96; 60; 3e-4; strict: RLoop", "rloop-long", "rloop", 5120, 4),
        ("96; 60; 1e-4; strict: RLoop", "sweep-long", "gentle", 5120, 4),
        ("the same: vanilla RL", "sweep-long", "vanilla", 5120, 4),
    )
    rows = []
    for label, study, arm, spent, count in listed:
        cells = [both(f"{study}/stops", f"{arm}@{spent * i}") for i in range(1, count + 1)]
        last = f"{arm} explored@{spent * count}"
        cells += [""] * (4 - count) + ["" if arm == "vanilla" else both(f"{study}/stops", last)]
        rows.append([label, *cells])
    return table(("policy", "after 1", "2", "3", "4", "the last RL policy"), rows)


def plain(where: str) -> str:
    """Unmarked: of two seeds."""
    return between(where).replace("**", "")


def sweep() -> str:
    rows = []
    for label, arm in SWEPT:
        cells = [value(f"sweep: {arm}, {metric}") for metric in THREE]
        shape = between if arm in {"base", "nine-tenths"} else plain  # those have four seeds
        ahead = ["", ""] if arm == "centre" else [shape(f"sweep: centre - {arm}, {metric}") for metric in (AVG, PASS32)]
        rows.append([label, *cells, *ahead])
    return table(("setting", *THREE, f"centre - it, {AVG}", f"centre - it, {PASS32}"), rows)


def probed() -> str:
    """RLoop's variants against vanilla RL, on probe problems."""
    rows = [("RLoop" if arm == "gentle" else name, f"{arm} - vanilla") for name, arm in PROBED[2:]]
    return table(("- vanilla RL", *THREE), pairs("sweep-long", THREE, rows, plain))


def search() -> str:
    """What RLSP's arms search, by how many solutions a problem has, and how often right and wrong answers turn back."""
    means = read("rlsp/behaviours")["means"]
    rows = []
    for arm, own in means.items():
        nodes = [f"{band['mean']:.2f}" for band in own["nodes_by_solutions"]]
        turns = [f"{own[f'per_1000_tokens_{of}']['backtracking']['mean']:.0f}" for of in ("right", "wrong")]
        rows.append([arm, *nodes, *turns, f"{own['accuracy']['mean']:.3f}"])
    head = ("1 or 2 solutions", "3 to 6", "7 or more", "backtracks, right", "wrong", "average, sampled again")
    return table(("nodes searched", *head), rows)


def vote() -> str:
    held = read("rlsp/behaviours")["self_consistency"]
    names = ("SFT", "SFT + length")
    rows = [[str(seed["seed"]), *(f"{seed[name]:.3f}" for name in names)] for seed in held]
    return table(("seed", *names), [*rows, ["mean", *(f"{fmean(seed[name] for seed in held):.3f}" for name in names)]])


WITH_MANY = ("ppo - rloo", "ppo - sft", "rloo - sft")
SIDE_BY_SIDE = (("1", "one"), ("2", "two"), ("4", "four"), ("8", "eight"))


def side_by_side(results: str, clock: str) -> str:
    """What explorations side by side end with, and their time if each had a machine."""
    rows = []
    for label, arm in SIDE_BY_SIDE:
        cells = [value(f"{results}: {arm}, {metric}") for metric in THREE]
        leads = [between(f"{results}: {arm} - one, {metric}") if arm != "one" else "" for metric in (AVG, PASS32)]
        rows.append([label, *cells, *leads, value(f"{clock}#/arms/{arm}/share", "0.00")])
    return table(("explorations", *THREE, "average, less one's", "pass@32, less one's", "time"), rows)


STUDIES: dict[str, Callable[[], str]] = {
    "confirm": lambda: table(("arm", *THREE), arms("rloop-confirm", THREE, CONFIRM)),
    "confirmed": lambda: table(("RLoop - vanilla RL", *THREE), pairs("rloop-confirm", THREE, CONFIRMED)),
    "confirmed-relative": lambda: table(
        ("the same, relative", *THREE), pairs("rloop-confirm", THREE, (*CONFIRMED[:4], *CONFIRMED[5:7]), relative)
    ),
    "subsets": subsets,
    "confirm-finishing": partial(finishing, "rloop-confirm", CONFIRM),
    "wide": lambda: table(("arm", *THREE), arms("rloop-wide", THREE, WIDE)),
    "widened": lambda: table(
        ("difference", *THREE), [*pairs("rloop-wide", THREE, FIRST), *pairs("rloop-wide", THREE, FIRST[:1], relative)]
    ),
    "few-parts": lambda: controls("rloop", THREE, FEW, "rloop"),
    "few-parts-pass8": lambda: table(
        ("difference", PASS8),
        pairs(
            "rloop", (PASS8,),
            (("RLoop - the RL weights are kept", "rloop - no-reset"), ("RLoop - last step", "rloop - last-step"),
             ("RLoop - adaptive", "rloop - adaptive")),
        ),
    ),
    "few-finishing": partial(finishing, "rloop", FEW),
    "long": lambda: controls("rloop-long", THREE, (FEW[0], *FEW[1:4]), "rloop"),
    "long-finishing": partial(finishing, "rloop-long", FEW[:4]),
    "probed": lambda: table(("arm", *THREE), arms("sweep-long", THREE, PROBED)),
    "probed-differences": probed,
    "probed-finishing": partial(finishing, "sweep-long", PROBED),
    "room-relative": lambda: table(("2,048 problems, - vanilla RL", *THREE), pairs("rloop-room", THREE, ROOM, relative)),
    "room-96-relative": lambda: table(("96 problems, - vanilla RL", *THREE), pairs("rloop-room-96", THREE, ROOM, relative)),
    "room-finishing": partial(
        finishing, "rloop-room",
        (("base", "base"), ("vanilla RL", "vanilla"), ("RLoop, 1e-3 x 4", "rloop"),
         ("RLoop, 3e-4 x 2", "rloop-gentle-rft")),
    ),
    "room-96-finishing": partial(
        finishing, "rloop-room-96",
        (("vanilla RL", "vanilla"), ("RLoop, 1e-3 x 4", "rloop"), ("RLoop, 3e-4 x 2", "rloop-gentle-rft")),
    ),
    "iterations": iterations,
    "during": during,
    "sweep": sweep,
    "lora": lambda: table(("arm", *THREE), arms("lora", THREE, LORA)),
    "lora-differences": lambda: table(
        ("- all weights", *THREE), pairs("lora", THREE, [(name, f"{arm} - full") for name, arm in LORA[2:]])
    ),
    "lora-smollm2": lambda: table(("arm", *SIXTEEN), arms("lora-smollm2", SIXTEEN, LORA_SMOLLM2)),
    "lora-smollm2-differences": lambda: table(
        ("- all weights", *SIXTEEN),
        pairs("lora-smollm2", SIXTEEN, [(name, f"{arm} - full") for name, arm in LORA_SMOLLM2[2:]]),
    ),
    "rlsp-search": search,
    "rlsp-vote": vote,
    "rlsp-ppo": lambda: table(
        ("difference", "512 problems: average", "pass@16", "3,072 problems: average", "pass@16"),
        [
            [
                label,
                *(
                    between(f"{study}: {pair}, {metric}") if study == "rlsp-ppo" or pair in WITH_MANY else ""
                    for study in ("rlsp-ppo", "rlsp-ppo/wide.results")
                    for metric in ("avg@16", "pass@16")
                ),
            ]
            for label, pair in (
                ("PPO - RLOO", "ppo - rloo"), ("PPO - SFT", "ppo - sft"), ("RLOO - SFT", "rloo - sft"),
                ("PPO, outcome alone - SFT", "ppo-outcome - sft"), ("PPO - PPO, outcome alone", "ppo - ppo-outcome"),
                ("PPO - PPO at the paper's lambda", "ppo - ppo-paper"),
            )
        ],
    ),
    "branches-many": lambda: side_by_side("branches", "branches/clock"),
    "branches-few": lambda: side_by_side("branches/few.results", "branches/few.clock"),
}  # fmt: skip
