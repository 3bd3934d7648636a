"""A run whose numbers can't be true says so, or ends: other log-probs than the sampler's, and weights that are none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_fixtures import metrics, small_recipe

from reasonloop.cli import main
from reasonloop.config import Sampling
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.protocol import Completion, Done, Request
from reasonloop.store.segments import TrajectoryStore


class ShiftedEngine(NativeEngine):
    """The native engine, as if it computed a model otherwise than the learner: some log-probs higher, some lower."""

    def __init__(self, off: float) -> None:
        super().__init__(slots=32)
        self.off = off

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: Done | None = None
    ) -> list[Completion]:
        def done(index: int, completion: Completion) -> None:
            signs = np.where(np.arange(len(completion.logprobs)) % 2, 1, -1)
            found[index] = replace(completion, logprobs=(completion.logprobs + self.off * signs).astype(np.float32))
            if on_done is not None:
                on_done(index, found[index])

        found: dict[int, Completion] = {}
        super().generate(requests, sampling, done)
        return [found[i] for i in range(len(requests))]


def run(place: Path, *overrides: str) -> int:
    return main(["run", str(small_recipe(place)), "method=rl", "--out", str(place / "run"), *overrides])


def shifted(off: float) -> str:
    return f"engine={{name = 'test_alarm:ShiftedEngine', off = {off}}}"


def test_a_sampler_that_is_another_policy_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Differences that cancel in k1 don't hide, and a step's later updates, which learning has moved, don't count."""
    assert run(tmp_path, shifted(0.02), "rl.updates_per_step=2", "rl.epochs=2") == 0
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "nats a token apart" in line]
    assert re.search(r"main-explore-0, step \d: sampler and learner are 0\.02 nats a token apart before", told)
    assert "please report it with the model's name" in told
    steps = [line for line in metrics(tmp_path / "run", stage="explore") if line["groups_used"]]
    assert all(0.015 < line["engine_mismatch"] < 0.025 for line in steps)


def test_one_that_is_nats_away_ends_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, shifted(0.7)) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert "sampler and learner are 0.7 nats a token apart" in told
    assert "its rollouts are stored, no checkpoint was saved yet: the run began with" in told
    assert TrajectoryStore(tmp_path / "run" / "trajectories", "run").read("main")


def test_true_numbers_are_not_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "rl.updates_per_step=2", "sampling.temperature=0.7", "sampling.top_p=0.9") == 0
    assert "nats a token apart" not in capsys.readouterr().err
    assert all(line.get("engine_mismatch", 0) < 1e-4 for line in metrics(tmp_path / "run", stage="explore"))


def test_a_diverged_exploration_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "rl.learning_rate=1e30") == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"training has diverged at main-explore-0, step \d: .* (too large|not finite)", told)
    assert "no checkpoint was saved yet" in told
    assert "expected a lower rl.learning_rate" in told


def test_what_was_good_before_is_named_and_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SFT is saved, RL from there diverges: its weights take no checkpoint's place."""
    assert run(tmp_path, "sft.before=true", "rl.learning_rate=1e30") == 1
    told = capsys.readouterr().err.splitlines()[-1]
    kept = tmp_path / "run" / "checkpoints" / "main-sft-0"
    assert f"the last good checkpoint is {kept} (step 3)" in told
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["main-sft-0"]


def test_a_diverged_fine_tuning_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "method=sft", "sft.learning_rate=1e30") == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert re.search(
        r"training has diverged at main-sft-0, update \d: .* too large .*expected a lower sft.learning_rate", told
    )
