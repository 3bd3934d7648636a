"""Our kernels against float64 and transformers' own modules, and what a machine without a compiler does."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sampler import Sampler, prompt
from tiny_models import tiny_policy, tokens
from torch import Tensor

from reasonloop.bench import doctor
from reasonloop.config import Sampling
from reasonloop.engine.kernel_decoder import KernelDecoder
from reasonloop.errors import InputError, RunError
from reasonloop.kernels import build as building
from reasonloop.kernels import ops as kernels
from reasonloop.kernels.ops import Panels
from reasonloop.policy.policy import Policy


@pytest.fixture(autouse=True)
def compiled() -> None:
    if kernels.library() is None:
        pytest.skip("there is no C compiler")


def relative(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 11, 12, 13, 64, 191, 193, 400])
@pytest.mark.parametrize("shape", [(1, 1), (31, 7), (32, 64), (33, 5), (100, 48)])
def test_products_are_those_of_float64(shape: tuple[int, int], rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    weight, x, given = torch.randn(shape), torch.randn(rows, shape[1]), torch.randn(shape[0]) if bias else None
    exact = torch.nn.functional.linear(x.double(), weight.double(), given.double() if given is not None else None)
    assert relative(Panels(weight, given)(x), exact) < 1e-6


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 3), (16, 8), (17, 8), (70, 33)])
def test_gated_products_are_those_of_float64(shape: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(1)
    gate, up, x = torch.randn(shape), torch.randn(shape), 4 * torch.randn(9, shape[1])
    biases = (torch.randn(shape[0]), torch.randn(shape[0])) if bias else (None, None)
    opened, risen = (
        torch.nn.functional.linear(x.double(), w.double(), b.double() if b is not None else None)
        for w, b in ((gate, biases[0]), (up, biases[1]))
    )
    assert relative(Panels(gate, biases[0], up, biases[1])(x), torch.nn.functional.silu(opened) * risen) < 1e-6


def test_silu_is_exact_to_a_few_units_in_the_last_place_wherever_it_is_not_nothing() -> None:
    x = torch.cat([torch.linspace(-80, 80, 20001), torch.tensor([0.0, -1e-30, 1e-30])])
    gate, up = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    found = Panels(gate, None, up)(torch.stack([x, torch.ones_like(x)], 1))[:, 0]
    exact = torch.nn.functional.silu(x.double())
    assert float(((found.double() - exact).abs() / exact.abs().clamp(min=1e-30)).max()) < 5e-7


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_shows(bad: float) -> None:
    policy = tiny_policy("llama")
    with torch.no_grad():
        policy.model.model.layers[0].self_attn.v_proj.weight[3, 5] = bad
    with pytest.raises(RunError, match="diverged"):
        Sampler(policy).sample([prompt("p", np.arange(4, 9, dtype=np.int32))], 1, Sampling(max_tokens=4))


def made(family: str, **changes: object) -> tuple[Policy, KernelDecoder]:
    policy = tiny_policy(family, **changes)
    forward = KernelDecoder.of(policy)
    assert forward is not None
    return policy, forward


def decoded(forward: KernelDecoder, sequences: np.ndarray) -> list[Tensor]:
    """Hidden states of every token of [B, T], decoded from nothing: a list of T tensors [B, D]."""
    rows, length = sequences.shape
    forward.begin(rows, length)
    cache = forward.cache
    for _ in forward.layers:
        cache.keys.append(torch.zeros(rows, forward.key_heads, 2 * forward.half, cache.length).transpose(2, 3))
        cache.values.append(torch.zeros(rows, forward.key_heads, cache.length, 2 * forward.half))
    with torch.inference_mode():
        return [forward.step(np.ascontiguousarray(sequences[:, t]), np.full(rows, t)).clone() for t in range(length)]


SHAPES = {
    "one head a key head": {"num_key_value_heads": 4},
    "three heads a key head": {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 12},
    "small heads": {"head_dim": 2},
    "heads wider than a vector": {"head_dim": 40},
    "an odd width": {"hidden_size": 40, "intermediate_size": 51},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_decoding_token_by_token_is_the_models_own_forward_pass(family: str, shape: str) -> None:
    changes = dict(SHAPES[shape])
    if family == "qwen2":
        changes.pop("head_dim", None)
    policy, forward = made(family, **changes)
    sequences = np.random.default_rng(0).integers(4, 90, (7, 70))
    found = torch.stack(decoded(forward, sequences), 1)
    with torch.inference_mode():
        expected = policy.model.model(input_ids=torch.from_numpy(sequences)).last_hidden_state
    assert relative(found, expected.double()) < 2e-5


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_a_rows_numbers_depend_neither_on_the_rows_beside_it_nor_on_the_threads() -> None:
    sequences = np.random.default_rng(1).integers(4, 90, (29, 20))
    torch.set_num_threads(1)
    _, forward = made("qwen3")
    alone = torch.cat([torch.stack(decoded(forward, sequences[i : i + 1]), 1) for i in range(29)])
    torch.set_num_threads(3)
    _, forward = made("qwen3")
    together = torch.stack(decoded(forward, sequences), 1)
    assert torch.equal(alone, together)


def test_rotations_that_depend_on_more_than_the_position_are_left_to_torch() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    assert KernelDecoder.of(tiny_policy("llama", rope_parameters=rope)) is None


def test_scaled_rotations_are_the_models_own() -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    policy, forward = made("llama", rope_parameters=rope)
    sequences = np.random.default_rng(2).integers(4, 90, (3, 80))
    with torch.inference_mode():
        expected = policy.model.model(input_ids=torch.from_numpy(sequences)).last_hidden_state
    assert relative(torch.stack(decoded(forward, sequences), 1), expected.double()) < 2e-5


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own, and a library that is looked for again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(building.SWITCH, raising=False)
    building._attempt.cache_clear()
    yield tmp_path / "cache" / "reasonloop"
    building._attempt.cache_clear()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its instruction sets")
@pytest.mark.parametrize("narrow", ["x86-64", "x86-64-v2", "x86-64-v3"])
@pytest.mark.usefixtures("elsewhere")
def test_processors_with_narrower_vectors_compute_the_same(narrow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = [flag for flag in building.FLAGS if flag != "-march=native"]
    monkeypatch.setattr(building, "FLAGS", (*wide, f"-march={narrow}"))
    building._attempt.cache_clear()
    if kernels.library() is None:
        pytest.skip("this compiler doesn't know it")
    assert kernels.library().panel_width() == (16 if narrow.endswith("v3") else 8)
    policy, forward = made("qwen3", head_dim=20)
    sequences = np.random.default_rng(0).integers(4, 90, (8, 70))
    with torch.inference_mode():
        expected = policy.model.model(input_ids=torch.from_numpy(sequences)).last_hidden_state
    assert relative(torch.stack(decoded(forward, sequences), 1), expected.double()) < 2e-5


def sampled() -> list[int]:
    asked = [prompt("p", tokens(np.random.default_rng(0), 6))]
    return Sampler(tiny_policy()).sample(asked, 1, Sampling(max_tokens=8))[0].response_tokens.tolist()


def test_it_is_built_once(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.library() is not None
    (file,) = elsewhere.iterdir()
    building._attempt.cache_clear()
    monkeypatch.setattr(building, "_built", lambda *_: pytest.fail("built again"))
    assert kernels.library() is not None
    assert file.suffix == ".so"


def test_other_source_is_another_library(elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels.library()
    other = tmp_path / "kernels.c"
    other.write_text(building.SOURCE.read_text() + "// changed\n")
    monkeypatch.setattr(building, "SOURCE", other)
    building._attempt.cache_clear()
    assert kernels.library() is not None
    assert len(list(elsewhere.iterdir())) == 2


def test_a_pipe_or_a_link_in_the_cache_is_neither_opened_nor_followed(elsewhere: Path) -> None:
    assert building._keep("kernels-a-", b"a library") == ""
    (file,) = elsewhere.iterdir()
    assert building._kept("kernels-a-") == b"a library"
    file.rename(elsewhere / "other")
    file.symlink_to(elsewhere / "other")
    assert building._kept("kernels-a-") is None
    file.unlink()
    os.mkfifo(file)
    assert building._kept("kernels-a-") is None


@pytest.mark.parametrize("hindrance", ["nothing can be written", "cut short", "others may write to it", "another's"])
def test_whatever_is_in_the_cache_there_is_a_library_and_nothing_foreign_is_loaded(
    hindrance: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kernels.library()
    if hindrance == "nothing can be written":
        shutil.rmtree(elsewhere.parent)
        elsewhere.parent.write_text("a file, where a folder should be")
    else:
        (file,) = elsewhere.iterdir()
        if hindrance == "cut short":
            file.write_bytes(file.read_bytes()[:1000])  # what is loaded is a copy
        elif hindrance == "others may write to it":
            file.chmod(0o666)
        elif os.geteuid() == 0:
            os.chown(file, 12345, -1)
        else:
            pytest.skip("only root can make another's file")
    built: list[str] = []
    monkeypatch.setattr(
        building, "_built", lambda program, build=building._built: built.append(program) or build(program)
    )
    building._attempt.cache_clear()
    assert kernels.library().panel_width() == before.panel_width()
    assert len(built) == 1
    unkept = hindrance == "nothing can be written"
    assert bool(building.unkept()) == ("built anew by every command" in building.advice()) == unkept
    assert doctor.own_kernels().status == ("advice" if unkept else "ok")
    if hindrance in ("cut short", "others may write to it"):
        (file,) = elsewhere.iterdir()
        assert file.stat().st_mode & 0o022 == 0
        building._attempt.cache_clear()
        assert kernels.library() is not None
        assert len(built) == 1


@pytest.mark.parametrize("memory", ["none", "not executed"])
def test_where_memory_is_no_place_for_a_library_a_file_is_that_is_gone_at_once(
    memory: str, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(name: str) -> int:
        raise PermissionError(13, "vm.memfd_noexec")

    expected = sampled()
    if memory == "none":
        monkeypatch.delattr(building.os, "memfd_create")
    else:
        monkeypatch.setattr(building.os, "memfd_create", refused)
    building._attempt.cache_clear()
    assert kernels.library() is not None
    assert not Path(kernels.library()._name).exists()
    assert sampled() == expected


def test_the_switch_turns_it_off_or_names_the_library(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels.library()
    (file,) = elsewhere.iterdir()
    monkeypatch.chdir(elsewhere)
    for told in (file.name, "off"):
        monkeypatch.setenv(building.SWITCH, told)
        building._attempt.cache_clear()
        assert kernels.library() is None if told == "off" else kernels.library()._name == str(file)
    assert building.lack() == "switched off (REASONLOOP_KERNELS=off)"
    assert building.advice() == ""  # whoever did that knows
    assert building.described() == "none"
    other = tmp_path / "kernels.c"
    other.write_text(building.SOURCE.read_text() + "// changed\n")
    for told, source in ((tmp_path / "missing.so", building.SOURCE), (file, other)):
        monkeypatch.setattr(building, "SOURCE", source)
        monkeypatch.setenv(building.SWITCH, str(told))
        building._attempt.cache_clear()
        with pytest.raises(InputError, match=r"REASONLOOP_KERNELS=.*\.so: expected 'off' or a library"):
            building.library()


@pytest.mark.parametrize("lack", ["no compiler", "source it can't compile"])
def test_without_it_torch_samples_the_same(
    lack: str, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sampled()
    shutil.rmtree(elsewhere.parent)
    if lack == "no compiler":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        broken = tmp_path / "kernels.c"
        broken.write_text("int panel_width(void) {")
        monkeypatch.setattr(building, "SOURCE", broken)
    building._attempt.cache_clear()
    assert kernels.library() is None
    assert {"no compiler": "no C compiler"}.get(lack, "error: expected") in building.lack()
    assert doctor.own_kernels().status == "missing"
    assert building.lack() in building.advice()
    assert sampled() == expected
    assert not elsewhere.is_dir() or not list(elsewhere.iterdir())
