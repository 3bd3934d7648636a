"""The verifiers in their workers: gold answers, the hang corpus, and the stream of `reasonloop verify`."""

import io
import json
import threading

import pytest

from reasonloop.errors import InputError
from reasonloop.records import Problem, Verdict
from reasonloop.tasks import check_task
from reasonloop.verify.stream import run_stream
from reasonloop.verify.verifiers import ExactVerifier, MathVerifier, NumericVerifier
from reasonloop.verify.workers import VerifierPool, VerifierSpec

RIGHT, WRONG, UNPARSEABLE, TIMEOUT, CRASHED = Verdict
OVERHEAD = 15.0
WORKERS, DEADLINE = 2, 1.0


def spec(name: str, **options: str) -> VerifierSpec:
    return VerifierSpec(f"reasonloop.verify.verifiers:{name}", options)


def problem(answer: str, id: str = "p") -> Problem:
    return Problem(id=id, prompt="?", answer=answer)


@pytest.fixture(scope="module")
def math_pool():
    with VerifierPool(spec("MathVerifier"), workers=WORKERS, deadline=DEADLINE) as pool:
        yield pool


POISON = [
    "9^{9^{9^{9}}}",
    "\\int 9^{9^{9^{9}}} dx",
    "\\sum_{k=1}^{9^{9^9}} k!",
    "((10^10)!)!",
    "10^{10^{10}}!",
    "(" * 3000 + "1" + ")" * 3000,
    "\\frac1{" * 1000 + "1" + "}" * 1000,
    "\\frac{1}{" * 3000 + "1" + "}" * 3000,
    "{" * 3000 + "1" + "}" * 3000,
    "1" * 10_000_000,
    "9^" * 5_000_000,
    "(" * 10_000_000,
    "5\0",
    "\0" * 9_000,
    "\ud800",
    "\\" * 9_000,
    "x^" * 4_500 + "x",
    "\\sqrt{" * 1500 + "2" + "}" * 1500,
]
LEGITIMATE = [("x+1", "1+x", RIGHT), ("\\sqrt{8}", "2\\sqrt{2}", RIGHT), ("x", "x+1", WRONG), ("7", "7.0", RIGHT)]


def test_the_hang_corpus_ends_and_costs_no_others_their_verdicts(math_pool):
    """From the main thread and from others: legitimate answers between the poisoned ones all get their verdicts."""
    threads = 3
    mine = [POISON[i::threads] for i in range(threads)]
    found: list[list[Verdict]] = [[] for _ in range(threads)]

    def use(thread: int) -> None:
        items = []
        for poison in mine[thread]:
            items.append((problem("5"), f"\\boxed{{{poison}}}"))
            items += [(problem(gold), f"so \\boxed{{{answer}}}") for gold, answer, _ in LEGITIMATE]
        found[thread] = [judgement.verdict for judgement in math_pool.verify(items)]

    others = [threading.Thread(target=use, args=(i,)) for i in range(1, threads)]
    for thread in others:
        thread.start()
    use(0)
    for thread in others:
        thread.join()
    size = 1 + len(LEGITIMATE)
    for verdicts, poisons in zip(found, mine, strict=True):
        assert len(verdicts) == size * len(poisons)
        for i in range(len(poisons)):
            poisoned, *legitimate = verdicts[i * size : (i + 1) * size]
            assert poisoned is not RIGHT
            assert legitimate == [verdict for _, _, verdict in LEGITIMATE]


def test_a_true_hang_is_a_timeout(math_pool):
    hang = "\\boxed{\\int 9^{9^{9^{9}}} dx}"  # an integral goes to math-verify
    assert math_pool.verify([(problem("5"), hang)])[0].verdict is TIMEOUT


@pytest.mark.parametrize(
    ("verifier", "gold", "response", "verdict"),
    [
        (ExactVerifier(), "Paris", " Paris\n", RIGHT),
        (ExactVerifier("boxed"), "Paris", "It is \\boxed{Paris}", RIGHT),
        (ExactVerifier(), "Paris", "It is Paris", WRONG),
        (ExactVerifier(), "Paris", "", UNPARSEABLE),
        (NumericVerifier(), "1,234", "so\n#### 1234", RIGHT),
        (NumericVerifier(), "18", "The answer is 18 dollars.", RIGHT),
        (NumericVerifier(), "18", "that is 18%", WRONG),
        (NumericVerifier(), "18", "no idea", UNPARSEABLE),
        (NumericVerifier("boxed"), "18", "18", UNPARSEABLE),
        (MathVerifier(), "12", "\\boxed{12", UNPARSEABLE),
        (MathVerifier(), "12", "\\boxed{12}", RIGHT),
    ],
)
def test_verifiers_judge_what_they_extract(verifier, gold, response, verdict):
    assert verifier.verify(problem(gold), response).verdict is verdict
    assert verifier.quick(problem(gold), response) == verifier.verify(problem(gold), response)


def test_an_unknown_extraction_is_bad_input_at_creation():
    with pytest.raises(InputError, match=r"'box'.*expected one of boxed"):
        VerifierPool(spec("MathVerifier", extract="box"))


@pytest.mark.parametrize("style", ["boxed", "hash", "final", "last_number", "bare", "all"])
def test_gold_answers_that_fail_are_named(style):
    good = [problem(str(n), f"good{n}") for n in range(50)] + [problem("-1,234.5", "good"), problem("10%", "percent")]
    bad = [problem("", "empty"), problem("several", "word")]
    with VerifierPool(spec("NumericVerifier", extract=style), workers=1) as pool:
        failed = check_task(pool.verifier, good + bad, pool)
    assert [p.id for p, _ in failed] == ["empty", "word"]
    assert all(judgement.verdict is UNPARSEABLE for _, judgement in failed)


def test_mathematical_gold_answers(math_pool):
    golds = ["\\frac{1}{2}", "x^2+1", "\\{1, 2\\}", "\\text{(A)}", "(3, 4)", "\\pi", "9^{9^{9^{9}}}", "{12"]
    failed = check_task(math_pool.verifier, [problem(gold) for gold in golds], math_pool)
    assert [p.answer for p, _ in failed] == ["{12"]


def stream(kind: str, lines, **options) -> list[str]:
    out = io.StringIO()
    deadline, workers = options.pop("deadline", DEADLINE), options.pop("workers", WORKERS)
    run_stream(kind, lines, out, deadline, workers, **options)
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert all(set(row) <= {"verdict", "detail"} for row in rows)
    return [row["verdict"] for row in rows]


def line(answer: str, gold: str) -> str:
    return json.dumps({"answer": answer, "gold": gold}) + "\n"


def test_a_stream_is_judged_in_order():
    lines = [
        line("x+1", "1+x"),
        line("\\int 9^{9^{9^{9}}} dx", "5"),
        line("so \\boxed{7}", "7"),
        line("10%", "10"),
        line("", "1"),
    ]
    expected = ["right", "timeout", "right", "wrong", "unparseable"]
    assert stream("math", lines) == expected
    assert stream("math", [text.encode() for text in lines]) == expected
    assert stream("exact", [line(" a ", "a"), line("a", "A")]) == ["right", "wrong"]
    assert stream("numeric", [line("1,000", "1e3"), line("x", "1")]) == ["right", "unparseable"]
    assert stream("exact", []) == []


def test_a_stream_of_whole_responses():
    lines = [line("So it is $2\\pi$.", "2\\pi"), line("It is 2 or 3.", "3"), line("<think>5", "5")]
    assert stream("math", lines, extract="final") == ["right", "wrong", "unparseable"]
    assert stream("numeric", [line("Step 1\n#### 42 eggs", "42")], extract="hash") == ["right"]
    asked = json.dumps({"answer": "20%", "gold": "20", "prompt": "What percent of 50 is 10?"})
    assert stream("math", [asked]) == ["right"]
    assert stream("math", [asked], percent="strict") == ["wrong"]


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("code", {"extract": "final"}, "--extract"),
        ("exact", {"percent": "strict"}, "--percent"),
        ("math", {"extract": "x"}, "'x'"),
    ],
)
def test_options_of_a_stream_that_make_no_sense(kind, options, said):
    with pytest.raises(InputError, match=said):
        stream(kind, [line("1", "1")], **options)


def test_a_stream_takes_numbers_and_ends_with_empty_lines():
    rows = [(18, "18", "right"), ("18.0", 18, "right"), (0.5, "1/2", "right"), (1e22, 10**22, "right"), (2, 3, "wrong")]
    lines = [json.dumps({"answer": answer, "gold": gold}) for answer, gold, _ in rows]
    assert stream("numeric", [*lines, "\n", b" \r\n", ""]) == [verdict for *_, verdict in rows]


def test_a_stream_reads_only_so_far_ahead():
    """Bounded memory: while the first line hangs, only a window of the lines behind it is read."""
    read = 0

    def lines():
        nonlocal read
        yield line("\\int 9^{9^{9^{9}}} dx", "5")
        for _ in range(2_000):
            if not out.getvalue():
                read += 1
            yield line("1", "1")

    out = io.StringIO()
    run_stream("math", lines(), out, DEADLINE, 1)
    assert len(out.getvalue().splitlines()) == 2_001
    assert read < 100


def test_a_stream_answers_each_line_before_the_next_is_read():
    """A program may hold a dialogue: it writes a line, and reads the verdict before it writes another."""
    printed = threading.Semaphore(0)

    class Out(io.StringIO):
        def flush(self):
            printed.release()

    def lines():
        for answer in ("1", "2", "x"):
            yield line(answer, "1")
            assert printed.acquire(timeout=OVERHEAD)

    out = Out()
    run_stream("math", lines(), out, DEADLINE, 1)
    assert len(out.getvalue().splitlines()) == 3


@pytest.mark.parametrize(
    ("bad", "got"),
    [
        ("\n", "no JSON"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        (b'\xff{"answer": "1"}', "no JSON"),
        ("[1]", "got a list"),
        ('{"answer": "1"}', "no 'gold'"),
        ('{"answer": true, "gold": "1"}', "'answer' of type bool"),
        ('{"answer": "1", "gold": null}', "'gold' of type NoneType"),
    ],
)
def test_a_bad_line_is_named_after_the_verdicts_before_it(bad, got):
    out = io.StringIO()
    kind, gold = ("math", "1+x") if bad == "\n" else ("exact", "x+1")  # "math": while a worker still starts
    with pytest.raises(InputError, match=f"line 4: .*{got}.*expected a JSON object") as error:
        run_stream(kind, [line("x+1", gold), line("1", "1"), line("1", "2"), bad, line("1", "1")], out, DEADLINE, 1)
    assert "\n" not in str(error.value)
    assert [json.loads(row)["verdict"] for row in out.getvalue().splitlines()] == ["right", "right", "wrong"]


@pytest.mark.parametrize(("kind", "got"), [("maths", "'maths'")])
def test_an_unknown_kind_is_bad_input(kind, got):
    with pytest.raises(InputError, match=f"--kind: .*{got}.*math, exact, numeric"):
        stream(kind, [])


def test_an_output_that_is_gone_ends_the_stream():
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_stream("exact", (line("1", "1") for _ in range(10_000)), Gone(), DEADLINE, 1)
