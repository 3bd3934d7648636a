"""RLoop around another trainer: its rollouts are imported, judged and kept as ours are, whatever happens on the way."""

from __future__ import annotations

import functools
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from run_fixtures import command, finish, metrics, outcome, small_recipe, start, temporary, weak_model
from safetensors.numpy import load_file

from reasonloop.config import parse
from reasonloop.errors import InputError
from reasonloop.methods import checked_method
from reasonloop.records import Place, Problem
from reasonloop.runs.handed import words_of
from reasonloop.store.experts import select_experts
from reasonloop.store.for_trainers import write_problems
from reasonloop.store.segments import TrajectoryStore, list_segments

TRAINER = shlex.join([sys.executable, str(Path(__file__).parent.parent / "fake_trainer.py")])
EXPLORE = TRAINER + " explore {model} {problems} {steps} {seed} {out}"
FINETUNE = TRAINER + " finetune {model} {experts} {out}"
STEPS, ROLLOUTS = 3, 48
"""Of an iteration"""


def argv(out: Path, *changes: str, explore: str = EXPLORE) -> list[str | Path]:
    return [
        *("run", _recipe(), "--out", out, f"explorer.command={explore}", "explorer.rollouts=verl"),
        *("rloop.vanilla=false", "rl.learning_rate=1e-4", "rl.refill_rounds=1", "eval.samples=1", "rft.epochs=1"),
        *changes,
    ]


@functools.cache
def _recipe() -> Path:
    return small_recipe(temporary())


@functools.cache
def unbroken() -> tuple[Path, str]:
    """A run of two iterations, and what it said."""
    out, log = temporary() / "outside" / "run", temporary() / "outside-log"
    assert command(argv(out, explore=EXPLORE + " --torn"), log=log) == 0, log.read_text()
    return out, log.read_text()


def kept(out: Path) -> dict[str, Any]:
    """What a run is for, without what is told of its commands and how they went."""
    found = {
        name: {key: value for key, value in content.items() if key != "depends_on"}
        if isinstance(content, dict)
        else content
        for name, content in outcome(out).items()
        if not name.startswith(("commands/", "logs/", "metrics", "state"))
    }
    lines = [{key: value for key, value in line.items() if key != "seconds"} for line in metrics(out)]
    return found | {"metrics": lines}


def wait_for(true: Callable[[], Any]) -> None:
    late = time.monotonic() + 60
    while not true():
        assert time.monotonic() < late
        time.sleep(0.02)


def test_a_run_around_another_trainer() -> None:
    out, said = unbroken()
    store = TrajectoryStore(out / "trajectories", "run")
    for iteration in range(2):
        assert [place.step for place in list_segments(store.folder, "main", iteration)] == [0, 1, 2]
        written = [
            json.loads(line)
            for step in range(1, STEPS + 1)
            for line in (out / f"commands/main-explore-{iteration}/out/rollouts/{step}.jsonl").read_text().split("\n")
            if line.endswith("}")
        ]
        found = store.read("main", iteration)
        assert sorted(rollout.text for rollout in found) == sorted(row["output"] for row in written)
        assert sum(rollout.right for rollout in found) == sum(row["score"] == 1 for row in written) > 0
        lines = metrics(out, stage="explore", iteration=iteration)
        assert [line["rollouts"] for line in lines] == [ROLLOUTS * iteration + 16 * n for n in (1, 2, 3)]
        assert all(line["arm"] == "main" and line["seconds"] > 0 and 0 <= line["right"] <= 1 for line in lines)
        chosen = metrics(out, stage="select", iteration=iteration)[0]
        experts = select_experts(out / "trajectories", iteration=iteration, hard_threshold=1.0, seed=0)
        assert chosen["selected"] == experts.selected > 0
        assert chosen["rollouts"] == ROLLOUTS * (iteration + 1)
    assert (out / "model" / "config.json").is_file()
    assert not list(out.glob("commands/*/model"))
    assert {path.name for path in out.glob("evals/*.json")} == {
        "base.json",
        *(f"iteration-{i}-rft.json" for i in (0, 1)),
    }
    assert "verdict and score agree on 100.0 % of 48" in said
    assert "left out, torn line: 1 (rollouts/3.jsonl:17)" in said
    assert (out / "report.html").is_file()


def test_whatever_happens_on_the_way_a_run_ends_as_the_unbroken_one(tmp_path: Path) -> None:
    """A command that fails, one whose rollouts nobody can read, a kill in the import, a stop and a kill in the second
    exploration: what is mended goes on, and what was there stays."""
    out, log = tmp_path / "run", tmp_path / "log"
    commands, second = out / "commands", out / "logs" / "main-explore-1.log"

    def tried(changed: str, **options: Any) -> tuple[int, str]:
        log.unlink(missing_ok=True)
        code = command(argv(out, "explorer.resumes=true", explore=EXPLORE + changed), log=log, **options)
        return code, log.read_text()

    code, said = tried(" --layout none")
    assert (code, "explorer.command has ended, but its rollouts can't be taken: " in said) == (1, True), said
    code, said = tried(" --fail-at 2")
    assert (code, "CUDA out of memory" in said) == (1, True)
    assert f"exit code 1; its output is in {out}/logs/main-explore-0.log" in said
    code, said = tried(" --torn --wait-at 2", watched=out / "trajectories", kill_at=4)  # resumes: a step is there
    assert code == -signal.SIGKILL, said
    assert [path.name for path in (commands / "main-explore-0").glob("out.*")] == ["out.1"]

    for number in (signal.SIGTERM, signal.SIGKILL):
        tries = second.read_text().count("waiting") if second.exists() else 0
        process = start(argv(out, "explorer.resumes=true", explore=EXPLORE + " --torn --wait-at 2"), log=log)
        wait_for(lambda tries=tries: second.exists() and second.read_text().count("waiting") > tries)
        os.kill(process.pid or 0, number)
        assert finish(process) == (1 if number == signal.SIGTERM else -number), log.read_text()
    assert "stopped; the same command goes on" in log.read_text()
    (commands / "go-on").touch()
    code, said = tried(" --torn --wait-at 2")
    assert code == 0, said
    assert not list((commands / "main-explore-1").glob("out.*"))
    assert kept(out) == kept(unbroken()[0])


def test_fine_tuning_by_another_trainer(tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"

    def tried(changed: str, where: str = "checkpoint-*") -> tuple[int, str]:
        log.unlink(missing_ok=True)
        changes = ["rloop.iterations=1", f"finetuner.command={FINETUNE}{changed}", f"finetuner.model={where}"]
        changes += ["explorer.model=global_step_*", "rloop.reinitialise_from=explored", "rft.batch_size=64"]
        code = command(argv(out, *changes, explore=EXPLORE + " --leave-policy"), log=log)
        return code, log.read_text()

    for changed, where, told in (
        ("", "final", "has left no Hugging Face folder at"),
        (" --unchanged", "checkpoint-*", "expected them trained"),
        (" --other-tokenizer", "checkpoint-*", "has another tokenizer, or chat template, than"),
    ):
        code, said = tried(changed, where)
        assert (code, told in said) == (1, True), said
    code, said = tried("")
    assert code == 0, said
    start_weights, found = (load_file(path / "model.safetensors") for path in (weak_model(), out / "model"))
    for name, value in start_weights.items():
        np.testing.assert_array_equal(found[name], value * np.float32(1.001))  # of checkpoint-10, not of checkpoint-9
    assert (out / "evals" / "iteration-0-explored.json").is_file()
    line = metrics(out, stage="rft")[0]
    assert line["examples"] == metrics(out, stage="select")[0]["trained_on"] > 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["rloop.vanilla=true"], "rloop.vanilla beside explorer.command"),
        (["rloop.adaptive=true", "rl.probe_every=1"], "rloop.adaptive: needs an exploration here"),
        (["rloop.weighted=true"], "rloop.weighted beside explorer.command"),
        (["rloop.experts=base_policy"], "rloop.experts"),
        (["rloop.reinitialise_from=explored"], "rloop.reinitialise_from"),
        (["scale.branches=2"], "scale.branches beside explorer.command"),
        (["exploration.form=length"], "[exploration] beside explorer.command"),
        (["method=rl"], "method = 'rl'"),
        (["rl.kl_coef=0.1"], "rl.kl_coef = 0.1: explorer.command does this its own way; expected {rl.kl_coef} in it"),
        (["explorer.rollouts="], "explorer.command without explorer.rollouts"),
        (["explorer.command=python x.py {model}"], "expected {out} in it"),
        (["explorer.command=python x.py {modle} {model} {out}"], "nothing stands for {modle}; did you mean 'model'?"),
        (["explorer.command=python x.py {rl.step} {model} {out}"], "did you mean 'rl.steps'?"),
        (["explorer.command=python 'x.py {model} {out}"], "no closing quotation"),
        (
            ["explorer.command=", "finetuner.command=python x.py {model} {experts} {out}", "method=rl"],
            "finetuner.command needs",
        ),
    ],
)
def test_what_can_not_work_is_refused_in_a_line(changes: list[str], told: str) -> None:
    usual = ["explorer.command=python x.py {model} {out}", "explorer.rollouts=verl"]
    with pytest.raises(InputError) as error:
        checked_method(parse({}, [*usual, *changes], "recipe"), "recipe")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_options_that_the_command_gets_may_be_set() -> None:
    for asked in ("{rl.kl_coef} {model} {out}", "{recipe} {model} {out}"):
        overrides = [f"explorer.command=python x.py {asked}", "explorer.rollouts=verl", "rl.kl_coef=0.1"]
        checked_method(parse({}, overrides, "recipe"), "recipe")


def test_the_words_of_a_command() -> None:
    asked = "python x.py --json '{\"a\": {b}}' ${x.y} {{model}} --model={model} {out}/{rl.steps} '{a:1}'"
    recipe = parse({}, [f"explorer.command={asked}".replace("{b}", "{seed}").replace("${x.y}", "$x")], "recipe")
    found = words_of(recipe, "explorer", Path("/runs/a b"), Place(iteration=2), "/models/my model; rm -rf", {})
    assert found[:3] == ["python", "x.py", "--json"]
    seed = json.loads(found[3])["a"]
    assert 0 <= seed < 2**31
    assert found[4:] == [
        *("$x", "{model}", "--model=/models/my model; rm -rf", "/runs/a b/commands/main-explore-2/out/100", "{a:1}")
    ]
    other = words_of(recipe, "explorer", Path("/runs/a b"), Place(iteration=1), "m", {})
    assert json.loads(other[3])["a"] != seed


def test_a_plan_tells_the_commands(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert (
        command([*argv(tmp_path / "run", f"finetuner.command={FINETUNE}", "rft.batch_size=64"), "--dry-run"], log=log)
        == 0
    )
    told = [line for line in log.read_text().splitlines() if line.startswith("# -   $ ")]
    assert len(told) == 4
    assert "RUN/commands/problems.parquet 3 " in told[0]
    assert "finetune RUN/checkpoints/main-rft-0 RUN/commands/main-rft-1/experts RUN/commands/main-rft-1/out" in told[3]
    assert not (tmp_path / "run").exists()


def test_problems_for_other_trainers(tmp_path: Path) -> None:
    messages = ({"role": "user", "content": "2 + 2 = ?\u2028"},)
    problems = [Problem("a", messages=messages, answer="4", meta={"data_source": "openai/gsm8k", "x": [1]})]
    write_problems(tmp_path / "p.parquet", problems, "gsm8k")
    row = pq.read_table(tmp_path / "p.parquet").to_pylist()[0]
    assert row == json.loads((tmp_path / "p.jsonl").read_text())
    assert row["prompt"] == [dict(messages[0])]
    assert row["reward_model"] == {"style": "rule", "ground_truth": "4"}  # verl
    assert (row["data_source"], row["extra_info"]["index"], row["id"], row["answer"]) == ("openai/gsm8k", 0, "a", "4")
    assert json.loads(row["meta"])["x"] == [1]
    with pytest.raises(InputError, match="one kind"):
        write_problems(tmp_path / "p.parquet", [*problems, Problem("b", prompt="2 + 2 =", answer="4")], "gsm8k")
