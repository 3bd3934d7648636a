"""Folders as people have them: damaged, of two kinds, with code of their own, without what they need."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from run_fixtures import random_model
from safetensors.torch import load_file, save_file
from tiny_models import EOS, tiny_model, tiny_policy
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from reasonloop.cli import main
from reasonloop.errors import InputError
from reasonloop.policy.codec import Codec
from reasonloop.policy.finite import NotFinite
from reasonloop.policy.policy import Policy
from reasonloop.records import Problem

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123456\n"
CHAT = ({"role": "user", "content": "3 + 5"},)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(random_model(), tmp_path / "model")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["model.layers.1.mlp.down_proj.weight", "model.embed_tokens.weight"])
def test_weights_that_are_no_numbers_are_named(folder: Path, name: str, value: float) -> None:
    """Also one in the row of a token that no prompt has."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights[name][-1, 0] = value
    save_file(weights, file, {"format": "pt"})
    said = rf"model .*: 1 of the [\d,]+ weights in {name} are not finite"
    with pytest.raises(NotFinite, match=said):
        Policy.load(folder)


def test_weights_that_overflow_are_told_from_other_kinds_of_models(folder: Path) -> None:
    file = folder / "model.safetensors"
    save_file({name: weight * 1e25 for name, weight in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(NotFinite, match="too large for float32"):
        Policy.load(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "vocab.txt", "merges.txt"])
def test_git_lfs_pointers(folder: Path, name: str) -> None:
    (folder / name).write_text(POINTER)
    with pytest.raises(InputError, match=rf"{name} is a Git LFS pointer.*git -C .* lfs pull"):
        Policy.load(folder)


def test_git_lfs_pointers_of_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text(POINTER)
    with pytest.raises(InputError, match=r"model.gguf is a Git LFS pointer"):
        Policy.load(tmp_path / "model.gguf")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(random_model())}))
    (tmp_path / "adapter_model.safetensors").write_text(POINTER)
    with pytest.raises(InputError, match=r"adapter_model.safetensors is a Git LFS pointer"):
        Policy.load(tmp_path)


def test_an_error_that_goes_on_is_not_cut_off(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError) as told:
        Policy.load(folder)
    assert not str(told.value).endswith(":")


def test_a_tokenizer_of_another_family_is_read_as_its_file_has_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """AutoTokenizer would make Qwen2's of it, and lose words."""
    words = ["<pad>", "<bos>", "<eos>", "<unk>", *map(str, range(60)), "from", "+", "=", ":"]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    foreign = transformers.PreTrainedTokenizerFast(tokenizer_object=core, **names)
    Policy(tiny_model("qwen2"), foreign).save(tmp_path / "model")
    text, file = "from 3 + 21 = 24 :", Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    for codec in (Policy.load(tmp_path / "model").codec, Codec.load(tmp_path / "model")):
        assert codec.encode_prompt(Problem("p", text)).tolist() == file.encode(text).ids
    assert capsys.readouterr().err.count("AutoTokenizer makes a Qwen2Tokenizer of its tokenizer.json") == 1


def test_the_product_stops_where_sampling_does(tmp_path: Path) -> None:
    """At the tokenizer's end of sequence, too, where the model was made with another."""
    model = tiny_model("llama", eos_token_id=40)
    policy = Policy(model, tiny_policy("llama").codec.tokenizer)
    assert policy.codec.stop_tokens(()) == {EOS, 40}
    policy.save(tmp_path / "model")
    product = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert set(product.generation_config.eos_token_id) == {EOS, 40}
    with torch.no_grad():
        product.lm_head.weight.zero_()
        product.lm_head.weight[EOS] = 1.0
        product.model.norm.weight.fill_(1.0)
    ids = product.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=8, do_sample=False)[0, 3:].tolist()
    assert len(ids) == 8 or ids[-1] == EOS
    again = Policy.load(tmp_path / "model")
    again.save(tmp_path / "again")
    own = [json.loads((tmp_path / name / "generation_config.json").read_text()) for name in ("model", "again")]
    assert own[0] == own[1]


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own_llama"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own_code(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own_llama", "architectures": ["OwnForCausalLM"]}
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"{CODE}\nopen({str(tmp_path / 'ran')!r}, 'w').close()\n")
    return folder


def test_a_models_own_code_runs_only_where_it_is_trusted(own_code: Path, tmp_path: Path) -> None:
    for load in (Policy.load, Codec.load):
        with pytest.raises(InputError, match=r"its author's own Python code .* model\.trust_remote_code = true"):
            load(own_code)
    assert not (tmp_path / "ran").exists()
    policy = Policy.load(own_code, "cpu", trust_remote_code=True)
    assert (tmp_path / "ran").exists()
    assert type(policy.model).__name__ == "OwnForCausalLM"
    policy.save(tmp_path / "product")
    assert (tmp_path / "product" / "own.py").is_file()
    assert Policy.load(tmp_path / "product", "cpu", trust_remote_code=True).vocabulary == policy.vocabulary


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("from {{ messages[0]['content'] }} {% if add_generation_prompt %}={% endif %}", []),
        ("from {{ messages[0]['content'] }}", ["no generation prompt: a prompt ends with 'from 3 + 5'"]),
        (
            "from {{ messages[0]['content'] }} {% if add_generation_prompt %}={% endif %} <eos>",
            ["closes a prompt with an end-of-sequence token ('from 3 + 5 = <eos>')"],
        ),
    ],
)
def test_chat_templates_that_leave_no_room_for_a_reply(template: str, told: list[str]) -> None:
    codec = tiny_policy("llama").codec
    codec.tokenizer.chat_template = template
    found = codec.template_notes(Problem("p", messages=CHAT))
    assert len(found) == len(told)
    assert all(part in line for part, line in zip(told, found, strict=True))
    assert codec.template_notes(Problem("p", "3 + 5")) == []


def test_responses_that_nothing_ends() -> None:
    policy = tiny_policy("llama")
    assert policy.codec.end_notes(()) == []
    policy.model.generation_config.eos_token_id = None
    policy.codec.tokenizer.eos_token = None
    (line,) = policy.codec.end_notes(())
    assert "every response runs to sampling.max_tokens; sampling.stop = [...]" in line
    assert policy.codec.end_notes(("yes",)) == []


def test_a_run_says_it_at_its_start(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }} {% endfor %}")
    rows = [
        json.dumps({"messages": [{"role": "user", "content": f"{n} from {n} :"}], "answer": str(n)}) for n in range(9)
    ]
    (tmp_path / "test.jsonl").write_text("\n".join(rows) + "\n")
    task = f"{tmp_path / 'test.jsonl'}?verifier=numeric&extract=last_number"
    assert main(["sample", str(folder), "--task", task, "-n", "1", "sampling.max_tokens=8", "threads=1"]) == 0
    assert capsys.readouterr().err.count("the chat template has no generation prompt") == 1
