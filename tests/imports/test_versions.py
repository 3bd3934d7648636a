"""Layouts of other versions than those in `cases`: as their code writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from writers import Made, _trace, lines, template

from reasonloop.imports.judging import judged
from reasonloop.imports.reading import Asked, find_rollouts
from reasonloop.imports.scores import Agreement
from reasonloop.records import Place, Problem
from reasonloop.verify.workers import VerifierPool, VerifierSpec

ONE = Problem("one", prompt="7 + 2 = ?", answer="9")
RIGHT, WRONG = Made(ONE, "\\boxed{9}", 4, True), Made(ONE, "\\boxed{8}", 4, False)
PAIR = (RIGHT, WRONG)
USER = [{"role": "user", "content": "7 + 2 = ?"}]


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(VerifierSpec("reasonloop.verify.verifiers:MathVerifier", {"extract": "boxed"})) as made:
        yield made


def check(folder: Path, pool: VerifierPool, trainer: str, *, step: int | None = None, said: bool = True) -> list[Any]:
    """Both rollouts are there, in their order, at step 4; and what the file says of them."""
    agreement = Agreement()
    with find_rollouts([folder], [ONE], Asked(step=step)) as reading:
        assert reading.trainer == trainer
        (found,) = judged(reading, pool, agreement, Place())
    assert [(r.text, r.right, r.step, r.sample) for r in found.rollouts] == [
        (RIGHT.text, True, 4, 0),
        (WRONG.text, False, 4, 1),
    ]
    assert agreement.table().agreement == (1.0 if said else None)
    return found.rollouts


def test_prime_rl_0_7(tmp_path: Path, pool: VerifierPool) -> None:
    """A trace a line, rewards as numbers, the kind at the top."""
    for made in PAIR:
        row = _trace(made, Random(made.text)) | {
            "kind": "train",
            "group_id": "g",
            "rewards": {"math": float(made.right)},
        }
        del row["info"], row["calls"]
        lines(tmp_path / "rollouts" / "step_4" / "train" / "all" / "traces.jsonl", [row])
    row = _trace(RIGHT, Random(3)) | {"kind": "eval", "group_id": "g"}
    lines(tmp_path / "rollouts" / "step_4" / "eval" / "all" / "traces.jsonl", [row])
    found = check(tmp_path, pool, "prime-rl")
    assert [r.reward_parts for r in found] == [{"math": 1.0}, {"math": 0.0}]


def test_verifiers_0_2(tmp_path: Path, pool: VerifierPool) -> None:
    """A trace a line, without ids; a reward that failed is null."""
    for made in PAIR:
        row = _trace(made, Random(made.text))
        row["nodes"] = [node | {"token_ids": [], "mask": [], "logprobs": []} for node in row["nodes"]]
        row["rewards"]["length"] = None
        lines(tmp_path / "outputs" / "traces.jsonl", [row | {"run": {"type": "eval", "id": "x"}}])
    found = check(tmp_path, pool, "verifiers", step=4)
    assert {r.branch for r in found} == {"main"}
    assert [r.reward for r in found] == [1.2, 0.2]


def test_verifiers_0_1_5(tmp_path: Path, pool: VerifierPool) -> None:
    """Nothing tells two samples that say the same apart: both count."""
    rows = [
        {"prompt": USER, "completion": m.text, "answer": "9", "reward": float(m.right), "average_reward": 0.5}
        for m in PAIR
    ]
    lines(tmp_path / "results.jsonl", rows)
    check(tmp_path, pool, "verifiers", step=4)
    lines(tmp_path / "results.jsonl", rows)
    with find_rollouts([tmp_path], [ONE], Asked(step=4)) as reading:
        assert reading.rollouts == 4


def test_verl_0_8(tmp_path: Path, pool: VerifierPool) -> None:
    """Of its request ids each is one rollout's."""
    rows = [
        {
            "input": template(m, special=False),
            "output": m.text,
            "score": 2.0 * m.right - 1,
            "step": 4,
            "request_id": m.text,
        }
        for m in PAIR
    ]
    lines(tmp_path / "data" / "4.jsonl", rows)
    check(tmp_path, pool, "verl")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_trl_tables(kind: pa.DataType, tmp_path: Path, pool: VerifierPool) -> None:
    columns = {
        "step": pa.array([4, 4]),
        "prompt": pa.array([template(made, special=False) for made in PAIR], kind),
        "completion": pa.array([made.text for made in PAIR], kind),
        "accuracy_reward": pa.array([1.0, 0.0]),
        "slow_reward": pa.array([None, float("nan")], pa.float64()),
        "advantage": pa.array([1.0, -1.0]),
        "solution": pa.array(["9", "9"]),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    found = check(tmp_path, pool, "trl")
    assert [r.reward_parts for r in found] == [{"accuracy_reward": 1.0}, {"accuracy_reward": 0.0}]


def test_trl_messages_with_tool_calls(tmp_path: Path, pool: VerifierPool) -> None:
    """Every message has all fields in a table, null where it hasn't them."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "add", "arguments": "7, 2"}], "name": None}
    tool = {"role": "tool", "content": "9", "tool_calls": None, "name": "add"}
    last = {"role": "assistant", "content": RIGHT.text, "tool_calls": None, "name": None}
    rows = [{"step": 4, "prompt": USER, "completion": [call, tool, last], "r": 1.0, "advantage": 0.0}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "completions_00004.parquet")
    with find_rollouts([tmp_path], [ONE]) as reading:
        (step,) = judged(reading, pool, Agreement(), Place())
    assert [(r.text, r.right) for r in step.rollouts] == [("\n9\n\\boxed{9}", True)]


def test_nemo_rl_with_a_system_text(tmp_path: Path, pool: VerifierPool) -> None:
    prompt = ["<|im_start|>system\nS<|im_end|>\n", "<|im_start|>user\n7 + 2 = ?<|im_end|>\n"]
    rows = [
        {"content": [[*prompt, made.text, "Environment: x"]], "rewards": [float(made.right)], "input_lengths": [9]}
        | {"idx": k, "agent_ref": [{"name": "a"}], "filtered_rewards": [0.5]}
        for k, made in enumerate(PAIR)
    ]
    lines(tmp_path / "exp_002" / "train_data_step4.jsonl", rows)
    check(tmp_path, pool, "nemo-rl")


def test_rllm_0_2(tmp_path: Path, pool: VerifierPool) -> None:
    """A list of messages a line, and no reward."""
    rows = [[*USER, {"role": "assistant", "content": made.text}] for made in PAIR]
    lines(tmp_path / "chat_completions" / "4.jsonl", rows)
    check(tmp_path, pool, "rllm", said=False)


def test_oat_with_another_key(tmp_path: Path, pool: VerifierPool) -> None:
    rows = [
        {"problem": "7 + 2 = ?", "output": made.text, "scores": float(made.right), "format_problem": template(made)}
        | {"reference": "9", "generator": "g"}
        for made in PAIR
    ]
    (tmp_path / "4.json").write_text(json.dumps(rows))
    check(tmp_path, pool, "oat")


def test_one_line_of_json_is_read_as_one_that_is_indented(tmp_path: Path, pool: VerifierPool) -> None:
    steps = [{"chat_completions": [*USER, {"role": "assistant", "content": made.text}]} for made in PAIR]
    for k, (made, step) in enumerate(zip(PAIR, steps, strict=True)):
        episode = {"training_step": 4, "episode_id": f"e:{k}", "task": {"question": "?"}, "is_correct": made.right}
        episode["trajectories"] = [{"uid": str(k), "reward": None, "steps": [step]}]
        (tmp_path / f"{k}.json").write_text(json.dumps(episode, indent=None if k else 2))
    check(tmp_path, pool, "rllm")
