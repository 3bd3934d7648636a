"""The examples run, in small, and stand in the documentation as they are."""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import reasonloop

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
LOOP = (EXAMPLES / "loop.py").read_text(encoding="utf-8")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, with the examples' modules at hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(EXAMPLES)])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def test_the_page_shows_the_loop_and_what_it_prints() -> None:
    blocks = re.findall(r"```(?:python|text)\n(.*?)```", PAGE, re.DOTALL)
    assert LOOP in blocks
    assert (EXAMPLES / "loop.txt").read_text(encoding="utf-8") in blocks


def test_the_loop_is_thirty_lines() -> None:
    blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENCODING, tokenize.ENDMARKER, tokenize.STRING)
    tokens = tokenize.generate_tokens(io.StringIO(LOOP).readline)
    assert len({token.start[0] for token in tokens if token.type not in blank}) <= 30


def test_every_name_has_its_paragraph() -> None:
    heads = re.findall(r"^### (.*)$", PAGE, re.MULTILINE)
    named = {name for head in heads for name in re.findall(r"`(\w+)", head)}
    assert named == {name for name in reasonloop.__all__ if name != "__version__"}


def test_the_loop_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = LOOP.replace("range(30)", "range(1)").replace("test=64", "test=2").replace("epochs=4", "epochs=1")
    assert small.count("range(1)") == small.count("test=2") == small.count("epochs=1") == 1
    exec(compile(small, "loop.py", "exec"), {"__name__": "__main__"})
    told = capsys.readouterr().out
    assert "base      test, 2 problems x 32 samples: avg@32 0." in told
    assert "gained" in told
    assert reasonloop.Policy.load(here / "runs" / "loop-model", "cpu").version == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("own_objective", "soft_clip, above_the_median"),
        ("own_reward", "tokens a right response"),
        ("own_method", "rejection sampling 2"),
    ],
)
def test_what_is_ones_own_runs(name: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_module(name).main(steps=1, tested=2)
    assert said in capsys.readouterr().out


def test_recipes_can_name_them(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = {
        "method": "rl",
        "task": {"name": "countdown", "numbers": 3, "train": 8, "probe": 0, "test": 2},
        "rl": {
            "steps": 1,
            "problems_per_step": 8,
            "objective": "own_objective:soft_clip",
            "reward": "own_reward:brief",
        },
        "sampling.max_tokens": 34,
        "rl.advantage": "own_objective:above_the_median",
        "eval.samples": 1,
    }
    run = reasonloop.run(recipe, out="run", progress=False)
    assert capsys.readouterr() == ("", "")
    rewards = {round(row["reward"], 6) for row in run.query("SELECT DISTINCT reward FROM rollouts")}
    assert 0.0 in rewards
    assert all(reward == 0 or 0.5 <= reward < 1 for reward in rewards)
    assert [evaluation.name for evaluation in run.evals] == ["base", "vanilla RL"]
    assert run.recipe.rl.objective == "own_objective:soft_clip"
    assert run.model == Path("run/model")
    assert run.report().stat().st_size > 10_000
    assert "vanilla RL" in str(run)
    with pytest.raises(reasonloop.InputError, match="query"):
        run.query("SELECT nothing FROM nowhere")


def test_the_notebook_runs(here: Path) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("matplotlib")
    notebook = import_module("notebook").executed("STEPS, BATCH, SAMPLES, TESTED = 2, 8, 4, 2")
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    told = "".join(output.get("text", "") for output in outputs)
    gained = re.search(r"gained: (\S+) \[(\S+), (\S+)\]", told)
    assert gained is not None
    low, value, high = (float(gained[i]) for i in (2, 1, 3))
    assert -1 <= low <= value <= high <= 1
    assert "verdict=<Verdict.RIGHT" in told
    assert not list(here.iterdir())  # it works in a folder of its own


def test_the_notebook_is_stored_as_it_ran() -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(EXAMPLES / "reasonloop.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    text = (EXAMPLES / "reasonloop.ipynb").read_text(encoding="utf-8")
    assert not re.search(r"/(work|home|tmp|root|usr)/", text)
