r"""Comparing an answer with the gold answer: as text, as a number, and as mathematics.

`exact`, `numeric` and `quick_math` are pure and bounded: they may run in the process that samples. What
`maths` doesn't know is left to `symbolic`, which is not bounded.

10, 10% and 0.1 are three different answers; but a gold answer with a percent sign, and a problem that asks for a percentage,
take the number with the sign and without (`Rules`).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from reasonloop.records import Judgement, Verdict
from reasonloop.verify.maths.answer import read, spelling
from reasonloop.verify.maths.equal import Rules, equal, letter_free, units_of
from reasonloop.verify.maths.forms import Answer, Quantity
from reasonloop.verify.maths.tokens import Unreadable, Unsupported
from reasonloop.verify.maths.tree import is_written_number
from reasonloop.verify.maths.value import rational
from reasonloop.verify.prose import stated

MAX_DIGITS = 300
MAX_EXPONENT = 400
MAX_NUMERAL = 1_000
"""Characters; a longer text is no numeral (300 digits with their separators take 400)."""
MAX_FOLDED = 10_000
"""Characters. Unicode normalisation is quadratic in a run of combining marks (40,000 of them: a second), so that longer
texts only get their white space folded."""
MAX_SYMBOLIC = 10_000
"""Characters; a longer answer is not parsed as mathematics."""
MAX_QUICK = 1_000
"""Characters; a longer answer, or gold answer, is compared by value in a worker, which has a deadline: reading and comparing
it isn't linear in its length (a text of this length takes a tenth of a second at most)."""
DETAIL = 200
KEPT_READINGS = 2_000
"""Answers, and gold answers, whose structure is kept"""
PLAIN = Rules()


def one_line(text: str, limit: int = DETAIL) -> str:
    """`text` for a reader and a UTF-8 file: one line of at most `limit` characters, all of them printable."""
    kept = text[: limit + 1]
    kept = "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in kept)
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


def fold(text: str) -> str:
    """`text` with compatible forms unified and white space folded: what `exact` compares.

    NFKC (full-width digits, ligatures, no-break spaces), then runs of white space become one space and the ends are
    stripped. Superscripts, subscripts, vulgar fractions and ℝ stay what they are: NFKC would read 10² as 102. Letter case,
    punctuation and NUL bytes count.
    """
    if not text.isascii() and len(text) <= MAX_FOLDED:
        text = "".join(
            part if i % 2 else unicodedata.normalize("NFKC", part) for i, part in enumerate(_kept_forms().split(text))
        )
    return " ".join(text.split())


@lru_cache(maxsize=1)
def _kept_forms() -> re.Pattern[str]:
    tags = ("<super>", "<sub>", "<fraction>")
    kept = (chr(code) for code in range(0x80, 0x11000) if unicodedata.decomposition(chr(code)).startswith(tags))
    return re.compile(f"([{''.join(kept)}ℝℤℕℚℂ˚])")


def exact(answer: str, gold: str) -> Judgement:
    """RIGHT if both are the same text after `fold`; UNPARSEABLE if the answer is empty; else WRONG."""
    answer, gold = fold(answer), fold(gold)
    if not answer:
        return Judgement(Verdict.UNPARSEABLE, "empty answer")
    return Judgement(Verdict.RIGHT if answer == gold else Verdict.WRONG, one_line(answer))


@dataclass(frozen=True, slots=True)
class Number:
    """A plain numeral's exact value. Two are the same answer if `value` and `percent` are the same."""

    value: Fraction
    percent: bool
    form: str
    """"integer" | "decimal" | "fraction": how it was written"""


_INTEGER = r"(?:[1-9][0-9]{0,2}(?>(?:,[0-9]{3})+)|[0-9]++)"
_PLAIN = re.compile(
    rf"(?P<sign>[-+])?\s?\$?\s?(?P<inner>[-+])?(?P<whole>{_INTEGER})?(?P<point>\.(?P<decimals>[0-9]*+))?"
    rf"(?:[eE](?P<exponent>[-+]?[0-9]++))?(?:\s?/\s?(?P<denominator>{_INTEGER}))?\s?(?P<percent>%|percent)?\.?"
)
_FRAC = re.compile(
    r"(?P<sign>[-+])?\s?\\[dt]?frac\s?\{\s?(?P<inner>[-+])?(?P<whole>[0-9]++)\s?\}\s?\{\s?(?P<denominator>[0-9]++)\s?\}"
    r"\s?(?P<percent>%|percent)?\.?"
)


def parse_number(text: str) -> Number | None:
    r"""The value of a plain numeral, or None.

    Read: integers, decimals, thousands separators in groups of three, a/b and \frac{a}{b} of such, exponents (1.5e3),
    a leading sign (the Unicode minus too), one leading $, surrounding $...$ or \(...\), a trailing % or full stop. Not
    read: other units, words, mixed numbers, decimal commas, a zero denominator, more than MAX_DIGITS digits, exponents
    beyond +-MAX_EXPONENT.
    """
    if text.isdecimal() and text.isascii() and len(text) <= 18:
        return Number(Fraction(int(text)), False, "integer")
    return _parse_number(text) if len(text) <= MAX_NUMERAL else None


@lru_cache(maxsize=KEPT_READINGS)
def _parse_number(text: str) -> Number | None:
    text = unwrap(fold(text))
    match = _PLAIN.fullmatch(text) or _FRAC.fullmatch(text)
    if match is None:
        return None
    parts = match.groupdict()
    whole, decimals = (parts["whole"] or "").replace(",", ""), parts.get("decimals") or ""
    denominator = (parts["denominator"] or "1").replace(",", "")
    exponent = (parts.get("exponent") or "0").lstrip("+")
    if not whole + decimals or (parts["sign"] and parts["inner"]):
        return None
    if len(whole + decimals) > MAX_DIGITS or len(denominator) > MAX_DIGITS or int(denominator) == 0:
        return None
    if len(exponent) > 6 or abs(int(exponent)) > MAX_EXPONENT:
        return None
    value = Fraction(int(whole + decimals), int(denominator)) * Fraction(10) ** (int(exponent) - len(decimals))
    if "-" in (parts["sign"], parts["inner"]):
        value = -value
    form = "fraction" if parts["denominator"] else "decimal" if parts.get("point") else "integer"
    return Number(value, parts["percent"] is not None, form)


def unwrap(text: str) -> str:
    r"""Take the mathematics out of its marks: **, $...$, \(...\), LaTeX's thousands separators, \$ and \%."""
    text = text.strip().removeprefix("**").removesuffix("**").strip()
    for left, right in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        inner = text[len(left) : -len(right)]
        if text.startswith(left) and text.endswith(right) and inner.strip() and left not in inner:
            text = inner.strip()
            break
    text = text.replace("\u2212", "-").replace("\\$", "$").replace("\\%", "%").replace("{,}", ",").replace("\\!", "")
    return re.sub(r"(?<=[0-9])\\,(?=[0-9]{3}(?![0-9]))", "", text)


def numeric(answer: str, gold: str, rules: Rules = PLAIN) -> Judgement:
    """RIGHT if both are numbers of exactly the same value, whatever units, currency or words stand with them.

    No tolerance: 0.333333 is not 1/3. UNPARSEABLE if either is no single number ("5 or 6", "5-", "2 + 3"); percent signs as
    `rules` have it.
    """
    number, expected = parse_number(answer) or parse_number(_DECIMAL_COMMA.sub(r"\1.\2", answer)), parse_number(gold)
    if number is not None and expected is not None:
        return _same_numbers(number, expected, rules, answer)
    found = []
    for name, text, plain in (("answer", answer, number), ("gold answer", gold, expected)):
        value = (plain.value, plain.percent) if plain is not None else _written_number(text)
        if value is None:
            return Judgement(Verdict.UNPARSEABLE, f"the {name} is no number: {one_line(text, 100)}")
        found.append(value)
    (a, ours), (b, theirs) = found
    right = a == b and rules.percent_fits(ours, theirs)
    return Judgement(Verdict.RIGHT if right else Verdict.WRONG, one_line(answer.strip()))


def _same_numbers(number: Number, expected: Number, rules: Rules, answer: str) -> Judgement:
    right = number.value == expected.value and rules.percent_fits(number.percent, expected.percent)
    return Judgement(Verdict.RIGHT if right else Verdict.WRONG, one_line(answer.strip()))


def _written_number(text: str) -> tuple[Fraction, bool] | None:
    """(value, whether in percent) of a single number with whatever is written around it, or None."""
    if len(text) > MAX_NUMERAL:
        return None
    reading = read_measured(fold(text))
    if isinstance(reading, str) or not reading.parts:
        reading = read_measured(fold(stated(text)))
    if isinstance(reading, str) or len(reading.parts) != 1 or not isinstance(reading.parts[0].form, Quantity):
        return None
    quantity = reading.parts[0].form
    value = rational(quantity.tree) if is_written_number(quantity.tree) else None
    return None if value is None else (value, "%" in quantity.units)


def quick_math(answer: str, gold: str, rules: Rules = PLAIN) -> Judgement | None:
    r"""The verdict on an answer in mathematics, or None where only `symbolic` can tell (integrals, sums and the like).

    Plain numerals are compared as such, equal texts are equal, and all else is read and compared by value (`maths`). Time
    and memory are bounded for texts of at most MAX_QUICK characters.
    """
    if not answer.strip():
        return Judgement(Verdict.UNPARSEABLE, "empty answer")
    if len(answer) > MAX_SYMBOLIC:
        return Judgement(Verdict.UNPARSEABLE, f"an answer of {len(answer):,} characters (limit {MAX_SYMBOLIC:,})")
    if answer == gold:
        return Judgement(Verdict.RIGHT, one_line(answer))
    a, b = parse_number(answer), parse_number(gold)
    if a is not None and b is not None and (a.value == b.value or {a.form, b.form} != {"fraction", "decimal"}):
        return _same_numbers(a, b, rules, answer)
    return _compared(fold(answer), fold(gold), rules)


def same_value(a: str, b: str) -> bool:
    """Whether two answers are one, written in two ways, as far as `quick_math` can tell; of long ones, whether they are one
    text."""
    if max(len(a), len(b)) > MAX_QUICK:
        return fold(a) == fold(b)
    judged = quick_math(a, b)
    return judged is not None and judged.verdict is Verdict.RIGHT


def _compared(answer: str, gold: str, rules: Rules) -> Judgement | None:
    """The verdict of `maths`. 1,234 may be a number or two, and 1,5 of an answer two or a decimal: right as either."""
    pointed = _DECIMAL_COMMA.sub(r"\1.\2", answer)
    if pointed != answer and (a := parse_number(pointed)) and a == parse_number(gold):
        return Judgement(Verdict.RIGHT, one_line(answer))
    apart = [_MAY_BE_TWO.sub(", ", text) if "," in text else text for text in (answer, gold)]
    verdict = _judged(answer, gold, rules)
    one_number = parse_number(gold) is not None
    if verdict is not None and verdict.verdict is not Verdict.RIGHT and apart != [answer, gold] and not one_number:
        other = _judged(apart[0], apart[1], rules)
        return other if other is not None and other.verdict is Verdict.RIGHT else verdict
    return verdict


_DECIMAL_COMMA = re.compile(r"\A\s*(-?[0-9]+),([0-9]+)\s*\Z")
_MAY_BE_TWO = re.compile(r"(?<=[0-9]),(?=[0-9]{3})")


def _judged(answer: str, gold: str, rules: Rules) -> Judgement | None:
    plain, expected = unwrap(answer), unwrap(gold)
    if plain == expected:
        return Judgement(Verdict.RIGHT, one_line(plain))
    ours, theirs = read_answer(answer), read_gold(gold)
    if ours is UNSUPPORTED or theirs is UNSUPPORTED:
        return Judgement(Verdict.RIGHT, one_line(plain)) if spelling(answer) == spelling(gold) else None
    if isinstance(ours, str) or isinstance(theirs, str):
        reason = f"the answer: {ours}" if isinstance(ours, str) else f"the gold answer: {theirs}"
        return Judgement(Verdict.UNPARSEABLE, one_line(f"{reason}: {plain if isinstance(ours, str) else expected}"))
    try:
        right = _equal(answer, gold, rules)
    except (Unreadable, RecursionError) as error:
        return Judgement(Verdict.UNPARSEABLE, one_line(f"can't be compared ({error}): {plain}"))
    if not right and not ours.parts and not ours.in_words:
        return Judgement(Verdict.UNPARSEABLE, one_line(f"{ours.reason}: {plain}"))
    return Judgement(Verdict.RIGHT if right else Verdict.WRONG, one_line(plain))


def _equal(answer: str, gold: str, rules: Rules) -> bool:
    """Whether they are equal in one of the ways in which they can be read."""
    ours, theirs = read_answer(answer), read_gold(gold)
    assert not isinstance(ours, str)
    assert not isinstance(theirs, str)
    if equal(ours, theirs, rules):
        return True
    if "%" in gold and "=" in gold and not rules.strict_percent:  # 0.56 = 56 %
        number = read_answer(gold)
        if not isinstance(number, str) and equal(ours, number, rules):
            return True
    as_gold = read_gold(answer)  # where a + b = 0 is an equation, and no value with a name
    if as_gold != ours and not isinstance(as_gold, str) and equal(as_gold, theirs, rules):
        return True
    measured = read_measured(answer) if letter_free(theirs) else ours  # 5 m for 5, and never 5 for 5 m
    if measured != ours and not isinstance(measured, str) and equal(measured, theirs, rules):
        return True
    expected = theirs if letter_free(theirs) else read_measured(gold)  # 5 \\text{ m} for 5 m
    return (
        not isinstance(expected, str)
        and units_of(ours) == units_of(expected) != frozenset()
        and equal(ours, expected, rules)
    )


UNSUPPORTED = "mathematics of a kind that is not known here"


def _read(text: str, gold: bool, bare: bool = False) -> Answer | str:
    """The structure of an answer, or why there is none."""
    try:
        return read(text, gold, bare)
    except Unsupported:
        return UNSUPPORTED
    except (Unreadable, RecursionError) as error:
        return str(error)


@lru_cache(maxsize=KEPT_READINGS)
def read_answer(text: str) -> Answer | str:
    return _read(text, gold=False)


@lru_cache(maxsize=KEPT_READINGS)
def read_gold(text: str) -> Answer | str:
    return _read(text, gold=True)


@lru_cache(maxsize=KEPT_READINGS)
def read_measured(text: str) -> Answer | str:
    """With letters behind a number as its unit."""
    return _read(text, gold=False, bare=True)
