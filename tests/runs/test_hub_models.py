"""Runs and studies from models of the hub: the commit that they began with is the one that they go on with."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, Repository, again, asked
from run_fixtures import outcome, random_model, small_recipe, weak_model

from reasonloop import config
from reasonloop.config import LoraSettings
from reasonloop.errors import InputError
from reasonloop.execute import dry_run, execute
from reasonloop.policy.hub import HubName, commit_of
from reasonloop.policy.policy import Policy
from reasonloop.runs.models import commits_of, pinned
from reasonloop.stages.live import LiveStages
from reasonloop.study.definition import checked_arms, load_study
from reasonloop.study.pins import pins_of

FAST = ["method=rl", "rl.steps=1", "sft.before=false"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with asked(tmp_path, monkeypatch) as found:
        found.repositories["owner/weak"] = Repository()
        found.repositories["owner/weak"].put(weak_model())
        yield found


class Killed(BaseException):
    pass


def test_a_run_goes_on_with_the_commit_that_it_began_with(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = hub.repositories["owner/weak"].branches["main"]
    local = config.load(small_recipe(Path()), FAST)
    recipe = config.load(small_recipe(Path()), [*FAST, "model.path=owner/weak"])
    dry_run(recipe, Path("run"))
    assert f"# model owner/weak: the hub's commit {commit}, 0.00 GB of weights" in capsys.readouterr().out
    assert "model.safetensors" not in hub.files()
    with monkeypatch.context() as patch:

        def killed(*arguments: object) -> None:
            raise Killed

        patch.setattr(LiveStages, "explore", killed)
        with pytest.raises(Killed):
            execute(recipe, Path("run"), show=False)
    assert tomllib.loads(Path("run/config.toml").read_text())["ran_on"]["commits"] == {"owner/weak": commit}
    hub.repositories["owner/weak"].put(random_model())
    again()
    execute(recipe, Path("run"), show=False)
    execute(local, Path("local"), show=False)
    found, expected = outcome(Path("run")), outcome(Path("local"))
    assert found.keys() == expected.keys()
    for name in ("metrics.jsonl", "model/model.safetensors"):
        assert found[name] == expected[name]
    execute(recipe, Path("run"), show=False)  # it is done; nothing is asked
    other = config.load(small_recipe(Path()), [*FAST, "model.path=owner/weak", "model.revision=v2"])
    with pytest.raises(InputError, match=r"model\.revision = unset there, 'v2' here"):
        execute(other, Path("run"))


def test_a_run_knows_the_commit_beneath_an_adapter(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy.load("owner/weak")
    policy.adapt(LoraSettings(2), base="owner/weak")
    policy.save_adapter(Path("adapter"))
    commit = hub.repositories["owner/weak"].branches["main"]
    recipe = config.load(small_recipe(Path()), [*FAST, "model.path=adapter"])
    assert commits_of(recipe) == {"owner/weak": commit}
    hub.repositories["owner/weak"].put(random_model())
    again()
    assert pinned(recipe, {"owner/weak": commit}) == recipe
    assert commit_of(HubName("owner/weak")) == commit
    again()
    pinned(recipe, {})  # begun when nothing was kept of it
    assert commit_of(HubName("owner/weak")) != commit


def test_a_run_from_a_folder_never_goes_on_from_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("owner").mkdir()
    Path("owner/weak").symlink_to(weak_model())
    recipe = config.load(small_recipe(Path()), [*FAST, "model.path=owner/weak"])

    def killed(*arguments: object, **options: object) -> None:
        raise Killed

    monkeypatch.setattr(LiveStages, "evaluate", killed)
    with pytest.raises(Killed):
        execute(recipe, Path("run"), show=False)
    Path("owner/weak").unlink()
    Path("owner").rmdir()
    with pytest.raises(InputError, match="owner/weak: the run began with a folder of this name"):
        execute(recipe, Path("run"), show=False)
    assert hub.asked == []


def test_a_studys_runs_have_one_commit(hub: Hub) -> None:
    commit = hub.repositories["owner/weak"].branches["main"]
    small_recipe(Path())
    Path("study.toml").write_text(
        'recipe = "small.toml"\nseeds = [0, 1]\n[arms]\nhub = ["model.path=owner/weak"]\nlocal = []\n'
    )
    study = load_study(Path("study.toml"))
    plans = checked_arms(study)
    pins = pins_of(study, plans, Path("runs"))
    assert pins == {"hub": [f'model.revision="{commit}"']}
    Path("runs/hub-0").mkdir(parents=True)
    made = config.load(Path("small.toml"), ["model.path=owner/weak", *pins["hub"]])
    Path("runs/hub-0/config.toml").write_text(config.dumps(made))
    hub.repositories["owner/weak"].put(random_model())
    again()
    assert pins_of(study, plans, Path("runs")) == pins
    assert pins_of(study, plans, Path("elsewhere")) != pins
