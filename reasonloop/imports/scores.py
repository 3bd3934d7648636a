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
        match = re.fullmatch(r"\s*([^\s<>=]+)\s*(>=|<=|==|=|>|<)\s*(-?[0-9.eE+-]+)\s*", text)
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
            ("", "score right", "score wrong"),
            ("verdict right", f"{self.both:,}", f"{self.verdict_alone:,}"),
            ("verdict other", f"{self.score_alone:,}", f"{self.neither:,}"),
        ]
        found = [f"{name:<15}{right:>13}{wrong:>13}" for name, right, wrong in rows]
        found += [f"{'no score':<15}{self.unscored:>13,}"] if self.unscored else []
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
    stated: Counter[tuple[Any, bool]] = field(default_factory=Counter)
    """(what the trainer says outright, verdict), where it does"""
    by_score: Counter[tuple[Any, bool]] = field(default_factory=Counter)
    """(score, verdict) of the others"""
    examples: dict[tuple[str, Any, bool], str] = field(default_factory=dict)

    def add(self, right: bool, row: Row, example: Callable[[], str]) -> None:
        """`right`: by the verdict. `example` describes the rollout."""
        score = row.score
        if score is not None and len(self.by_score) >= _DISTINCT:
            score = float(f"{score:.3g}")
        kind, said = ("score", score) if row.right is None else ("stated", row.right)
        (self.by_score if row.right is None else self.stated)[said, right] += 1
        if said is not None and (kind, said, right) not in self.examples and len(self.examples) < 4 * _DISTINCT:
            self.examples[kind, said, right] = example()

    def table(self) -> Table:
        """By what the trainer says outright, or else by its score: the line between right and wrong lies where 0 and 1 (or
        -1 and 1) leave no choice, and else where it agrees best with the verdicts, which is then said."""
        limit, how = self._line()
        table = Table("; ".join([*(["as the trainer says"] if self.stated else []), *([how] if how else [])]))
        for (said, right), count in self.stated.items():
            self._count(table, ("stated", said, right), said, count)
        for (score, right), count in self.by_score.items():
            self._count(table, ("score", score, right), None if None in (score, limit) else score >= limit, count)
        return table

    def _line(self) -> tuple[float | None, str]:
        """The lowest score that is right, and what there is to say of it"""
        scores = sorted({score for score, _ in self.by_score if score is not None})
        if not self.scored or not scores:
            return None, ""
        if set(scores) <= {-1.0, 0.0, 1.0}:
            return 1.0, "score == 1 is right"
        best = max([*scores, math.inf], key=lambda line: (self._agreeing(line), math.isfinite(line), line))
        return best, f"score >= {best:g} is right, where it agrees best" if best < math.inf else "no score is right"

    def _agreeing(self, limit: float) -> int:
        return sum(n for (score, right), n in self.by_score.items() if score is not None and (score >= limit) == right)

    def _count(self, table: Table, key: tuple[str, Any, bool], said: bool | None, count: int) -> None:
        right = key[2]
        if said is None:
            table.unscored += count
        elif said and right:
            table.both += count
        elif said:
            table.score_alone += count
        elif right:
            table.verdict_alone += count
        else:
            table.neither += count
        if said is not None and said != right and key in self.examples:
            table.examples.append(self.examples[key])
