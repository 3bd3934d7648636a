"""Accuracy of verdicts: ours against math-verify as verl and as TRL call it. Run by `verify.py`.

Cases: JSONL {"answer", "gold", "expect": "right" | "wrong", "kind"}; kind is "math", "numeric" or
"response:EXTRACT:VERIFIER".
math-verify is given bare answers in a box. Rewritings (`rewritings.py`): of each gold answer of a file, those that keep
the value have to be right, the others wrong; the golds are distinct ones, and those that no rewriting fits fall out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rewritings import OTHER, SAME

from reasonloop.errors import InputError
from reasonloop.records import Problem, Verdict
from reasonloop.verify.extract import gold_answer
from reasonloop.verify.workers import VerifierPool, VerifierSpec

Verifier = Callable[[list[tuple[str, str]]], list[bool]]
"""(answer, gold) pairs -> whether each is paid"""
_VERIFIERS = "reasonloop.verify.verifiers"


def read(file: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as JSONL: {error}") from None


def golds_of(file: Path) -> list[str]:
    """The distinct gold answers of a file of problems, in order."""
    rows = read(file)
    found = [row.get("answer", row.get("final_answer", row.get("solution"))) for row in rows]
    texts = [", ".join(map(str, value)) if isinstance(value, list) else str(value or "") for value in found]
    return [gold for gold in dict.fromkeys(gold_answer(text) for text in texts if text.strip()) if len(gold) <= 200]


def ours(kind: str = "math") -> Verifier:
    """Our verifier in its pool, for a kind of cases."""
    extract, verifier = kind.split(":")[1:] if kind.startswith("response:") else ("bare", kind)
    spec = VerifierSpec(f"{_VERIFIERS}:{verifier.capitalize()}Verifier", {"extract": extract})

    def judge(pairs: list[tuple[str, str]]) -> list[bool]:
        items = [(Problem(str(i), "", answer=gold), answer) for i, (answer, gold) in enumerate(pairs)]
        with VerifierPool(spec, workers=1) as pool:
            return [judgement.verdict is Verdict.RIGHT for judgement in pool.verify(items)]

    return judge


def as_verl(answer: str, gold: str) -> bool:
    """verl/utils/reward_score/math_verify.py: both in a box, math-verify's metric with its defaults."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, math_metric

    metric = math_metric(
        gold_extraction_target=(LatexExtractionConfig(),),
        pred_extraction_target=(ExprExtractionConfig(), LatexExtractionConfig()),
    )
    try:
        return bool(metric([f"\\boxed{{{gold}}}"], [f"\\boxed{{{answer}}}"])[0])
    except Exception:  # as there: what can't be read is worth nothing
        return False


def as_trl(answer: str, gold: str) -> bool:
    """trl.rewards.accuracy_reward: the gold answer as a formula, the answer from its box."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    boxed = f"\\boxed{{{answer}}}"
    expected = parse(gold if "$" in gold else f"${gold}$")
    if not expected:
        return boxed.strip().lower() == gold.strip().lower()
    config = LatexExtractionConfig(
        normalization_config=NormalizationConfig(units=True), boxed_match_priority=0, try_extract_without_anchor=False
    )
    return bool(verify(expected, parse(boxed, extraction_config=[config], extraction_mode="first_match")))


def each(judge: Callable[[str, str], bool]) -> Verifier:
    def judged(answer: str, gold: str) -> bool:
        try:
            return judge(answer, gold)
        except Exception:
            return False

    return lambda pairs: [judged(*pair) for pair in pairs]


PEERS: dict[str, Verifier] = {
    "math-verify as verl calls it": each(as_verl),
    "math-verify as TRL calls it": each(as_trl),
}


def cases(file: Path) -> dict[str, Any]:
    """Verdicts that aren't as expected, and all of ours by name; the peers' on the bare mathematical cases."""
    rows = read(file)
    verdicts: dict[int, bool] = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        chosen = [i for i, row in enumerate(rows) if row["kind"] == kind]
        found = ours(kind)([(rows[i]["answer"], rows[i]["gold"]) for i in chosen])
        verdicts |= dict(zip(chosen, found, strict=True))
    wrong = [row for i, row in enumerate(rows) if verdicts[i] != (row["expect"] == "right")]
    bare = [i for i, row in enumerate(rows) if row["kind"] == "math"]
    pairs = [(rows[i]["answer"], rows[i]["gold"]) for i in bare]
    expected = [rows[i]["expect"] == "right" for i in bare]
    sides = {"ours": [verdicts[i] for i in bare]} | {name: judge(pairs) for name, judge in PEERS.items()}
    worse = [
        rows[i]
        for place, i in enumerate(bare)
        if sides["ours"][place] and not expected[place] and not any(sides[name][place] for name in PEERS)
    ]
    return {
        "file": file.name,
        "cases": len(rows),
        "not_as_expected": [{key: row[key] for key in ("answer", "gold", "expect", "kind")} for row in wrong],
        "wrong_answers_paid_by_ours_alone": worse,
        "bare": {name: {"cases": len(bare), **_faults(found, expected)} for name, found in sides.items()},
    }


def _faults(found: list[bool], expected: list[bool]) -> dict[str, int]:
    pairs = list(zip(found, expected, strict=True))
    return {"right_refused": pairs.count((False, True)), "wrong_paid": pairs.count((True, False))}


def rewritten(files: Iterable[Path], most: int) -> dict[str, Any]:
    """For each rewriting: how many pairs there are, and how many verdicts aren't as they have to be, side by side."""
    golds = [gold for file in files for gold in golds_of(file)]
    table = {}
    for wanted, rewritings in ((True, SAME), (False, OTHER)):
        for name, rewriting in rewritings.items():
            found = ((rewriting(gold), gold) for gold in golds)
            pairs = [(text, gold) for text, gold in found if text and text != gold][:most]
            if not pairs:
                continue
            sides = {"ours": ours()(pairs)} | {peer: judge(pairs) for peer, judge in PEERS.items()}
            table[name] = {
                "keeps_the_value": wanted,
                "pairs": len(pairs),
                "faults": {side: sum(paid != wanted for paid in verdicts) for side, verdicts in sides.items()},
                "ours": [
                    {"answer": answer, "gold": gold}
                    for (answer, gold), paid in zip(pairs, sides["ours"], strict=True)
                    if paid != wanted
                ][:20],
            }
            print(f"{name}: {len(pairs)} pairs, faults {table[name]['faults']}", flush=True)
    return {"files": [file.name for file in files], "golds": len(golds), "rewritings": table}
