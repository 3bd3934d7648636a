"""The trainer's scores beside the verifier's verdicts: a rule for what counts as right, and how far the two agree."""

from __future__ import annotations

import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reasonloop.errors import InputError
from reasonloop.imports.rows import Row

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
ENOUGH = 0.95
"""Share of rollouts: below it verdicts and scores don't agree"""
SHOWN = 2
_DISTINCT = 2048
"""Scores that are told apart; beyond that they are rounded to three digits"""


@dataclass(frozen=True)
class Rule:
    """What counts as right by the trainer's numbers: "score >= 1", "correct_answer == 1"."""

    name: str
    """"score", or one of its parts"""
    sign: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Raises InputError for what is no rule."""
        match = re.fullmatch(r"\s*(\S.*?)\s*(>=|<=|==|=|>|<)\s*(-?[0-9.eE+-]+)\s*", text)
        try:
            if match is None:
                raise ValueError
            return cls(match[1], "==" if match[2] == "=" else match[2], float(match[3]))
        except ValueError:
            raise InputError(
                f"--trust-scores {text!r}: expected a name, a comparison and a number, as 'score >= 1' or "
                "'correct_answer == 1'"
            ) from None

    def right(self, score: float | None, parts: Mapping[str, float]) -> bool | None:
        """None: the rollout has no such number."""
        value = score if self.name == "score" else parts.get(self.name)
        return None if value is None else _COMPARE[self.sign](value, self.limit)

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {self.limit:g}"


@dataclass
class Table:
    """Verdicts against what the scores say."""

    rule: str
    both: int = 0
    verdict_alone: int = 0
    """Right by the verdict, not by the score"""
    score_alone: int = 0
    neither: int = 0
    unscored: int = 0
    examples: list[str] = field(default_factory=list)
    """Of rollouts on which they differ"""

    @property
    def compared(self) -> int:
        return self.both + self.verdict_alone + self.score_alone + self.neither

    @property
    def agreement(self) -> float | None:
        """Share of the rollouts that have both"""
        return (self.both + self.neither) / self.compared if self.compared else None

    def lines(self) -> list[str]:
        """For a reader"""
        if self.agreement is None:
            return ["scores: none that says right or wrong; the verdicts stand alone"]
        rows = [
            ("", "score: right", "wrong", "none"),
            ("verdict right", f"{self.both:,}", f"{self.verdict_alone:,}", ""),
            ("        other", f"{self.score_alone:,}", f"{self.neither:,}", f"{self.unscored:,}"),
        ]
        found = [f"{a:<15}{b:>14}{c:>10}{d:>10}".rstrip() for a, b, c, d in rows]
        found[1] = found[1].rstrip()
        found.append(f"verdict and score agree on {100 * self.agreement:.1f} % of {self.compared:,} ({self.rule})")
        if self.agreement < ENOUGH:
            found.append(f"below {100 * ENOUGH:.0f} %: is it the right task, verifier and prompt? For example:")
            found += [f"  {example}" for example in self.examples[:SHOWN]]
        return found


@dataclass
class Agreement:
    """Counts as rollouts are judged; the table is made at the end, when all scores are known."""

    scored: bool = True
    """Whether right and wrong can be told by the trainer's score at all"""
    stated: Counter[tuple[bool, bool | None]] = field(default_factory=Counter)
    """(verdict, what the trainer says outright)"""
    by_score: Counter[tuple[float | None, bool]] = field(default_factory=Counter)
    """(score, verdict)"""
    examples: dict[tuple[object, bool], str] = field(default_factory=dict)

    def add(self, right: bool, row: Row, example: Callable[[], str]) -> None:
        """`right`: by the verdict. `example` describes the rollout."""
        score = row.score
        if score is not None and len(self.by_score) >= _DISTINCT:
            score = float(f"{score:.3g}")
        self.stated[right, row.right] += 1
        self.by_score[score, right] += 1
        for key in ((row.right, right), (score, right)):
            if key[0] is not None and key not in self.examples and len(self.examples) < 4 * _DISTINCT:
                self.examples[key] = example()

    def table(self) -> Table:
        """By what the trainer says outright, if it does; else by its score: the line between right and wrong lies where 0
        and 1 (or -1 and 1) leave no choice, and else where it agrees best with the verdicts, which is then said."""
        if any(said is not None for _, said in self.stated):
            return self._filled("as the trainer says", {said: said for _, said in self.stated}, self.stated_counts())
        scores = sorted({score for score, _ in self.by_score if score is not None})
        if not self.scored or not scores:
            return self._filled("", {None: None}, {})
        if set(scores) <= {-1.0, 0.0, 1.0}:
            limit, how = (1.0, "score == 1 is right")
        else:
            limit = max([*scores, math.inf], key=lambda line: (self._agreeing(line), math.isfinite(line), line))
            how = f"score >= {limit:g} is right: the line that agrees best" if limit < math.inf else "no score is right"
        return self._filled(how, {s: None if s is None else s >= limit for s, _ in self.by_score}, self.by_score)

    def stated_counts(self) -> Counter[tuple[bool | None, bool]]:
        return Counter({(said, right): count for (right, said), count in self.stated.items()})

    def _agreeing(self, limit: float) -> int:
        return sum(n for (score, right), n in self.by_score.items() if score is not None and (score >= limit) == right)

    def _filled(self, rule: str, said: Mapping[Any, bool | None], counts: Mapping[tuple[Any, bool], int]) -> Table:
        table = Table(rule)
        for (key, right), count in counts.items():
            scored = said[key]
            if scored is None:
                table.unscored += count
            elif scored and right:
                table.both += count
            elif scored:
                table.score_alone += count
            elif right:
                table.verdict_alone += count
            else:
                table.neither += count
            if scored is not None and scored != right and (key, right) in self.examples:
                table.examples.append(self.examples[key, right])
        return table
