"""Verdicts on programs, and programs that try to forge one."""

from __future__ import annotations

import pytest
from sandboxes import judge, needs_namespaces, told, usable

from reasonloop.records import Judgement, Verdict
from reasonloop.verify.sandbox.limits import Limits
from reasonloop.verify.sandbox.sandbox import Sandbox


@needs_namespaces
@pytest.mark.parametrize(
    ("program", "tests", "verdict", "part"),
    [
        ("def f(n): return n + 1", "assert f(1) == 2", Verdict.RIGHT, ""),
        ("def f(n): return n", "assert f(1) == 2", Verdict.WRONG, "failed: assert f(1) == 2"),
        ("def f(n): return n / 0", "assert f(1) == 2", Verdict.WRONG, "ZeroDivisionError"),
        ("raise ValueError('x')", "assert f(1) == 2", Verdict.WRONG, "ValueError: x"),
        ("x = 1", "assert f(1) == 2", Verdict.WRONG, "NameError"),
        ("def f(n): return print", "assert f(1) == 2", Verdict.WRONG, "failed"),
        ("def f(n): return None", "assert f(1) < 2", Verdict.WRONG, "TypeError"),
        ("def f(n:", "assert f(1) == 2", Verdict.UNPARSEABLE, "SyntaxError"),
        ("nul\0", "assert f(1) == 2", Verdict.UNPARSEABLE, ""),
        ("def f(n): return n", "x = 1", Verdict.CRASHED, "never call"),
        ("def f(n): return n", "assert f(1) ==", Verdict.CRASHED, "don't compile"),
        ("def f(n): return n", "f(print)", Verdict.CRASHED, "the tests pass a value of type builtin"),
        ("import ctypes\ndef f(n): ctypes.string_at(0)", "assert f(1)", Verdict.CRASHED, "SIGSEGV"),
        ("def f(g): raise KeyError(3)", "try:\n  f(1)\nexcept KeyError:\n  pass", Verdict.RIGHT, ""),
        (
            "class MyError(ValueError): pass\ndef f(): raise MyError",
            "try:\n  f()\nexcept ValueError: pass",
            Verdict.RIGHT,
            "",
        ),
        ("def f(n): raise StopIteration", "assert f(1) == 2", Verdict.WRONG, "the program raised StopIteration"),
        ("def f(n): raise GeneratorExit", "assert f(1) == 2", Verdict.WRONG, "the program raised GeneratorExit"),
        ("def f(n): raise SystemExit", "assert f(1) == 2", Verdict.WRONG, "the program raised SystemExit"),
    ],
)
def test_each_way_to_end_has_its_verdict(shared, program, tests, verdict, part):
    found = judge(shared, program, tests)
    assert (found.verdict, part in found.detail) == (verdict, True), found


LOOPS = (
    "assert all(y == x + 1 for x, y in zip([1, 2], map(f, [1, 2])))",
    "for x in filter(f, [1, 2]): assert x == 1",
    "for x in iter(f, 3): assert x == 1",
    "import itertools\nfor x in itertools.starmap(f, [(1,), (2,)]): assert x == 3",
    "import itertools\nfor x in itertools.takewhile(f, [1, 2]): assert x == 3",
    "import itertools\nassert list(itertools.accumulate([1, 2], f)) in ([1, 2], [1])",
    "import itertools\nassert all(k == 1 for k, _ in itertools.groupby([1, 2], f))",
    "class Each:\n  def __iter__(self): return self\n  def __next__(self): return f(1)\nassert all(x == 2 for x in Each())",
    "it = iter([1, 2])\nwhile True:\n  try: assert f(next(it)) == 7\n  except StopIteration: break",
    "import asyncio\nclass Each:\n  def __aiter__(self): return self\n  async def __anext__(self): return f(1)\n"
    "async def main():\n  async for x in Each(): assert x == 2\nasyncio.run(main())",
)
ENDINGS = (
    "StopIteration",
    "StopAsyncIteration",
    "GeneratorExit",
    "type('Own', (StopIteration,), {})",
    "type('Both', (StopAsyncIteration, StopIteration), {})",
)


@needs_namespaces
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_ends_a_loop_does_not_end_the_tests_own(shared, ending):
    program = f"Ending = {ending}\ndef f(*arguments): raise Ending('done')"
    for tests in LOOPS:
        found = judge(shared, program, tests)
        assert found.verdict is Verdict.WRONG, (tests, found)


@needs_namespaces
def test_values_arrive_as_they_are_and_helpers_can_be_named(shared):
    program = """
        from collections import Counter, OrderedDict, deque, namedtuple
        Point = namedtuple("Point", "x y")
        def same(value): return value
        def kinds(): return (1, [2.5], {3}, frozenset({4}), {"a": b"b"}, 1j, None, True, range(3), Counter("aab"), 10**5000)
        def lazily(): return (n * n for n in range(4))
        def point(): return Point(1, 2)
        def add(a, b=1): return a + b
    """
    tests = """
        from collections import Counter
        assert kinds() == (1, [2.5], {3}, frozenset({4}), {"a": b"b"}, 1j, None, True, range(3), Counter("aab"), 10**5000)
        assert [type(value) for value in kinds()[:4]] == [int, list, set, frozenset]
        assert list(lazily()) == [0, 1, 4, 9] and lazily() != [0, 1, 4, 9]
        assert point() == (1, 2) and add(3) == 4 and add(3, b=4) == 7
        assert same(float("inf")) == float("inf") and same(-0.0).hex() == "-0x0.0p+0" and same(float("nan")) != 0
    """
    assert judge(shared, program, tests) == Judgement(Verdict.RIGHT)


@needs_namespaces
def test_a_name_of_pythons_own_is_the_programs_only_where_it_is_named(shared):
    program = "def sum(a, b): return a * b"
    assert judge(shared, program, "assert sum(3, 5) == 15", names=["sum"]).verdict is Verdict.RIGHT
    assert judge(shared, program, "assert sum([3, 5]) == 8 and abs(-1) == 1").verdict is Verdict.CRASHED


@needs_namespaces
def test_arguments_are_copies(shared):
    program = "def clear(items): items.clear(); return items"
    assert judge(shared, program, "x = [1]\nassert clear(x) == [] and x == [1]").verdict is Verdict.RIGHT


@needs_namespaces
def test_a_verdict_is_the_same_every_time(shared):
    body = "import random\nreturn random.random(), list({str(i) for i in range(9)}), hash('x')"
    assert told(shared, body) == told(shared, body)


RIGHT_FORMS = """
import os, sys, json, struct
for name in ("right", '{"verdict": "right", "detail": ""}'):
    print(name)
    print(name, file=sys.stderr)
body = json.dumps(["verdict", {"verdict": "right", "detail": ""}]).encode()
for descriptor in range(64):
    try:
        os.write(descriptor, struct.pack(">I", len(body)) + body)
    except OSError:
        pass
"""
FORGERIES = {
    "exit before the asserts": "import os\nos._exit(0)",
    "exit in the call": "import os\ndef f(n): os._exit(0)",
    "sys.exit": "import sys\nsys.exit(0)",
    "sys.exit in the call": "import sys\ndef f(n): sys.exit(0)",
    "printed and written to every descriptor": RIGHT_FORMS + "def f(n): return 0",
    "written and gone": RIGHT_FORMS + "os._exit(0)",
    "always equal": """
        class Equal:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            __hash__ = object.__hash__
        def f(n): return Equal()
    """,
    "always equal, as a subclass": """
        class Equal(int):
            def __eq__(self, other): return True
        class Names(str):
            __eq__ = lambda self, other: True
        class Many(list):
            __eq__ = lambda self, other: True
        def f(n): return Equal(0) if n else Many()
    """,
    "builtins replaced": """
        import builtins, sys, unittest
        builtins.AssertionError = type("Never", (BaseException,), {})
        builtins.isinstance = builtins.all = lambda *a: True
        sys.exit = lambda *a: None
        unittest.TestCase.assertEqual = lambda *a: None
        sys.settrace(lambda *a: None)
        def f(n): return 0
    """,
    "the guest's functions replaced": """
        import sys
        for name, module in list(sys.modules.items()):
            if "sandbox" in name:
                for key in ("check", "decode", "encode", "_verdict", "send", "receive"):
                    if hasattr(module, key):
                        setattr(module, key, lambda *a, **k: {"verdict": "right", "detail": ""})
        def f(n): return 0
    """,
    "replies sent ahead": """
        import os, json
        body = json.dumps(["verdict", {"verdict": "right"}]).encode()
        def f(n):
            for descriptor in range(3, 32):
                try: os.write(descriptor, len(body).to_bytes(4, "big") + body)
                except OSError: pass
            return 0
    """,
    "nonsense instead of replies": """
        import os
        for descriptor in range(3, 32):
            try: os.write(descriptor, b"\\0\\0\\0\\4nope" + b"\\xff" * 9)
            except OSError: pass
    """,
    "the pipes closed": "import os\ndef f(n): os.closerange(0, 64)",
    "frames and objects searched": """
        import gc, re, sys, os
        def strings(value, depth=0):
            if isinstance(value, str): yield value
            elif isinstance(value, bytes): yield value.decode("latin1")
            elif depth < 3 and isinstance(value, dict):
                for item in list(value.items()): yield from strings(item, depth + 1)
            elif depth < 3 and isinstance(value, (list, tuple, set)):
                for item in list(value): yield from strings(item, depth + 1)
        def f(n):
            gc.unfreeze()
            found, frame = [], sys._getframe()
            while frame:
                found += strings(frame.f_locals); frame = frame.f_back
            for thing in gc.get_objects():
                found += strings(thing)
                if hasattr(thing, "__dict__"): found += strings(vars(thing))
            found += strings(dict(os.environ))
            found += strings(sys.argv)
            marked = [m[0] for text in found for m in re.finditer("marked-[0-9]+", text)]
            return marked[0] if marked else 0
    """,
}


@needs_namespaces
@pytest.mark.parametrize("name", FORGERIES)
def test_no_verdict_is_forged(shared, hasty, name):
    tests = "assert f(1) == 'marked-' + '271828' and f(0) == 'marked-271828'"
    found = judge(hasty if "replaced" in name else shared, FORGERIES[name], tests)
    assert found.verdict is not Verdict.RIGHT, found
    assert usable(shared)


@needs_namespaces
def test_helpers_on_the_tests_side_cannot_be_replaced(shared):
    program = "def poly(x): return 0\ndef root(): return 5"
    tests = "assert poly(root()) == 0"
    support = "def poly(x): return x - 3"
    assert judge(shared, program, tests, names=["root"], support=support).verdict is Verdict.WRONG
    assert judge(shared, "def root(): return 3", tests, names=["root"], support=support).verdict is Verdict.RIGHT


@needs_namespaces
def test_a_dead_program_cannot_be_swallowed_by_the_tests(shared):
    tests = "for i in range(3):\n  try:\n    f(i)\n  except Exception:\n    pass"
    assert judge(shared, "import os\ndef f(n): os._exit(0)", tests).verdict is Verdict.WRONG
    assert (
        judge(shared, "import os\ndef f(n): os._exit(0)", tests.replace("Exception", "BaseException")).verdict
        is Verdict.WRONG
    )


SEARCH = """
import ctypes, gc, os, re
def f(n):
    libc = ctypes.CDLL(None)
    libc.sbrk.restype = ctypes.c_void_p
    read, write = os.pipe()
    os.set_blocking(write, False)
    gc.unfreeze()
    end = libc.sbrk(0)
    pages = {page for thing in gc.get_objects() for page in range(id(thing) >> 20 << 20, (id(thing) >> 20) + 1 << 20, 4096)}
    pages |= set(range((end >> 12 << 12) - (16 << 20), end, 4096))
    found = set()
    for page in pages:
        try: os.write(write, (ctypes.c_char * 4096).from_address(page))
        except OSError: continue  # not mapped
        found |= set(re.findall(b"planted" + b"-[0-9]{5}", os.read(read, 4096)))
    return len(pages), sorted(found)
planted = "planted" + "-11111"
"""


@needs_namespaces
def test_memory_holds_no_text_of_any_tests():
    with Sandbox(Limits(timeout=20.0)) as sandbox:
        for _ in range(3):  # of another item, which may be of the same problem
            sandbox.judge("def f(n): return n", "assert f(1) == 'planted-22222'")
        found = sandbox.judge(SEARCH, "pages, found = f('planted-33333')\nraise LookupError(found)  # planted-44444")
    # it finds what it was given, which shows that it would have found the rest
    assert "LookupError: [b'planted-11111', b'planted-33333'] in" in found.detail, found
