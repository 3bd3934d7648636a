"""The report's first sentences: they say what the numbers say, and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasonloop.evaluation.metrics import summarise
from reasonloop.report.ending import ending
from reasonloop.report.headline import headline, lead, share
from reasonloop.report.page import render
from reasonloop.report.run import RunData, read_run

PROBLEMS = 60


def evaluation(arm: str, correct: list[int], **other: Any) -> dict[str, Any]:
    problems = [{"id": f"p{i}", "n": 8, "correct": c} for i, c in enumerate(correct)]
    label = {"base": "base", "vanilla": "vanilla RL", "main": "RLoop 1, after RFT"}[arm]
    record = {"name": arm, "arm": arm, "label": label, "product": arm == "main", "split": "test", "samples": 8}
    rollouts = 0 if arm == "base" else 1000
    return record | {"rollouts": rollouts, "problems": problems, "metrics": summarise(problems)} | other


def sentences(*evaluations: dict[str, Any], done: bool = True) -> list[str]:
    lines = [{"stage": "rft", "branch": "main", "iteration": 0, "step": 0, "arm": "main", "label": "RLoop"}]
    return headline(RunData(Path(), {"method": "rloop"}, lines=lines, evals=list(evaluations), done=done))


def test_who_leads_by_how_much_and_how_surely() -> None:
    """Everyday accuracy gained, problems lost: the base solves each now and then, the product half of them always."""
    base = evaluation("base", [2] * PROBLEMS)
    vanilla = evaluation("vanilla", [8, 0] * (PROBLEMS // 2))
    product = evaluation("main", [8, 0, 8, 0, 8, 8] * (PROBLEMS // 6))
    against_vanilla, against_base, seeds = sentences(base, vanilla, product)
    assert against_vanilla == (
        "RLoop is ahead of vanilla RL by 0.167 in the average (in over 99\xa0% of resamples, interval above zero) and "
        "ahead by 0.167 in pass@8 (in over 99\xa0% of resamples, interval above zero)."
    )
    assert against_base == (
        "It is ahead of the base by 0.417 in the average (in over 99\xa0% of resamples, interval above zero) and "
        "behind by 0.333 in pass@8 (in over 99\xa0% of resamples, interval below zero)."
    )
    assert "one seed" in seeds


def test_what_the_problems_leave_open_is_no_lead() -> None:
    rng = np.random.default_rng(1)
    correct = rng.integers(0, 9, PROBLEMS)
    other = np.clip(correct + rng.choice([-1, 1], PROBLEMS), 0, 8)
    first, *_ = sentences(evaluation("vanilla", correct.tolist()), evaluation("main", other.tolist()))
    assert first.startswith("RLoop and vanilla RL can't be told apart: RLoop is ")
    assert "interval holds zero" in first
    same = sentences(evaluation("vanilla", correct.tolist()), evaluation("main", correct.tolist()))[0]
    assert "level in the average and level in pass@8" in same


def test_a_lead_s_share_is_that_of_resamples_in_which_it_leads() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, (2, PROBLEMS))
    found = lead(evaluation("main", a.tolist()), evaluation("vanilla", b.tolist()), "avg@8")
    assert found is not None
    draws = rng.integers(0, PROBLEMS, (20_000, PROBLEMS))
    assert found.share == pytest.approx(((a - b)[draws].mean(1) > 0).mean(), abs=0.02)
    assert found.difference == pytest.approx((a - b).mean() / 8)
    assert [share(value) for value in (0.0, 0.5, 0.984, 1.0)] == [
        "under 1\xa0%", "50\xa0%", "98\xa0%", "over 99\xa0%"
    ]  # fmt: skip


def test_before_there_are_two_policies_there_is_nothing_to_say() -> None:
    assert sentences(evaluation("base", [1] * 9)) == []
    assert sentences() == []


def test_a_run_that_goes_on_says_so_far_and_at_which_rollouts() -> None:
    evals = [evaluation("vanilla", [1] * 9, rollouts=3000), evaluation("main", [4] * 9, product=False)]
    first, *_ = sentences(*evals, done=False)
    assert first.startswith("So far: RLoop 1, after RFT is ahead of vanilla RL by 0.375")
    assert first.endswith(", after 1,000 rollouts against 3,000.")


def test_a_finished_run_in_which_nothing_was_right_says_why_on_the_page_and_on_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "evals").mkdir()
    (tmp_path / "config.toml").write_text('method = "rloop"\n[task]\nname = "countdown"\n')
    (tmp_path / "state.json").write_text('{"stage": "done"}')
    keys = {"stage": "explore", "branch": "main", "iteration": 0, "arm": "main", "label": "RLoop", "rollouts": 128}
    line = {**keys, "step": 0, "reward": 0.0, "verdicts": {"unparseable": 128}, "cut_off": 0.1}
    select = {**keys, "stage": "select", "right": 0, "trained_on": 0}
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (line, select)))
    for arm in ("base", "main"):
        (tmp_path / "evals" / f"{arm}.json").write_text(json.dumps(evaluation(arm, [0] * 4)))
    page = render(read_run(tmp_path))
    assert '<p class="headline">Nothing was ever right, so nothing was learned.</p>' in page
    assert "Not here yet" not in page  # nothing of it will come
    assert "can't be told apart" not in page
    lines = ending(tmp_path)
    assert lines[0] == "Nothing was ever right, so nothing was learned"
    assert "  0 of 128 training rollouts were right: 128 unparseable." in lines
    assert all(text.isascii() and len(text) <= 100 for text in lines)
