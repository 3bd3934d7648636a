r"""What a text in words says that the answer is: formulas and numbers in it, and phrases that announce an answer.

Pure, and linear in the length of the text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Possessive quantifiers (`++`): a run of ten million digits is walked once, whatever follows it. Behind a group they are
# written as atomic groups, `(?>(?:...)+)`: Python before 3.11.5 matches possessive groups wrongly.
_NUMERAL = (
    r"(?:(?<![\w)\]}])[-+\u2212])?(?:\\?\$[-\u2212]?)?(?<![A-Za-z0-9_])"
    r"(?:[0-9]{1,3}(?>(?:[ \u00a0\u202f][0-9]{3}(?![0-9]))+)|[0-9]++(?>(?:,[0-9]++)*)(?>(?:\.[0-9]++)?)|(?<!\.)\.[0-9]++)"
    r"(?>(?:[eE][-+]?[0-9]++(?![A-Za-z]))?)"
    r"(?>(?:\s?/\s?[0-9]++(?![.,]?[0-9]))?)"
    r"(?>(?:\s?\\?%|\s?percent\b)?)"
)
_NUMBER = re.compile(_NUMERAL)
_THOUSANDS = re.compile(r"[0-9],[0-9]{3}(?![0-9,])")
_FORMULA = re.compile(
    r"\$\$(?P<display>[^$]++)\$\$|(?<![\\$])\$(?P<inline>[^$\n]++)(?<!\\)\$(?![0-9])"
    r"|\\\((?P<round>(?>(?:[^\\]|\\(?![()]))*))\\\)|\\\[(?P<square>(?>(?:[^\\]|\\(?![\[\]]))*))\\\]"
    r"|\\begin\{(?:align|aligned|equation|gather|[pb]?matrix|array|cases)\*?\}(?P<lines>(?>(?:[^\\]|\\(?!begin|end))*))\\end\{[a-z]++\*?\}"
)
_RUN = re.compile(
    r"(?>(?:\\[a-zA-Z]++|\\[,;!%$ ]|\$(?=[-\u2212]?[0-9.])|[0-9{}()\[\]^_+\-*/=.,!|<>≤≥≠%°√π²³\u2212·×:]"
    r"|(?<![A-Za-z]\.)(?<![A-Za-z'’])(?![aAI](?:\s|$))[a-zA-Z](?![A-Za-z&])(?!\.[A-Za-z])"
    r"|\b(?:sqrt|sin|cos|tan|log|ln|pi)\b|[ \t\u00a0])+)"
)
_DIGIT = re.compile("[0-9]")
_PLAIN = re.compile(r"\\?\$?[-\u2212]?[0-9][0-9.,/]*")
_TIMES = re.compile(r"(?<=[0-9)\s])[xX](?=\s*\$?[.0-9(])")
_TORN = re.compile(r"^\S++")
_IN_FRONT = re.compile(r"^(?>(?:[ \t,;:*_]|=>|\.(?![0-9]))+)")
_PERCENT_BEHIND = re.compile(r"\s?percent\b")
_NOT_AROUND = " \t,;:.*_"
_PARTING = re.compile(r"[ \t,;]*(?:\b(?:and|or)\b[ \t,;]*)?")
_OR = re.compile(r"\bor\b")
_PROSE = re.compile(r"[-+*/=(,:]$|^\s*[0-9.,]++\s++[A-Za-z]{2}|(?<![\\A-Za-z])[A-Za-z]{3,}\s++[A-Za-z]{2,}")
_TEXT_INSIDE = re.compile(r"\\(?:text|mathrm|mbox|textbf)\s*+\{[^{}]*+\}")
_COMMAND, _LETTER_LEFT = re.compile(r"\\[a-zA-Z]++"), re.compile("[A-Za-z<>]")
_WORD = re.compile(r"[A-Za-z]{2,}")
_LEFT_OPEN = re.compile(
    r"(?:\bnot|n['’]t|cannot\s+be|\bmaybe|\bperhaps|possibly|probably|unknown|unclear|unlikely|up\s+to|over|under|almost|nearly"
    r"|(?:root|half|third|quarter|square|cube|double|twice|triple|multiple|factorial|percent)\s+of|twice|half"
    r"|at\s+(?:most|least)|(?:more|less|fewer|greater|larger|smaller|higher|lower)\s+than)\s*(?:(?:\$|\\\(|\\\[)\s*)?$",
    re.IGNORECASE,
)
_PHRASE = re.compile(
    r"(?:答案(?:是|为)?[:：]?|故选[:：]?|\b(?:respuesta|réponse)\s+(?:es|est|final:|finale:)"
    r"|\b(?:answers?|(?:correct\s+)?(?:option|choice))\b(?:"
    r"\s{0,5}+(?:\*{0,3}:|=|\bis(?=\b|n['’]t)|\bare(?=\b|n['’]t))|\s{1,3}-\s(?=\S)|\s{1,3}(?=can(?:not|['’]t)\s+be\b)"
    r"|(?:\s{1,5}+(?:to|of|for|in)\b[^.:?!\n]{1,80}?|\s{1,5}+(?:must|will|would|should)\b[^.:?!\n]{0,20}?)"
    r"\s(?:is\b|are\b|be\b|:|=)"
    r"|\*{0,3}\s{0,5}\n"
    r"|\s{1,5}+(?=[-$\\(]{0,3}[0-9])))"
    r"[\s:*_#`}]*+",
    re.IGNORECASE,
)
_NO_ANSWER = re.compile(r"(?:wrong|incorrect|in?valid|right|correct|to|what|yet)\b(?!\s*[:=])", re.IGNORECASE)
_NEGATED = re.compile(
    r"(?:not|n['’]t|can(?:not|['’]t)\s+be|still|un(?:known|clear|likely)|probably|likely|maybe|perhaps)\b",
    re.IGNORECASE,
)
_OPTION = re.compile(
    r"\b(?:[Oo]ption|[Cc]hoice)\s+\(?([A-J])(?![A-Za-z])|(?<![A-Za-z])\(?([A-J])\)?\s+is\s+(?:the\s+)?(?:correct|right)\b"
)
_DOUBTED = re.compile(r"\b(?:don['’]t|do\s+not|doubt)\b[^.!?\n]{0,30}$", re.IGNORECASE)
_HAS_VALUE = re.compile(r"[^.\n]{0,200}?(?:[0-9]|\\|\$|(?<![A-Za-z])\(?[A-J]\)?(?![A-Za-z]))")
_CORRECTED = re.compile(r"[.!?]?\s{1,9}(?:wait|actually|hmm|sorry|no,|correction|oops)\b", re.IGNORECASE)
_NEGATIVE = re.compile(r"\b(?:negative|minus)\s+$", re.IGNORECASE)
_MULTIPLE = re.compile(r"\s(?:hundred|thousand|million|billion|trillion|lakh|crore)s?\b")
_OPEN_BEHIND = re.compile(r"\s{1,9}or\s{1,9}(?:more|less|fewer|greater|higher|lower)\b", re.IGNORECASE)
_DENIED_OPTION = re.compile(r"\b(?:eliminate|exclude|not|rule\s+out|discard)\s*$", re.IGNORECASE)
_TAKEN_BACK = re.compile(r"[^.!?\n]{0,40}\?\s{0,3}(?:no|wait)\b", re.IGNORECASE)
_DENIED_BEHIND = re.compile(r"\s{0,3}(?:is|are|was|were)(?:n['’]t|\s+(?:not|wrong|incorrect))\b", re.IGNORECASE)
_LETTER = re.compile(r"[\s*_($\\]*([A-J])[\s*_.)$\\]*")
_SENTENCE = 1_000
_SHORT = 40
"""Characters of a response that is its answer in words"""
_SENTENCE_END = re.compile(
    r"(?<!\bRs)(?<!\bapprox)(?<!\bsq)(?<!\bNo)(?<!\b[ap]\.m)(?<!\bi\.e)(?<!\be\.g)[.!?]\*{0,3}\s|\n|。"
)
_REASON = re.compile(
    r"(?<=\S)[,;]?\s+\(?(?:since|because|so|which|where|hence|thus|therefore|i\.e\.|or\s+(?:about|approximately|roughly)"
    r"|as\s+(?:the|we|it|shown|required|desired|stated|above)|and\s+we\s+are\s+done|by\s+(?:the|our)|attained|achieved)(?![a-z])",
    re.IGNORECASE,
)
_STATES = re.compile(r"\b(?:is|are|was|were|equals?|be)\b|(?<![<>!=\\])=", re.IGNORECASE)
_EXCLAIMED = re.compile(r"(\$?[0-9]{2,}(?:,[0-9]{3})*)!+")
_SMALL_FACTORIAL = 12


class Value(NamedTuple):
    """A formula or a number with what belongs to it, where it stands in a text."""

    start: int
    end: int
    inside: str


def after_phrase(text: str) -> str | None:
    """What follows the last "the answer is", "answer:" and the like, up to the end of the sentence; None without one.

    "" where the last one denies or leaves open ("the answer is not 5") and nothing else is said behind it.
    """
    start, denied = None, False
    valued: tuple[int, bool] | None = None
    for phrase in _PHRASE.finditer(text):
        if not _NO_ANSWER.match(text, phrase.end()):
            doubted = _DOUBTED.search(text, max(0, phrase.start() - 60), phrase.start()) is not None
            start = phrase.end()
            denied = doubted or bool(_NEGATED.match(text, start) or _TAKEN_BACK.match(text, start))
            if denied or _HAS_VALUE.match(text, start):
                valued = start, denied
    start, denied = valued or (start, denied)
    if start is None:
        option = None
        for found in _OPTION.finditer(text):
            front = _DENIED_OPTION.search(text, max(0, found.start() - 20), found.start())
            option = option if front or _DENIED_BEHIND.match(text, found.end()) else found
        return option[1] or option[2] if option else None
    sentence = text[start : start + _SENTENCE]
    formula = _FORMULA.match(sentence)
    end = _SENTENCE_END.search(sentence, formula.end() if formula else 0)
    if end and _CORRECTED.match(sentence, end.start()):
        denied = True
    if denied:
        return (last_value(sentence[end.end() :]) if end else None) or ""
    sentence = sentence[: end.start()] if end else sentence
    reason = _REASON.search(sentence, formula.end() if formula else 0)
    return stated(sentence[: reason.start()] if reason else sentence) or None


def stated(sentence: str) -> str:
    """What a sentence says that the value is: "the volume of the box is 120" says 120. Without a value it is itself."""
    sentence = sentence.strip().strip("*`_").rstrip(".").strip().strip("_")
    sentence = sentence[:-1] if sentence.endswith(("$!", ")!", "}!", "*!")) else sentence
    exclaimed = _EXCLAIMED.fullmatch(sentence)
    if exclaimed and (len(exclaimed[1]) > 3 or int(exclaimed[1].strip("$")) > _SMALL_FACTORIAL):
        return exclaimed[1]
    values = values_in(sentence)
    front = sentence[: values[0].start] if values else ""
    if not values or len(_WORD.findall(front)) < 2:
        return "" if _LEFT_OPEN.search(front) else sentence
    if _LEFT_OPEN.search(front):
        return ""
    state = None
    for state in _STATES.finditer(sentence):  # noqa: B007
        pass
    if state is not None and values[-1].end > state.end() and values[-1].start >= state.start():
        return sentence[state.end() :].strip()
    return values[0].inside if len(values) == 1 else sentence


def last_value(text: str) -> str | None:
    """The last formula, or the last number that stands in none, with those that commas, "and" or "or" join to it."""
    letter = _LETTER.fullmatch(text) if len(text) < 40 else None
    if letter:
        return letter[1]
    values = values_in(text)
    if not values:
        words = text.strip()
        return words if len(words) <= _SHORT and "\n" not in words and words else None
    if _DENIED_BEHIND.match(text, values[-1].end) or _OPEN_BEHIND.match(text, values[-1].end):
        return None
    first = values[-1]
    found = [first.inside]
    for before in values[-2::-1]:
        between = text[before.end : first.start]
        if len(between) > 20 or not between or not _PARTING.fullmatch(between):
            break
        found += ["or" if _OR.search(between) else ",", before.inside]
        first = before
    return None if _LEFT_OPEN.search(text, max(0, first.start - 40), first.start) else " ".join(reversed(found))


def values_in(text: str) -> list[Value]:
    """The formulas of a text, and between them the numbers with what they are calculated with."""
    found: list[Value] = []
    at = start = last_word = 0
    for word in _WORD.finditer(text):
        last_word = word.start()
    while match := _FORMULA.search(text, at):
        at = match.end()
        inside = (
            match.group() if match["lines"] else next(group for group in match.groups() if group is not None).strip()
        )
        if match["inline"] is not None and _PROSE.search(_TEXT_INSIDE.sub("", inside)):
            at = match.end() - 1  # $5 and then $6: two currencies
        elif inside and not (len(inside) == 1 and inside.islower() and at <= last_word):
            found += _runs(text, start, match.start())
            found.append(Value(match.start(), match.end(), _last_side(inside)))
            start = match.end()
    return found + _runs(text, start, len(text))


def _runs(text: str, start: int, end: int) -> list[Value]:
    """Numbers outside of formulas, each with the signs, letters and numbers that it stands among."""
    found = []
    for run in _RUN.finditer(text, start, end):
        if not _DIGIT.search(run.group()):
            continue
        before = text[run.start() - 1 : run.start()] if run.start() > start else ""
        torn = before.isalpha() and before.isascii() and text[run.start()].isdigit()  # K2
        inside = _balanced(_TORN.sub("", run.group()) if torn else run.group())
        at = run.start() + run.group().find(inside)
        percent = _PERCENT_BEHIND.match(text, at + len(inside)) or _MULTIPLE.match(text, at + len(inside))
        if percent:
            inside += percent.group()
        if _NEGATIVE.search(text, max(0, at - 12), at):
            inside = f"-{inside}"
        if _DIGIT.search(inside):
            found.append(Value(at, at + len(inside), _last_side(inside)))
    return found


def _last_side(inside: str) -> str:
    """What a calculation in numbers comes to: 18 of 5 + 13 = 18, and of 5 = 5 + 13 = 18, as people write on."""
    side = inside.rpartition("=")[2].strip()
    if inside.count("=") > 1 and _PLAIN.fullmatch(side):  # W = 6 / 2 = 3
        return side
    if "%" in side and "%" not in inside.rpartition("=")[0]:  # 3/4 = 75 %
        return inside
    return (
        side
        if side and side != inside and not _LETTER_LEFT.search(_TIMES.sub("*", _COMMAND.sub(" ", inside)))
        else inside
    )


def _balanced(run: str) -> str:
    """Without brackets at its ends that have no other, and signs that would stand alone then."""
    run = _IN_FRONT.sub("", run).rstrip(_NOT_AROUND)
    for opening, closing in ("()", "[]", "{}"):
        excess = run.count(opening) - run.count(closing)
        front = min(max(excess, 0), len(run) - len(run.lstrip(opening)))
        run, excess = run[front:], excess - front
        behind = min(abs(excess), len(run) - len(run.rstrip(opening if excess > 0 else closing)))
        run = _IN_FRONT.sub("", run[: len(run) - behind]).rstrip(_NOT_AROUND)
    return run.rstrip("=+-<>/").rstrip(_NOT_AROUND).lstrip("=").strip()


def last_number(text: str) -> str | None:
    """The last numeral, wherever it stands."""
    last = None
    for last in _NUMBER.finditer(text):  # noqa: B007  (the last match is the one that counts)
        pass
    if last is None:
        return None
    numeral = last.group().strip()
    if "," in numeral and not _THOUSANDS.search(numeral):
        numeral = numeral.rsplit(",", 1)[1]  # "3,4" is a list: its last number is 4
    return numeral
