"""Judges on this machine: a policy by its digits' probabilities, a rule of the user's own in killable workers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from effort_factory import decode, group, problem, rewarded
from tiny_models import tiny_policy

from reasonloop.config.exploration import Exploration, Judge
from reasonloop.errors import InputError
from reasonloop.rewards.exploration import ExplorationReward
from reasonloop.rewards.judge import judge_of
from reasonloop.rewards.policy_judge import PolicyJudge
from reasonloop.verify.answer_end import default_answer_end

PAIRS = [("2 + 3", "5"), ("2 + 3", "4 - 1 + 2 = 5"), ("7", "8 9 10 11 12 13 14 15 16")]
RULES = """
import os, time

def steps(problem, response):
    return min(1.0, response.count("try") / 10)

def named(problem, response):
    return {"raise": 1 / 0} if response == "raise" else 0.25 if problem == "p" else 0.5

def bad(problem, response):
    if response == "raise":
        raise ValueError("no")
    if response == "exit":
        os._exit(3)
    if response == "hang":
        time.sleep(600)
    return {"text": "high", "two": 2, "nan": float("nan"), "none": None, "whole": 1}.get(response, 0.5)

number = 3
"""


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "effort_rules.py").write_text(RULES)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random judge; its prompt is some 250 words that its tokenizer doesn't know."""
    path = tmp_path_factory.mktemp("judge") / "model"
    tiny_policy("llama", max_position_embeddings=2048).save(path)
    return path


# a rule


@pytest.mark.usefixtures("rules")
def test_a_rule_scores_in_order() -> None:
    score = judge_of(Judge(model="effort_rules:steps"))
    assert score([("p", "try " * n) for n in (3, 0, 40)]) == [0.3, 0.0, 1.0]
    assert score([]) == []


@pytest.mark.usefixtures("rules")
def test_what_a_rule_cannot_score_is_counted_and_nothing_hangs() -> None:
    score = judge_of(Judge(model="effort_rules:bad", timeout_seconds=0.5))
    asked = ["raise", "text", "fine", "two", "nan", "none", "hang", "exit", "whole"]
    scores = score([("p", response) for response in asked])
    kinds = [one.partition(":")[0] if isinstance(one, str) else one for one in scores]
    nonsense = ["nonsense"] * 3
    assert kinds == ["crashed", "nonsense", 0.5, *nonsense, "timeout", "crashed", 1.0]
    assert scores[:2] == ["crashed: ValueError: no", "nonsense: it returned 'high'"]


@pytest.mark.usefixtures("rules")
@pytest.mark.parametrize("name", ["effort_rules:absent", "no_such_module:steps", "effort_rules:number"])
def test_a_rule_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(
        InputError, match=f"exploration.judge.model = '{name}': .*; expected a (function|module)"
    ) as error:
        judge_of(Judge(model=name))
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("rules")
def test_a_rules_scores_become_rewards() -> None:
    recipe = Exploration(alpha=0.8, form="judge", judge=Judge(model="effort_rules:steps"))
    explorer = ExplorationReward(recipe, decode, lambda p, text: default_answer_end(text))
    (own,), metrics = rewarded(explorer, [problem()], [group(["try try 1", "42"], [False, True])], 0.8)
    assert [r.reward for r in own] == [pytest.approx(0.04), pytest.approx(0.8)]
    assert metrics["judge_failures"] == 0.0


# a policy


def test_a_policys_score_is_the_digit_it_expects(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reasonloop.rewards.policy_judge.LEAST_MASS", 0.0)
    judge = PolicyJudge(Judge(model=str(folder)))
    scores = judge.scores(PAIRS)
    judge_policy = judge._policy
    digits = [judge_policy.codec.tokenizer.convert_tokens_to_ids(str(digit)) for digit in range(10)]
    for pair, score in zip(PAIRS, scores, strict=True):
        prompt = torch.from_numpy(judge._prompt(*pair).astype(np.int64))
        with torch.inference_mode():  # the model's own forward pass, this pair alone
            probabilities = judge_policy.model(prompt[None]).logits[0, -1].double().softmax(-1)[digits].numpy()
        assert score == pytest.approx(float(probabilities @ np.arange(10)) / (9 * probabilities.sum()), abs=1e-5)
    assert judge.scores(PAIRS[::-1]) == pytest.approx(scores[::-1], abs=1e-6)


def test_a_policy_that_does_not_answer_with_a_digit_gives_no_score(folder: Path) -> None:
    assert judge_of(Judge(model=str(folder)))(PAIRS) == ["nonsense"] * 3


def test_what_the_policys_context_does_not_hold_is_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reasonloop.rewards.policy_judge.LEAST_MASS", 0.0)
    scores = judge_of(Judge(model=str(folder)))([PAIRS[0], ("p", "5 " * 3000), PAIRS[1]])
    assert [isinstance(score, float) for score in scores] == [True, False, True]
    assert scores[1] == "too_long"


def test_a_chat_model_is_asked_in_its_template(folder: Path) -> None:
    judge = PolicyJudge(Judge(model=str(folder)))
    judge._policy.codec.tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %} 5 5 5"
    )
    judge._chat = True
    last = [judge._policy.codec.tokenizer.decode(judge._prompt(*pair)[-3:].tolist()) for pair in PAIRS]
    assert last == ["5 5 5"] * 3


def test_no_such_policy() -> None:
    with pytest.raises(InputError, match="no such folder"):
        judge_of(Judge(model=os.path.join("no", "such", "judge")))
