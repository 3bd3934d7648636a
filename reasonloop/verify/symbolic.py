"""What `maths` doesn't know, by math-verify: integrals, sums and the like.

Unbounded in time and memory (``9^{9^{9^{9}}}`` holds the interpreter lock for minutes): it runs only in a worker that can be
killed.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from reasonloop.records import Judgement, Verdict
from reasonloop.verify.answers import fold, one_line, quick_math, unwrap

KEPT_JUDGEMENTS = 2_000
"""The responses of a group often give the same answer"""
KEPT_GOLDS = 200
"""Gold answers that are kept parsed (answers aren't: they may be huge, and nobody has checked them)"""

_PERCENT = re.compile(r"\\?%|\\(?:text|mathrm)\s?\{\s*(?:percent|%|\\%)\s*\}|\bpercent\b")
_PERCENT_LAST = re.compile(rf"(.*?\S)\s*(?:{_PERCENT.pattern})\s*", re.DOTALL)
_SIDE_BY_SIDE = re.compile(r"(?<![\^_])[0-9](?:\s|~|\\[ ;:,!])+[0-9]++(?!\s*/)")
_LEFT_OPEN = re.compile(
    r"\b(?:or|and|nor|vs|but|maybe|perhaps)\b|\\(?:lor|vee|land|wedge|quad|qquad)\b|;|\\&", re.IGNORECASE
)


@lru_cache(maxsize=KEPT_JUDGEMENTS)
def symbolic(answer: str, gold: str) -> Judgement:
    r"""math-verify's comparison of two expressions. Unbounded in time and memory: only for a worker with a deadline.

    math-verify's own alarms are off (they need the main thread, and can't interrupt one long multiplication). Both
    sides are parsed whole, as the content of one box, so that "5, 6" is a set and not its last number. Known quirks
    that are handled here: the percent sign is on both sides or none, and a symbol of its own (math-verify equates x, x %
    and x/100); "1 2",
    which it reads as 1 + 2, and unbalanced braces are refused. An answer that parses but can't be compared with the
    gold answer is WRONG; running out of memory or stack while comparing is raised.
    """
    from math_verify import verify

    texts = [unwrap(fold(answer)), unwrap(fold(gold))]
    if _elements(texts[0]) != _elements(texts[1]):
        return Judgement(Verdict.WRONG, "another number of elements")
    if _MASTER.search(texts[0]) and not _MASTER.search(texts[1]):
        return Judgement(Verdict.WRONG, "an infinity or an implication that the gold answer doesn't have")
    if "=" in texts[0] and "=" in texts[1]:  # 0 = 0 would be any equation
        return Judgement(Verdict.WRONG, "equations of another spelling")
    if bool(_PERCENT.search(texts[0])) != bool(_PERCENT.search(texts[1])):
        return Judgement(Verdict.WRONG, "a percent sign on one side only")
    bare = [_PERCENT_LAST.fullmatch(text) for text in texts]
    if bare[0] and bare[1]:  # "1/1 %" would be read as 1/(1 %)
        texts = [bare[0].group(1), bare[1].group(1)]
    sides = []
    for name, text in zip(("answer", "gold answer"), texts, strict=True):
        if not _balanced(text):
            return Judgement(Verdict.UNPARSEABLE, f"unbalanced braces in the {name}: {one_line(text, 100)}")
        if _SIDE_BY_SIDE.search(text):
            return Judgement(Verdict.UNPARSEABLE, f"two numbers side by side in the {name}: {one_line(text, 100)}")
        read = _parse if name == "answer" else _parse_gold
        parsed = read(_PERCENT.sub(r" \\wp ", text))
        if not parsed:
            return Judgement(Verdict.UNPARSEABLE, f"the {name} is no mathematics: {one_line(text, 100)}")
        sides.append(parsed)
    try:
        same = verify(sides[1], sides[0], timeout_seconds=None, raise_on_error=True)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}", 100)
        return Judgement(Verdict.WRONG, f"can't be compared with the gold answer ({reason})")
    same = same and not _other_case(*texts)
    return Judgement(Verdict.RIGHT if same else Verdict.WRONG, one_line(answer.strip()))


def _other_case(*texts: str) -> bool:
    """Whether their variables differ in letter case alone, which math-verify doesn't see."""
    ours, theirs = (set(_VARIABLE.findall(text)) for text in texts)
    return ours != theirs and {name.casefold() for name in ours} == {name.casefold() for name in theirs}


_VARIABLE = re.compile(r"(?<![A-Za-z\\\\])[A-Za-z](?![A-Za-z])")


_MASTER = re.compile(r"\\(?:infty|infin|iff|implies|to|Rightarrow|Leftrightarrow|rightarrow)(?![a-z])|∞|\boo\b|[→⇒⇔]")
"""With which math-verify finds an answer equal to others"""


def _elements(text: str) -> tuple[int, int, int, bool]:
    """Commas outside of brackets, words that leave it open, environments, whether there is anything: what math-verify reads
    past."""
    depth = commas = 0
    for sign in text.replace("\\,", " "):
        depth += (sign in "([{") - (sign in ")]}")
        commas += sign == "," and depth == 0
    something = re.search("[A-Za-z0-9]", re.sub(r"\\\\[a-zA-Z]+", "", text)) is not None
    return commas, len(_LEFT_OPEN.findall(text)), text.count("\\begin"), something


def prepare_symbolic() -> None:
    """Import math-verify and run it once, so that the first real comparison doesn't pay for it; silence its log."""
    import logging

    for name in ("math_verify", "latex2sympy2_extended"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    symbolic(r"\frac{1}{2}x + 1", r"1 + x/2")
    quick_math(r"\sin x", r"\cos x")


def _parse(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    return parse(
        f"\\boxed{{{text}}}",
        extraction_config=(LatexExtractionConfig(boxed_match_priority=0),),
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
        raise_on_error=True,
    )


_parse_gold = lru_cache(maxsize=KEPT_GOLDS)(_parse)


def _balanced(text: str) -> bool:
    depth = 0
    for brace in re.findall(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(brace, 0)
        if depth < 0:
            return False
    return depth == 0
