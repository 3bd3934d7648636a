"""Runs whose stages train adapters."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_fixtures import metrics, small_recipe, temporary

from reasonloop import config
from reasonloop.config import LoraSettings, Optimizer, Ppo, Recipe
from reasonloop.errors import RunError
from reasonloop.execute import execute
from reasonloop.learner.critic import Critic
from reasonloop.methods import plan
from reasonloop.policy import adapters
from reasonloop.policy.policy import Policy
from reasonloop.stages import adapted
from reasonloop.study.earlier import recorded

SMALL = ["keep_checkpoints=true", "eval.samples=2", "rl.steps=2", "rloop.vanilla=false", "eval.explored=false"]
RLOOP = ["lora.rank=2", "lora.rft.rank=3", "rl.learning_rate=1e-3", "rft.learning_rate=3e-3"]


def recipe(*changes: str) -> Recipe:
    return config.load(small_recipe(temporary()), [*SMALL, *changes])


@functools.cache
def run(*changes: str) -> Path:
    folder = temporary() / f"lora-{abs(hash(changes))}"
    execute(recipe(*changes), folder, show=False)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return dict(Policy.load(folder).model.named_parameters())


def told(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "adapter_config.json").read_text())  # type: ignore[no-any-return]


def test_rloop_delivers_its_model_and_one_adapter_of_the_base() -> None:
    """Two iterations of RFT have trained one adapter of rank 3; the explorations' own, of rank 2, are gone."""
    folder = run(*RLOOP)
    base = recipe().model.path
    assert (told(folder / "adapter")["r"], told(folder / "adapter")["base_model_name_or_path"]) == (3, base)
    policy = Policy.load(folder / "adapter")
    plain, whole = tensors(Path(base)), tensors(folder / "model")
    for name, parameter in policy.model.named_parameters():
        torch.testing.assert_close(parameter, whole[name], rtol=0, atol=1e-6)
        change = whole[name].detach() - plain[name].detach()
        if "_proj" in name:
            assert 0 < int(torch.linalg.matrix_rank(change, atol=1e-5)) <= 3
        else:
            assert not change.any()
    explored = folder / "checkpoints" / "main-explore-1" / "adapter"
    assert (told(explored)["r"], told(explored)["base_model_name_or_path"]) == (2, "../../main-rft-0")
    first = folder / "checkpoints" / "main-rft-0" / "adapter"
    assert (told(first)["r"], told(first)["base_model_name_or_path"]) == (3, base)


def test_exploring_small_and_fine_tuning_all_weights() -> None:
    folder = run("lora.rl.rank=2", "rl.learning_rate=1e-2")
    assert (folder / "model" / "config.json").is_file()
    assert not (folder / "adapter").exists()
    assert not (folder / "checkpoints" / "main-rft-1" / "adapter").exists()
    before, after = tensors(Path(recipe().model.path)), tensors(folder / "model")
    assert not torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])


@pytest.mark.parametrize("where", ["loss", "reward"])
def test_the_reference_is_the_policy_without_its_adapter(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers as a second model's, to the bit."""
    changes = ("method=rl", "lora.rank=2", "rl.kl_coef=0.1", f"rl.kl_in={where}", "rl.learning_rate=3e-3", "rl.steps=4")
    alone = run(*changes)
    loaded: list[Policy] = []

    def second(self: Policy) -> Policy:
        loaded.append(Policy.load(recipe().model.path))
        return loaded[-1]

    monkeypatch.setattr(Policy, "without_adapter", second)
    folder = alone.with_name(f"second-{where}")
    execute(recipe(*changes), folder, show=False)
    assert len(loaded) == 1
    values = [[line.get("kl", 0.0) for line in metrics(one, stage="explore")] for one in (alone, folder)]
    assert values[0] == values[1]
    assert np.abs(values[0]).max() > 1e-3
    assert (alone / "adapter" / "adapter_model.safetensors").read_bytes() == (
        folder / "adapter" / "adapter_model.safetensors"
    ).read_bytes()


def test_no_adapter_where_the_product_stands_on_other_weights(capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(*RLOOP, "rloop.reinitialise_from=explored", "rloop.iterations=1")
    assert not (folder / "adapter").exists()
    assert "its adapter stands on weights that this run has made" in capsys.readouterr().err


def test_a_delivered_adapter_that_is_not_the_model_s_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = adapted.shutil.copytree

    def wrong(source: Path, target: Path, **options: Any) -> Any:
        found = copy(source, target, **options)
        if Path(target).name == "adapter.partial":
            path = Path(target) / "adapter_config.json"
            path.write_text(json.dumps(told(Path(target)) | {"lora_alpha": 64}))
        return found

    monkeypatch.setattr(adapted.shutil, "copytree", wrong)
    with pytest.raises(RunError, match="model and adapter: their logits differ by"):
        execute(recipe("method=sft", "lora.rank=2", "sft.learning_rate=1e-2"), tmp_path / "run", show=False)


def test_arms_depend_on_the_adapters_of_their_stages() -> None:
    def options(*changes: str) -> dict[str, dict[str, Any]]:
        found = recorded(recipe("rloop.vanilla=true", *changes)).evaluations
        return {
            name: {key: value for key, value in found[name]["depends_on"].items() if key.startswith("lora")}
            for name in ("base", "vanilla", "iteration-1-rft")
        }

    assert options() == {"base": {}, "vanilla": {}, "iteration-1-rft": {}}
    rl = {"lora.rl.rank": 2, "lora.rl.alpha": 32.0, "lora.rl.targets": "all-linear"}
    assert options("lora.rl.rank=2") == {"base": {}, "vanilla": rl, "iteration-1-rft": rl}
    assert options("lora.rl.rank=2", "lora.sft.rank=4", "lora.alpha=32") == options("lora.rl.rank=2")
    rft = {"lora.rft.rank": 4, "lora.rft.alpha": 8.0, "lora.rft.targets": ["q_proj"]}
    both = options("lora.rl.rank=2", "lora.rft.rank=4", "lora.rft.alpha=8", 'lora.rft.targets=["q_proj"]')
    assert both == {"base": {}, "vanilla": rl, "iteration-1-rft": rl | rft}


def test_a_plan_names_adapters_and_rates_that_were_not_meant_for_them() -> None:
    lines = plan(recipe(*RLOOP)).lines
    assert any("RL (dapo) with LoRA rank 2 from" in line for line in lines)
    assert any("RFT with LoRA rank 3 from main-rft-0" in line for line in lines)
    assert plan(recipe(*RLOOP)).notes() == []
    (note,) = plan(recipe("lora.rank=2", "rl.learning_rate=1e-4")).notes()
    assert note.startswith("rl.learning_rate = 0.0001, rft.learning_rate = 0.0003: ")
    assert plan(recipe()).notes() == []
    assert "LoRA" not in "".join(plan(recipe("lora.rank=2", "lora.rl.rank=0", "lora.rft.rank=0")).lines)


def test_ppo_s_critic_has_an_adapter_of_its_own() -> None:
    folder = run("method=rl", "rl.objective=ppo", "lora.rank=2", "ppo.warmup_steps=1", "rl.steps=3")
    assert told(folder / "adapter")["r"] == 2
    assert all(np.isfinite(line["value_loss"]) for line in metrics(folder, stage="explore"))
    policy = Policy.load(recipe().model.path)
    policy.adapt(LoraSettings(2))
    trunk = Critic(policy, Ppo(), Optimizer()).state()["trunk"]
    assert trunk
    assert all(adapters.is_own(name) for name in trunk)
