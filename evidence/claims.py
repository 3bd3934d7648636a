"""What the papers claim, and what the committed studies say of it: python evidence/claims.py

Writes evidence/claims.json: for each claim and ground the arms, the figure with its 95 % interval, and a verdict that
follows from these alone. "reproduced": the interval leaves out zero on the claimed side; "not": it does on the other one;
"can't be told": it holds zero, or with 3 seeds the interval by the seeds alone does; "untested": no study has it.
docs/evidence.md has the table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from quoted import ROOT, Found, Unfounded, by_seeds, find, number, read

FILE = ROOT / "evidence/claims.json"
MANY, FEW, SHORT, LARGE = "2,048; 60 tokens", "96; 60 tokens", "2,048; 34 tokens", "SmolLM2, products"
STRICT = "96; 34 tokens, strict, RL at 3e-4"
AVG, PASS = "avg@32", "pass@32"
Row = tuple[str, str, str]
"""Ground, study and arms, and how the first should lie to the second: "+" above, "-" below"""

# every ground of docs/evidence.md's table of all comparisons at equal rollouts that has 3 seeds or more
GROUNDS = (
    (MANY, "rloop-room", "rloop", "vanilla"),
    (f"{MANY}, gentle RFT", "rloop-room", "rloop-gentle-rft", "vanilla"),
    (f"{SHORT}, 2 epochs", "rloop-confirm", "rloop-1e-4-epochs-2", "vanilla-1e-4"),
    (f"{SHORT}, 4 epochs", "rloop-confirm", "rloop-1e-4", "vanilla-1e-4"),
    (f"{SHORT}, RL at 3e-4", "rloop-confirm", "rloop", "vanilla"),
    (f"{SHORT}, RL at 3e-4, first asking", "rloop-wide", "rloop", "vanilla"),
    (FEW, "rloop-room-96", "rloop", "vanilla"),
    (f"{FEW}, gentle RFT", "rloop-room-96", "rloop-gentle-rft", "vanilla"),
    (f"{FEW}, strict, RL at 3e-4", "rloop-long", "rloop", "vanilla"),
    (STRICT, "rloop", "rloop", "vanilla"),
    (f"{LARGE}, a variant", "rloop-smollm2", "rloop", "vanilla-1e-5"),
)


def everywhere(metric: str, against: str = "") -> tuple[Row, ...]:
    """RLoop against vanilla RL, or `against`, on every ground."""
    return tuple(
        (
            ground,
            f"{study}: {arm} - {against or vanilla}"
            + (f", {metric.replace('32', '16')}" if study == "rloop-smollm2" else ""),
            "+",
        )
        for ground, study, arm, vanilla in GROUNDS
    )


CLAIMS: tuple[tuple[str, str, str, Sequence[Row]], ...] = (
    ("RLoop", "its average is above vanilla RL's (<!--paper-->+9 %)", AVG, everywhere(AVG)),
    (
        "RLoop",
        "its pass@32 is above vanilla RL's (<!--paper-->+15 %)",
        PASS,
        (
            *everywhere(PASS),
            (
                f"{FEW}, gentle; vanilla RL at a stop chosen afterwards",
                "rloop-room-96/stops: rloop-gentle-rft@38400 - vanilla@12800",
                "+",
            ),
        ),
    ),
    ("RLoop", "its pass@32 is above the base's", PASS, everywhere(PASS, "base")),
    (
        "RLoop",
        "vanilla RL's average falls as it goes on",
        AVG,
        (
            (f"{MANY}, 12,800 to 38,400", "rloop-room/stops: vanilla@38400 - vanilla@12800", "-"),
            (f"{FEW}, 25,600 to 38,400", "rloop-room-96/stops: vanilla@38400 - vanilla@25600", "-"),
        ),
    ),
    (
        "RLoop",
        "vanilla RL's pass@32 falls as it goes on",
        PASS,
        (
            (f"{MANY}, 12,800 to 38,400", "rloop-room/stops: vanilla@38400 - vanilla@12800", "-"),
            (f"{FEW}, 12,800 to 38,400", "rloop-room-96/stops: vanilla@38400 - vanilla@12800", "-"),
        ),
    ),
    (
        "RLoop",
        "its average grows with its iterations",
        AVG,
        (
            (f"{MANY}, first to third", "rloop-room/stops: rloop@38400 - rloop@12800", "+"),
            (f"{FEW}, first to third", "rloop-room-96/stops: rloop@38400 - rloop@12800", "+"),
        ),
    ),
    (
        "RLoop",
        "its pass@32 grows with its iterations",
        PASS,
        (
            (f"{MANY}, first to third", "rloop-room/stops: rloop@38400 - rloop@12800", "+"),
            (f"{FEW}, first to third", "rloop-room-96/stops: rloop@38400 - rloop@12800", "+"),
        ),
    ),
    (
        "RLoop",
        "it forgets less than vanilla RL",
        "share of the base's problems that are lost",
        (
            (MANY, "forgetting#/grounds/rloop-room/lost_in_16/rloop_minus_vanilla", "-"),
            (FEW, "forgetting#/grounds/rloop-room-96/lost_in_16/rloop_minus_vanilla", "-"),
            (STRICT, "forgetting#/grounds/rloop/lost_in_16/rloop_minus_vanilla", "-"),
        ),
    ),
    (
        "RLoop",
        "its steps add more diversity than vanilla RL's",
        "1 - similarity, between steps less within one",
        (
            (MANY, "forgetting#/grounds/rloop-room/dynamics/diversity_excess/rloop_minus_vanilla", "+"),
            (FEW, "forgetting#/grounds/rloop-room-96/dynamics/diversity_excess/rloop_minus_vanilla", "+"),
            (STRICT, "forgetting#/grounds/rloop/dynamics/diversity_excess/rloop_minus_vanilla", "+"),
        ),
    ),
    (
        "RLoop",
        "RL as explorer beats the policy's own successes (RAFT)",
        AVG,
        ((STRICT, "rloop: rloop - raft", "+"),),
    ),
    (
        "RLoop",
        "at equal time its average is above vanilla RL's",
        AVG,
        (
            (MANY, "rloop-room-time/against: rloop - vanilla-275-steps", "+"),
            (f"{MANY}, gentle RFT", "rloop-room-time/against: rloop-gentle-rft - vanilla-275-steps", "+"),
        ),
    ),
    (
        "RLoop",
        "at equal time its pass@32 is above vanilla RL's",
        PASS,
        (
            (MANY, "rloop-room-time/against: rloop - vanilla-275-steps", "+"),
            (f"{MANY}, gentle RFT", "rloop-room-time/against: rloop-gentle-rft - vanilla-275-steps", "+"),
        ),
    ),
    ("RLoop", "its training is steadier", "spikes, collapses", ()),
    (
        "RLSP",
        "demonstrations raise the average",
        "avg@16",
        (("Countdown, 48 tokens", "rlsp: sft - base", "+"),),
    ),
    (
        "RLSP",
        "RL after them raises it further",
        "avg@16",
        (
            ("RLOO, length", "rlsp: length - sft", "+"),
            ("RLOO, outcome alone", "rlsp: vanilla - sft", "+"),
            ("PPO, length", "rlsp-ppo: ppo - sft", "+"),
            ("PPO, length, 3,072 problems", "rlsp-ppo/wide.results: ppo - sft", "+"),
            ("PPO, outcome alone", "rlsp-ppo: ppo-outcome - sft", "+"),
        ),
    ),
    (
        "RLSP",
        "a reward for effort raises the average",
        "avg@16",
        (
            ("RLOO, length", "rlsp: length - vanilla", "+"),
            ("RLOO, novelty", "rlsp: novelty - vanilla", "+"),
            ("without demonstrations", "rlsp: pure-length - pure", "+"),
            ("PPO, length", "rlsp-ppo: ppo - ppo-outcome", "+"),
        ),
    ),
    (
        "RLSP",
        "a reward for effort makes responses longer",
        "tokens",
        (("against SFT", "rlsp/behaviours#/means/SFT + length/tokens - /means/SFT/tokens", "+"),),
    ),
    (
        "RLSP",
        "backtracking emerges",
        "per 1,000 tokens",
        (
            (
                "against SFT",
                "rlsp/behaviours#/means/SFT + length/per_1000_tokens/backtracking - "
                "/means/SFT/per_1000_tokens/backtracking",
                "+",
            ),
        ),
    ),
)


ENOUGH = 4
"""Seeds from which on an interval over seeds and problems is trusted by itself"""


def verdict(found: Found, way: str, pairs: list[float]) -> str:
    """`pairs`: the differences of the seeds, where the result file has them."""
    bounds = [(found.low, found.high)]
    if 1 < len(pairs) < ENOUGH:
        bounds.append(by_seeds(pairs)[1:])
    if all(low is not None and low > 0 for low, _ in bounds):
        return "reproduced" if way == "+" else "not"
    if all(high is not None and high < 0 for _, high in bounds):
        return "reproduced" if way == "-" else "not"
    return "can't be told"


def seeds_of(where: str, metric: str) -> list[float]:
    """The difference at each seed; none where a file keeps means alone, which has to be of `ENOUGH` seeds."""
    name, colon, rest = where.partition(": ")
    arms, _, own = rest.partition(", ")
    a, _, b = arms.partition(" - ")
    for row in read(name)["comparisons"] if colon else ():
        if row["metric"] == (own or metric) and {row["a"], row["b"]} == {a, b}:
            sign = 1 if row["a"] == a else -1
            if "pairs" not in row and min(len(read(name)["arms"][arm]["seeds"]) for arm in (a, b)) < ENOUGH:
                raise Unfounded(f"{where}: of few seeds, and what each of them has isn't kept")
            return [sign * (pair["a"] - pair["b"]) for pair in row.get("pairs", ())]
    return []


def between(where: str) -> Found:
    """Of two places of one file: the difference of their means, and an interval that is surely wide enough."""
    name, _, pointers = where.partition("#")
    a, b = ({"value": mean["mean"], "ci95": mean["ci95"]} for mean in (_at(name, one) for one in pointers.split(" - ")))
    (low, high), (least, most) = a["ci95"], b["ci95"]
    return Found(a["value"] - b["value"], low - most, high - least)


def _at(name: str, pointer: str) -> Any:
    value = read(name)
    for key in pointer.strip("/").split("/"):
        value = value[key]
    return value


def looked_up(where: str, metric: str) -> tuple[Found, str, str]:
    """The figure, its arms and its metric."""
    if "#/" in where:
        pointers = where.partition("#")[2]
        arms = "SFT + length - SFT" if " - " in pointers else "rloop - vanilla"
        return (between(where) if " - " in pointers else find(where)), arms, metric
    arms, _, own = where.partition(": ")[2].partition(", ")
    return find(where if own else f"{where}, {metric}"), arms, own or metric


def claims() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for method, claim, metric, grounds in CLAIMS:
        plain = claim.replace("<!--paper-->", "")
        if not grounds:
            rows.append({"method": method, "claim": plain, "ground": "", "metric": metric, "verdict": "untested"})
        for ground, where, way in grounds:
            found, arms, own = looked_up(where, metric)
            pairs = seeds_of(where, metric)
            rows.append(
                {
                    "method": method,
                    "claim": plain,
                    "ground": ground,
                    "study": where.partition(": ")[0].partition("#")[0],
                    "arms": arms,
                    "metric": own,
                    "figure": found.value,
                    "ci95": [found.low, found.high],
                    **({"seeds": len(pairs)} if pairs else {}),
                    "claimed": "above" if way == "+" else "below",
                    "verdict": verdict(found, way, pairs),
                }
            )
    return rows


def table(method: str) -> Callable[[], str]:
    """The rows of a method's claims, for docs/evidence.md."""

    def made() -> str:
        marked = {claim.replace("<!--paper-->", ""): claim for _, claim, _, _ in CLAIMS}
        lines = ["| claim | where | figure | verdict |\n", "| --- | --- | --- | --- |\n"]
        before = ""
        for row in json.loads(FILE.read_text(encoding="utf-8")):
            if row["method"] != method:
                continue
            claim = marked[row["claim"]] if row["claim"] != before else ""
            before = row["claim"]
            like = "+0.000" if row["metric"] not in ("tokens", "per 1,000 tokens") else "+0.0"
            figure = ""
            if "figure" in row:
                low, high = (number(bound, like[1:]) for bound in row["ci95"])
                figure = f"{number(row['figure'], like)} [{low},\u00a0{high}]"
            verdict = f"**{row['verdict']}**" if row["verdict"] in ("reproduced", "not") else row["verdict"]
            lines.append(f"| {claim} | {row['ground']} | {figure} | {verdict} |\n")
        return "".join(lines)

    return made


TABLES = {"claims-rloop": table("RLoop"), "claims-rlsp": table("RLSP")}

if __name__ == "__main__":
    found = claims()
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for row in found:
        print(f"{row['verdict']:14} {row['claim']}; {row['ground']}")
