"""Explorations side by side: dealt evenly, with luck of their own, the same wherever they are made, counted as one arm."""

from __future__ import annotations

import functools
import os
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_fixtures import TIMINGS, command, metrics, small_recipe, temporary

from reasonloop import config
from reasonloop.analysis.stability import explorations
from reasonloop.config import Recipe, dealt
from reasonloop.errors import InputError
from reasonloop.methods import checked_method, plan
from reasonloop.methods.rloop import product_arm
from reasonloop.records import Place
from reasonloop.report.analyses import analyse
from reasonloop.report.page import sentence
from reasonloop.report.run import read_run
from reasonloop.runs.session import Session
from reasonloop.runs.stages import Budget
from reasonloop.stages.branches import Branches
from reasonloop.stages.packed import inputs_of, packed_policy
from reasonloop.stages.remote import PREFIX, Part, job_of, parts
from reasonloop.store.experts import chosen_experts
from reasonloop.store.segments import TrajectoryStore, list_segments

OPTIONS = [
    *("rl.steps=5", "scale.branches=3", "rl.probe_every=2", "rl.kl_coef=0.1", "eval.samples=2", "rft.epochs=1"),
    "scale.vary=[[],['rl.objective=grpo','sampling.temperature=1.2'],['optimizer.weight_decay=0.1']]",
]


@pytest.fixture(scope="module")
def run() -> Path:
    """A finished run of two iterations with three branches each, made one after the other, and vanilla RL beside it."""
    out = temporary() / "branches" / "run"
    out.parent.mkdir()
    log = out.parent / "log"
    assert command(["run", recipe_file(), *OPTIONS, "--out", out], log=log) == 0, log.read_text()
    return out


@functools.cache
def recipe_file() -> Path:
    return small_recipe(temporary())


def recipe_of(*options: str) -> Recipe:
    return config.load(recipe_file(), [*OPTIONS, *options])


@given(st.integers(1, 10_000), st.integers(1, 40), st.integers(1, 64))
def test_rollouts_are_dealt_in_whole_steps_as_evenly_as_it_goes(total: int, branches: int, step: int) -> None:
    shares = dealt(total, branches, step)
    steps = [-(-share // step) for share in shares]
    assert sum(shares) == total
    assert len(shares) == min(branches, -(-total // step))
    assert max(steps) - min(steps) <= 1
    assert all(share % step == 0 for share in shares[:-1])


def test_branches_together_spend_what_one_exploration_would_and_are_one_arm(run: Path) -> None:
    store = TrajectoryStore(run / "trajectories", "run")
    for iteration in range(2):
        spent = {k: len(store.read(f"main.{k}", iteration)) for k in (1, 2, 3)}
        assert spent == {1: 32, 2: 32, 3: 16}
        own = metrics(run, iteration=iteration, stage="explore", arm="main")
        assert [(line["branch"], line["step"]) for line in own] == [
            (f"main.{k}", s) for k in (1, 2, 3) for s in range(spent[k] // 16)
        ]
        assert [line["rollouts"] - 80 * iteration for line in own] == [48, 80, 48, 80, 48]
        assert len(store.read("main", iteration)) == 80
    for line in metrics(run, stage="select"):
        assert (line["seen"], line["rollouts"]) == (80, 80 * (line["iteration"] + 1))
    assert [line["left_behind"] for line in metrics(run, stage="branches")] == [0, 0]
    assert metrics(run, stage="explore", arm="vanilla")[-1]["rollouts"] == 160
    assert not metrics(run, stage="explore", branch="main")
    assert {path.name for path in (run / "checkpoints").rglob("*") if path.is_file()} == {"stage.json"}
    assert not list((run / "evals").glob("*explored*"))


def test_each_branch_has_luck_of_its_own(run: Path) -> None:
    """Other problems in another order, and other draws for the same problem."""
    store = TrajectoryStore(run / "trajectories", "run")
    first = {k: [r for r in store.read(f"main.{k}", 0) if r.step == 0] for k in (1, 2, 3)}
    asked = {k: tuple(dict.fromkeys(r.problem_id for r in own)) for k, own in first.items()}
    assert len(set(asked.values())) == 3
    assert len({replace(own[0].place, step=0).draw(0, "a problem", 0) for own in first.values()}) == 3


def test_experts_are_chosen_over_all_branches(run: Path) -> None:
    experts = chosen_experts(recipe_of(), run, 0)
    stored = TrajectoryStore(run / "trajectories", "run").read("main", 0)
    assert (experts.seen, experts.right) == (len(stored), sum(r.right for r in stored))
    assert len({r.branch for r in experts.rollouts}) > 1


def test_the_report_has_branches_as_one_arm(run: Path) -> None:
    data = read_run(run)
    assert data.branches() == {"main": "main", "vanilla": "vanilla"}
    assert data.branch_names() == {
        **{f"main.{k}": f"RLoop, branch {k}" for k in (1, 2, 3)},
        "vanilla": "vanilla RL",
    }
    assert {arm: len(lines) for arm, lines in data.rl_steps().items()} == {"main": 10, "vanilla": 10}
    assert len(explorations(data.rl_steps()["main"])) == 6
    found = analyse(data)
    assert len({figure["id"] for figure in found.figures}) == len(found.figures)
    assert not [text for text in data.missing if "could not be" in text]
    assert "320 training rollouts" in sentence(data)


def test_what_a_branch_left_behind_would_have_spent_is_not_counted(run: Path, tmp_path: Path) -> None:
    """Branch 2 of the second iteration handed over one step of two; the branches beside it had counted on both."""
    out = tmp_path / "run"
    shutil.copytree(run, out)
    recipe = recipe_of()
    session = Session(recipe, out)
    try:
        branches = Branches(session, Place(iteration=1), product_arm(recipe), Budget(recipe.rl.rollouts))
        late = branches.each[1]
        lines = metrics(out, branch="main.2", iteration=1)
        late.finish({"step": 1, "rollouts": 16}, [one for one in lines if one["step"] == 0], left_behind=True)
        late.log_lines()
        branches.finish()
    finally:
        session.close()
    told = {
        (line["branch"], line["step"]): line["rollouts"]
        for line in metrics(out, iteration=1, stage="explore", arm="main")
    }
    assert told == {("main.1", 0): 128, ("main.1", 1): 144, ("main.2", 0): 128, ("main.3", 0): 128}
    assert metrics(out, iteration=1, stage="branches")[0].items() >= {"left_behind": 1, "rollouts": 144}.items()


@pytest.fixture
def handed(run: Path, tmp_path: Path) -> dict[str, list[Part]]:
    """The first iteration's branches again, as another machine makes them: from bytes alone, in a folder of its own."""
    recipe, found = recipe_of(), {}
    session = Session(recipe, tmp_path / "run")
    try:
        policy, inputs = packed_policy(session, recipe.model.source), inputs_of(recipe)
        arm = product_arm(recipe)
        for branch in Branches(session, Place(), arm, Budget(recipe.rl.rollouts)).each:
            job = job_of(session, branch.place, arm, branch.budget, inputs.options)
            where = os.getcwd()
            found[branch.place.branch] = list(parts(job, policy, inputs.files))
            assert os.getcwd() == where
    finally:
        session.close()
    return found


def test_a_branch_elsewhere_hands_over_the_bytes_that_it_would_make_here(
    run: Path, handed: dict[str, list[Part]]
) -> None:
    here = {path.name: path.read_bytes() for path in list_segments(run / "trajectories", "main", 0).values()}
    there = {name: data for own in handed.values() for part in own for name, data in part.segments.items()}
    assert there == here
    for branch, own in handed.items():
        assert [part.failed for part in own if part.failed] == []
        assert [part.step for part in own] == [-1, *range(len(own) - 1)]
        assert [part.done for part in own] == [False] * (len(own) - 1) + [True]
        lines = [untimed(line) for part in own for line in part.lines]
        assert lines == [untimed(line) for line in metrics(run, branch=branch, iteration=0)]
    assert not list(Path("/tmp").glob(f"{PREFIX}*/run/model"))


def untimed(line: Any) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in TIMINGS}


def test_what_a_recipe_reads_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, outside = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here / "own", here / "tables", outside):
        folder.mkdir(parents=True)
    (here / "own" / "__init__.py").write_text("reward = float\n")
    (here / "own" / "part.py").write_text("")
    (here / "tables" / "primes.txt").write_text("2 3 5")
    (here / "train.jsonl").write_text('{"prompt": "1+1", "answer": "2"}\n')
    (outside / "test.jsonl").write_text("")
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(str(here))
    options = ["task.name=jsonl", "task.train=train.jsonl", f"task.test={outside / 'test.jsonl'}", "task.probe=1"]
    recipe = config.parse({}, [*options, "rl.reward=own:reward", 'scale.files=["tables"]'], "recipe")
    found = inputs_of(recipe)
    assert found.options["train"] == "train.jsonl"
    assert found.options["probe"] == 1
    name = found.options["test"]
    assert not Path(name).is_absolute()
    assert Path(name).name == "test.jsonl"
    assert {"train.jsonl", name, "own/__init__.py", "own/part.py", "tables/primes.txt"} <= found.files.keys()
    assert bytes(np.asarray(found.files["tables/primes.txt"])) == b"2 3 5"
    assert any(file.endswith("/tokenizer.json") for file in found.files)
    assert not any(file.endswith(".safetensors") for file in found.files)
    for wrong in ("../elsewhere", "missing", str(outside)):
        with pytest.raises(InputError, match=r"scale\.files"):
            inputs_of(config.parse({}, [f'scale.files=["{wrong}"]'], "recipe"))


def test_a_failure_elsewhere_is_handed_over(run: Path, tmp_path: Path) -> None:
    recipe = recipe_of("rl.reward=not_there:reward")
    session = Session(recipe, tmp_path / "run")
    try:
        (branch, *_) = Branches(session, Place(), product_arm(recipe), Budget(16)).each
        job = job_of(session, branch.place, product_arm(recipe), branch.budget, recipe.task.options)
        told = list(parts(job, packed_policy(session, recipe.model.source), inputs_of(recipe).files))
    finally:
        session.close()
    assert "not_there" in told[-1].failed
    assert not told[-1].where


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["method=rl"], 'method = "rloop"'),
        (["rloop.adaptive=true", "rl.probe_every=1"], "rloop.adaptive"),
        (["rloop.reinitialise_from=explored"], "reinitialise_from"),
        (["rl.skip_solved=true"], "rl.skip_solved"),
        (["rl.probe_every=1", "rl.keep_best=true"], "rl.keep_best"),
        (["rl.steps=2"], "scale.branches = 3"),
        (["rloop.weighted=true", "scale.vary=[['sampling.top_p=0.9']]"], "rloop.weighted"),
        (["scale.vary=[['rl.objectiv=grpo']]"], "did you mean 'rl.objective'"),
        (["scale.vary=[['rl.steps=3']]"], "which all branches share"),
        (["scale.vary=[['seed=3']]"], "expected key=value"),
        (["scale.vary=[[],[],[],[]]"], "at most one for each"),
        (["scale.branches=1", "scale.address=auto"], "needs scale.branches > 1"),
        (["scale.address=ray://host:10001"], "expected auto"),
    ],
)
def test_what_cannot_be_done_side_by_side_is_refused(options: list[str], told: str) -> None:
    with pytest.raises(InputError) as error:
        checked_method(config.parse({}, ["scale.branches=3", *options], "recipe"), "recipe")
    assert told in str(error.value)


def test_the_plan_has_every_branch_and_the_work_of_one_exploration() -> None:
    sizes = {"train": 40, "test": 10}
    alone, several = (plan(config.parse({}, ["rl.steps=10", f"scale.branches={n}"], "recipe"), sizes) for n in (1, 4))
    assert "in 4 branches" in "\n".join(several.lines)
    asked = [one for one in several.stages if one.kind == "explore"]
    assert [one.name for one in asked[:4]] == [f"main.{k}-explore-0" for k in (1, 2, 3, 4)]
    explored = sum(one.amount for one in alone.stages if one.kind == "explore")
    assert sum(one.amount for one in asked) == explored
    assert not any("explored" in one.name for one in several.stages if one.kind == "evaluate")


def test_the_arm_of_branches_is_another_than_that_of_one_exploration() -> None:
    one, two, elsewhere = (
        product_arm(recipe).options(recipe)
        for recipe in (
            config.parse({}, options, "recipe")
            for options in ([], ["scale.branches=2"], ["scale.branches=2", "scale.address=auto"])
        )
    )
    assert two == elsewhere == one | {"scale.branches": 2}
    assert tomllib.loads(config.dumps(Recipe()))["scale"]["branches"] == 1
