"""Prints docs/families.md from benchmarks/results/families.json, which families.py writes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "families.json"

TOP = """# Model families

Which models can be trained, and how each is computed. The rule: what is sampled, what is learned and what
transformers computes for that sequence alone are the same numbers, to rounding; else the model is refused, with the reason.

The check is made whenever a model is loaded, on the model itself. So a family that is missing below either works or says why
it doesn't:

    reasonloop eval path/to/model --task countdown

There are two paths.

- **packed**: prompts and responses side by side in one stream, each prompt once, and responses in slots
  ([inside](inside.md#models)). It is fast.
- **plain**: the model's own forward pass and its own cache, for layers that mix tokens outside of attention, or attention
  that says more than a window. It is slower, and as exact.
"""

LENGTHS = """
## Where a length changes the model

- **Windows, chunks, an indexer's choice** (`sliding_window`, `attention_chunk_size`, `index_topk`): they are checked
  however far they reach. The check makes the model's numbers small for a moment.
- **LongRoPE** (Phi-3.5, Phi-4-mini): transformers turns all tokens of a sequence by other factors once it is longer than
  `original_max_position_embeddings`. Short and long sequences are computed apart, each as it would be alone. A response
  that would cross that length is refused before it is sampled: its first tokens would get other log-probs from its last
  ones. Choose `sampling.max_tokens` so that it ends before, or prompts that are longer.
- **Dynamic scaling** (`rope_type = "dynamic"`): up to `max_position_embeddings`, and no further.

## Gradient checkpointing

`model.gradient_checkpointing = true` works for every family below, those included that transformers has none for. The model
stays in evaluation mode: dropout, router jitter and random routing stay off. The column *k1* shows it: nats a token between
what was sampled and what the learner computes with checkpointing before its first update.
"""

TABLE = """
## The table

{exact} of {total} are exact, {refused} refused, {bad} wrong or crashed. Every causal family of transformers {transformers}
is there as a random model of 4 layers, its weights drawn with deviation 0.25: a mistake is nats, and not rounding. Windows,
chunks and choices are 16, sequences up to 95 tokens (torch {torch}, one thread of a CPU, float32).

- *Sampled*, *scored*: nats, the largest difference of a log-prob to transformers' own forward pass of that sequence alone,
  in its own attention.
- *Gradient*: the largest difference of an entry of a parameter's gradient, of its largest.
- Each product was saved, loaded, and generates what its source generates.

`make families` makes the table again.

| family | path | sampled | scored | gradient | k1 | |
|---|---|---|---|---|---|---|
"""

APART = """
Left out, since they need more than text or can't be built from their configuration's defaults: {names}.
"""


def main() -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    rows = found["families"]
    count = Counter(row["verdict"] for row in rows)
    counts = {
        "exact": count["exact"],
        "refused": count["refused"],
        "bad": count["wrong"] + count["crashed"],
        "total": len(rows),
    }
    versions = found["versions"]
    table = TABLE.format(**counts, torch=versions["torch"], transformers=versions["transformers"])
    left = ", ".join(f"{name} ({reason})" for name, reason in sorted(found["left out"].items()))
    print(TOP + LENGTHS + table + "\n".join(map(_line, rows)) + "\n" + APART.format(names=left), end="")


def _line(row: dict[str, Any]) -> str:
    numbers = [f"{abs(row[name]):.0e}" if name in row else "" for name in ("sampled", "scored", "gradient", "k1")]
    notes = "; ".join(filter(None, (row.get("reason", ""), row.get("limit", ""))))
    verdict = row["verdict"] if row["verdict"] != "exact" else ""
    told = ": ".join(filter(None, (verdict, notes)))
    return f"| {row['name']} | {row.get('path', '')} | {' | '.join(numbers)} | {told.replace('|', ' ')} |"


if __name__ == "__main__":
    main()
