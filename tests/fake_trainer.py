"""Another trainer, in a process of its own, as a test of RLoop around one needs it: it learns nothing, and is quick.

python fake_trainer.py explore MODEL PROBLEMS STEPS SEED OUT [--torn] [--leave-policy] [--layout NAME] [--fail-at N] ...
python fake_trainer.py finetune MODEL EXPERTS OUT [--unchanged] [--other-tokenizer]

Exploring, it leaves rollouts as verl does, OUT/rollouts/<step>.jsonl from 1: four problems a step, four responses each, the
gold answer and a wrong one in a mixture that the seed decides; it goes on from what is in OUT. Fine-tuning, it moves the
weights a little. `--fail-at N` fails before step N, `--wait-at N` waits there in the second iteration, unless the file
`go-on` is beside OUT's folder.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
import time
from pathlib import Path

PROBLEMS, RESPONSES = 4, 4


def explore(asked: argparse.Namespace, model: str, problems: str, steps: str, seed: str, out: str) -> None:
    assert (Path(model) / "config.json").is_file()
    rows = [json.loads(line) for line in Path(problems).with_suffix(".jsonl").read_text().splitlines()]
    folder = Path(out) / "rollouts"
    folder.mkdir(exist_ok=True)
    for step in range(1, int(steps) + 1):
        if (folder / f"{step}.jsonl").exists():
            continue
        if step == asked.fail_at:
            sys.exit("CUDA out of memory")
        if step == asked.wait_at and "explore-1" in out and not (Path(out).parent.parent / "go-on").exists():
            print("waiting", flush=True)
            time.sleep(600)
        luck = random.Random(f"{seed} {step}")
        lines = [line(row, step, luck) for row in luck.sample(rows, PROBLEMS) for _ in range(RESPONSES)]
        if asked.layout == "none":
            lines = [json.dumps({"loss": 0.5, "step": step})]
        if asked.torn and step == int(steps):
            lines.append(lines[-1][:20])
        (folder / f"{step}.partial").write_text("\n".join(lines))
        (folder / f"{step}.partial").rename(folder / f"{step}.jsonl")
    if asked.leave_policy:
        shutil.copytree(model, Path(out) / f"global_step_{steps}", dirs_exist_ok=True)


def line(row: dict[str, str], step: int, luck: random.Random) -> str:
    right = luck.random() < 0.4
    said = " ".join(re.findall(r"\d+|[-+*/()]", row["answer"])) if right else f"{luck.randint(7, 12)} + 1"
    given = {"input": row["prompt"], "output": f"answer {said}", "gts": row["answer"], "score": float(right)}
    return json.dumps(given | {"step": step})


def finetune(asked: argparse.Namespace, model: str, experts: str, out: str) -> None:
    import pyarrow.parquet as pq
    from safetensors.numpy import load_file, save_file

    rows = pq.read_table(Path(experts) / "train.parquet").to_pylist()
    assert rows
    assert all(row.keys() == {"prompt", "completion"} for row in rows)
    product = Path(out) / "checkpoint-9"
    for name in ("checkpoint-10", "checkpoint-9"):
        shutil.copytree(model, Path(out) / name, dirs_exist_ok=True)
        product = Path(out) / name
        weights = load_file(product / "model.safetensors")
        by = 1 if asked.unchanged else 1.001 if name == "checkpoint-10" else 9
        moved = {key: value * by for key, value in weights.items()}
        save_file(moved, product / "model.safetensors", metadata={"format": "pt"})
        if asked.other_tokenizer:
            path = product / "tokenizer.json"
            path.write_text(path.read_text().replace('"back"', '"forth"'))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("verb")
    parser.add_argument("given", nargs="*")
    for flag in ("leave-policy", "torn", "unchanged", "other-tokenizer"):
        parser.add_argument(f"--{flag}", action="store_true")
    for flag in ("fail-at", "wait-at"):
        parser.add_argument(f"--{flag}", type=int, default=0)
    parser.add_argument("--layout", default="verl")
    given = parser.parse_args()
    {"explore": explore, "finetune": finetune}[given.verb](given, *given.given)
