"""The worker pool: whatever a verifier does, it costs its own item only, and at most its deadline."""

import os
import select
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from reasonloop.errors import InputError, RunError
from reasonloop.records import Judgement, Problem, Verdict
from reasonloop.verify.workers import VerifierPool, VerifierSpec

RIGHT, WRONG, UNPARSEABLE, TIMEOUT, CRASHED = Verdict
OVERHEAD = 15.0
"""Seconds for starting workers on a busy machine; a poison that is not stopped takes hours."""


def problem(answer: str = "gold") -> Problem:
    return Problem(id="p", prompt="?", answer=answer)


def hostile(name: str = "Hostile") -> VerifierSpec:
    return VerifierSpec(f"hostile_verifiers:{name}")


def verdicts(judgements: list[Judgement]) -> list[Verdict]:
    return [judgement.verdict for judgement in judgements]


@pytest.fixture(scope="module")
def pool():
    with VerifierPool(hostile(), workers=2, deadline=0.6) as pool:
        yield pool


def test_order_is_kept(pool):
    items = [(problem(str(i)), str(i if i % 3 else -1)) for i in range(200)]
    assert verdicts(pool.verify(items)) == [RIGHT if i % 3 else WRONG for i in range(200)]
    assert pool.verify([]) == []


@pytest.mark.parametrize(
    ("response", "verdict", "detail"),
    [
        ("exit", CRASHED, "exit status 3"),
        ("sysexit", CRASHED, "SystemExit: bye"),
        ("segfault", CRASHED, "SIGSEGV"),
        ("allocate", CRASHED, "MemoryError"),
        ("recurse", CRASHED, "RecursionError"),
        ("raise", CRASHED, "KeyError"),
        ("none", CRASHED, "returned a NoneType"),
        ("bool", CRASHED, "returned a bool"),
        ("name", RIGHT, ""),
        ("text", CRASHED, "returned 'correct', expected a Verdict or a Judgement"),
        ("half", CRASHED, "returned Judgement(verdict=True"),
        ("forge", CRASHED, "no answer"),
        ("nest", CRASHED, "no answer"),
        ("flood", CRASHED, "no answer"),
        ("half_a_line", TIMEOUT, "0.6 s"),
        ("close", CRASHED, "died"),
        ("hang", TIMEOUT, "0.6 s"),
        ("sleep", TIMEOUT, "0.6 s"),
        ("print", RIGHT, ""),
        ("read", RIGHT, ""),
        ("detail", RIGHT, "x"),
        ("thread", RIGHT, ""),
        ("modules", RIGHT, ""),
    ],
)
def test_a_misdeed_costs_its_own_item_only(pool, response, verdict, detail):
    items = [(problem(str(i)), str(i)) for i in range(6)]
    items.insert(3, (problem(), response))
    judgements = pool.verify(items)
    assert verdicts(judgements) == [RIGHT] * 3 + [verdict] + [RIGHT] * 3
    found = judgements[3].detail
    assert detail in found
    assert len(found) <= 500
    assert found.isprintable()
    found.encode()


SCORES = {
    "0": 0.0,
    "1": 1.0,
    "0.1": 0.1,
    "1 / 3": 1 / 3,
    "None": None,
    "__import__('numpy').float32(0.5)": 0.5,
    "__import__('fractions').Fraction(1, 4)": 0.25,
}
NO_SCORES = [
    "1.01",
    "-0.1",
    "float('nan')",
    "float('inf')",
    "10**400",
    "True",
    "'0.5'",
    "[1]",
    "__import__('numpy').nan",
]


@pytest.mark.parametrize("where", ["score", "here"])
def test_a_score_comes_back_as_it_was_given_and_what_is_none_is_a_crash(where):
    """From a worker, and from a quick verdict in the calling process."""
    with VerifierPool(hostile("Quick"), workers=1, deadline=5) as pool:
        found = pool.verify([(problem(), f"{where} {score}") for score in [*SCORES, *NO_SCORES]])
    assert found[: len(SCORES)] == [Judgement(WRONG, "partly", score) for score in SCORES.values()]
    assert all(judged.score is None or type(judged.score) is float for judged in found)
    assert verdicts(found[len(SCORES) :]) == [CRASHED] * len(NO_SCORES)
    for judged, score in zip(found[len(SCORES) :], NO_SCORES, strict=True):
        shown = repr(eval(score))[:100]
        assert judged == Judgement(
            CRASHED, f"the verifier returned the score {shown}, expected a number from 0 to 1, or None"
        )


def test_poison_costs_its_own_verdict_and_no_others():
    items = []
    for i in range(60):
        items.append((problem(str(i)), str(i)))
        if i % 10 == 0:
            items.append((problem(), "hang" if i % 20 else "sleep"))
    with VerifierPool(hostile(), workers=2, deadline=0.5) as pool:
        judgements = pool.verify(items)  # what hangs would do so for good: without its deadline this never ends
    expected = [TIMEOUT if response in ("hang", "sleep") else RIGHT for _, response in items]
    assert verdicts(judgements) == expected


@pytest.mark.parametrize("deadline", [float("nan"), 0.0, -1.0, float("inf"), 1e12])
def test_a_deadline_that_cannot_be_kept_is_refused(deadline):
    with pytest.raises(InputError, match=r"deadline: got .*, expected more than 0 and at most 86,400 seconds"):
        VerifierPool(hostile(), workers=1, deadline=deadline)


def test_a_worker_that_died_idle_costs_no_answer():
    with VerifierPool(hostile(), workers=1, deadline=20.0) as pool:
        for _ in range(3):
            died = int(pool.verify([(problem(), "pid")])[0].detail)
            os.kill(died, signal.SIGKILL)
            assert gone(died)  # and not reaped yet: its owner meets it with the next item
            judged = pool.verify([(problem("7"), "7"), (problem("8"), "9")])
            assert verdicts(judged) == [RIGHT, WRONG]


def test_threads_may_share_a_pool(pool):
    results: dict[int, list[Verdict]] = {}

    def use(number: int) -> None:
        items = [(problem(str(i)), str(i)) for i in range(20)] + [(problem(), "hang" if number == 1 else "raise")]
        results[number] = verdicts(pool.verify(items))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: [RIGHT] * 20 + [TIMEOUT if i == 1 else CRASHED] for i in range(4)}


def test_start_up_is_not_counted():
    with VerifierPool(hostile("SlowStart"), workers=1, deadline=0.4) as pool:
        judgements = pool.verify([(problem(), "gold"), (problem(), "exit"), (problem(), "hang"), (problem(), "gold")])
    assert verdicts(judgements) == [RIGHT, CRASHED, TIMEOUT, RIGHT]


def test_time_in_the_queue_is_not_counted():
    with VerifierPool(hostile(), workers=1, deadline=0.5) as pool:
        futures = [pool.submit(problem(), "sleep") for _ in range(3)] + [pool.submit(problem(), "gold")]
        assert verdicts([future.result() for future in futures]) == [TIMEOUT] * 3 + [RIGHT]


def test_submit_returns_before_the_verdicts():
    with VerifierPool(hostile(), workers=1, deadline=1.0) as pool:
        future = pool.submit(problem(), "sleep")
        assert not future.done()
        assert future.result().verdict is TIMEOUT


def test_a_healthy_worker_is_kept():
    with VerifierPool(hostile(), workers=1, deadline=2.0) as pool:
        pids = {
            j.detail for j in pool.verify([(problem(), r) for r in ("pid", "raise", "none", "recurse", "pid")][::4])
        }
    assert len(pids) == 1


def test_awkward_text_arrives_as_it_is(pool):
    texts = ["\0", "a\0b", "\ud800", "\udfff\ud800", "\u2028", "𝟙", "\r\n", "", "x" * 900_000, "\ud800" * 200_000]
    assert verdicts(pool.verify([(problem(text), text) for text in texts])) == [RIGHT] * len(texts)


def test_a_response_over_the_limit_is_refused_unread(pool):
    (judgement,) = pool.verify([(problem("x" * 10_000_000), "x" * 10_000_000)])
    assert judgement == Judgement(UNPARSEABLE, "a response of 10,000,000 characters (limit 1,000,000)")


def test_a_problem_that_cannot_be_sent_costs_its_own_item(pool):
    unsendable = Problem(id="p", answer="gold", meta={"f": lambda: 0})
    judgements = pool.verify([(problem(), "gold"), (unsendable, "gold"), (problem(), "gold")])
    assert verdicts(judgements) == [RIGHT, CRASHED, RIGHT]
    assert "can't be sent" in judgements[1].detail


def test_quick_verdicts_need_no_worker():
    with VerifierPool(hostile("Quick"), workers=1, deadline=1.0) as pool:
        judgements = pool.verify([(problem(), "quick"), (problem(), "quick raise")])
        assert judgements == [Judgement(RIGHT, f"quick {os.getpid()}"), Judgement(CRASHED, "ValueError: quick")]
        assert pool.sent == 0
        assert verdicts(pool.verify([(problem(), "gold"), (problem(), "quick")])) == [RIGHT, RIGHT]
        assert pool.sent == 1


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("hostile_verifiers:Nobody", "Nobody"),
        ("no_such_module_here:Verifier", "no_such_module_here"),
        ("hostile_verifiers", "package.module:Class"),
        ("hostile_verifiers:Unbuildable", "no such luck"),
        ("reasonloop.records:Judgement", "verdict"),
        ("reasonloop.errors:InputError", "no method verify"),
    ],
)
def test_a_verifier_that_cannot_be_built_is_bad_input(target, reason):
    with pytest.raises(InputError, match=reason) as error:
        VerifierPool(VerifierSpec(target))
    assert target in str(error.value)
    assert "\n" not in str(error.value)


def test_a_worker_that_cannot_start_fails_the_batch():
    with (
        VerifierPool(hostile("Unpreparable"), workers=1) as pool,
        pytest.raises(RunError, match=r"Unpreparable.*a library is missing"),
    ):
        pool.verify([(problem(), "gold")] * 3)


def test_closing_fails_what_is_unfinished_and_what_comes_later():
    pool = VerifierPool(hostile(), workers=1, deadline=60.0)
    futures = [pool.submit(problem(), "sleep") for _ in range(3)]
    pool.close()
    for future in [*futures, pool.submit(problem(), "gold")]:
        with pytest.raises(RunError, match="closed"):
            future.result(timeout=OVERHEAD)


def run_script(script: str, cwd) -> subprocess.Popen:
    path = os.pathsep.join(sys.path)
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
    )


def test_a_verifier_in_the_current_directory_is_found(tmp_path):
    (tmp_path / "my_task.py").write_text(
        "from reasonloop.records import Verdict\n"
        "class Mine:\n"
        "    def __init__(self, word): self.word = word\n"
        "    def verify(self, problem, response): return Verdict.RIGHT if self.word in response else Verdict.WRONG\n"
    )
    script = """
        import sys
        sys.path.remove("")  # as in an installed console script
        from reasonloop.records import Problem
        from reasonloop.verify.workers import VerifierPool, VerifierSpec
        with VerifierPool(VerifierSpec("my_task:Mine", {"word": "yes"}), workers=1) as pool:
            print([j.verdict.value for j in pool.verify([(Problem("1"), "oh yes"), (Problem("2"), "no")])])
    """
    output, _ = run_script(script, tmp_path).communicate(timeout=60)
    assert output == b"['right', 'wrong']\n"


def gone(pid: int) -> bool:
    """Wait until the process has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    ended = bool(poll.poll(OVERHEAD * 1000))
    os.close(descriptor)
    return ended


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG and pidfd_open are Linux's")
@pytest.mark.parametrize("ending", ["killed", "exits", "drops the pool"])
def test_no_worker_outlives_its_parent(tmp_path, ending):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = f"""
        import sys
        from reasonloop.records import Problem
        from reasonloop.verify.workers import VerifierPool, VerifierSpec
        pool = VerifierPool(VerifierSpec("hostile_verifiers:Hostile"), workers=2, deadline=600)
        pool.verify([(Problem("1", answer="gold"), "gold")] * 8)
        future = pool.submit(Problem("1"), "report {fifo}")
        sys.stdin.readline()
        if {ending == "drops the pool"}:
            del pool
            print(type(future.exception()).__name__, flush=True)
            sys.stdin.readline()
    """
    path = os.pathsep.join(sys.path)
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with open(fifo) as file:
        hung = int(file.read())
    children = worker_processes(parent.pid)
    assert hung in children
    if ending == "killed":
        parent.send_signal(signal.SIGKILL)
    else:
        parent.stdin.write(b"\n")
        parent.stdin.flush()
        if ending == "drops the pool":
            assert parent.stdout.readline() == b"RunError\n"
    assert all(gone(pid) for pid in children)
    parent.communicate(timeout=OVERHEAD)


STALLS = (
    "import os, time\nopen(os.environ['FIFO'], 'w').write(f'{os.getpid()}\\n')\ntime.sleep(600)\ndef main(): pass\n"
)
STARTS = {
    "a process of ours": """
        import subprocess
        from reasonloop.machine.python import started
        child = subprocess.Popen(started("stalls", with_us=True))
    """,
    "the sandbox's helper": """
        import sys
        from pathlib import Path
        from reasonloop.verify.sandbox.limits import Interpreter
        child = Interpreter([sys.executable], env={"FIFO": os.environ["FIFO"]})
        child.send([{"stalls": Path("stalls.py").read_text()}, "main"])
    """,
}


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG and pidfd_open are Linux's")
@pytest.mark.parametrize("start", STARTS)
def test_a_helper_that_still_imports_does_not_outlive_its_parent(tmp_path, start):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "stalls.py").write_text(STALLS)
    script = f"import os\n{textwrap.dedent(STARTS[start])}\nimport time; time.sleep(600)"
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "FIFO": str(tmp_path / "fifo")},
    )
    with open(tmp_path / "fifo") as file:
        child = int(file.read())
    parent.kill()
    parent.wait()
    assert gone(child)


def worker_processes(parent: int) -> list[int]:
    return [int(pid) for task in os.listdir(f"/proc/{parent}/task") for pid in _children(parent, task)]


def _children(parent: int, task: str) -> list[str]:
    with open(f"/proc/{parent}/task/{task}/children") as file:
        return file.read().split()


@pytest.mark.skipif(sys.platform != "linux", reason="pidfd_open is Linux's")
def test_a_late_verifiers_children_die_with_it(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with VerifierPool(hostile(), workers=1, deadline=1.0) as pool:
        future = pool.submit(problem(), f"child {fifo}")
        with open(fifo) as file:
            child = int(file.read())
        assert future.result().verdict is TIMEOUT
        assert gone(child)
