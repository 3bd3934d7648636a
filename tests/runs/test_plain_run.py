"""A whole run of a model that can't be packed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
import transformers
from plain_models import save_plain
from run_fixtures import TASK, metrics

from reasonloop import config, execute
from reasonloop.cli import main
from reasonloop.errors import InputError
from reasonloop.machine.launch import launched


def test_a_run_on_the_plain_path(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It says so at its start, learns from what it sampled, and its product generates."""
    recipe = {
        "method": "rl",
        "threads": 1,
        "model": {"path": str(save_plain("convolution", tmp_path / "model"))},
        "task": {**TASK, "max_number": 6},
        "sampling": {"max_tokens": 10},
        "rl": {
            "steps": 2,
            "problems_per_step": 2,
            "group_size": 4,
            "learning_rate": 1e-3,
            "reward": "plain_models:brief",
        },
        "eval": {"samples": 1, "probe_samples": 1},
    }
    file, out = tmp_path / "plain.toml", tmp_path / "run"
    file.write_text(tomli_w.dumps(recipe), encoding="utf-8")
    assert main(["run", str(file), "--dry-run"]) == 0
    assert "lfm2" in capfd.readouterr().out
    assert main(["run", str(file), "--out", str(out)]) == 0
    told = capfd.readouterr()
    (line,) = [line for line in (told.out + told.err).splitlines() if "plain path" in line]
    assert "mixes neighbours" in line
    steps = metrics(out, stage="explore")
    assert len(steps) == 2
    assert all(step["groups_used"] == 2 for step in steps)
    assert all(abs(step["k1"]) < 1e-6 for step in steps)
    product = transformers.AutoModelForCausalLM.from_pretrained(out / "model").eval()
    before = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in product.state_dict().items())
    ids = torch.from_numpy(np.array([[1, 5, 6, 7]]))
    assert product.generate(ids, max_new_tokens=3, do_sample=False).shape[1] > 4


def test_several_ranks_are_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"method": "rl", "model": {"path": str(save_plain("alibi", tmp_path / "model"))}, "task": TASK}
    recipe = config.parse(data, ["rl.problems_per_step=2"], where="test")
    monkeypatch.setattr(execute, "launched", lambda: replace(launched(), world=2))
    with pytest.raises(InputError, match="which several ranks don't have"):
        execute.check_inputs(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
