"""LoRA adapters: what is merged, scored, decoded, written and loaded is what peft's modules compute."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import pairs, tiny_model, tiny_policy

from reasonloop.config import LoraSettings, Optimizer, Sampling
from reasonloop.config.lora import Targets
from reasonloop.engine.decoder import TOLERANCE, ModuleDecoder, decoder_for, disagreement
from reasonloop.engine.kernel_decoder import KernelDecoder
from reasonloop.errors import InputError, RunError
from reasonloop.kernels import ops
from reasonloop.learner.batch import Example, supervised
from reasonloop.learner.local import LocalLearner
from reasonloop.policy import adapters
from reasonloop.policy.policy import Policy
from reasonloop.policy.shape import Shape

SETTINGS = LoraSettings(4)
FAMILIES = ("llama_tied", "qwen2", "gpt2")
"""A tied head, biases, and weights that lie the other way round"""


def batch(seed: int) -> list[Example]:
    return supervised(list(zip(*pairs(seed), strict=True)))


def adapted(family: str = "llama_tied", settings: LoraSettings = SETTINGS, updates: int = 2) -> Policy:
    """A policy whose adapter has learned something."""
    policy = tiny_policy(family)
    policy.adapt(settings, "test")
    learner = LocalLearner(policy, Optimizer(), Sampling())
    for seed in range(updates):
        learner.update(batch(seed), 1e-2)
    return policy


def scores(policy: Policy) -> np.ndarray:
    return np.concatenate(policy.score(*pairs(7), Sampling()))


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in policy.merged_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
def test_training_leaves_the_weights_beneath_alone(family: str) -> None:
    plain, policy = tiny_policy(family), tiny_policy(family)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        before = torch.random.get_rng_state()
        policy.adapt(SETTINGS, "here")
        assert torch.equal(torch.random.get_rng_state(), before)
    assert scores(policy).tobytes() == scores(plain).tobytes()
    learner = LocalLearner(policy, Optimizer(weight_decay=0.1), Sampling())
    assert {p.shape[0] == 4 or p.shape[1] == 4 for p in learner.parameters} == {True}
    learner.update(batch(0), 1e-2)
    assert np.abs(scores(policy) - scores(plain)).max() > 1e-2
    own = dict(plain.model.named_parameters())
    for name, parameter in policy.model.named_parameters():
        if not adapters.is_own(name):
            assert torch.equal(parameter, own[name.replace(".base_layer", "")])
    start, before = policy.without_adapter(), scores(policy)
    assert scores(start).tobytes() == scores(plain).tobytes()
    learner.update(batch(1), 1e-2)
    assert scores(start).tobytes() == scores(plain).tobytes()
    assert scores(policy).tobytes() != before.tobytes()
    mine, theirs = ({p.data_ptr() for p in one.model.parameters()} for one in (policy, start))
    assert theirs < mine  # no second model
    with torch.inference_mode():
        assert disagreement(decoder_for(start), ModuleDecoder(plain)) < TOLERANCE / 100


def test_an_adapter_begins_at_an_address() -> None:
    def drawn(address: str) -> bytes:
        policy = tiny_policy()
        policy.adapt(SETTINGS, address)
        return b"".join(p.detach().numpy().tobytes() for n, p in policy.model.named_parameters() if "lora_A" in n)

    assert drawn("a") == drawn("a") != drawn("b")
    values = np.frombuffer(drawn("a"), np.float32)
    assert 0.9 < np.abs(values).max() * 32**0.5 <= 1  # uniform within 1 / sqrt(in), of layers with 32 and 48 inputs


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_weights_are_those_of_peft(family: str) -> None:
    """Against peft's own merging of a twin, in place."""
    from peft.tuners.lora import LoraLayer

    policy, twin = adapted(family), adapted(family)
    before = scores(policy)
    found = weights(policy)
    for module in twin.model.modules():
        if isinstance(module, LoraLayer):
            module.merge()  # type: ignore[operator]
    expected = tiny_policy(family).model
    assert [*found] == [name for name, _ in expected.named_parameters()]
    beneath = {name.replace(".base_layer", ""): p for name, p in twin.model.named_parameters()}
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, beneath[name].detach(), rtol=1e-6, atol=1e-7)
    assert scores(policy).tobytes() == before.tobytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_policy_is_plain_and_merged(family: str, tmp_path: Path) -> None:
    policy = adapted(family)
    policy.save(tmp_path / "merged")
    loaded = Policy.load(tmp_path / "merged")
    assert loaded.adapter is None
    assert type(loaded.model) is type(tiny_model(family))
    for name, tensor in weights(policy).items():
        assert torch.equal(tensor, dict(loaded.model.named_parameters())[name])
    np.testing.assert_allclose(scores(loaded), scores(policy), atol=1e-4)


def test_merging_that_goes_wrong_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, weight = adapted(), adapters.weight
    monkeypatch.setattr(adapters, "weight", lambda layer: weight(layer) * 1.01)
    with pytest.raises(RunError, match="their logits differ by"):
        policy.save(tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("family", ["llama_tied", "qwen2", "qwen3"])
def test_our_kernels_decode_with_the_adapter(family: str) -> None:
    if ops.library() is None:
        pytest.skip("no compiler")
    policy = adapted(family)
    decoder = decoder_for(policy)
    assert isinstance(decoder, KernelDecoder)
    with torch.inference_mode():
        assert disagreement(decoder, ModuleDecoder(policy)) < TOLERANCE / 100
        assert disagreement(decoder, ModuleDecoder(tiny_policy(family))) > TOLERANCE


def test_bfloat16_weights_have_a_float32_adapter() -> None:
    policy = tiny_policy()
    policy.compute_in("bfloat16")
    policy.adapt(SETTINGS, "test")
    learner = LocalLearner(policy, Optimizer(), Sampling())
    assert {p.dtype for p in learner.parameters} == {torch.float32}
    before = weights(policy)
    assert np.isfinite(learner.update(batch(0), 1e-2)["grad_norm"])
    found = weights(policy)
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    assert any(not torch.equal(found[name], before[name]) for name in found)
    layer = adapters.layers(policy.model)["model.layers.0.mlp.up_proj"]
    a, b = (getattr(layer, part)["default"].weight for part in ("lora_A", "lora_B"))
    exact = layer.base_layer.weight.float() + 8.0 * (b @ a)  # alpha / rank = 8
    assert torch.equal(found["model.layers.0.mlp.up_proj.weight"], exact.to(torch.bfloat16))
    policy.compute_in("float32")
    assert np.isfinite(scores(policy)).all()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_the_formula(checkpointing: bool) -> None:
    """dL/dB = s dL/dW A^T, with dL/dW from training all weights of the merged model."""
    policy, plain = adapted(), tiny_policy("llama_tied")
    for name, tensor in weights(policy).items():
        dict(plain.model.named_parameters())[name].data.copy_(tensor)
    gradients: list[dict[str, torch.Tensor]] = []
    for one in (policy, plain):
        learner = LocalLearner(one, Optimizer(grad_clip=1e9), Sampling(), checkpointing=checkpointing)
        learner.optimizer.step = lambda: gradients.append(  # type: ignore[method-assign]
            {name: p.grad.clone() for name, p in one.model.named_parameters() if p.grad is not None}  # noqa: B023
        )
        learner.update(batch(5), 1e-3)
    own, full = gradients
    for name, layer in adapters.layers(policy.model).items():
        a, b = (getattr(layer, part)["default"].weight.detach() for part in ("lora_A", "lora_B"))
        whole = full[f"{name}.weight"] * 8.0
        torch.testing.assert_close(own[f"{name}.lora_B.default.weight"], whole @ a.T, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(own[f"{name}.lora_A.default.weight"], b.T @ whole, rtol=1e-3, atol=1e-5)


def test_ranks_in_threads_train_the_same_adapter() -> None:
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(adapted(updates=3))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(*map(scores, found), atol=1e-4)


def test_a_copy_has_an_adapter_of_its_own() -> None:
    policy = adapted()
    before, twin = scores(policy), policy.copy()
    assert twin.adapter == policy.adapter
    LocalLearner(twin, Optimizer(), Sampling()).update(batch(3), 1e-2)
    assert scores(policy).tobytes() == before.tobytes() != scores(twin).tobytes()


def test_a_learner_goes_on_from_the_adapter_alone(tmp_path: Path) -> None:
    straight = LocalLearner(adapted(), Optimizer(weight_decay=0.1), Sampling())
    straight.update(batch(2), 1e-2)
    straight.save(tmp_path, whole=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "trainer.pt"]
    policy = tiny_policy("llama_tied")
    policy.adapt(SETTINGS, "elsewhere")
    adapters.load(policy.model, tmp_path / "adapter")
    continued = LocalLearner(policy, Optimizer(weight_decay=0.1), Sampling())
    continued.load(tmp_path)
    assert continued.update(batch(4), 1e-2) == straight.update(batch(4), 1e-2)
    assert scores(continued.policy).tobytes() == scores(straight.policy).tobytes()
    other = tiny_policy("llama_tied")
    other.adapt(LoraSettings(2), "elsewhere")
    with pytest.raises(InputError, match="an adapter of another shape"):
        adapters.load(other.model, tmp_path / "adapter")


PLAIN = """
import sys, json, numpy as np, torch
from transformers import AutoModelForCausalLM
from peft import PeftModel
tokens = torch.arange(4, 40)[None]
for folder in sys.argv[1:]:
    base, adapter, merged = (f"{folder}/{name}" for name in ("base", "adapter", "merged"))
    with torch.inference_mode():
        beside = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)(tokens).logits
        whole = AutoModelForCausalLM.from_pretrained(merged)(tokens).logits
        bare = AutoModelForCausalLM.from_pretrained(base)(tokens).logits
    print(json.dumps([float((one - whole).abs().max() / whole.abs().max()) for one in (beside, bare)]))
assert "reasonloop" not in sys.modules
"""


def test_plain_peft_and_transformers_agree(tmp_path: Path) -> None:
    """Without us: the merged folder, and the base with the adapter's folder."""
    folders = [tmp_path / family for family in ("llama_tied", "gpt2")]
    for folder in folders:
        folder.mkdir()
        tiny_policy(folder.name).save(folder / "base")
        policy = adapted(folder.name)
        policy.save(folder / "merged")
        policy.save_adapter(folder / "adapter")
        config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
        assert (config["r"], config["lora_alpha"]) == (4, 32)
        assert config["target_modules"] == sorted(config["target_modules"])
    found = subprocess.run([sys.executable, "-c", PLAIN, *folders], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    for line in found.stdout.splitlines():
        beside, bare = json.loads(line)
        assert beside < 1e-5
        assert bare > 1e-2


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (["lm_head"], "lora.targets: 'lm_head': the head; expected other layers"),
        (["q_prj"], "lora.targets: 'q_prj': no layer of this model; expected linear layers"),
        (["q_proj", "norm"], "lora.targets: 'norm': a LlamaRMSNorm; expected linear layers"),
    ],
)
def test_targets_that_there_are_none_of(targets: list[str], told: str) -> None:
    with pytest.raises(InputError) as caught:
        tiny_policy().adapt(LoraSettings(4, targets=tuple(targets)))
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    "targets",
    [
        "all-linear",
        ("q_proj", "down_proj"),
        ("model.layers.0.mlp.up_proj", "q_proj"),
        ("mlp.gate_proj", "model.layers.1.self_attn.v_proj"),
    ],
)
def test_a_plan_counts_the_weights_that_there_are(targets: Targets) -> None:
    policy = tiny_policy()
    shape = Shape.of(policy.model.config.to_dict())
    assert shape is not None
    policy.adapt(LoraSettings(3, targets=targets))
    assert shape.adapter(3, targets) == sum(p.numel() for p in policy.model.parameters() if p.requires_grad)


def test_only_the_targets_are_adapted() -> None:
    policy = adapted(settings=LoraSettings(2, 4.0, ("q_proj", "down_proj")))
    names = {name.rpartition(".")[2] for name in adapters.layers(policy.model)}
    assert names == {"q_proj", "down_proj"}
    with pytest.raises(InputError, match="has an adapter already"):
        policy.adapt(SETTINGS)
    with pytest.raises(InputError, match="has no adapter"):
        tiny_policy().save_adapter("nowhere")


def test_peft_is_asked_for_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install") as caught:
        tiny_policy().adapt(SETTINGS)
    assert "\n" not in str(caught.value)
