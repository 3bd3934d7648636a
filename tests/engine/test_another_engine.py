"""A whole run with an engine whose numbers are not the learner's: said at the start, corrected for in every update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_fixtures import metrics, small_recipe
from tiny_models import tiny_policy

from reasonloop.cli import main
from reasonloop.config import LoraSettings, Optimizer, Sampling
from reasonloop.engine.checked import CheckedEngine, difference
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.protocol import Completion, Done, Request
from reasonloop.errors import RunError
from reasonloop.learner.batch import supervised
from reasonloop.learner.local import LocalLearner
from reasonloop.policy import adapters
from reasonloop.policy.policy import Policy, Weights
from reasonloop.store.segments import TrajectoryStore


class RoundedEngine(NativeEngine):
    """The native engine, as if it computed with few digits."""

    exact = False

    def __init__(self, digits: int = 1, tolerance: float = 0.0) -> None:
        super().__init__()
        self.digits, self.tolerance = digits, tolerance

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
    engine = ["engine={name = 'test_another_engine:RoundedEngine', digits = 1, tolerance = 0.5}"]
    assert main([*argv, *engine]) == 0
    assert "may sample other rollouts and end with other bytes" in capsys.readouterr().err
    learned = [line for line in metrics(out, stage="explore") if line["groups_used"]]
    assert learned
    for line in learned:
        assert line["importance"] != 1.0
        assert 0.01 < line["engine_mismatch"] < 0.5
        assert abs(line["importance"] - 1) < 0.1
        assert 0 < line["importance_ess"] < 1
        assert line["clip_fraction"] < 1
    stored = TrajectoryStore(out / "trajectories", "run").read("main")
    assert all(np.allclose(r.logprobs, np.round(r.logprobs, 1), atol=1e-6) for r in stored)  # as they were sampled


class StaleEngine(NativeEngine):
    """The native engine with a copy of its first weights, whatever it is given later."""

    exact = False

    def load(self, weights: Weights) -> None:
        assert weights.policy is not None
        if not hasattr(self, "first"):
            self.first = weights.policy.copy()
        super().load(Weights(weights.version, self.first))


def test_weights_that_do_not_arrive_stop_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, with nothing in the store that they sampled."""
    out = tmp_path / "run"
    argv = ["run", str(small_recipe(tmp_path)), "method=rl", "rl.learning_rate=1e-3", "--out", str(out)]
    assert main([*argv, "engine={name = 'test_another_engine:StaleEngine', slots = 32}"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "nats apart" in line]
    assert "engine test_another_engine:StaleEngine: its log-probs are not the learner's" in line
    stored = TrajectoryStore(out / "trajectories", "run").read("main")
    assert {r.version for r in stored} == {0}  # of the step before the first update, whose weights those are
    (step,) = metrics(out, stage="explore")
    assert step["engine_mismatch"] < 1e-5


def test_old_weights_are_found_though_rounding_would_hide_them() -> None:
    """As in bfloat16, where the limit is far above what one update changes."""
    policy = tiny_policy("llama")
    learner = LocalLearner(policy, Optimizer(), Sampling())
    asked = [Request(np.array([1, 5, 6, draw], np.int32), draw, length=24) for draw in range(8)]
    fresh, stale = (CheckedEngine("e", engine, tolerance=10.0) for engine in (RoundedEngine(4), StaleEngine()))
    for update in range(4):
        for engine in (fresh, stale):
            engine.load(learner.weights)
            if update == 3 and engine is stale:
                with pytest.raises(
                    RunError, match="engine e: its weights are those of version 0 still, after version 1"
                ):
                    engine.generate(asked, Sampling())
            else:
                engine.generate(asked, Sampling())
        if update < 2:  # versions without a change: the same bits are right
            learner.updates = 0
        else:
            learner.update(supervised([(np.array([1, 5], np.int32), np.array([7, 8, 2], np.int32))]), 1e-5)


def test_the_same_weights_by_other_operations_are_no_old_ones() -> None:
    """An adapter beside its base, and then merged: the engine gets the same weights, the learner rounds otherwise."""
    beside = tiny_policy("llama")
    beside.adapt(LoraSettings(4), "test")
    learner = LocalLearner(beside, Optimizer(), Sampling())
    learner.update(supervised([(np.array([1, 5], np.int32), np.array([7, 8, 2], np.int32))]), 1e-2)
    merged = Policy(adapters.merged(beside.model), beside.codec.tokenizer)

    class Merging(RoundedEngine):
        def load(self, weights: Weights) -> None:
            super().load(Weights(weights.version, merged))

    engine = CheckedEngine("e", Merging(4), tolerance=10.0)
    for weights in (learner.weights, Weights(0, merged)):
        engine.load(weights)
        engine.generate([Request(np.array([1, 5, 6], np.int32), draw, length=24) for draw in range(4)], Sampling())


SPREAD = np.random.default_rng(0).normal(-2, 1.5, 400).clip(max=-1e-3).astype(np.float32)
"""Log-probs of 400 tokens"""


def test_what_counts_as_a_difference() -> None:
    rng = np.random.default_rng(1)
    assert difference(SPREAD, SPREAD) == 0.0
    noise = (1 - np.exp(SPREAD)) * rng.normal(0, 0.01, 400).astype(np.float32)
    assert 0.004 < difference(SPREAD + noise, SPREAD) < 0.01
    certain = np.full(4000, -1e-6, np.float32)  # tokens without a doubt neither hide a difference nor make one
    together = [np.concatenate([part, certain]) for part in (SPREAD + noise, SPREAD)]
    assert 0.3 < difference(*together) / difference(SPREAD + noise, SPREAD) < 1.1
    moved = SPREAD.copy()
    moved[:8] -= 0.7  # a border between kept and cut tokens
    assert difference(moved, SPREAD) == 0.0
    assert difference(SPREAD + np.float32(np.nan), SPREAD) == float("inf")


def test_greedy_decoding_is_compared_by_what_it_chose() -> None:
    zeros, gap = np.zeros(200, np.float32), np.log(np.float32(1 + np.e**0.5))
    few, many = zeros.copy(), zeros.copy()
    few[:3], many[:30] = -gap, -gap
    assert difference(zeros, few, greedy=True) == pytest.approx(0)
    assert difference(zeros, many, greedy=True) == pytest.approx(0.5, abs=1e-5)
