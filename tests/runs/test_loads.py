"""A run's policies are loaded once, and never two where one does."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from run_fixtures import small_recipe

from reasonloop import config
from reasonloop.execute import execute
from reasonloop.policy.policy import Policy
from reasonloop.runs.session import Session

LOADS = {
    # each is explored, and so changed; fine-tuning and the next one's start from it need it as it was
    "method=rloop": ["weak-model", "weak-model", "main-rft-0"],
    "method=rl": ["weak-model"],
    "method=sft": ["weak-model"],
    "method=rlsp": ["weak-model"],
}


@pytest.mark.parametrize("method", sorted(LOADS))
def test_each_policy_is_loaded_once(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = config.load(small_recipe(tmp_path), [method, "rl.steps=2", "rloop.vanilla=false", "sft.demonstrations=16"])
    loads: list[str] = []
    alive: list[Any] = []
    load = Policy.load.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Policy], path: str | Path, *options: str) -> Policy:
        gc.collect()
        assert [policy for policy in alive if policy() is not None] == []
        policy: Policy = load(cls, path, *options)
        loads.append(Path(path).name)
        alive.append(weakref.ref(policy))
        return policy

    monkeypatch.setattr(Policy, "load", classmethod(counted))
    execute(recipe, tmp_path / "run", show=False)
    assert loads == LOADS[method]


def test_what_is_held_is_what_is_there(tmp_path: Path) -> None:
    run = Session(config.load(small_recipe(tmp_path), ["method=rl"]), tmp_path / "run")
    source = tmp_path / "own"
    run.policy("countdown").save(source)
    policy = run.policy(source)
    assert run.policy(str(source)) is policy
    policy.save(source)  # another folder of the same name
    again = run.policy(source)
    assert again is not policy
    next(iter(again.model.parameters())).data.add_(1.0)
    next(iter(again.model.parameters())).detach().mul_(1.0)  # changed in place
    assert run.policy(source) is not again
    taken = run.take_policy(source)
    assert run.policy(source) is not taken
    run.close()
