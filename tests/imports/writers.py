"""Files as other trainers write them, from rollouts at hand: composed after their formats, without a look at our readers.

Ids are UTF-8 bytes; 256 opens a message, 257 ends one (and a sequence), 258 pads. Prompts are ChatML.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reasonloop.records import Problem

SYSTEM = "You are a helpful assistant."
OPEN, END, PAD = 256, 257, 258


@dataclass
class Made:
    """A rollout as it was sampled."""

    problem: Problem
    text: str
    step: int
    right: bool
    cut: bool = False
    evaluation: bool = False


def question(problem: Problem) -> str:
    return problem.messages[-1]["content"] if problem.messages else problem.prompt or ""


def turns(made: Made) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question(made.problem)}]


def template(made: Made, special: bool = True) -> str:
    """The prompt in its template."""
    before, behind = ("<|im_start|>", "<|im_end|>") if special else ("", "")
    return "".join(f"{before}{t['role']}\n{t['content']}{behind}\n" for t in turns(made)) + f"{before}assistant\n"


def encoded(text: str) -> list[int]:
    found: list[int] = []
    for i, piece in enumerate(text.replace("<|im_end|>", "<|im_start|>\0").split("<|im_start|>")):
        if i:
            found.append(END if piece.startswith("\0") else OPEN)
        found += piece.removeprefix("\0").encode()
    return found


def response_ids(made: Made) -> list[int]:
    return [*made.text.encode(), *([] if made.cut else [END])]


def by_step(rollouts: Sequence[Made]) -> dict[int, list[Made]]:
    found: dict[int, list[Made]] = {}
    for made in rollouts:
        found.setdefault(made.step, []).append(made)
    return found


def lines(path: Path, rows: Sequence[Any], *, ascii_only: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
    path.write_bytes(path.read_bytes() + data.encode() if path.exists() else data.encode())


def verl(folder: Path, rollouts: Sequence[Made], rng: Random) -> None:
    """0.6 to 0.8 with DAPO's reward."""
    for step, own in by_step(rollouts).items():
        rng.shuffle(own)  # batches are balanced by length
        rows = []
        for made in own:
            row = {"input": template(made, special=False), "output": made.text, "gts": made.problem.answer}
            row |= {"score": 1.0 if made.right else -1.0, "step": step, "acc": made.right}
            rows.append({**row, "pred": made.problem.answer if made.right else None})
        lines(folder / f"{step}.jsonl", rows)


def verl_v1(folder: Path, rollouts: Sequence[Made], rng: Random) -> None:
    """0.9: a uid each, and rows that fill the batch."""
    for step, own in by_step(rollouts).items():
        prompts = {made.problem.id: str(uuid.UUID(int=rng.getrandbits(128))) for made in own}
        rows = []
        for k, made in enumerate(own):
            row = {"input": template(made, special=False), "output": made.text, "gts": made.problem.answer}
            row |= {"score": float(made.right), "step": step, "uid": f"{prompts[made.problem.id]}_{k}_0"}
            rows.append(row)
        pads = [f"pad{rng.getrandbits(128):032x}_{k}_0" for k in range(rng.randrange(3))]
        rows += [{"input": "", "output": "", "gts": "1", "score": 0.0, "step": step, "uid": uid} for uid in pads]
        lines(folder / f"{step}.jsonl", rows)


def prime_flat(folder: Path, rollouts: Sequence[Made], rng: Random) -> None:
    """prime-rl 0.6: as verifiers 0.1 writes them, with the batch that the trainer packed beside it."""
    for step, own in by_step(rollouts).items():
        for made in own:
            row = _verifiers_row(made, rng)
            row |= {"env_name": "mini", "group_id": str(step), "policy_version": step, "off_policy_steps": 0}
            row |= {"rollout_id": str(uuid.UUID(int=rng.getrandbits(128)))}
            row |= {"eval_step": step} if made.evaluation else {"advantage": rng.random(), "is_filtered": False}
            name = "eval_rollouts_mini.jsonl" if made.evaluation else "train_rollouts.jsonl"
            lines(folder / "rollouts" / f"step_{step}" / name, [row])
        (folder / "rollouts" / f"step_{step}" / "rank_0.bin").write_bytes(b"\x90")


def _verifiers_row(made: Made, rng: Random) -> dict[str, Any]:
    metrics = {"correct_answer": float(made.right), "format_reward": float(rng.random() < 0.5)}
    return {
        "example_id": made.problem.id,
        "prompt": turns(made),
        "completion": [{"role": "assistant", "content": made.text}],
        "answer": made.problem.answer,
        "reward": metrics["correct_answer"] + 0.2 * metrics["format_reward"],
        "error": None,
        "timing": {"start_time": rng.random() * 1e9},
        "is_completed": True,
        "is_truncated": made.cut,
        "stop_condition": None,
        "metrics": metrics,
        **metrics,
    }


def verifiers(folder: Path, rollouts: Sequence[Made], rng: Random) -> None:
    """0.1.14, resumed after it was killed: a torn line in the middle, and rows that stand twice."""
    rows = [_verifiers_row(made, rng) for made in rollouts]
    path = folder / "outputs" / "evals" / "mini--model" / "1a2b" / "results.jsonl"
    lines(path, rows)
    data = path.read_bytes().split(b"\n")[:-1]
    torn = data[0][: len(data[0]) // 2]
    path.write_bytes(b"\n".join([*data, torn, data[-1], b""]))
    failed = {**rows[0], "completion": None, "error": {"error": "ModelError"}, "timing": {"start_time": 1.5}}
    lines(path, [failed])
    (path.parent / "metadata.json").write_text(json.dumps({"env_id": "mini", "avg_reward": 0.5}, indent=2))


def _trace(made: Made, rng: Random) -> dict[str, Any]:
    whole = [{"role": m["role"], "content": m["content"]} for m in turns(made)]
    pieces = [encoded(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n") for m in whole]
    nodes: list[dict[str, Any]] = []
    for i, (message, ids) in enumerate(zip(whole, pieces, strict=True)):
        node = {"parent": i - 1 if i else None, "message": message, "sampled": False}
        nodes.append({**node, "token_ids": ids, "mask": [False] * len(ids), "logprobs": []})
    opening, said = encoded("<|im_start|>assistant\n"), response_ids(made)
    nodes.append(
        {
            "parent": len(nodes) - 1,
            "message": {"role": "assistant", "content": made.text, "tool_calls": None},
            "sampled": True,
            "token_ids": opening + said,
            "mask": [False] * len(opening) + [True] * len(said),
            "logprobs": [-rng.random() for _ in said],
        }
    )
    score = float(made.right)
    return {
        "id": f"{rng.getrandbits(128):032x}",
        "task": {"type": "T", "data": {"idx": 0, "prompt": question(made.problem), "answer": made.problem.answer}},
        "agent": {"name": "agent", "trainable": True},
        "nodes": nodes,
        "calls": [{"node": len(nodes) - 1, "finish_reason": "length" if made.cut else "stop"}],
        "rewards": {"correct": {"score": score, "weight": 1.0}, "format": {"score": 1.0, "weight": 0.2}},
        "metrics": {},
        "info": {},
        "is_completed": True,
        "errors": [],
    }


def prime_traces(folder: Path, rollouts: Sequence[Made], rng: Random) -> None:
    """0.8.0: a trace a line; failed ones, and the part that was trained on once more."""
    for step, own in by_step(rollouts).items():
        for made in own:
            row = _trace(made, rng) | {"run": {"type": "eval" if made.evaluation else "train", "id": "r", "step": step}}
            row["info"] = {"env_name": "mini", "group_id": str(step)}
            kind = folder / "rollouts" / f"step_{step}" / ("eval" if made.evaluation else "train")
            lines(kind / "all" / "traces.jsonl", [row])
            if rng.random() < 0.5:
                lines(kind / "effective" / "traces.jsonl", [row])
            if rng.random() < 0.2:
                failed = {**row, "id": f"{rng.getrandbits(128):032x}", "nodes": row["nodes"][:-1], "rewards": {}}
                lines(kind / "all" / "traces.jsonl", [failed | {"errors": [{"type": "E", "message": "m"}]}])


def prime_episodes(folder: Path, rollouts: Sequence[Made], rng: Random) -> None:
    """0.8.1: an episode a line, a judge among its traces."""
    for step, own in by_step(rollouts).items():
        for made in own:
            trace = _trace(made, rng)
            judge = _trace(made, rng) | {"agent": {"name": "judge", "trainable": False}}
            kind = "eval" if made.evaluation else "train"
            row = {
                "id": f"{rng.getrandbits(128):032x}",
                "env": {"id": "mini", "name": "mini"},
                "task": trace["task"],
                "group": {"id": str(step)},
                "run": {"type": "train", "id": "r", "work": {"type": kind, "step": step}},
                "ok": True,
                "errors": [],
                "traces": [trace, judge] if rng.random() < 0.3 else [trace],
            }
            path = folder / "rollouts" / f"step_{step}" / kind / "all" / "traces.jsonl"
            lines(path, [row])
            if rng.random() < 0.2:
                lines(path, [row | {"id": f"{rng.getrandbits(128):032x}", "ok": False, "traces": []}])


def trl(folder: Path, rollouts: Sequence[Made], rng: Random, *, messages: bool = False) -> None:
    """A table a step, each batch used for two of them."""
    for k, (step, own) in enumerate(by_step(rollouts).items()):
        rows = []
        for made in own:
            row: dict[str, Any] = {"step": step, "prompt": template(made, special=False), "completion": made.text}
            if messages:
                row["prompt"], row["completion"] = turns(made), [{"role": "assistant", "content": made.text}]
            row |= {
                "correctness_reward": float(made.right),
                "format_reward": rng.random() / 2,
                "advantage": rng.random(),
            }
            rows.append(row)
        path = folder / "completions" / f"completions_{step:05d}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
        if k == 0 and step + 1 not in by_step(rollouts):
            again = pa.Table.from_pylist([{**row, "step": step + 1} for row in rows])
            pq.write_table(again, path.with_name(f"completions_{step + 1:05d}.parquet"))


def trl_messages(folder: Path, rollouts: Sequence[Made], rng: Random) -> None:
    trl(folder, rollouts, rng, messages=True)


def skyrl(folder: Path, rollouts: Sequence[Made], rng: Random) -> None:
    for step, own in by_step(rollouts).items():
        base = folder / "dumped_evals" / f"global_step_{step}_evals"
        for made in own:
            count = len(made.text) + 1
            end = "" if made.cut else "<|im_end|>"
            row = {"input_prompt": template(made), "output_response": made.text + end}
            row |= {"score": [0.0] * (count - 1) + [float(made.right)] if rng.random() < 0.8 else float(made.right)}
            row |= {"stop_reason": "length" if made.cut else "stop", "env_class": "gsm8k", "data_source": "d"}
            row |= {"env_extras": {"reward_spec": {"ground_truth": made.problem.answer}}}
            lines(base / "openai_gsm8k.jsonl", [row])
        lines(base / "aggregated_results.jsonl", [{"eval/all/avg_score": 0.5}])


def areal(folder: Path, rollouts: Sequence[Made], rng: Random) -> None:
    """A file a group; the last line of each once more, as after a resume."""
    for task, (key, own) in enumerate(_groups(rollouts).items()):
        rows = []
        for k, made in enumerate(own):
            end = "" if made.cut else "<|im_end|>"
            prompt = encoded(template(made))
            row = {"task_id": task, "sample_idx": k, "seqlen": len(prompt) + 9, "prompt_len": len(prompt)}
            row |= {"head_version": -1, "tail_version": made.step, "reward": float(made.right)}
            rows.append({**row, "prompt": template(made), "completion": made.text + end})
        kind = "eval-rollout" if own[0].evaluation else "rollout"
        lines(folder / kind / str(key[0]) / f"{task}.jsonl", [*rows, rows[-1]], ascii_only=True)


def _groups(rollouts: Sequence[Made]) -> dict[tuple[int, str, bool], list[Made]]:
    found: dict[tuple[int, str, bool], list[Made]] = {}
    for made in rollouts:
        found.setdefault((made.step, made.problem.id, made.evaluation), []).append(made)
    return found


def nemo(folder: Path, rollouts: Sequence[Made], rng: Random) -> None:
    for step, own in by_step(rollouts).items():
        longest = max(len(encoded(template(made))) + len(response_ids(made)) for made in own) + 30
        rows = []
        for idx, made in enumerate(own):
            said = f"Environment: {'correct' if made.right else 'incorrect'}"
            if made.evaluation:
                asked = [{"role": "user", "content": template(made)}, {"role": "assistant", "content": made.text}]
                content: list[Any] = [*asked, {"role": "environment", "content": said}]
                rows.append({"content": [content], "rewards": [float(made.right)], "idx": idx})
                continue
            prompt, answer, after = encoded(template(made)), response_ids(made), list(said.encode())
            ids = prompt + answer + after
            pad = longest - len(ids)
            mask = [0] * len(prompt) + [1] * len(answer) + [0] * (len(after) + pad)
            logprobs = [-rng.random() if m else 0.0 for m in mask]
            row = {"content": [[template(made), made.text, said]], "rewards": [float(made.right)]}
            row |= {"input_lengths": [len(ids)], "token_ids": [ids + [PAD] * pad], "token_loss_mask": [mask]}
            row |= {"sample_loss_mask": [1.0], "advantages": [[0.5] * longest], "generation_logprobs": [logprobs]}
            rows.append({**row, "prev_logprobs": [logprobs], "idx": idx})
        name = "val_data" if own[0].evaluation else "train_data"
        lines(folder / "exp_001" / f"{name}_step{step}.jsonl", rows)


def open_instruct(folder: Path, rollouts: Sequence[Made], rng: Random) -> None:
    problems = {id: k for k, id in enumerate(dict.fromkeys(made.problem.id for made in rollouts))}
    rows = []
    for k, made in enumerate(rollouts):
        said = response_ids(made)
        row = {"step": made.step, "sample_idx": k, "prompt_idx": problems[made.problem.id]}
        row |= {"prompt_tokens": encoded(template(made)), "response_tokens": said, "reward": 10.0 * made.right}
        row |= {"advantage": 0.0, "finish_reason": "length" if made.cut else "stop", "dataset": "d"}
        row |= {"ground_truth": [made.problem.answer], "request_info": {}}
        rows.append({**row, "logprobs": [-rng.random() for _ in said]})
    half = len(rows) // 2
    lines(folder / "mini_rollouts_000000.jsonl", [*rows[:half], rows[half - 1]])
    lines(folder / "mini_rollouts_000001.jsonl", rows[half:])
    lines(folder / "mini_metadata.jsonl", [{"run_name": "mini", "model_name": "m"}])


def roll(folder: Path, rollouts: Sequence[Made], rng: Random) -> None:
    for step, own in by_step(rollouts).items():
        columns: dict[str, list[Any]] = {
            "id": [made.problem.id for made in own],
            "prompt": [question(made.problem) for made in own],
            "messages": [json.dumps(turns(made)) for made in own],
            "ground_truth": [made.problem.answer for made in own],
            "responses": [made.text for made in own],
            "scores": [float(made.right) for made in own],
            "global_step": [step] * len(own),
        }
        lines(folder / f"rollout_dump_data.step_{step}.jsonl", [columns])


def rllm(folder: Path, rollouts: Sequence[Made], rng: Random) -> None:
    for k, made in enumerate(rollouts):
        base = folder / "episodes" / f"train_step_{made.step}_epoch_0"
        base.mkdir(parents=True, exist_ok=True)
        chat = [*turns(made), {"role": "assistant", "content": made.text, "reasoning": None}]
        step = {"model_response": made.text, "chat_completions": chat, "reward": 0.0}
        episode = {
            "training_step": made.step,
            "episode_id": f"{uuid.UUID(int=rng.getrandbits(128))}:{k}",
            "task": {"question": question(made.problem), "ground_truth": made.problem.answer},
            "is_correct": made.right,
            "termination_reason": "max_response_length" if made.cut else "env_done",
            "metrics": {"solver_acc": float(made.right)},
            "trajectories": [{"name": "solver", "uid": str(k), "reward": float(made.right), "steps": [step]}],
        }
        (base / f"episode_{k}.json").write_text(json.dumps(episode, indent=2, ensure_ascii=False), encoding="utf-8")
        (base / "batch_summary.json").write_text(json.dumps({"training_step": made.step, "num_episodes": 1}, indent=2))


def oat(folder: Path, rollouts: Sequence[Made], rng: Random) -> None:
    for step, own in by_step(rollouts).items():
        rows = [
            {
                "input": question(made.problem),
                "output": made.text,
                "scores": float(made.right),
                "format_input": template(made),
                "reference": made.problem.answer,
                "generator": "g",
            }
            for made in own
        ]
        path = folder / "eval_results" / f"{step}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(rows, indent=4), encoding="utf-8")


def openrlhf(folder: Path, rollouts: Sequence[Made], rng: Random) -> None:
    """The whole list of prompts again for each sample, with a reward model's numbers."""
    rows = [{"input": template(made), "output": made.text, "reward": rng.gauss(0, 1)} for made in rollouts]
    lines(folder / "generate.jsonl", rows)


def jsonl(folder: Path, rollouts: Sequence[Made], rng: Random) -> None:
    rows = []
    for made in rollouts:
        row = {"problem_id": made.problem.id, "messages": turns(made), "response": made.text, "step": made.step}
        row |= {"score": float(made.right), "finish": "length" if made.cut else "stop"}
        rows.append(row | ({"split": "eval"} if made.evaluation else {}))
    rng.shuffle(rows)  # steps in no order
    lines(folder / "mine.jsonl", rows)


Writer = Callable[[Path, Sequence[Made], Random], None]
WRITERS: dict[str, tuple[str, Writer]] = {
    "verl": ("verl", verl),
    "verl 0.9": ("verl", verl_v1),
    "prime-rl 0.6": ("prime-rl", prime_flat),
    "prime-rl 0.8.0": ("prime-rl", prime_traces),
    "prime-rl 0.8.1": ("prime-rl", prime_episodes),
    "trl": ("trl", trl),
    "trl 1.15": ("trl", trl_messages),
    "skyrl": ("skyrl", skyrl),
    "areal": ("areal", areal),
    "verifiers": ("verifiers", verifiers),
    "nemo-rl": ("nemo-rl", nemo),
    "open-instruct": ("open-instruct", open_instruct),
    "roll": ("roll", roll),
    "rllm": ("rllm", rllm),
    "oat": ("oat", oat),
    "openrlhf": ("openrlhf", openrlhf),
    "jsonl": ("jsonl", jsonl),
}
"""Layouts: the trainer's name, and what writes its files"""
MIXED = {"prime-rl 0.6", "prime-rl 0.8.0", "prime-rl 0.8.1", "areal", "jsonl"}
"""Those that have evaluations beside the training, marked row by row or by folder"""
ALONE = {"skyrl", "oat"}
"""Those that write evaluations alone"""
STEPLESS = {"verifiers", "openrlhf"}
IDS = {"prime-rl 0.8.0", "prime-rl 0.8.1", "nemo-rl", "open-instruct"}
SAYS_FINISH = {
    "prime-rl 0.6",
    "prime-rl 0.8.0",
    "prime-rl 0.8.1",
    "skyrl",
    "verifiers",
    "open-instruct",
    "rllm",
    "jsonl",
}
