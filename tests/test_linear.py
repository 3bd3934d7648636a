"""Nothing that reads a model's text takes more than linear time: regular expressions are proved, the rest is counted."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import pytest
from backtracking import Use, superlinear
from counted import Work, counted
from house import ROOT, modules, tree

from reasonloop.analysis.lexicon import LEXICON
from reasonloop.imports.recognising import KNOWN
from reasonloop.verify.answers import _kept_forms

STEPS = [trainer.step for trainer in KNOWN if trainer.step]
METHODS = ("match", "fullmatch", "search", "finditer", "findall", "sub", "subn", "split")
MADE_ELSEWHERE = {
    "reasonloop.analysis.behaviours._matches": [entry.pattern for entry in LEXICON],
    "reasonloop.verify.answers._kept_forms": [_kept_forms().pattern],
    "reasonloop.imports.rows.step": STEPS,
    "reasonloop.imports.reading._home": STEPS,
    "reasonloop.imports.rows.within": [],  # of the names of files, which have 255 bytes
}
"""Patterns that are no constants where they are used"""
Site = tuple[str, str, int, Use]
"""(where, pattern, flags, use)"""


@cache
def patterns() -> list[Site]:
    found: list[Site] = []
    for name, path in modules(ROOT).items():
        if "scaffold" not in path.parts and "import re\n" in path.read_text(encoding="utf-8"):
            found += _inline(name, tree(path))
    own = [(name, *one) for name in modules(ROOT) for one in _constants(name)]
    uses = _uses({(name, variable) for name, variable, _, _ in own})
    for name, variable, where, pattern in own:
        for use in sorted(uses.get((name, variable), {"search", "full"})):
            found.append((f"{where} ({use})", pattern.pattern, pattern.flags, use))
    return list(dict.fromkeys(found))


def _constants(module: str) -> Iterator[tuple[str, str, re.Pattern[str]]]:
    """(variable, where in it, pattern) of a module's own."""
    if "re.compile(" not in modules(ROOT)[module].read_text(encoding="utf-8"):
        return
    source = tree(modules(ROOT)[module])
    made = {n.id for s in source.body for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    loaded = importlib.import_module(module)
    for variable in sorted(made & set(vars(loaded))):
        for where, pattern in _within(vars(loaded)[variable], f"{module}.{variable}"):
            yield variable, where, pattern


def _within(value: Any, where: str) -> Iterator[tuple[str, re.Pattern[str]]]:
    if isinstance(value, re.Pattern):
        yield where, value
    elif isinstance(value, tuple | list | dict):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _within(item, f"{where}[{key}]")


def _use(method: str, arguments: int) -> Use:
    if method == "fullmatch":
        return "full"
    if method == "match":
        return "anywhere" if arguments == 2 else "match"  # with an end, too, the text between is read once
    return "search"


def _uses(variables: set[tuple[str, str]]) -> dict[tuple[str, str], set[Use]]:
    """(module, variable) -> how it is used, wherever that is; left out where it is not called by its name."""
    found: dict[tuple[str, str], set[Use]] = {}
    homes = {module for module, _ in variables}
    for name, path in modules(ROOT).items():
        text = path.read_text(encoding="utf-8")
        for variable in variables:
            if f"{variable[0].rpartition('.')[2]}.{variable[1]}." in text:  # by its module's name
                found.setdefault(variable, set()).update(("search", "full"))
        if name not in homes and not any(f"from {home} import" in text for home in homes):
            continue
        source = tree(path)
        origin = {
            alias.asname or alias.name: (node.module, alias.name)
            for node in ast.walk(source)
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }
        called = {
            id(node.func.value): (node.func.attr, len(node.args))
            for node in ast.walk(source)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS
        }
        texts = {id(n.value) for n in ast.walk(source) if isinstance(n, ast.Attribute) and n.attr == "pattern"}
        for node in ast.walk(source):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in texts:
                variable = origin.get(node.id, (name, node.id))
                if variable not in variables:
                    continue
                uses = found.setdefault(variable, set())
                uses |= {_use(*called[id(node)])} if id(node) in called else {"search", "full"}
    return found


def _inline(module: str, source: ast.Module) -> Iterator[Site]:
    """re.sub("...", ...) and the like, wherever they are; what a module compiles for itself is met as its own."""
    todo: list[tuple[ast.AST, str]] = [(source, "")]
    while todo:
        node, function = todo.pop()
        assert not (isinstance(node, ast.ImportFrom) and node.module == "re"), f"{module}: expected import re"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            function = node.name
        elif isinstance(node, ast.Lambda):
            function = function or "lambda"
        todo += [(child, function) for child in ast.iter_child_nodes(node)]
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re"):
            continue
        if node.func.attr not in METHODS and not (node.func.attr == "compile" and function):
            continue
        where = f"{module}.{function}"
        use: Use = "search" if node.func.attr == "compile" else _use(node.func.attr, 1)
        if isinstance(node.args[0], ast.Constant):
            yield f"{where} {node.args[0].value!r}", node.args[0].value, 0, use
        else:
            assert where in MADE_ELSEWHERE, f"{where}: a pattern that is no constant; see MADE_ELSEWHERE"
            for pattern in MADE_ELSEWHERE[where]:
                yield f"{where} {pattern!r}", pattern, 0, use


def test_every_regular_expression_is_linear_by_construction() -> None:
    slow = [
        f"{where}: {again!r} again and again, with {pattern!r}"
        for where, pattern, flags, use in patterns()
        if (again := superlinear(pattern, flags, use)) is not None
    ]
    assert not slow, "\n".join(slow)
    assert len(patterns()) > 250


@pytest.mark.parametrize(
    ("pattern", "use", "slow"),
    [
        (r"a+", "search", False),
        (r"a+b", "search", True),
        (r"a+b", "match", False),
        (r"a+b", "anywhere", True),
        (r"(?<!a)a+b", "search", False),
        (r"a++b", "search", True),
        (r"xa+b", "search", False),
        (r"\bxa+b", "search", False),
        (r"a*a*", "match", False),
        (r"a*a*", "full", True),
        (r"a*+a*", "full", False),
        (r"(?:a*)*b", "match", True),
        (r"(?:a|ab)*c", "full", False),
        (r"(?:a|b|ab)*c", "full", True),
        (r"\s*,?\s*;", "match", True),
        (r"\s*(?:,\s*)?;", "match", False),
        (r"\d{1,3}(?:,\d{3})+(?![\d,])", "search", True),
        (r"\d{1,3}(?:,\d{3}(?!\d))+", "search", False),
        (r"\d{1,3}(?>(?:,\d{3})+)(?!\d)", "search", True),
        (r"<(?!a)[^>]*>", "search", True),
        (r"<[^<>]*>", "search", False),
        (r"\\a(?:[^\\]|\\(?!a|b))*\\b", "search", False),
        (r"\\a(?:[^\\]|\\(?!c|b))*\\b", "search", True),
        (r"a(?=[^b]*b)", "search", True),
        (r"x.{0,9}y", "search", False),
    ],
)
def test_the_proof_tells_slow_patterns_from_linear_ones(pattern: str, use: Use, slow: bool) -> None:
    assert (superlinear(pattern, 0, use) is not None) == slow


UNITS = (
    *("1", "000,", "1,000,", "1 000", ".", "0.", "1/", "1e", "-", "%", "$", "$$", "$1", "x", "x=", "(", ")", "[", "1!"),
    *(
        "\\",
        "{",
        "}",
        "\\boxed{",
        "\\boxed{1}",
        "\\boxed 5 ",
        "\\boxed{1}, ",
        "\\(",
        "\\[",
        "\\begin{align}",
        "\\frac12",
    ),
    *("answer is ", "answer: ", "the answer is not 5. ", "answer is 5. wait, ", "option A ", "A is correct, ", "5 or "),
    *(
        "```",
        "```python\n",
        "```\nx\n```\n",
        "#### 5\n",
        "####",
        "<think>",
        "</think>",
        "<answer>1</answer>",
        "<answer>",
    ),
    *("<<", "<<1>>", "<|", "<|end|>", "</b>", "\n", " ", "\t", ", ", "word ", "wait, ", "let me try another way. "),
    *("\u0301", "\u0663", "\ud800", "\x1b[", "step 1: ", "def f(): pass\n", "x = 1\n", "no ", "back ", "3 + 4 = 7 ; "),
    *("user", "user:", "<user|>", "[INST]", "assistant\n", "negative ", "5 and ", "1, ", "\\text{and} "),
)
"""What texts are made of, each over and over"""
NESTS = (
    ("\\boxed{", "}"),
    ("{", "}"),
    ("(", ")"),
    ("<answer>", "</answer>"),
    ("<think>", "</think>"),
    ("\\frac{", "}{1}"),
)
SIZES = (300, 900)
"""Characters"""
BOUNDED = ("NumericVerifier", "MathVerifier", "classes", "questions", "long gold answer")
BEYOND = (2_000, 6_000)
"""Characters, for what takes more time with short texts, and refuses longer ones or leaves them to a worker"""


def readers() -> dict[str, Any]:
    """By name, what reads a model's text in the calling process: functions of a text."""
    from reasonloop.analysis.behaviours import countdown_behaviours, language_behaviours
    from reasonloop.evaluation.majority import classes
    from reasonloop.imports.matching import questions
    from reasonloop.imports.rows import clean
    from reasonloop.records import Problem
    from reasonloop.rewards.endpoint_judge import parse_score
    from reasonloop.tasks.arithmetic import Arithmetic
    from reasonloop.tasks.countdown.task import Countdown
    from reasonloop.tasks.countdown.trace import parse_trace
    from reasonloop.text import readable, shown, visible
    from reasonloop.verify import answer_end, code, extract, verifiers
    from reasonloop.verify.answers import fold, one_line, unwrap
    from reasonloop.verify.maths.choices import choices_in

    problem = Problem("p", prompt="what percentage?", answer="5", meta={"numbers": [3, 4], "target": 7})
    found: dict[str, Any] = {
        "language_behaviours": lambda text: language_behaviours(text, text),
        "countdown_behaviours": lambda text: countdown_behaviours(problem, text),
        "parse_trace": lambda text: parse_trace(problem, text),
        "questions": lambda text: list(questions(text)),
        "parse_score": lambda text: parse_score(
            f'{{"choices": [{{"message": {{"content": {ascii(text)!s}}}}}]}}'.encode()
        ),
        "classes": lambda text: classes([text, text + "1", "5"]),
        "default_answer_end": answer_end.default_answer_end,
        "tag_end": answer_end.tag_end,
        "extract_code": code.extract_code,
        "extract_completion": code.extract_completion,
        "boxes_in": extract.boxes_in,
        "choices_in": choices_in,
        "rules_of": lambda text: verifiers.rules_of(Problem("p", prompt=text, answer="5"), "lenient"),
    }
    found |= {function.__name__: function for function in (clean, readable, visible, fold, one_line, unwrap)}
    found["shown"] = lambda text: shown(text, 80)
    for style in extract.STYLES:
        found[f"extract {style}"] = lambda text, style=style: extract.extract_answer(text, style)
        found[f"answer_end {style}"] = lambda text, style=style: answer_end.answer_end(text, style)
    for made in (verifiers.ExactVerifier("all"), verifiers.NumericVerifier("final"), verifiers.MathVerifier("bare")):
        found[type(made).__name__] = lambda text, made=made: made.quick(problem, text)
    found["long gold answer"] = lambda text: verifiers.MathVerifier("bare").quick(Problem("p", answer=text), "5")
    sizes = {"train": 1, "probe": 0, "test": 0}
    for task in (Countdown(**sizes), Countdown(**sizes, extract="boxed"), Arithmetic(**sizes)):
        own = task.problems()[0]
        for method in ("verify", "answer_end"):
            if (function := getattr(task, method, None)) is not None:
                name = f"{type(task).__name__}.{method} {getattr(task.options, 'extract', '')}"
                found[name] = lambda text, function=function, own=own: function(own, text)
    return found


def test_operations_grow_as_the_text_does() -> None:
    rooms = ("verify", "tasks", "analysis", "imports", "evaluation", "rewards", "text")
    with counted(*(f"reasonloop.{room}" for room in rooms)) as work:
        slow = []
        for name, read in readers().items():
            sizes = BEYOND if name.startswith(BOUNDED) else SIZES
            for text in (
                *(partial(_over, *one) for one in enumerate(UNITS)),
                *(partial(_nested, *one) for one in NESTS),
            ):
                few, many = (_spent(work, read, text(size)) for size in sizes)
                if many > 5 * few + 3_000:  # three times the text; its square would be nine
                    slow.append(f"{name}: {few:,} and {many:,} for {text(40)!r} and so on")
    assert not slow, "\n".join(slow)


def _over(number: int, unit: str, size: int) -> str:
    return unit * (size // len(unit)) + "x" * (number % 2)


def _nested(opening: str, closing: str, size: int) -> str:
    count = size // len(opening + closing)
    return opening * count + "5" + closing * count


def _spent(work: Work, read: Any, text: str) -> int:
    before = work.done
    read(text)
    return work.done - before
