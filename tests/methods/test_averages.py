"""Averages of what an arm trained with what it began with: the weights, which is delivered, and what stands of it where."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_fixtures import command, metrics, outcome, small_recipe, temporary
from safetensors.numpy import load_file
from tiny_models import tiny_policy

from reasonloop import config
from reasonloop.cli import main
from reasonloop.compare.arms import read_arms
from reasonloop.methods import plan
from reasonloop.report.headline import headline
from reasonloop.report.page import write_report
from reasonloop.report.run import read_run
from reasonloop.stages.average import move

AVERAGES = ("average.weights=[0.5, 0.25]", "average.deliver=probe")
SHORT = ("rl.steps=2", "eval.explored=false")


def argv(out: Path, *options: str) -> list[str | Path]:
    return ["run", small_recipe(temporary()), *SHORT, *options, "--out", out]


def run(folder: Path, *options: str) -> Path:
    assert main([str(word) for word in argv(folder / "run", *options)]) == 0
    return folder / "run"


@functools.cache
def whole() -> Path:
    folder = temporary() / "averages"
    folder.mkdir()
    return run(folder, *AVERAGES, "keep_checkpoints=true")


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def evaluation(out: Path, name: str) -> dict[str, Any]:
    return json.loads((out / "evals" / f"{name}.json").read_text())


def passed(out: Path, name: str) -> float:
    found = evaluation(out, f"{name}-probe")
    assert found["split"] == "probe"
    return found["metrics"]["pass@4"]["value"]


ARMS = {"main": ("iteration-1-rft", "main-rft-1"), "vanilla": ("vanilla", "vanilla-explore-0")}
"""Evaluation and checkpoint of what each arm ends with"""


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("weight", [0.25, 0.5])
def test_weights_are_the_averages(arm: str, weight: float) -> None:
    out, stage = whole(), ARMS[arm][1]
    base = load_file(Path(config.load(small_recipe(temporary()), []).model.path) / "model.safetensors")
    trained, found = (
        weights(out / "checkpoints" / name) for name in (stage, re.sub(r"-(\d)$", rf"-x-{weight:g}-\1", stage))
    )
    assert found.keys() == trained.keys()
    for name, value in found.items():
        exact = base[name].astype(np.float64) * (1 - weight) + trained[name].astype(np.float64) * weight
        np.testing.assert_allclose(value, exact, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("arm", ARMS)
def test_the_largest_weight_that_keeps_the_probes_pass_at_k_is_chosen(arm: str) -> None:
    out, name = whole(), ARMS[arm][0]
    names = {1.0: name, 0.5: f"{name}-x-0.5", 0.25: f"{name}-x-0.25"}
    kept = [w for w, own in names.items() if passed(out, own) >= passed(out, "base")]
    chosen = max(kept, default=0.25)
    found = evaluation(out, f"{name}-averaged")
    assert found["label"].endswith(f", averaged ({chosen:g})")
    assert found["problems"] == evaluation(out, names[chosen])["problems"]
    assert found["depends_on"]["average.weights"] == [0.25, 0.5]
    if arm == "main":
        assert found["product"]
        stage = ARMS[arm][1] if chosen == 1 else f"main-rft-x-{chosen:g}-1"
        assert (out / "model/model.safetensors").read_bytes() == (
            out / "checkpoints" / stage / "model.safetensors"
        ).read_bytes()


def test_there_is_one_product() -> None:
    results = read_run(whole()).evals
    assert [e["name"] for e in results if e.get("product")] == ["iteration-1-rft-averaged"]


def test_nothing_else_comes_out_otherwise(tmp_path: Path) -> None:
    """Rollouts, metrics and evaluations of a run without averages are among those of one with them."""
    plain, ours = outcome(run(tmp_path, "keep_checkpoints=true")), outcome(whole())
    assert plain.keys() <= ours.keys()
    for name in plain.keys() - {"metrics.jsonl", "digests.jsonl", "inputs.json"}:
        if name.startswith(("trajectories/", "checkpoints/")) or name.endswith(".parquet"):
            assert plain[name] == ours[name], name
    steps = [line for line in plain["metrics.jsonl"] if line["stage"] != "eval"]
    assert steps == [line for line in ours["metrics.jsonl"] if line["stage"] != "eval"]
    assert plain["evals/iteration-1-rft.json"]["product"] is True
    assert plain["evals/iteration-1-rft.json"]["problems"] == ours["evals/iteration-1-rft.json"]["problems"]


def test_without_a_choice_what_was_trained_is_delivered(tmp_path: Path) -> None:
    out = run(tmp_path, "average.weights=[0.5]", "keep_checkpoints=true")
    assert weights(out / "model").keys() == weights(out / "checkpoints" / "main-rft-1").keys()
    assert (out / "model/model.safetensors").read_bytes() == (
        out / "checkpoints/main-rft-1/model.safetensors"
    ).read_bytes()
    assert evaluation(out, "iteration-1-rft")["product"]
    assert not [path for path in (out / "evals").iterdir() if "probe" in path.name or "averaged" in path.name]


@pytest.mark.parametrize("method", ["rl", "sft", "rlsp"])
def test_every_method_has_them(method: str, tmp_path: Path) -> None:
    also = ("rlsp.vanilla=true", "rl.objective=rloo") if method == "rlsp" else ()
    out = run(tmp_path, f"method={method}", *AVERAGES, "keep_checkpoints=true", *also)
    (product,) = [e for e in read_run(out).evals if e.get("product")]
    assert product["arm"].endswith(" averaged")
    assert product["split"] == "test"
    start = "sft" if method == "rlsp" else "base"
    assert passed(out, start) >= 0  # what RLSP's RL begins with is what SFT made


def test_an_averaged_product_is_no_adapter(tmp_path: Path) -> None:
    out = run(tmp_path, *AVERAGES, "method=rl", "lora.rank=2", "rl.learning_rate=1e-2")
    found = evaluation(out, "trained-averaged")
    assert (out / "adapter").is_dir() == found["label"].endswith("(1)")


def test_on_the_probe_alone_nothing_is_evaluated_twice(tmp_path: Path) -> None:
    out = run(tmp_path, *AVERAGES, "method=rl", "eval.split=probe")
    assert sorted(path.stem for path in (out / "evals").glob("*.json")) == [
        *("base", "trained", "trained-averaged", "trained-x-0.25", "trained-x-0.5"),
    ]


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    asked = argv(tmp_path / "run", *AVERAGES, "keep_checkpoints=true")
    for below in ("checkpoints/main-rft-x-0.5-1", "evals/iteration-1-rft-x-0.25-probe", "model"):
        command(asked, log=tmp_path / "log", watched=tmp_path / "run" / below, kill_at=1)
    assert command(asked, log=tmp_path / "log") == 0, (tmp_path / "log").read_text()
    found, expected = outcome(tmp_path / "run"), outcome(whole())
    assert [name for name in {*found, *expected} if found.get(name) != expected.get(name)] == []


# what reads it


def test_tables_have_every_weight_and_plots_the_chosen_one_alone(tmp_path: Path) -> None:
    data = read_run(whole())
    assert "main averaged" in data.arms
    assert not any(" x " in arm for arm in data.arms)
    page = write_report(whole(), tmp_path / "page.html").read_text()
    for label in ("RLoop 2, after RFT x 0.25", "vanilla RL x 0.5", "RLoop 2, after RFT, averaged ("):
        assert label in page
    first = headline(data)[0]
    assert "after RFT, averaged (" in first
    assert "vanilla RL, averaged (" in first
    assert {line["split"] for line in metrics(whole(), stage="eval") if "split" in line} <= {"test"}
    assert not [line for line in metrics(whole(), stage="eval") if line["name"].endswith("-probe")]


def test_comparisons_name_them(tmp_path: Path) -> None:
    names = [arm.name for arm in read_arms([str(whole())]).arms]
    assert names == [
        *("rloop averaged", "rloop", "rloop x 0.25", "rloop x 0.5"),
        *("vanilla", "vanilla averaged", "vanilla x 0.25", "vanilla x 0.5", "base"),
    ]
    named = [arm.name for arm in read_arms([f"ours={whole()}"]).arms]
    assert named[:4] == ["ours", "ours x 0.25", "ours x 0.5", "ours x 1"]
    assert len(set(named)) == len(names)


# what is said before


def test_a_plan_counts_them() -> None:
    recipe = config.load(small_recipe(temporary()), [*SHORT, *AVERAGES])
    ours = plan(recipe, {"test": 5, "probe": 5, "train": 8})
    assert sum(line.startswith("average ") for line in ours.lines) == 4
    names = [one.name for one in ours.stages if one.kind == "evaluate"]
    assert len(names) == len(set(names))
    assert names.count("base-probe") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["average.weights=[0.5,1.0]"], "above 0 and below 1"),
        (["average.weights=[0]"], "above 0 and below 1"),
        (["average.deliver=probe"], "nothing to choose from"),
        ([*AVERAGES, "method=rl", "rl.keep_best=true", "rl.probe_every=1"], "each delivers another policy"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(word) for word in argv(tmp_path / "run", *options)]) == 2
    told = capsys.readouterr().err.strip()
    assert said in told
    assert "\n" not in told
    assert not (tmp_path / "run").exists()


def test_policies_of_other_shapes_have_no_average() -> None:
    with pytest.raises(ValueError, match="no average"):
        move(tiny_policy("llama"), tiny_policy("qwen3"), 0.5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_averages_are_rounded_once(dtype: str) -> None:
    one, other = (tiny_policy("llama", seed=seed) for seed in (0, 1))
    for policy in (one, other):
        policy.compute_in(dtype)
    both = zip(one.model.parameters(), other.model.parameters(), strict=True)
    exact = [(0.3 * own.double() + 0.7 * start.double()).to(own.dtype) for own, start in both]
    move(one, other, 0.3)
    for value, right in zip(one.model.parameters(), exact, strict=True):
        torch.testing.assert_close(
            value.detach(), right.detach(), rtol=1e-2 if dtype == "bfloat16" else 1e-6, atol=1e-9
        )
