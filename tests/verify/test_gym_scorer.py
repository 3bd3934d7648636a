"""Scorers that execute answers stay in, and no answer decides about itself or another one. With a made library."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import made_gym
import pytest
from sandboxes import descendants, needs_namespaces

from reasonloop.errors import InputError
from reasonloop.records import Judgement, Verdict
from reasonloop.verify import gym
from reasonloop.verify.gym import GymScorer
from reasonloop.verify.sandbox.limits import Limits
from reasonloop.verify.sandbox.scoring import _code

pytestmark = needs_namespaces
SPLITS = [(0, 50), (1000, 50)]
PACKAGES = gym._packages


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory):
    """Installs the made library for the module; yields (a folder that must not be seen, the port of a listener)."""
    folder = tmp_path_factory.mktemp("gym")
    outside = folder / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.MonkeyPatch.context() as patch:
        found = made_gym.install(folder, [str(outside)], listener.getsockname()[1])
        patch.setattr(gym, "_packages", lambda: [found])
        yield outside


@pytest.fixture(scope="module")
def scorer(library: Path):
    with GymScorer("sums", {}, SPLITS, Limits(timeout=1.0, memory_mib=256)) as scorer:
        yield scorer


def score(scorer: GymScorer, answer: str) -> float | Judgement:
    return scorer.score((0, 3), "3 + 1 =", answer)


def test_scores_and_problems(scorer: GymScorer) -> None:
    assert scorer.entries(0, 2, 4) == [("2 + 1 =", "3"), ("3 + 1 =", "4")]
    assert scorer.entries(1, 0, 1) == [("0 + 1 =", "1")]
    assert [score(scorer, answer) for answer in ("4", "5", "4 or 5", "")] == [1.0, 0.0, 0.25, 0.0]
    other = scorer.score((0, 3), "4 + 1 =", "5")
    assert isinstance(other, Judgement)
    assert other.verdict is Verdict.CRASHED
    assert "another problem" in other.detail


@pytest.mark.parametrize(
    ("what", "verdict", "detail"),
    [
        ("read", Verdict.CRASHED, "LookupError: ([], [], '/scratch', [], 1)"),
        ("fork", Verdict.CRASHED, "LookupError: True"),
        ("connect", Verdict.CRASHED, "the scorer raised"),
        ("hang", Verdict.TIMEOUT, "no score within 1 s"),
        ("fill", Verdict.CRASHED, "out of memory"),
        ("end", Verdict.CRASHED, "ended itself"),
        ("flood", Verdict.CRASHED, ""),
        ("forge", Verdict.CRASHED, "no score"),
        ("none", Verdict.CRASHED, "TypeError"),
    ],
)
def test_a_scorer_that_goes_wrong_costs_its_own_answer_alone(scorer, what, verdict, detail) -> None:
    found = score(scorer, f"do:{what}")
    assert isinstance(found, Judgement)
    assert found.verdict is verdict, found
    assert detail in found.detail
    assert score(scorer, "4") == 1.0


def test_what_it_does_is_gone_with_it(scorer: GymScorer, library: Path) -> None:
    scorer.start()
    for what in ("write", "daemon", "poison", "kill"):
        score(scorer, f"do:{what}")
        assert score(scorer, "5") == 0.0, what
    assert list(library.iterdir()) == []
    helper = scorer._helper._process.pid
    for _ in range(100):
        if not descendants(helper):
            break
        time.sleep(0.02)
    assert descendants(helper) == set()


@pytest.mark.parametrize(
    ("answer", "score"),
    [("2 + 2", 1.0), ("abs(-4)", 1.0), ("[5][0]", 0.0), ("max(4, 1)", 1.0), ("2 ** 2", 1.0), ("3", 0.0)],
)
def test_an_expression_may_be_executed(scorer, answer, score) -> None:
    assert scorer.score((0, 3), "3 + 1 =", f"eval:{answer}") == score


@pytest.mark.parametrize(
    "answer",
    [
        "exec('entry.clear()') or 4",
        "__import__('os').system('true') or 4",
        "entry.update(answer='5') or 5",
        "().__class__.__base__.__subclasses__() and 4",
        "[x for x in [4]][0]",
        "(lambda: 4)()",
        "(answer := 4)",
        "open('/etc/passwd') and 4",
        "setattr(self, 'a', 1) or 4",
        "f'{entry.__class__}' and 4",
        "eval('2 + 2')",
        "print(4) or 4",
    ],
)
def test_code_is_not_executed(scorer, answer) -> None:
    found = score(scorer, f"eval:{answer}")
    assert isinstance(found, Judgement)
    assert found.verdict is Verdict.WRONG
    assert "the answer is code" in found.detail


def test_a_power_tower_is_a_timeout(scorer: GymScorer) -> None:
    found = score(scorer, "eval:9**9**9**9")
    assert isinstance(found, Judgement)
    assert found.verdict is Verdict.TIMEOUT
    assert score(scorer, "4") == 1.0


@pytest.mark.parametrize("text", ["1 + 2", "Symbol('x') + Integer(2)*sin(Symbol('x'))", "[[1, 2], [3, 4]]", "(1 / 2)"])
def test_expressions_are_no_code(text: str) -> None:
    assert _code(compile(text, "<string>", "eval")) == ""
    assert _code(compile("from sympy import *", "<string>", "exec")) == ""


def test_a_lost_helper_is_replaced(scorer: GymScorer) -> None:
    scorer.start()
    scorer._helper.kill()
    found = score(scorer, "4")
    assert isinstance(found, Judgement)
    assert found.verdict is Verdict.CRASHED
    assert score(scorer, "4") == 1.0


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("sum", {}, "unknown generator 'sum' of reasoning-gym; did you mean 'sums'"),
        ("", {}, "expected dataset = one of alien, any"),
        ("sums", {"mots": 3}, "'sums' has no option 'mots'; did you mean 'most'"),
        ("sums", {"seed": 3}, "'sums' has no option 'seed'"),
        ("sums", {"most": 0}, "'sums' refuses its options: AssertionError: most must be positive"),
        ("sums", {"most": "x"}, "'sums' refuses its options: TypeError"),
    ],
)
def test_what_the_library_does_not_know_is_named(library, name, config, message) -> None:
    with pytest.raises(InputError) as refused:
        GymScorer(name, config, SPLITS).start()
    assert message in str(refused.value)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "_packages", PACKAGES)
    monkeypatch.setattr(gym.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'reasonloop\[gym\]'"):
        GymScorer("sums", {}, SPLITS).start()


def test_without_a_sandbox(library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(InputError, match="can't be run safely here") as refused:
        GymScorer("sums", {}, SPLITS).start()
    assert "docker" not in str(refused.value)
    assert os.linesep not in str(refused.value)
