"""Only code that was asked for runs: not a model folder's, nor what lies in the current folder under a library's name."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import house
import pytest
from run_fixtures import weak_model

from reasonloop.cli import main
from reasonloop.config import own_code, parse
from reasonloop.errors import InputError
from reasonloop.evaluation.standalone import recipe_of
from reasonloop.machine import python
from reasonloop.own import load_own
from reasonloop.policy.codec import Codec
from reasonloop.policy.policy import Policy

ROOT = Path(__file__).parent.parent
FOLDERS = ("reasonloop", "benchmarks", "examples", "evidence", "tools", "docs")
WITHOUT = ("PeftModel",)
"""Classes whose `from_pretrained` knows no such option: they read tensors and a JSON file"""


LOADS = re.compile(r"from_pretrained|\bLLM\(|trust_remote_code")


def calls() -> Iterator[tuple[str, ast.Call]]:
    """All that our own files call where models are loaded, each with its place."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not LOADS.search(path.read_text(encoding="utf-8")):
                continue
            for node in ast.walk(house.tree(path)):
                if isinstance(node, ast.Call):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def says_whether_code_is_trusted(call: ast.Call) -> bool:
    return any(
        word.arg == "trust_remote_code"
        or (word.arg is None and isinstance(word.value, ast.Call) and ast.unparse(word.value.func) == "alone")
        for word in call.keywords
    )


def test_every_call_that_loads_a_model_says_whether_its_code_is_trusted() -> None:
    asked, silent = 0, []
    for place, call in calls():
        called = ast.unparse(call.func)
        owner, _, name = called.rpartition(".")
        if (name == "from_pretrained" and owner not in WITHOUT) or name == "LLM":
            asked += 1
            silent += [place] * (not says_whether_code_is_trusted(call))
    assert silent == []
    assert asked >= 15


def test_trusted_is_what_the_caller_says_and_nothing_else() -> None:
    """In the package `trust_remote_code` is False, or the caller's own argument or option; True stands nowhere."""
    given = {
        ast.unparse(word.value)
        for place, call in calls()
        if place.startswith("reasonloop")
        for word in call.keywords
        if word.arg == "trust_remote_code"
    }
    assert given <= {"False", "trust_remote_code"}


def test_every_python_that_we_start_keeps_the_current_folder_out() -> None:
    open_ones, every = [], sorted((ROOT / "reasonloop").rglob("*.py"))
    for path in (one for one in every if re.search(r"sys\.executable|\*python", one.read_text(encoding="utf-8"))):
        for node in ast.walk(house.tree(path)):
            if isinstance(node, ast.List) and any(
                ast.unparse(one) in ("sys.executable", "*python") for one in node.elts
            ):
                words = {one.value for one in node.elts if isinstance(one, ast.Constant)}
                if len(node.elts) > 1 and not words & {"-P", "-I"}:
                    open_ones.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert open_ones == []


@pytest.fixture
def asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question on standard input"))


@pytest.fixture
def hostile_model(tmp_path: Path) -> Path:
    """A model of no known family, with code of its own for each class that transformers may ask for."""
    model = tmp_path / "model"
    shutil.copytree(weak_model(), model)
    (model / "evil.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'w').write('x')\nclass C: pass\n")
    return model


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**(json.loads(file.read_text()) if file.is_file() else {}), **values}))


@pytest.mark.usefixtures("asks_nobody")
@pytest.mark.parametrize("whose", ["model", "tokenizer"])
def test_a_models_own_code_is_refused_and_nobody_asked(hostile_model: Path, tmp_path: Path, whose: str) -> None:
    if whose == "model":
        every = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.C", "AutoTokenizer": "evil.C"}
        change(hostile_model / "config.json", model_type="unheard_of", auto_map=every)
    else:
        change(
            hostile_model / "tokenizer_config.json",
            tokenizer_class="UnheardOf",
            auto_map={"AutoTokenizer": ["evil.C", "evil.C"]},
        )
    for load in (Policy.load, Codec.load):
        with pytest.raises(InputError, match=r"its author's own Python code .* model\.trust_remote_code = true"):
            load(hostile_model)
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_a_kernel_that_a_configuration_names_is_refused(hostile_model: Path, key: str) -> None:
    change(hostile_model / "config.json", **{key: "somebody/kernel"})
    with pytest.raises(InputError, match=r"its config\.json names code of the hub to be run .*'somebody/kernel'"):
        Policy.load(hostile_model)


def test_a_run_folder_does_not_say_that_its_model_is_trusted(tmp_path: Path) -> None:
    """Who evaluates one that came from elsewhere has asked for no code."""
    (tmp_path / "config.toml").write_text('[model]\npath = "somewhere"\ntrust_remote_code = true\n')
    for asked, trusted in (([], False), (["model.trust_remote_code=true"], True)):
        recipe = recipe_of("eval", str(tmp_path), None, None, asked)
        assert recipe.model.trust_remote_code is trusted


@pytest.fixture
def booby_trapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder has a file under the name of each module of Python's own, and of libraries that may be missing."""
    folder = tmp_path / "cloned"
    folder.mkdir()
    for name in {*sys.stdlib_module_names, "numpy", "sympy", "math_verify", "sitecustomize", "usercustomize", "wandb"}:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'a').write(__name__ + ' ')\n")
    monkeypatch.chdir(folder)
    return tmp_path / "RAN"


@pytest.mark.parametrize("start", [["-m", "reasonloop"], ["-P", "-c", "from reasonloop.cli import main; exit(main())"]])
def test_nothing_of_the_current_folder_is_imported(booby_trapped: Path, start: list[str]) -> None:
    """By a command, as a module and as a script, and by the workers that it starts."""
    line = json.dumps({"answer": r"\sqrt{8}+\frac{1}{3}\sin(x)", "gold": r"2\sqrt{2}+\sin(x)/3"})
    path = os.pathsep.join(one for one in sys.path if one and Path(one).resolve() != Path.cwd())
    done = subprocess.run(
        [sys.executable, *start, "verify", "--kind", "math", "--workers", "1"],
        input=line,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert (booby_trapped.exists(), done.returncode, done.stderr) == (False, 0, "")
    assert json.loads(done.stdout)["verdict"] == "right"


def test_processes_of_ours_look_in_the_current_folder_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "added", set())
    library = next(one for one in sys.path if one.endswith("lib-dynload"))
    monkeypatch.chdir(tmp_path)
    for first in ("", str(tmp_path), os.path.relpath(tmp_path)):
        monkeypatch.setattr(sys, "path", [first, "/elsewhere", library])
        assert python.search_path() == ["/elsewhere", library, first]
        python.search_also("/beside")  # a recipe's folder: behind the current one, here and there
        assert python.search_path() == ["/elsewhere", library, first, "/beside"]
    monkeypatch.setattr(sys, "path", ["/elsewhere", library])
    for folder in (str(tmp_path), "/beside"):
        python.search_also(folder)
    assert python.search_path() == ["/elsewhere", library, str(tmp_path), "/beside"]
    # uninstalled, and in its own folder: it stays before what is installed, which may be another version of it
    monkeypatch.setattr(python, "HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", ["", "/elsewhere", library])
    assert python.search_path() == [library, str(tmp_path), "/elsewhere", ""]
    monkeypatch.setattr(sys, "path", ["/new", "/elsewhere", library])
    assert python.behind_installed("/inputs") == [library, "/inputs", "/new", "/elsewhere"]


def test_code_of_ones_own_stands_in_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found in the current folder, behind all that is installed; a name that is taken is told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    (tmp_path / "surely_mine.py").write_text("THING = 5\n")
    (tmp_path / "colorsys.py").write_text("THING = 6\n")
    assert load_own("surely_mine:THING", "here", "a number") == 5
    assert sys.path[-1] == str(tmp_path)
    with pytest.raises(
        InputError, match=r"here: module 'colorsys' has no 'THING' \(it is .*colorsys\.py needs another"
    ):
        load_own("colorsys:THING", "here", "a number")


def test_a_dry_run_names_the_code_that_would_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "surely_ours.py").write_text("def two(problem, response):\n    return 2.0\n")
    named = ["rewards.two.function=surely_ours:two", "model.trust_remote_code=true"]
    assert main(["run", "quickstart", "--dry-run", *named]) == 0
    told = capsys.readouterr().out
    assert "# runs your code: rewards.two.function = surely_ours:two\n" in told
    assert "# runs the code in the model's folder: model.trust_remote_code = true" in told
    assert main(["run", "quickstart", "--dry-run"]) == 0
    assert "code" not in capsys.readouterr().out.partition("# into")[0].rpartition("\n\n")[2]


def test_all_places_for_code_are_known() -> None:
    recipe = parse(
        {
            "method": "a:M",
            "task": {"name": "my.task:T"},
            "engine": {"name": "e:E"},
            "rl": {"objective": "o:f", "advantage": "o:g", "reward": "r:h"},
            "rewards": {"x": {"function": "r:x"}},
            "exploration": {"form": "judge", "judge": {"model": "j:f"}},
            "track": {"to": ["wandb", "t:T"]},
            "scale": {"branches": 2, "vary": [["rl.reward=r:i"], []]},
        },
        [],
        "here",
    )
    assert own_code(recipe) == {
        "method": "a:M",
        "task.name": "my.task:T",
        "engine.name": "e:E",
        "rl.objective": "o:f",
        "rl.advantage": "o:g",
        "rl.reward": "r:h",
        "rewards.x.function": "r:x",
        "exploration.judge.model": "j:f",
        "track.to": "t:T",
        "scale.vary": "rl.reward=r:i",
    }
    assert own_code(parse({}, [], "here")) == {}
