"""The analyses as the report shows them: known answers on made runs, and nothing made up where data is missing."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from made_arms import recorded
from make_run import make_run

from reasonloop.analysis.behaviours import countdown_behaviours
from reasonloop.records import Problem
from reasonloop.report.analyses import analyse
from reasonloop.report.behaviours import BINS, PER_BIN
from reasonloop.report.figures import Analyses, all_figures
from reasonloop.report.page import render, sentence
from reasonloop.report.run import read_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run", iterations=2, steps=9, stored_every=2)


def write(
    folder: Path, config: str, lines: list[dict[str, Any]], evals: dict[str, dict[str, Any]] | None = None
) -> Path:
    """Arms, labels and products are those that the recipe's method writes for evaluations of these names."""
    (folder / "evals").mkdir(parents=True)
    (folder / "config.toml").write_text(config)
    kept = recorded({"rloop": {"vanilla": True}} | tomllib.loads(config))
    places = [tuple(line.get(key) for key in ("branch", "iteration", "stage")) for line in lines]
    lines = [kept.keys.get(place, {}) | line for place, line in zip(places, lines, strict=True)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, evaluation in (evals or {}).items():
        record = {"name": name, **kept.evaluations[name], **evaluation}
        (folder / "evals" / f"{name}.json").write_text(json.dumps(record))
    return folder


def step(i: int, **more: Any) -> dict[str, Any]:
    return {"stage": "explore", "branch": "main", "iteration": 0, "step": i, "rollouts": 8 * i, "reward": 0.5, **more}


def evaluation(stage: str, correct: list[int], **more: Any) -> dict[str, Any]:
    problems = [{"id": str(i), "n": 32, "correct": c} for i, c in enumerate(correct)]
    metric = {"value": sum(correct) / len(correct) / 32, "ci95": [0, 1]}
    head = {"stage": stage, "branch": "main", "iteration": 0, "rollouts": 0, "split": "test", "samples": 32}
    return {**head, "metrics": {"avg@32": metric}, "problems": problems, **more}


def figures(found: Analyses) -> dict[str, dict[str, Any]]:
    return {figure["id"]: figure for figure in found.figures}


def test_a_whole_run_has_every_analysis_for_both_arms(made: Path) -> None:
    run = read_run(made)
    found = analyse(run)
    assert run.missing == []
    kinds = ("diversity", "parts", "behaviours")
    policies = ("forgetting", "gap", "spread", "scaling-avg", "scaling-pass")
    assert set(figures(found)) == {*policies, *(f"{k}-{s}" for k in kinds for s in ("main", "vanilla"))}
    assert set(found.notes) >= {"forgetting-section", "diversity-section", "behaviours-section", "stability"}


def test_the_forgetting_map_says_what_each_policy_lost(tmp_path: Path) -> None:
    base, rl = evaluation("base", [32, 32, 16, 0]), evaluation("explore", [32, 0, 0, 20], rollouts=64)
    run = read_run(write(tmp_path / "run", 'method = "rl"', [step(0)], {"base": base, "trained": rl}))
    found = analyse(run)
    trace = figures(found)["forgetting"]["traces"][0]
    assert trace["y"] == trace["x"] == ["base", "vanilla RL"]
    assert trace["z"] == [[0.0, pytest.approx(2 / 3, abs=1e-4)], [0.5, 0.0]]
    assert trace["text"] == [["0 of 3", "2 of 3"], ["1 of 2", "0 of 2"]]
    assert trace["grey"] == [[True, True], [True, True]]  # of three or two problems there is no share
    assert (
        "of 4 problems that one of its 2 evaluated policies solved, 2 are lost" in found.notes["forgetting-section"][0]
    )


def test_what_iterations_add_and_how_special_they_get(tmp_path: Path) -> None:
    config = 'method = "rloop"\n[rl]\nsteps = 2'
    lines = [step(1, right=0.9, rollouts=64), {**step(1, right=0.6, rollouts=128), "iteration": 1}]
    evals = {
        "base": evaluation("base", [0, 8, 16, 32]),
        "iteration-0-rft": evaluation("rft", [8, 8, 16, 32], rollouts=64),
        "iteration-1-rft": evaluation("rft", [16, 16, 16, 32], rollouts=128, iteration=1),
        "vanilla": evaluation("explore", [0, 0, 32, 32], rollouts=128, branch="vanilla"),
    }
    found = analyse(read_run(write(tmp_path / "run", config, lines, evals)))
    drawn = figures(found)
    vanilla, rloop = drawn["scaling-avg"]["traces"]
    assert (rloop["x"], rloop["y"]) == ([0, 1, 2], [0, 0.0625, 0.1875])
    assert (vanilla["x"], vanilla["y"]) == ([0, 2], [0, pytest.approx(0.0625)])
    assert drawn["scaling-pass"]["metric"] == "pass@32"
    assert drawn["scaling-pass"]["traces"][1]["y"] == [0, 0.25, 0.25]
    assert found.notes["scaling-section"][0].startswith("From iteration 1 to 2: avg +0.125 (")
    (spread,) = [trace for trace in drawn["spread"]["traces"] if trace["name"] == "RLoop"]
    assert spread["y"] == [pytest.approx(0.75 - 0.4375), pytest.approx(1 - 0.5), pytest.approx(1 - 0.625)]
    assert drawn["spread"]["metric"] == "pass@32 − pass@1"
    (gap,) = [trace for trace in drawn["gap"]["traces"] if trace["name"] == "RLoop"]
    # beside base the first exploration, beside the first RFT policy the second; nothing goes on from the last
    assert (gap["text"], gap["y"]) == (["base", "RLoop 1, after RFT"], [pytest.approx(0.4625), pytest.approx(0.1)])
    assert all(low <= y <= high for low, y, high in zip(gap["lo"], gap["y"], gap["hi"], strict=True))


def test_a_fall_from_the_best_is_told_and_noise_isn_t(tmp_path: Path) -> None:
    good, bad = evaluation("base", [32] * 20 + [0] * 20), evaluation("explore", [2] * 40, rollouts=64)
    fallen = read_run(write(tmp_path / "a", 'method = "rl"', [step(0)], {"base": good, "trained": bad}))
    assert any("has fallen by" in note for note in analyse(fallen).notes["overfitting"])
    same = evaluation("explore", [31] * 20 + [1] * 20, rollouts=64)
    held = read_run(write(tmp_path / "b", 'method = "rl"', [step(0)], {"base": good, "trained": same}))
    assert "overfitting" not in analyse(held).notes


def test_reward_parts_are_drawn_where_there_is_more_than_the_outcome(tmp_path: Path) -> None:
    parts = [step(i, reward_parts={"outcome": 0.5, "exploration": -0.1 * i}) for i in range(3)]
    run = read_run(write(tmp_path / "a", 'method = "rlsp"', parts))
    traces = {trace["name"]: trace for trace in figures(analyse(run))["parts-main"]["traces"]}
    assert traces["exploration"]["y"] == [0, -0.1, -0.2]
    assert traces["outcome"]["x"] == [1, 2, 3]
    outcome = [step(i, reward_parts={"outcome": 0.5}) for i in range(3)]
    assert figures(analyse(read_run(write(tmp_path / "b", 'method = "rl"', outcome)))) == {}


def test_behaviours_are_counted_in_search_traces_and_by_lexicon_elsewhere(made: Path) -> None:
    found = analyse(read_run(made))
    note = found.notes["behaviours-section"][0]
    assert "search traces" in note
    read = int(note.split("in ")[-1].split(" ")[0].replace(",", ""))
    assert 0 < read <= 2 * 2 * BINS * PER_BIN
    names = {trace["name"] for trace in figures(found)["behaviours-main"]["traces"]}
    assert names >= {"backtracking", "verification", "in wrong responses"}
    # The same from the rollouts themselves, of the one bin that holds the first step.
    from reasonloop.store.database import connect

    with connect(made) as database:
        rows = database.execute(
            "SELECT text, n_tokens, problem_id FROM rollouts WHERE branch = 'main' AND iteration = 0 AND step = 0 "
            "AND verdict = 'right'"
        ).fetchall()
    total = 0
    for text, _, problem in rows:
        numbers, target = numbers_of(problem)
        meta = {"numbers": numbers, "target": target}
        total += countdown_behaviours(Problem(id="", prompt="", meta=meta), text).behaviours["verification"]
    drawn = next(t for t in figures(found)["behaviours-main"]["traces"] if t["name"] == "verification")
    if len(rows) <= PER_BIN:
        assert drawn["y"][0] == pytest.approx(1000 * total / sum(tokens for _, tokens, _ in rows), rel=1e-4)


def numbers_of(problem: str) -> tuple[list[int], int]:
    import numpy as np

    numbers = sorted(int(n) for n in np.random.default_rng(int(problem.split("-")[1])).integers(2, 25, 4))
    return numbers, numbers[0] * numbers[1] + numbers[3] - numbers[2]


def test_natural_language_says_that_a_lexicon_counted(tmp_path: Path) -> None:
    make_run(tmp_path / "run", iterations=1, steps=3, stored_every=1)
    config = (tmp_path / "run" / "config.toml").read_text().replace('name = "countdown"', 'name = "gsm8k"')
    (tmp_path / "run" / "config.toml").write_text(config)
    assert "lexicon" in analyse(read_run(tmp_path / "run")).notes["behaviours-section"][0]


def test_spikes_and_collapses_are_counted_by_arm(tmp_path: Path) -> None:
    lines = [step(i, grad_norm=50.0 if i == 30 else 0.3, skipped_updates=0) for i in range(40)]
    note = analyse(read_run(write(tmp_path / "run", 'method = "rl"', lines))).notes["stability"][0]
    assert note.startswith("vanilla RL, 40 RL steps: 1 spike of the gradient norm")
    assert "no collapses" in note


def test_nonsense_in_the_lines_costs_an_analysis_at_most(tmp_path: Path) -> None:
    lines = [step(0, reward_parts={"a": "x", "b": None}, grad_norm="?"), {"stage": "explore"}]
    evals = {"base": {**evaluation("base", [1]), "problems": [{"id": 1}]}}
    run = read_run(write(tmp_path / "run", 'method = "rloop"', lines, evals))
    render(run)


def test_arms_that_the_report_has_never_heard_of_are_drawn_under_their_labels(tmp_path: Path) -> None:
    named = {"arm": "other", "label": "my own"}
    lines = [step(i, **named, verdicts={"right": 1, "wrong": 3}, entropy=0.5) for i in range(3)]
    evals = {"base": evaluation("base", [1, 2]), "trained": evaluation("explore", [9, 9], rollouts=64, **named)}
    run = read_run(write(tmp_path / "run", 'method = "rl"', lines, evals))
    drawn = {figure["id"]: figure for figure in all_figures(run)}
    assert {"base", "my own"} == {trace["name"] for trace in drawn["pass-at-k"]["traces"]}
    assert [trace["name"] for trace in drawn["held-out-avg"]["traces"]] == ["my own"]
    page = render(run)
    assert "Verdicts, my own" in page
    assert 'my own <span class="against">against</span> base' in page


def test_an_rlsp_run_is_called_by_its_name(tmp_path: Path) -> None:
    config = 'method = "rlsp"\n[rl]\nobjective = "ppo"\n[exploration]\nform = "length"\n'
    evals = {
        "base": evaluation("base", [1, 2]),
        "sft": evaluation("sft", [3, 4]),
        "trained": evaluation("explore", [9, 9], rollouts=64),
    }
    run = read_run(write(tmp_path / "run", config, [step(i) for i in range(4)], evals))
    page = render(run)
    assert "RLoop" not in page.split("<main>")[1].split("</main>")[0]
    assert "steps of PPO" in sentence(run)
    assert "a reward for exploration (length)" in sentence(run)
    assert 'RLSP <span class="against">against</span> SFT' in page
