"""A whole run with an engine whose numbers are not the learner's: said at the start, corrected for in every update."""

from __future__ import annotations

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


class RoundedEngine(NativeEngine):
    """The native engine, as if it computed with few digits."""

    exact = False

    def __init__(self, digits: int = 1) -> None:
        super().__init__()
        self.digits = digits

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: Done | None = None
    ) -> list[Completion]:
        def done(index: int, completion: Completion) -> None:
            rounded = np.minimum(np.round(completion.logprobs, self.digits), 0)
            found[index] = replace(completion, logprobs=rounded.astype(np.float32))
            if on_done is not None:
                on_done(index, found[index])

        found: dict[int, Completion] = {}
        super().generate(requests, sampling, done)
        return [found[i] for i in range(len(requests))]


def test_a_run_with_an_engine_of_other_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    argv = ["run", str(small_recipe(tmp_path)), "method=rl", "rl.refill_rounds=2", "--out", str(out)]
    engine = ["engine={name = 'test_another_engine:RoundedEngine', digits = 1}"]
    assert main([*argv, *engine]) == 0
    assert "may sample other rollouts" in capsys.readouterr().err
    learned = [line for line in metrics(out, stage="explore") if line["groups_used"]]
    assert learned
    for line in learned:
        assert line["importance"] != 1.0
        assert abs(line["importance"] - 1) < 0.1
        assert 0 < line["importance_ess"] < 1
        assert line["clip_fraction"] < 1
    stored = TrajectoryStore(out / "trajectories", "run").read("main")
    assert all(np.allclose(r.logprobs, np.round(r.logprobs, 1), atol=1e-6) for r in stored)  # as they were sampled
