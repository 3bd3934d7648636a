"""Folders of adapters, as peft writes them, are models: merged when they are loaded, whatever kind they are, or refused."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from tiny_models import pairs, tiny_policy

from reasonloop.config import LoraSettings, Optimizer, Sampling
from reasonloop.errors import InputError
from reasonloop.learner.batch import supervised
from reasonloop.learner.local import LocalLearner
from reasonloop.policy.codec import Codec
from reasonloop.policy.loading import context_of, has_chat_template, load_model
from reasonloop.policy.policy import Policy

KINDS: dict[str, Any] = {
    "lora": peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False),
    "dora": peft.LoraConfig(r=4, target_modules="all-linear", use_dora=True, init_lora_weights=False),
    "rslora": peft.LoraConfig(r=4, target_modules=["q_proj"], use_rslora=True, init_lora_weights=False),
    "head and embedding": peft.LoraConfig(r=4, target_modules=["lm_head", "embed_tokens"], init_lora_weights=False),
    "whole modules": peft.LoraConfig(
        r=4, target_modules=["v_proj"], modules_to_save=["lm_head"], init_lora_weights=False
    ),
    "ia3": peft.IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], init_ia3_weights=False
    ),
    "lokr": peft.LoKrConfig(r=4, target_modules=["q_proj", "v_proj"], init_weights=False),
}


def made(folder: Path, config: Any, base: str = "../base", family: str = "llama") -> torch.Tensor:
    """A base and beside it an adapter, both by plain peft and transformers; what the two compute together."""
    policy = tiny_policy(family)
    policy.save(folder / "base")
    model, _ = load_model(folder / "base")
    torch.manual_seed(0)
    config = copy.deepcopy(config)
    config.task_type = "CAUSAL_LM"
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    adapted.save_pretrained(folder / "adapter")
    path = folder / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}))
    with torch.inference_mode():
        return adapted.eval()(torch.arange(4, 40)[None]).logits


def logits(policy: Policy) -> torch.Tensor:
    with torch.inference_mode():
        return policy.model(torch.arange(4, 40)[None]).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_merged_as_peft_computes_it(kind: str, tmp_path: Path) -> None:
    expected = made(tmp_path, KINDS[kind])
    policy = Policy.load(tmp_path / "adapter")
    torch.testing.assert_close(logits(policy), expected, rtol=1e-4, atol=1e-4)
    assert (expected - logits(Policy.load(tmp_path / "base"))).abs().max() > 1e-2
    assert not any("lora" in type(module).__module__ for module in policy.model.modules())


def test_it_is_a_whole_model_from_then_on(tmp_path: Path) -> None:
    """All of its weights learn, it takes an adapter of its own, and is written whole."""
    made(tmp_path, KINDS["lora"])
    policy = Policy.load(tmp_path / "adapter")
    assert all(parameter.requires_grad for parameter in policy.model.parameters())
    policy.adapt(LoraSettings(2))
    LocalLearner(policy, Optimizer(), Sampling()).update(supervised([*zip(*pairs(0), strict=True)]), 1e-2)
    policy.save(tmp_path / "whole")
    again = Policy.load(tmp_path / "whole")
    np.testing.assert_allclose(
        np.concatenate(again.score(*pairs(1), Sampling())),
        np.concatenate(policy.score(*pairs(1), Sampling())),
        atol=1e-4,
    )
    assert context_of(str(tmp_path / "adapter")) == 256
    assert Codec.load(tmp_path / "adapter").vocabulary == policy.vocabulary


def test_it_is_merged_in_float32_and_rounded_once(tmp_path: Path) -> None:
    made(tmp_path, KINDS["lora"])
    exact, low = (Policy.load(tmp_path / "adapter", dtype=dtype).model for dtype in ("float32", "bfloat16"))
    for one, other in zip(exact.parameters(), low.parameters(), strict=True):
        assert torch.equal(one.to(torch.bfloat16), other)
    for one, other in zip(exact.buffers(), low.buffers(), strict=True):
        assert torch.equal(one, other)


def test_the_base_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an absolute path, from the adapter's folder on, from here on, and by a bundled model's name."""
    expected = made(tmp_path, KINDS["lora"], base=str(tmp_path / "base"))
    torch.testing.assert_close(logits(Policy.load(tmp_path / "adapter")), expected, rtol=1e-4, atol=1e-4)
    monkeypatch.chdir(tmp_path)
    for base in ("../base", "base"):
        _named(Path("adapter"), base)
        torch.testing.assert_close(logits(Policy.load("adapter")), expected, rtol=1e-4, atol=1e-4)
    policy = Policy.load("countdown")
    policy.adapt(LoraSettings(2))
    policy.save_adapter("of-bundled")
    assert json.loads(Path("of-bundled/adapter_config.json").read_text())["base_model_name_or_path"] == "countdown"
    assert Policy.load("of-bundled").vocabulary == policy.vocabulary


def test_an_adapter_may_bring_its_tokenizer(tmp_path: Path) -> None:
    made(tmp_path, KINDS["lora"])
    policy = tiny_policy()
    policy.codec.tokenizer.chat_template = "of the adapter"
    policy.codec.tokenizer.save_pretrained(tmp_path / "adapter")
    assert Policy.load(tmp_path / "adapter").codec.tokenizer.chat_template == "of the adapter"
    assert Codec.load(tmp_path / "adapter").tokenizer.chat_template == "of the adapter"
    assert has_chat_template(str(tmp_path / "adapter"))
    assert not has_chat_template(str(tmp_path / "base"))


def _named(folder: Path, base: str | None) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}))


def _with_a_module(folder: Path) -> None:
    path = folder / "adapter_config.json"
    named = {"megatron_config": {"a": 1}, "megatron_core": "antigravity"}
    path.write_text(json.dumps(json.loads(path.read_text()) | named))


def _in_a_circle(folder: Path) -> None:
    _named(folder, "../other")
    shutil.copytree(folder, folder.parent / "other")
    _named(folder.parent / "other", "../adapter")


def _with_a_layer_more(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    more = {name.replace("layers.1", "layers.2"): tensor.clone() for name, tensor in tensors.items()}
    save_file(tensors | more, folder / "adapter_model.safetensors")


def _without_a_layer(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: tensor for name, tensor in tensors.items() if "q_proj" not in name}, folder / "adapter_model.safetensors"
    )


BROKEN: dict[str, tuple[Any, str]] = {
    "no base": (
        lambda folder: _named(folder, None),
        "base_model_name_or_path = None; expected the model that it stands on",
    ),
    "a base that isn't there": (
        lambda folder: _named(folder, "gone"),
        "without the model that it stands on: model gone: ",
    ),
    "itself": (
        lambda folder: _named(folder, "."),
        "base_model_name_or_path = '.'; expected the model that it stands on",
    ),
    "one that stands on it": (_in_a_circle, "an adapter that stands on itself"),
    "a layer more": (_with_a_layer_more, "cannot be merged: the model has no layer for 14 of its weights"),
    "a module to import": (_with_a_module, "names a module to be run"),
    "no weights": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "an adapter without its weights"),
    "a layer less": (_without_a_layer, "its adapter cannot be merged: Found missing adapter keys"),
    "cut off": (lambda folder: os.truncate(folder / "adapter_model.safetensors", 1000), "its adapter cannot be merged"),
    "no JSON": (lambda folder: (folder / "adapter_config.json").write_text("{"), "adapter_config.json"),
    "a whole model beside it": (
        lambda folder: shutil.copytree(folder.parent / "base", folder, dirs_exist_ok=True),
        "doesn't say whether the adapter is in the weights already",
    ),
    "another model's": (
        lambda folder: tiny_policy("gpt2").save(folder.parent / "base"),
        "its adapter cannot be merged",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_no_whole_adapter_is_refused_in_one_line(fault: str, tmp_path: Path) -> None:
    made(tmp_path, KINDS["lora"])
    BROKEN[fault][0](tmp_path / "adapter")
    with pytest.raises(InputError) as caught:
        Policy.load(tmp_path / "adapter")
    assert BROKEN[fault][1] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_kind_without_weights_is_refused(tmp_path: Path) -> None:
    made(tmp_path, peft.PromptTuningConfig(num_virtual_tokens=3))
    with pytest.raises(InputError, match="its adapter cannot be merged"):
        Policy.load(tmp_path / "adapter")


def test_peft_is_asked_for_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, KINDS["lora"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs peft, which is not installed; expected it after: pip install peft"):
        Policy.load(tmp_path / "adapter")
