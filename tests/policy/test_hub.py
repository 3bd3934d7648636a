"""Models by hub name: the hub's real client against a small hub on this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from hub_server import Hub, Repository, again, asked
from tiny_models import pairs, tiny_policy

from reasonloop.config import LoraSettings, Optimizer, Sampling
from reasonloop.errors import InputError
from reasonloop.learner.batch import supervised
from reasonloop.learner.local import LocalLearner
from reasonloop.policy import hub as client
from reasonloop.policy.codec import Codec
from reasonloop.policy.loading import context_of, files_of, resolve, weights_of
from reasonloop.policy.policy import Policy
from reasonloop.policy.stored import weight_files


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models as their authors would put them there, in several files each."""
    made = {}
    for name, seed in (("old", 1), ("new", 2)):
        made[name] = tmp_path_factory.mktemp("authors") / name
        policy = tiny_policy("qwen3", seed)
        policy.model.save_pretrained(made[name], max_shard_size="40KB")
        policy.codec.tokenizer.save_pretrained(made[name])
    return made


@pytest.fixture
def hub(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """With owner/tiny, which has the older model at v1 and the newer one at main. The cache is empty."""
    with asked(tmp_path, monkeypatch) as found:
        tiny = found.repositories["owner/tiny"] = Repository()
        tiny.put(folders["old"], "v1", **BESIDE)
        tiny.put(folders["new"], **BESIDE)
        yield found


BESIDE = {"README.md": b"about", "pytorch_model.bin": b"a pickle", "model.gguf": b"GGUF", "training_args.bin": b""}


def seed_of(policy: Policy) -> int:
    """Which of the two models it is."""
    weight = policy.model.get_input_embeddings().weight
    return next(n for n in (1, 2) if tiny_policy("qwen3", n).model.get_input_embeddings().weight.equal(weight))


def test_an_adapter_and_what_it_stands_on(hub: Hub, tmp_path: Path) -> None:
    """Both of the hub: the adapter's own weights come when it is loaded, too."""
    policy = Policy.load("owner/tiny@v1")
    policy.adapt(LoraSettings(2), base="owner/tiny@v1")
    LocalLearner(policy, Optimizer(), Sampling()).update(supervised([*zip(*pairs(0), strict=True)]), 1e-2)
    policy.save_adapter(tmp_path / "of-author")
    told = json.loads((tmp_path / "of-author" / "adapter_config.json").read_text())
    assert (told["base_model_name_or_path"], told["revision"]) == ("owner/tiny", "v1")  # as peft loads it
    hub.repositories["owner/adapter"] = Repository()
    hub.repositories["owner/adapter"].put(tmp_path / "of-author")
    loaded = Policy.load("owner/adapter")
    scores = [np.concatenate(one.score(*pairs(1), Sampling())) for one in (policy, loaded)]
    np.testing.assert_allclose(*scores, atol=1e-4)


def test_a_held_name_is_one_commit_for_an_adapter_above_it_too(
    hub: Hub, folders: dict[str, Path], tmp_path: Path
) -> None:
    policy = Policy.load("owner/tiny")
    policy.adapt(LoraSettings(2), base="owner/tiny")
    policy.save_adapter(tmp_path / "adapter")
    before, tiny = client.HubName("owner/tiny"), hub.repositories["owner/tiny"]
    commit = tiny.branches["main"]
    tiny.put(folders["old"], "main")
    again()
    assert seed_of(Policy.load(str(tmp_path / "adapter"))) == 1
    again()
    client.hold(before, commit)
    assert client.commit_of(before) == commit
    assert seed_of(Policy.load(str(tmp_path / "adapter"))) == 2


def test_weights_that_another_program_has_fetched_alone(hub: Hub) -> None:
    """A cache without a tokenizer is not whole."""
    commit = hub.repositories["owner/tiny"].branches["main"]
    Policy.load("owner/tiny", "cpu")
    for path in Path(huggingface_hub.constants.HF_HUB_CACHE).rglob(f"snapshots/{commit}/*token*"):
        path.unlink()
    again()
    assert seed_of(Policy.load(f"owner/tiny@{commit}", "cpu")) == 2


def refused(path: str, **options: str) -> str:
    with pytest.raises(InputError) as caught:
        Policy.load(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_name_is_asked_once_and_weights_come_last(hub: Hub, folders: dict[str, Path]) -> None:
    small = {"config.json", "generation_config.json", "model.safetensors.index.json"}
    small |= {"tokenizer.json", "tokenizer_config.json"}
    assert files_of("owner/tiny") == resolve("owner/tiny")
    assert context_of("owner/tiny") == 256
    assert Codec.load("owner/tiny").vocabulary == 97
    assert set(hub.files()) == small
    told = weights_of("owner/tiny")
    shards = sorted(path.name for path in folders["new"].glob("*.safetensors"))
    assert told is not None
    assert len(shards) == 3
    assert told.bytes == sum((folders["new"] / name).stat().st_size for name in shards)
    assert seed_of(Policy.load("owner/tiny", "cpu")) == 2
    assert hub.files()[5:] == shards  # and no copies in other formats
    here = weights_of("owner/tiny")
    assert here is not None
    assert here.bytes == told.bytes
    assert here.count == sum(p.numel() for p in tiny_policy("qwen3").model.parameters())
    assert sum(path.startswith("api/models") for _, path in hub.asked) == 1


def test_what_is_in_the_cache_needs_no_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    Policy.load("owner/tiny", "cpu")
    commit = hub.repositories["owner/tiny"].branches["main"]
    again()
    hub.asked.clear()
    assert seed_of(Policy.load(f"owner/tiny@{commit}", "cpu")) == 2
    assert hub.asked == []  # a commit that is there is never asked for
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    again()
    assert seed_of(Policy.load("owner/tiny", "cpu")) == 2
    assert client.commit_of(client.HubName("owner/tiny")) == commit
    told = refused("owner/tiny@v1")
    assert "can't be had (got from the hub: Connect" in told
    assert "hf download owner/tiny --revision v1 --local-dir models/tiny" in told
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    again()
    assert seed_of(Policy.load("owner/tiny", "cpu")) == 2
    assert "can't be had (HF_HUB_OFFLINE is set)" in refused("owner/tiny@v1")


def test_revisions_and_a_branch_that_moves(hub: Hub, folders: dict[str, Path]) -> None:
    tiny = hub.repositories["owner/tiny"]
    assert seed_of(Policy.load("owner/tiny@v1", "cpu")) == 1
    assert seed_of(Policy.load(f"owner/tiny@{tiny.branches['v1']}", "cpu")) == 1
    assert seed_of(Policy.load("owner/tiny", "cpu")) == 2
    tiny.put(folders["old"], "main", **{"README.md": b"taken back"})
    assert seed_of(Policy.load("owner/tiny", "cpu")) == 2  # in one process a name is one commit
    again()
    assert seed_of(Policy.load("owner/tiny", "cpu")) == 1


def test_what_the_hub_refuses(hub: Hub, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    secret = hub.repositories["owner/gated"] = Repository(gated=True)
    secret.put(folders["new"])
    assert "the hub shows none of this name; expected another name, or, for a private one, HF_TOKEN" in refused(
        "owner/x"
    )
    assert "the hub has no revision 'v9' of it; expected a branch, a tag or a commit" in refused("owner/tiny@v9")
    told = refused("owner/gated")
    assert f"accepted its terms; expected that at {hub.address}/owner/gated, and then HF_TOKEN=" in told
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    assert seed_of(Policy.load("owner/gated", "cpu")) == 2


def test_a_connection_that_breaks_is_gone_on_with(hub: Hub, folders: dict[str, Path]) -> None:
    resolve("owner/tiny")
    hub.asked.clear()
    hub.breaks[:] = [20_000]
    assert seed_of(Policy.load("owner/tiny", "cpu")) == 2
    assert len(hub.files()) == 4  # the first one in two pieces


def test_a_download_that_was_stopped_is_gone_on_with(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch, got = huggingface_hub.hf_hub_download, []

    def stopped(name: str, file: str, **options: object) -> str:
        got.append(file)
        if file.startswith("model-00002"):
            raise KeyboardInterrupt
        return fetch(name, file, **options)  # type: ignore[call-overload,no-any-return]

    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub, "hf_hub_download", stopped)
        with pytest.raises(KeyboardInterrupt):
            Policy.load("owner/tiny", "cpu")
    again()
    hub.asked.clear()
    # what is half there isn't taken for whole by a process that can't ask
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "what is kept of it on this machine is not whole" in refused("owner/tiny")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    again()
    assert seed_of(Policy.load("owner/tiny", "cpu")) == 2
    assert hub.files() == ["model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"]


def test_no_room_for_a_model(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_free", lambda folder: 30_000)
    resolve("owner/tiny")
    told = refused("owner/tiny")
    assert told.startswith("model owner/tiny: 0.1 MB to download, 0.0 MB free in ")
    assert "HF_HOME=" in told


def test_a_folder_of_that_name_wins(hub: Hub, folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["old"], tmp_path / "owner" / "tiny")
    assert seed_of(Policy.load("owner/tiny", "cpu")) == 1
    assert hub.asked == []
    assert "owner/tiny is a folder here, which has no revisions" in refused("owner/tiny@main")
    assert "owner is a folder here; a model of the Hugging Face hub of this name is hf:owner/x" in refused("owner/x")
    assert seed_of(Policy.load("hf:owner/tiny", "cpu")) == 2
    assert seed_of(Policy.load("hf:owner/tiny@v1", "cpu")) == 1


@pytest.mark.parametrize("name", ["/etc/hostname", "../../elsewhere.safetensors"])
def test_an_index_that_leads_outside_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(InputError, match="names files outside of the model's folder"):
        weight_files(tmp_path, ["model.safetensors.index.json"])
