"""The names of the package: loaded when they are used, known to editors, refused with the nearest one."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import reasonloop
from reasonloop.api import options
from reasonloop.config import Optimizer, Rft, Rl, Rloop, Sampling, Sft

BINDING = (
    "Policy",
    "Problem",
    "Rollout",
    "Group",
    "Verdict",
    "load_task",
    "sample",
    "Learner",
    "objectives",
    "experts",
)
BINDING += ("evaluate", "run")


def test_the_names_that_the_design_binds_are_there_and_documented() -> None:
    assert set(BINDING) <= set(reasonloop.__all__) <= set(dir(reasonloop))
    for name in reasonloop.__all__:
        found = getattr(reasonloop, name)
        assert found is not None
        if callable(found):
            assert (found.__doc__ or "").strip(), name


def test_what_editors_see_is_what_is_loaded() -> None:
    tree = ast.parse(Path(reasonloop.__file__).read_text())
    (block,) = (one for one in tree.body if isinstance(one, ast.If) and ast.unparse(one.test) == "TYPE_CHECKING")
    seen = {alias.name: node.module for node in block.body for alias in node.names}  # type: ignore[attr-defined]
    assert seen == reasonloop._HOME
    assert {*seen, "__version__"} == set(reasonloop.__all__)


def test_importing_takes_no_torch_and_problems_need_none() -> None:
    code = (
        "import sys, reasonloop\n"
        "assert not {'torch', 'numpy', 'pydantic'} & sys.modules.keys()\n"
        "task = reasonloop.load_task('countdown?train=4&probe=0&test=2')\n"
        "assert task.verify(task.train[0], task.gold(task.train[0])).verdict is reasonloop.Verdict.RIGHT\n"
        "assert 'torch' not in sys.modules\n"
        "import reasonloop.runs.session\n"
        "assert reasonloop.run.__module__ == 'reasonloop.api.runs', reasonloop.run\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_no_room_has_the_name_of_a_public_name() -> None:
    """The import system would put the room in the name's place."""
    rooms = {path.stem for path in Path(reasonloop.__file__).parent.iterdir()}
    assert rooms & {*reasonloop.__all__} == set()


def test_an_unknown_name_says_which_is_near() -> None:
    with pytest.raises(AttributeError, match="did you mean 'Learner'"):
        _ = reasonloop.Lerner
    assert not hasattr(reasonloop, "__wrapped__")
    with pytest.raises(ImportError):
        exec("from reasonloop import nothing_like_it")


@pytest.mark.parametrize("table", ["Sample", "Eval", "Learner", "Finetune", "Expert"])
def test_the_checked_options_are_those_that_editors_know(table: str) -> None:
    checked, known = getattr(options, f"{table}Options"), getattr(options, f"{table}Keywords")
    assert set(checked.model_fields) == known.__optional_keys__


def test_names_and_defaults_are_those_of_recipes() -> None:
    assert set(options.StepOptions.model_fields) < options.StepKeywords.__optional_keys__
    ours = {
        "rl": (Rl, options.StepOptions, {"clip_low", "clip_high", "updates_per_step", "epochs", "kl_coef"}),
        "rl, sampled": (Rl, options.SampleOptions, {"group_size", "overlong_buffer"}),
        "rl, rate": (Rl, options.LearnerOptions, {"learning_rate"}),
        "rloop": (Rloop, options.ExpertOptions, {"hard_threshold", "cap"}),
        "rft": (Rft, options.FinetuneOptions, {"batch_size", "schedule"}),
        "sft": (Sft, options.FinetuneOptions, {"warmup", "epochs"}),
        "sampling": (Sampling, options.EvalOptions, set(Sampling.model_fields)),
        "optimizer": (Optimizer, options.LearnerOptions, set(Optimizer.model_fields)),
    }
    for section, checked, names in ours.values():
        for name in names:
            assert checked.model_fields[name].default == section.model_fields[name].default, name
            assert checked.model_fields[name].metadata == section.model_fields[name].metadata, name
