"""The result table: the right rows in the right order, within 100 columns, readable without colour."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from reasonloop.evaluation.metrics import summarise
from reasonloop.evaluation.table import WIDTH, arm_of, arms_of, label_of, result_rows, results_table, results_text


def evaluation(stage: str, branch: str = "main", iteration: int = 0, rollouts: int = 0, **more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(rollouts + iteration)
    n = more.pop("samples", 32)
    problems = [{"id": str(i), "n": n, "correct": int(rng.integers(0, n + 1))} for i in range(20)]
    arm = "explored" if (branch, stage) == ("main", "explore") else stage if stage in ("base", "sft") else branch
    named = {"base": "base", "sft": "SFT", "vanilla": "vanilla RL", "explored": f"RLoop {iteration + 1}, explored"}
    record = {
        "arm": arm, "label": named.get(arm, f"RLoop {iteration + 1}, after RFT"),
        "name": f"{branch}-{stage}-{iteration}", "stage": stage, "branch": branch, "iteration": iteration, "step": 0,
        "rollouts": rollouts, "seconds": rollouts / 9, "task": "countdown", "split": "test", "samples": n,
        "metrics": summarise(problems), "problems": problems,
    }  # fmt: skip
    return record | more


RUN = [
    evaluation("rft", iteration=1, rollouts=123_456),
    evaluation("explore", iteration=1, rollouts=123_456),
    evaluation("explore", branch="vanilla", rollouts=60_000),
    evaluation("explore", branch="vanilla", rollouts=1_234_567),
    evaluation("rft", iteration=0, rollouts=61_728),
    evaluation("base"),
    evaluation("explore", iteration=0, rollouts=61_728),
    evaluation("explore", iteration=0, rollouts=99, split="probe"),
]


def rendered(width: int, evals: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    Console(file=out, width=width, no_color=True).print(results_table(evals))
    return out.getvalue()


def test_rows_stand_in_reading_order_and_show_the_end_of_vanilla_rl() -> None:
    rows = result_rows(RUN)
    assert [label_of(row) for row in rows] == [
        "base", "vanilla RL", "RLoop 1, explored", "RLoop 1, after RFT", "RLoop 2, explored", "RLoop 2, after RFT",
    ]  # fmt: skip
    assert rows[1]["rollouts"] == 1_234_567
    assert all(row["split"] == "test" for row in rows)


def test_rows_are_called_what_their_method_wrote() -> None:
    own = evaluation("explore", rollouts=5, arm="main", label="my method, first half")
    assert [label_of(row) for row in result_rows([own, evaluation("base")])] == ["base", "my method, first half"]


@pytest.mark.parametrize(
    ("record", "arm"),
    [
        ({"stage": "base", "branch": "main"}, "base"),
        ({"stage": "explore", "branch": "vanilla"}, "vanilla"),
        ({}, "main"),
    ],
)
def test_what_was_written_before_arms_has_one_by_its_branch(record: dict[str, Any], arm: str) -> None:
    assert arm_of(record) == arm


def test_steps_that_were_done_for_two_arms_are_in_both() -> None:
    assert arms_of({"arm": "main", "shared_with": "vanilla"}) == ("main", "vanilla")
    assert arms_of({"arm": "vanilla"}) == ("vanilla",)


def test_everything_asked_for_is_there_within_100_columns() -> None:
    perfect = summarise([{"id": "1", "n": 32, "correct": 32}])
    evals = [*RUN, evaluation("rft", iteration=2, rollouts=9_999_999, seconds=999_999.0, metrics=perfect)]
    for text in (results_text(evals), rendered(WIDTH, evals)):
        assert max(len(line.rstrip()) for line in text.splitlines()) <= WIDTH
        for wanted in ("avg@32 = pass@1", "pass@8", "pass@32", "rollouts", "seconds", "1.000 [.050,1.00]", "1.2M"):
            assert wanted in text
        value = RUN[0]["metrics"]["pass@8"]
        assert f"{value['value']:.3f} [" in text
    assert results_text(evals).isascii()


def test_a_narrow_terminal_loses_no_digit() -> None:
    cut = rendered(72, RUN)
    for row in result_rows(RUN):
        for key in ("avg@32", "pass@8", "pass@32"):
            assert f"{row['metrics'][key]['value']:.3f}" in cut
    assert "…" not in cut


def test_few_samples_and_few_results_still_make_a_table() -> None:
    small = results_text([evaluation("base", samples=4)])
    assert "avg@4 = pass@1" in small
    assert "pass@4" in small
    mixed = results_text([evaluation("base", samples=4), evaluation("rft", samples=8, rollouts=3)])
    assert "pass@1" in mixed
    assert "avg@" not in mixed
    assert results_text([]) == "no evaluation yet"
    assert "no evaluation yet" in rendered(80, [])
