"""Precision and recall of the lexicon of behaviours on the hand-labelled sample beside this file.

    python evidence/behaviours/precision.py                       # writes precision.json
    python evidence/behaviours/precision.py --misses first        # also prints what is wrong on one half
    python evidence/behaviours/precision.py --gsm8k FOLDER        # also counts false alarms on GSM8K's test.jsonl

sample.jsonl was written and labelled before the lexicon, by the definitions in reasonloop/analysis/lexicon.py, and cut in
halves by a hash, label by label. The lexicon was tuned on the first half (and on the worked answers of GSM8K's
train.jsonl, whose people reason without any of the behaviours but for a few checks); the second half was only scored.
A passage counts as found for a behaviour if the lexicon counts it at least once.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reasonloop.analysis.behaviours import language_behaviours
from reasonloop.analysis.lexicon import BEHAVIOURS, LEXICON

CAVEATS = (
    "One author wrote the sample and the lexicon: recall on texts by others, above all on other phrasings, is lower.",
    "The shares of behaviours and of hard negatives in the sample are chosen, so that precision on a corpus depends on how "
    "rare a behaviour is there; gsm8k_test bounds the rate of false alarms on people's worked answers.",
    "Only passages from SmolLM2 and GSM8K were not written for the sample, and none of them has a behaviour.",
)
FOLDER = Path(__file__).parent
Z = 1.959964  # 95 %


def wilson(hits: int, total: int) -> dict[str, Any]:
    """A share with its Wilson score interval."""
    if total == 0:
        return {"value": None, "ci95": None, "hits": 0, "of": 0}
    share, square = hits / total, Z * Z / total
    centre = (share + square / 2) / (1 + square)
    half = Z * math.sqrt(share * (1 - share) / total + square / (4 * total)) / (1 + square)
    return {
        "value": round(share, 4),
        "ci95": [round(max(0.0, centre - half), 4), round(min(1.0, centre + half), 4)],
        "hits": hits,
        "of": total,
    }


def found_in(text: str) -> set[str]:
    return {name for name, count in language_behaviours(text).behaviours.items() if count}


def score(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    pairs = [(set(row["behaviours"]), found_in(row["text"])) for row in rows]
    scores: dict[str, Any] = {"passages": len(rows), "with_no_behaviour": sum(not labels for labels, _ in pairs)}
    for name in BEHAVIOURS:
        both = sum(name in labels and name in found for labels, found in pairs)
        scores[name] = {
            "precision": wilson(both, sum(name in found for _, found in pairs)),
            "recall": wilson(both, sum(name in labels for labels, _ in pairs)),
        }
    false_alarms = sum(bool(found) for labels, found in pairs if not labels)
    scores["false_alarms_on_passages_with_no_behaviour"] = wilson(false_alarms, scores["with_no_behaviour"])
    return scores


def gsm8k(folder: Path) -> dict[str, Any]:
    """What the lexicon finds in GSM8K's test file, questions and worked answers: both are other people's words."""
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    result: dict[str, Any] = {"texts": len(rows)}
    for part in ("question", "answer"):
        counts = dict.fromkeys(BEHAVIOURS, 0)
        for row in rows:
            for name, count in language_behaviours(row[part]).behaviours.items():
                counts[name] += count
        result[part] = {"words": sum(len(row[part].split()) for row in rows), "counts": counts}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--misses", choices=("first", "second"))
    parser.add_argument("--gsm8k", type=Path)
    options = parser.parse_args()
    rows = [json.loads(line) for line in (FOLDER / "sample.jsonl").read_text(encoding="utf-8").splitlines()]
    halves = {half: [row for row in rows if row["half"] == half] for half in ("first", "second")}
    result: dict[str, Any] = {
        "lexicon_patterns": len(LEXICON),
        "tuned_on": "first",
        "caveats": CAVEATS,
        **{half: score(own) for half, own in halves.items()},
    }
    path = FOLDER / "precision.json"
    if options.gsm8k:
        result["gsm8k_test"] = gsm8k(options.gsm8k)
    elif path.is_file():
        result |= {key: value for key, value in json.loads(path.read_text()).items() if key == "gsm8k_test"}
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for half in halves:
        print(half, result[half]["passages"], "passages")
        for name in BEHAVIOURS:
            own = result[half][name]
            print(f"  {name:16}", *(f"{key} {_shown(own[key])}" for key in ("precision", "recall")), sep="  ")
    for row in halves.get(options.misses, []):
        labels, found = set(row["behaviours"]), found_in(row["text"])
        if labels != found:
            print(f"{row['id']}: missed {sorted(labels - found)}, false {sorted(found - labels)}: {row['text']}")


def _shown(share: dict[str, Any]) -> str:
    if share["value"] is None:
        return "none"
    return f"{share['value']:.2f} [{share['ci95'][0]:.2f}, {share['ci95'][1]:.2f}] ({share['hits']}/{share['of']})"


if __name__ == "__main__":
    main()
