"""Explorations by TRL's GRPOTrainer, for RLoop around it (docs/on-your-cluster.md). Needs TRL 1.15 or later: pip install trl

reasonloop run examples/grpo_with_trl.toml

Called again with the same folder for its output it goes on from TRL's last checkpoint there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import load_dataset
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig, GRPOTrainer

import reasonloop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("recipe", "model", "problems", "out"):
        parser.add_argument(name)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=0, help="rollouts of a forward pass on one device; 0: a step's")
    parser.add_argument("--save-every", type=int, default=10, help="steps between checkpoints")
    parser.add_argument("--cpu", action="store_true")
    asked = parser.parse_args()
    recipe = tomllib.loads(Path(asked.recipe).read_text(encoding="utf-8"))
    task = dict(recipe["task"])
    with reasonloop.load_task(task.pop("name"), check=False, **task) as judge:
        train(asked, recipe, judge)


def train(asked: argparse.Namespace, recipe: dict[str, Any], judge: reasonloop.Task) -> None:
    problems = {problem.id: problem for problem in judge.train}

    def right(completions: Sequence[Any], id: Sequence[str], **_: Any) -> list[float]:
        texts = [said if isinstance(said, str) else said[-1]["content"] for said in completions]
        pairs = [(problems[name], text) for name, text in zip(id, texts, strict=True)]
        return [float(judgement.verdict == "right") for judgement in judge.verifier.verify(pairs)]

    rl, rollouts = recipe["rl"], recipe["rl"]["problems_per_step"] * recipe["rl"]["group_size"]
    devices = int(os.environ.get("WORLD_SIZE", "1"))
    at_once = asked.at_once or rollouts // devices
    options = GRPOConfig(
        output_dir=asked.out,
        max_steps=rl["steps"],
        seed=asked.seed,
        num_generations=rl["group_size"],
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=rollouts // (at_once * devices),
        learning_rate=rl["learning_rate"],
        lr_scheduler_type="constant",
        max_completion_length=recipe["sampling"]["max_tokens"],
        temperature=recipe["sampling"]["temperature"],
        log_completions=True,  # OUT/completions/completions_<step>.parquet
        logging_steps=1,  # with more the batches between two logs are lost
        num_completions_to_print=1,
        save_steps=asked.save_every,
        save_total_limit=1,
        report_to="none",
        use_cpu=asked.cpu,
        bf16=not asked.cpu,
    )
    cache = f"{asked.out}/cache"
    trainer = GRPOTrainer(
        model=asked.model,
        args=options,
        reward_funcs=right,
        train_dataset=load_dataset("parquet", data_files=asked.problems, split="train", cache_dir=cache),
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(asked.out))
    shutil.rmtree(cache, ignore_errors=True)


if __name__ == "__main__":
    main()
