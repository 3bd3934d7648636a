"""Programs that would go on for ever, or take all there is."""

from __future__ import annotations

import textwrap
import threading
import time
from pathlib import Path

import pytest
from sandboxes import descendants, judge, needs_namespaces, told, usable

from reasonloop.records import Verdict
from reasonloop.verify.sandbox.limits import Limits
from reasonloop.verify.sandbox.sandbox import Sandbox


@needs_namespaces
@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "def f():\n  while True:\n    try:\n      while True: pass\n    except BaseException: pass",
        "import signal\nfor n in range(1, 65):\n  try: signal.signal(n, signal.SIG_IGN)\n"
        "  except (OSError, ValueError): pass\nsignal.alarm(0)\ndef f():\n  while True: signal.pause()",
        "import os\ndef f():\n  while True: os.write(1, b'x' * 65536)",
        "import sys\ndef f():\n  while True: print('x' * 1000); sys.stderr.write('y' * 1000)",
        "def f(): return 9 ** 9 ** 9",
        "import ctypes\ndef f(): ctypes.PyDLL(None).sleep(100)",
        "import os\ndef f():\n  while True:\n    try: os.fork()\n    except OSError: pass",
        "import threading\ndef f():\n  while True:\n    try: threading.Thread(target=f).start()\n"
        "    except RuntimeError: pass",
    ],
    ids=[
        "loop",
        "catches all",
        "ignores signals",
        "output",
        "prints",
        "big number",
        "holds the lock",
        "fork bomb",
        "threads",
    ],
)
def test_the_deadline_holds(hasty, shared, program):
    found = judge(hasty, program, "assert f() == 1")
    # threads may need more memory than there is before they are late
    assert found.verdict is Verdict.TIMEOUT or ("Thread" in program and found.verdict is Verdict.CRASHED), found
    assert hasty._helper._process.poll() is None
    assert usable(shared)


@needs_namespaces
def test_tests_that_hang_are_late_too(hasty):
    assert judge(hasty, "def f(n): return n", "while f(1): pass").verdict is Verdict.TIMEOUT
    assert judge(hasty, "def f(n): return n", "f(1)\nwhile True: pass").verdict is Verdict.TIMEOUT


@needs_namespaces
def test_processes_are_counted(shared):
    body = """
        import os, time
        made = 0
        for _ in range(40):
            try:
                if os.fork() == 0: time.sleep(60); os._exit(0)
                made += 1
            except OSError: break
        return made
    """
    assert f"LookupError: {shared.limits.processes - 1} " in told(shared, body)


@needs_namespaces
@pytest.mark.parametrize(
    "body",
    [
        "return len(bytearray(10 ** 9))",
        "x = []\nwhile True: x.append('x' * 10 ** 6)",
        "return [0] * 10 ** 9",
        "import mmap\nreturn len(mmap.mmap(-1, 10 ** 9))",
    ],
)
def test_memory_is_limited(shared, body):
    found = judge(shared, f"def f():\n{textwrap.indent(body, '    ')}", "assert f() == 1")
    assert found.verdict in (Verdict.CRASHED, Verdict.WRONG), found
    assert "memory" in found.detail
    assert usable(shared)


MANY = """
import mmap, os, time
def f(count, mebibytes, shared):
    if shared: kept = mmap.mmap(-1, mebibytes << 20)
    for _ in range(count):
        if os.fork() == 0:
            kept = kept if shared else bytearray(mebibytes << 20)
            for place in range(0, len(kept), 4096): kept[place] = 1
            time.sleep(60)
    time.sleep({wait})
    return 1
"""


@needs_namespaces
@pytest.mark.parametrize(("count", "mebibytes"), [(3, 120), (7, 60)])
def test_memory_is_limited_for_all_processes_together(shared, count, mebibytes):
    found = judge(shared, MANY.replace("{wait}", "60"), f"assert f({count}, {mebibytes}, False) == 1")
    assert (found.verdict, "MiB together" in found.detail) == (Verdict.CRASHED, True), found
    assert usable(shared)


@needs_namespaces
@pytest.mark.parametrize(("count", "mebibytes", "shares"), [(3, 20, False), (6, 100, True)])
def test_what_processes_share_counts_once(shared, count, mebibytes, shares):
    found = judge(shared, MANY.replace("{wait}", "0.5"), f"assert f({count}, {mebibytes}, {shares}) == 1")
    assert found.verdict is Verdict.RIGHT, found


@needs_namespaces
def test_the_scratch_folder_is_limited(shared):
    body = """
        written = 0
        for name in range(100):
            try:
                with open(str(name), "wb", buffering=0) as file:
                    while written < 10 ** 9: written += file.write(bytes(10 ** 6))
            except OSError: pass
        return written <= 16 * 2 ** 20
    """
    assert "LookupError: True" in told(shared, body)


@needs_namespaces
@pytest.mark.parametrize(
    ("body", "verdicts"),
    [
        ("return f() + 1", (Verdict.WRONG,)),
        ("import sys\nsys.setrecursionlimit(10 ** 9)\nreturn f() + 1", (Verdict.CRASHED, Verdict.TIMEOUT)),
        ("return 'x' * 10 ** 8", (Verdict.WRONG, Verdict.CRASHED)),
        ("import itertools\nreturn itertools.count()", (Verdict.WRONG,)),
        ("x = []\nx.append(x)\nreturn x", (Verdict.WRONG,)),
        ("x = []\nfor _ in range(10 ** 5): x = [x]\nreturn x", (Verdict.WRONG,)),
    ],
    ids=["recursion", "recursion without limit", "huge", "endless", "circular", "deep"],
)
def test_monstrous_results(shared, hasty, body, verdicts):
    found = judge(
        hasty if "setrecursionlimit" in body else shared,
        f"def f():\n{textwrap.indent(body, '    ')}",
        "assert f() == 1",
    )
    assert found.verdict in verdicts, found
    assert usable(shared)


@needs_namespaces
def test_no_daemon_outlives_its_verdict(shared):
    assert usable(shared)
    program = """
        import os, signal, time
        def f():
            r, w = os.pipe()
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    for n in range(1, 65):
                        try: signal.signal(n, signal.SIG_IGN)
                        except (OSError, ValueError): pass
                    os.write(w, b"x")
                    while True: time.sleep(1)
                os._exit(0)
            return os.read(r, 1) == b"x"
    """
    helper = shared._helper._process.pid
    before = descendants(helper)
    found = judge(shared, program, "assert f()")
    assert found.verdict is Verdict.RIGHT, found
    gone = {process for process in before if not Path(f"/proc/{process}").exists()}
    assert gone == before  # the checker, the program, and all that was in their namespaces
    assert len(descendants(helper)) <= 3  # the next checker and program, and whoever is making them


@needs_namespaces
def test_closing_ends_everything_at_once():
    sandbox = Sandbox(Limits(timeout=60))
    sandbox.start()
    helper = sandbox._helper._process.pid
    asked = threading.Thread(target=judge, args=(sandbox, "def f():\n  while True: pass", "f()"))
    asked.start()
    until = time.monotonic() + 20
    while len(descendants(helper)) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    started = descendants(helper)
    sandbox._helper._process.kill()
    asked.join(20)
    while any(Path(f"/proc/{process}").exists() for process in started) and time.monotonic() < until:
        time.sleep(0.01)
    assert started
    assert not any(Path(f"/proc/{process}").exists() for process in started)
    assert usable(sandbox)  # a new helper is started
    sandbox.close()


@needs_namespaces
def test_one_helper_gives_many_verdicts(shared):
    """To start one takes a hundred times as long as to ask it."""
    assert usable(shared)
    helper = shared._helper._process.pid
    for _ in range(10):
        assert usable(shared)
    assert shared._helper._process.pid == helper
