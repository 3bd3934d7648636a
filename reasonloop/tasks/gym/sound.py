"""Whether a generator's scores can be trusted: its own answers are right, and what is no answer is wrong."""

from __future__ import annotations

from collections.abc import Iterable

from reasonloop.records import Judgement
from reasonloop.verify.answers import one_line
from reasonloop.verify.gym import GymScorer, Place

TRIED = 12
"""Problems that are looked at, evenly spread over all"""
GARBAGE = ("x", ".", "I do not know.")
"""What is the answer to nothing"""
MOST_TAKEN = 0.5
"""Share of problems at which another problem's answer may score 1: some have many right answers."""

Asked = tuple[Place, str, str]
"""(place, question, gold answer) of a problem"""


def fault_of(scorer: GymScorer, problems: Iterable[Asked]) -> str:
    """What is wrong with the generator, in words; nothing if its scores can be trusted."""
    asked = list(problems)
    tried = asked[:: max(1, len(asked) // TRIED)][:TRIED]
    for place, question, answer in tried:
        gold = answer.strip()
        if not gold:
            return f"it has no answer of its own to {one_line(question, 60)!r}"
        if (told := _score(scorer, place, question, gold)) != "1":
            return f"its own answer {one_line(gold, 40)!r} scores {told}; expected 1"
        for garbage in GARBAGE:
            if gold != garbage and _score(scorer, place, question, garbage) == "1":
                return f"it gives the score 1 to {garbage!r}, where its own answer is {one_line(gold, 40)!r}"
    pairs = [
        (place, question, other.strip())
        for (place, question, answer), (_, _, other) in zip(tried, [*tried[1:], *tried[:1]], strict=True)
        if other.strip() != answer.strip()
    ]
    taken = sum(_score(scorer, *pair) == "1" for pair in pairs)
    if taken > MOST_TAKEN * len(pairs):
        return f"it gives the score 1 to another problem's answer in {taken} of {len(pairs)} cases"
    return ""


def _score(scorer: GymScorer, place: Place, question: str, answer: str) -> str:
    """The score as text, or why there is none."""
    score = scorer.score(place, question, answer)
    return (
        f"nothing ({score.verdict}: {score.detail})" if isinstance(score, Judgement) else repr(score).removesuffix(".0")
    )
