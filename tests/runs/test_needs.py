"""What a run needs: memory and disk by plan, against what real stages take; what is refused, and what would make it fit."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from run_fixtures import small_recipe, weak_model

import reasonloop.runs.fit as fit
import reasonloop.written.ledger as ledger
from reasonloop import config
from reasonloop.cli import main
from reasonloop.config import Recipe
from reasonloop.errors import InputError
from reasonloop.machine import room
from reasonloop.machine.devices import device_named
from reasonloop.machine.room import Gpu, Room
from reasonloop.methods import plan
from reasonloop.policy.loading import shape_of
from reasonloop.policy.shape import Shape
from reasonloop.runs.hours import hours
from reasonloop.runs.needs import Plan, disk, memory

QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}
"""Qwen2.5-0.5B-Instruct's config.json, as far as it is read: 494M weights"""


ONE_GPU = [
    name
    for name in config.bundled_recipes()
    if name.startswith("scale/") and not config.load(config.recipe_file(Path(name))).plan.devices
]
"""Recipes for one GPU"""


def planned(device: str = "cuda", **options: Any) -> Plan:
    table = {
        "method": "rl",
        "sampling.max_tokens": 512,
        **{key.replace("__", "."): value for key, value in options.items()},
    }
    recipe = config.parse({}, [f"{key}={json.dumps(value)}" for key, value in table.items()], "recipe")
    shape = Shape.of(QWEN)
    assert shape is not None
    return Plan.of(recipe, plan(recipe, {"train": 7473, "test": 1319}), shape, device, 2, 900)


def most(chosen: Plan) -> float:
    return max(need.bytes for need in memory(chosen))


def test_a_shape_without_weights_is_that_of_the_model() -> None:
    shape = Shape.of(QWEN)
    assert shape is not None
    assert shape.count == pytest.approx(494_032_768, rel=1e-3)
    assert shape.cost.keys == 2 * 24 * 2 * 64
    assert Shape.of({"model_type": "mamba"}) is None


def test_the_bundled_models_shape_is_what_its_modules_have() -> None:
    from reasonloop.bench.ceilings import cost_of
    from reasonloop.policy.policy import Policy

    shape, own = shape_of("countdown"), cost_of(Policy.load("countdown").model)
    assert shape is not None
    assert (shape.cost.head, shape.cost.attention, shape.cost.keys) == (own.head, own.attention, own.keys)
    assert shape.cost.body == pytest.approx(own.body, rel=2e-3)


@pytest.mark.parametrize(
    "less",
    [
        {"optimizer__microbatch_tokens": 2048},
        {"model__gradient_checkpointing": True},
        {"optimizer__state": "8bit"},
        {"lora__rank": 16},
    ],
    ids=str,
)
def test_each_remedy_needs_less(less: dict[str, Any]) -> None:
    assert most(planned(**less)) < 0.97 * most(planned())


def test_full_training_keeps_eighteen_bytes_a_weight_and_an_adapter_two() -> None:
    full, small = (next(n for n in memory(planned(**o)) if "update" in n.stage) for o in ({}, {"lora__rank": 1}))
    count = planned().shape.count
    assert full.certain == 18 * count  # bfloat16 weights, float32 masters and gradients, two moments
    assert small.certain < 2.1 * count


def test_what_cannot_fit_is_refused_with_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A GPU of 6 GiB; the model's folder has no weights, but its configuration."""
    (tmp_path / "qwen").mkdir()
    (tmp_path / "qwen" / "config.json").write_text(json.dumps(QWEN))
    (tmp_path / "qwen" / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(fit, "_cpu_build", lambda: False)
    monkeypatch.setattr(room, "gpus", lambda: (Gpu("NVIDIA H100 80GB HBM3", Room(6 << 30, 6 << 30)),))
    out = tmp_path / "run"
    argv = ["run", "quickstart", f"model.path={tmp_path / 'qwen'}", "--dry-run", "--out", str(out)]
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert "for weights + masters + optimizer + gradients alone, NVIDIA H100 80GB HBM3 has 6.0 GiB in all" in said
    assert said.strip().endswith("it fits with optimizer.state=8bit")
    assert not out.exists()
    monkeypatch.setattr(room, "gpus", lambda: (Gpu("NVIDIA H100 80GB HBM3", Room(9 << 30, 80 << 30)),))
    assert main(argv) == 0
    said = capsys.readouterr().out
    (note,) = (line for line in said.splitlines() if "note:" in line)
    assert note.startswith("# note: exploration, update may need")
    assert note.endswith(
        "it fits with optimizer.state=8bit model.gradient_checkpointing=true optimizer.microbatch_tokens=512"
    )
    assert "on NVIDIA H100 80GB HBM3 (an estimate from data sheets, never run" in said


def test_ranks_of_torchrun_need_a_share_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: list[str]
) -> None:
    """A GPU of 8 GiB is too small for 18 bytes of 494M weights, and large enough for a rank of four."""
    monkeypatch.setattr(fit, "_cpu_build", lambda: False)
    monkeypatch.setattr(room, "gpus", lambda: (Gpu("NVIDIA H100 80GB HBM3", Room(8 << 30, 8 << 30)),))
    recipe = config.load(config.recipe_file(Path("scale/qwen2.5-0.5b")), elsewhere)
    dry = plan(recipe, {"train": 400, "test": 20})
    with pytest.raises(InputError, match="alone, NVIDIA H100 80GB HBM3 has 8"):
        fit.needs_noted(recipe, dry, tmp_path, None)
    for name, value in {"RANK": 0, "WORLD_SIZE": 4, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 4}.items():
        monkeypatch.setenv(name, str(value))
    fit.needs_noted(recipe, dry, tmp_path, None)
    needs = fit.needs_of(recipe, dry, tmp_path, None)
    assert needs is not None
    update = next(need for need in needs.memory if "update" in need.stage)
    assert update.certain == pytest.approx((2 + 16 / 4) * needs.plan.shape.count)


def test_a_disk_that_is_too_small_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "disk", lambda folder: Room(1 << 20, 2 << 20))
    assert main(["run", "quickstart", "--out", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "run").exists()


PLANS = {
    "rloop": [],
    "rlsp, ppo": ["method=rlsp", "rl.objective=ppo", "rlsp.vanilla=true", "rl.steps=4", "ppo.warmup_steps=1"],
    "bfloat16": ["model.dtype=bfloat16", "rloop.iterations=1"],
    "early stopping": ["method=rl", "rl.keep_best=true", "rl.probe_every=1"],
    "kept": ["keep_checkpoints=true"],
}


@pytest.mark.parametrize("name", PLANS)
def test_checkpoints_take_what_was_planned(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest sum of all files in checkpoints/ as a run goes on, links counted once; a tokenizer is a few KB."""
    file, out, found = small_recipe(tmp_path), tmp_path / "run", [0.0]

    def looked(partial: Path, folder: Path, do: Any = ledger.replace_folder) -> None:
        inodes = {path.stat().st_ino: path.stat().st_size for path in folder.parent.rglob("*") if path.is_file()}
        found[0] = max(found[0], sum(size for size in inodes.values() if size > 30_000))
        do(partial, folder)

    monkeypatch.setattr(ledger, "replace_folder", looked)
    assert main(["run", str(file), *PLANS[name], "--out", str(out)]) == 0
    recipe = Recipe.model_validate(
        {k: v for k, v in tomllib.loads((out / "config.toml").read_text()).items() if k != "ran_on"}
    )
    shape = shape_of(str(weak_model()))
    assert shape is not None
    asked = Plan.of(recipe, plan(recipe, {"train": 20, "test": 5, "probe": 2}), shape, "cpu", 1, 20)
    assert found[0] == pytest.approx(disk(asked).checkpoints, rel=0.12)
    left = sum(path.stat().st_size for path in (out / "checkpoints").rglob("*.safetensors"))
    left += (out / "model" / "model.safetensors").stat().st_size * (not left)
    assert left == pytest.approx(disk(asked).left, rel=0.12)


def test_memory_is_what_real_stages_were_measured_to_take() -> None:
    """benchmarks/results/memory.json: peaks of real stages in processes of their own."""
    result = json.loads(Path("benchmarks/results/memory.json").read_text())
    for row in result["stages"]:
        assert row["planned"] == pytest.approx(row["measured"], rel=0.5), row


def test_devices_are_known_by_the_names_that_drivers_give() -> None:
    named = {
        "NVIDIA H100 80GB HBM3": "H100",
        "NVIDIA H100 PCIe": "H100 PCIe",
        "NVIDIA H200": "H200",
        "NVIDIA A100-SXM4-40GB": "A100-SXM4-40GB",
        "NVIDIA A100-SXM4-80GB": "A100",
        "NVIDIA GeForce RTX 4090": "RTX 4090",
        "NVIDIA L4": "L4",
        "NVIDIA L40S": "L40S",
    }
    for name, expected in named.items():
        device = device_named(name)
        assert device is not None
        assert device.name == expected
    assert device_named("NVIDIA GeForce GTX 1060") is None


def test_hours_fall_with_a_faster_device_and_grow_with_the_work() -> None:
    fast, slow = device_named("H100"), device_named("L4")
    assert fast is not None
    assert slow is not None
    some, more = planned(), planned(rl__steps=200)
    assert 0 < (hours(some, fast) or 0) < (hours(some, slow) or 0) < (hours(more, slow) or 0)


def told(argv: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(argv) == 0
    return [line.removeprefix("# ") for line in capsys.readouterr().out.splitlines() if line.startswith("# ")]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What stands in for the hub's model and GSM8K's files: the model's real configuration, without weights."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "config.json").write_text(json.dumps(QWEN))
    (folder / "tokenizer.json").write_text("{}")
    for split, count in (("train", 400), ("test", 20)):
        rows = [{"question": f"{split}: {i} and 7 more are how many?", "answer": f"#### {i + 7}"} for i in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [f"model.path={folder}", f"task.folder={folder}"]


@pytest.mark.parametrize("engine", ["native", "vllm"])
@pytest.mark.parametrize("name", ONE_GPU)
def test_recipes_for_one_gpu_tell_plan_memory_disk_and_hours(
    name: str, engine: str, elsewhere: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "run",
        name,
        "--dry-run",
        *elsewhere,
        f"engine.name={engine}",
        "model.device=cuda",
        "--out",
        str(tmp_path / "r"),
    ]
    lines = told(argv, capsys)
    assert "- RLoop: select experts of iteration 1 (success rate <= 0.5, at most 8 a problem)" in lines
    assert ("LoRA rank 8" in "".join(lines)) == name.endswith("-lora")
    (memory_line,) = (line for line in lines if line.startswith("memory, estimated, on "))
    stages = [line for line in lines if line.startswith("  exploration, update")]
    assert len(stages) == 1
    assert "optimizer" in stages[0]
    assert ("engine 29.8 GiB" in "".join(lines)) == (engine == "vllm" and "isn't here" in memory_line)
    assert any(line.startswith(f"disk, estimated, in {tmp_path / 'r'}") for line in lines)
    assert any(line.startswith("time: about ") and "an estimate" in line for line in lines)


def test_a_model_that_cannot_be_had_leaves_the_plan(
    elsewhere: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("reasonloop.policy.hub.offline", lambda: True)
    argv = ["run", "scale/qwen2.5-0.5b", "--dry-run", elsewhere[1], "--out", str(tmp_path / "run")]
    lines = told(argv, capsys)
    assert any(line.startswith("- RLoop: RL (dapo) from Qwen/Qwen2.5-0.5B-Instruct to ") for line in lines)
    assert any(line.startswith("missing: model Qwen/Qwen2.5-0.5B-Instruct: ") for line in lines)
    assert fit.UNKNOWN in lines
    assert main([*argv[:2], *argv[3:]]) == 2


def test_the_doctor_tells_a_recipes_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("reasonloop.bench.doctor.CHECKS", {})
    assert main(["doctor", "quickstart", "--json"]) == 0
    (check,) = json.loads(capsys.readouterr().out)["checks"]
    assert check["name"] == "recipe"
    assert {stage["stage"] for stage in check["data"]["memory"]} >= {"evaluation", "exploration", "RFT, update"}
    assert check["data"]["disk"]["checkpoints"] > 0 < check["data"]["hours"]
