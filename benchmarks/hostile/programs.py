"""Hostile programs by family, and what came of them in the code sandbox.

    python benchmarks/hostile/programs.py --seed 1 --deadline 2 --workers 2

They are judged by `reasonloop verify --kind code`, shuffled among normal ones. None solves its tests, so that none may be
right; what finds a way out raises LookupError("ESCAPED"), which the verdict's detail quotes, or touches a canary.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = "assert f(2) == 3\nassert f(10) == 11"
_PRELUDE = """
import os, sys, socket, ctypes, time, threading, itertools
def tried(action):
    try: found = action()
    except BaseException: return
    raise LookupError("ESCAPED " + repr(found)[:80])
def called(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if os.uname().machine == "x86_64" and libc.syscall(number, *arguments) >= 0:
        raise LookupError("ESCAPED call %d" % number)
"""
_MAPPED = "assert all(y == x + 1 for x, y in zip([2, 10], map(f, [2, 10])))"
FAMILIES: Mapping[str, Sequence[str | tuple[str, str]]] = {
    "files": (
        "for path in ('/etc/passwd', '/proc/self/environ', '/proc/1/maps', '/../etc/shadow', '/root/.ssh/id_rsa'):\n"
        "    tried(lambda: open(path).read(20))",
        "for place, folders, names in os.walk('/'):\n"
        "    if any('reasonloop' in name for name in (*folders, *names)): raise LookupError('ESCAPED ' + place)",
        "import stat\n"
        "for number in range(64):\n"
        "    try: kind = os.fstat(number).st_mode\n"
        "    except OSError: continue\n"
        "    if stat.S_ISREG(kind) or stat.S_ISDIR(kind) or stat.S_ISSOCK(kind): raise LookupError('ESCAPED %d' % number)",
    ),
    "writing outside": (
        "for path in ('/x', '/usr/lib/x', '/tmp/x', '../x', '/dev/x', '{folder}/x'):\n    tried(lambda: open(path, 'w'))",
        "open('x', 'w').write('#!/bin/sh\\nexit 0')\n"
        "os.chmod('x', 0o755)\n"
        "tried(lambda: os.posix_spawn('./x', ['x'], {}))\n"
        "os.symlink('/etc/passwd', 'link')\n"
        "tried(lambda: open('link').read(9))\n"
        "tried(lambda: os.link('/etc/passwd', 'hard'))\n"
        "tried(lambda: os.mknod('node', 0o20666, os.makedev(1, 1)))",
    ),
    "network": (
        "tried(lambda: socket.create_connection(('127.0.0.1', {port}), 1))\n"
        "for family in (2, 10, 16, 17, 40): tried(lambda: socket.socket(family, 2))",
        "for name in ('{folder}/canary', '\\0{name}', '/var/run/docker.sock', '/run/systemd/private'):\n"
        "    tried(lambda: socket.socket(1, 1).connect(name))",
    ),
    "fork bombs": (
        "while True:\n    try: os.fork()\n    except OSError: pass",
        "while True:\n    try: threading.Thread(target=time.sleep, args=(60,)).start()\n    except RuntimeError: pass",
        "made = 0\n"
        "for _ in range(64):\n"
        "    try:\n"
        "        if os.fork() == 0: time.sleep(60)\n"
        "        made += 1\n"
        "    except OSError: break\n"
        "if made > 7: raise LookupError('ESCAPED %d processes' % made)",
    ),
    "memory": (
        "kept = []\nwhile True: kept.append(bytearray(1 << 20))",
        "import mmap\n"
        "for _ in range(7):\n"
        "    if os.fork() == 0: break\n"
        "kept = mmap.mmap(-1, 400 << 20)\n"
        "for place in range(0, len(kept), 4096): kept[place] = 1\n"
        "time.sleep(60)",
        "for _ in range(7):\n    if os.fork() == 0: break\nkept = bytearray(400 << 20)\ntime.sleep(60)",
        "tried(lambda: os.memfd_create('x'))\n"
        "called(29, 1, 1 << 20, 0o1600)\n"
        "ends = []\n"
        "try:\n"
        "    while True:\n"
        "        ends.append(os.pipe())\n"
        "        os.set_blocking(ends[-1][1], False)\n"
        "        os.write(ends[-1][1], bytes(1 << 20))\n"
        "except OSError: pass",
    ),
    "disk": (
        "written = 0\n"
        "try:\n"
        "    for number in range(100):\n"
        "        with open(str(number), 'wb', buffering=0) as file:\n"
        "            for _ in range(8): written += file.write(bytes(1 << 20))\n"
        "except OSError: pass\n"
        "if written > 17 << 20: raise LookupError('ESCAPED %d bytes' % written)",
        "made = 0\n"
        "try:\n"
        "    for made in range(5000): open(str(made), 'w').close()\n"
        "except OSError: pass\n"
        "if made > 1100: raise LookupError('ESCAPED %d files' % made)\n"
        "tried(lambda: os.truncate('0', 1 << 40))",
    ),
    "output": (
        "while True: print('x' * 100_000)",
        "return 'x' * (200 << 20)",
        "for number in range(3, 32):\n    try: os.write(number, b'\\xff' * 70_000)\n    except OSError: pass",
        "found = []\nfor _ in range(100_000): found = [found]\nreturn found",
    ),
    "daemons": (
        "for _ in range(3):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0: time.sleep(600)\n"
        "        os._exit(0)",
    ),
    "signals": (
        "for target in (os.getppid(), -1, 0, 1):\n    try: os.kill(target, 9)\n    except OSError: pass",
        "import signal\n"
        "for number in range(1, 65):\n"
        "    try: signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "while True: pass",
    ),
    "other processes": (
        "for number in (101, 310, 311, 312, 321, 323, 298, 425, 434, 438, 440): called(number, 0, 0, 0, 0, 0)",
    ),
    "namespaces": (
        "for flags in (0x10000000, 0x20000, 0x20000000): called(272, flags)\n"
        "called(165, b'none', b'/scratch', b'tmpfs', 0, 0)\ncalled(161, b'/')\ncalled(155, b'/', b'/')\ncalled(308, 0, 0)",
        "for number in (428, 429, 430, 431, 432, 433, 442): called(number, 0, b'/', 0, 0, 0)\n"
        "called(56, 0x10000011, 0, 0, 0, 0)",
        "tried(lambda: os.setuid(0))\ntried(lambda: os.setgroups([0]))\n"
        "for path in ('/proc/sys/kernel/core_pattern', '/sys/fs/cgroup/release_agent', '/dev/mem', '/dev/kmsg'):\n"
        "    tried(lambda: open(path, 'w'))\nfor number in (39, 57, 272): called(0x40000000 | number, 0)",
        "import mmap\n"
        "if os.uname().machine == 'x86_64':\n"
        "    page = mmap.mmap(-1, 4096, prot=7)\n"
        "    page.write(b'\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3')\n"
        "    address = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "    if ctypes.CFUNCTYPE(ctypes.c_int)(address)() > 0: raise LookupError('ESCAPED int 0x80')",
    ),
    "monkey-patching": (
        "import builtins\nbuiltins.AssertionError = Exception\nbuiltins.len = builtins.all = lambda *x: True",
        "class Always:\n    __eq__ = lambda self, other: True\n    __ne__ = lambda self, other: False\nreturn Always()",
        "class Number(int):\n    __eq__ = lambda self, other: True\n    __hash__ = int.__hash__\nreturn Number(7)",
        "for module in list(sys.modules.values()):\n"
        "    for name in ('send', 'receive', 'check', 'encode'):\n"
        "        if hasattr(module, name): setattr(module, name, lambda *x: ['verdict', dict(verdict='right', detail='')])",
    ),
    "inspection": (
        "import gc\n"
        "for one in gc.get_objects():\n"
        "    if isinstance(one, dict) and any('assert f(' in str(x) for x in one.values() if isinstance(x, str)):\n"
        "        if one is not globals() and one is not locals(): raise LookupError('ESCAPED tests')",
        "frame = sys._getframe()\n"
        "while frame:\n"
        "    if frame.f_code.co_filename == 'tests': raise LookupError('ESCAPED frame')\n"
        "    frame.f_trace = lambda *x: None\n"
        "    frame = frame.f_back\n"
        "sys.settrace(lambda *x: None)",
    ),
    "ends": (
        "os._exit(0)",
        "sys.exit(0)",
        "raise KeyboardInterrupt",
        "os.closerange(0, 64)\nreturn n + 1",
        "raise GeneratorExit",
    ),
    "ends of loops": (
        ("raise StopIteration", _MAPPED),
        ("raise StopIteration", "for x in filter(f, [2, 10]): assert x == 3"),
        ("raise StopIteration", "for x in iter(lambda: f(2), None): assert x == 3"),
        (
            "class Own(StopIteration): pass\nraise Own",
            "import itertools\nassert list(itertools.accumulate([2, 10], f)) in ([2], [2, 12])",
        ),
        (
            "raise StopIteration",
            "items = iter([2, 10])\nwhile True:\n  try: assert f(next(items)) == 0\n  except StopIteration: break",
        ),
        (
            "raise StopAsyncIteration",
            "import asyncio\nclass Each:\n  def __aiter__(self): return self\n  async def __anext__(self): return f(1)\n"
            "async def main():\n  async for x in Each(): assert x == 2\nasyncio.run(main())",
        ),
    ),
    "forged replies": (
        "for number in range(3, 32):\n"
        '    for text in (b\'["value", 3]\', b\'["verdict", {"verdict": "right", "detail": ""}]\'):\n'
        "        try: os.write(number, len(text).to_bytes(4, 'big') + text)\n"
        "        except OSError: pass",
        "answers = iter([3, 11])\n"
        "for number in range(3, 32):\n"
        "    for _ in range(40):\n"
        "        try: os.write(number, b'\\0\\0\\0\\x0c[\"value\", 11]')\n"
        "        except OSError: break\nreturn 11",
        "for number in range(3, 32):\n    try: os.write(number, b'\\0\\0\\0\\x04[[[[')\n    except OSError: pass",
        "return float('nan')",
        ("return {i * (2 ** 61 - 1): 0 for i in range(20_000)}", "assert f(2) == f(10) == {}"),
        "return range(10 ** 18)",
    ),
    "limits": (
        "kept = []\nwhile True: kept.append(open('/dev/null'))",
        "for _ in range(7):\n    if os.fork() == 0: break\nwhile True: pass",
        "time.sleep(600)",
        "return sum(range(10 ** 14))",
        "import re\nreturn re.match('(a|aa)+$', 'a' * 100 + 'b')",
        "return itertools.count()",
        "return 9 ** 9 ** 9",
        "return f(n)",
        "sys.setrecursionlimit(10 ** 9)\nreturn f(n)",
        "return eval('(' * 100_000)",
        "return eval('9 ** 9 ** 9 ** 9')",
        "return '\\ud800\\0'",
        "return compile('-' * 200_000 + '1', '', 'eval')",
    ),
    "crashes": ("ctypes.string_at(0)", "os.abort()", "os.kill(os.getpid(), 11)"),
    "environment": (
        "if [name for name in os.environ if name != 'LC_CTYPE']: raise LookupError('ESCAPED ' + repr(list(os.environ)))",
        "if any('reasonloop' in word or 'json' in word for word in sys.argv): raise LookupError('ESCAPED argv')",
        "for path in ('/bin/sh', '/usr/bin/env', sys.executable): tried(lambda: os.posix_spawn(path, [path], {}))",
    ),
    "afterwards": (
        "import atexit\natexit.register(os.write, 1, b'right')\nclass Late:\n    def __del__(self): os._exit(0)\n"
        "globals()['late'] = Late()",
        "threading.Thread(target=lambda: [time.sleep(0.001) for _ in itertools.count()]).start()",
    ),
    "leftovers": ("if os.listdir('.'): raise LookupError('ESCAPED leftovers')\nopen('left', 'w').write('x')",) * 2,
    "timing": ("began = time.perf_counter()\nwhile time.perf_counter() < began + 0.2: pass\nreturn time.time()",),
}
"""What a function f(n) does, which should return n + 1; with tests of its own where the attack is on them"""


@dataclass(frozen=True)
class Hostile:
    family: str
    program: str
    tests: str


def hostile(port: int = 9, folder: str = "/nowhere", name: str = "nobody") -> list[Hostile]:
    """All of them. `port`, `folder` and `name`: of the canaries (TCP, a folder with a socket, an abstract socket)."""
    found = []
    for family, members in FAMILIES.items():
        for member in members:
            body, tests = member if isinstance(member, tuple) else (member, TESTS)
            for key, value in (("{port}", str(port)), ("{folder}", folder), ("{name}", name)):
                body = body.replace(key, value)
            lines = "".join(f"    {line}\n" for line in body.splitlines())
            found.append(Hostile(family, f"{_PRELUDE}def f(n, *more):\n{lines}    return n\n", tests))
    return found


def normal(count: int) -> list[tuple[str, str, str]]:
    """(program, tests, verdict) of programs that are what they seem to be, right and wrong in turn."""
    found = []
    for i in range(count):
        program = f"def f(n):\n    return sum(range(n)) + {i}\n"
        expected = [sum(range(n)) + i + i % 2 for n in (2, 10)]
        tests = f"assert f(2) == {expected[0]}\nassert f(10) == {expected[1]}"
        found.append((program, tests, "wrong" if i % 2 else "right"))
    return found


class Canaries:
    """What a program must not reach: a port, a socket in a folder, an abstract socket, and the folder itself."""

    def __init__(self, folder: str) -> None:
        self.folder, self.touched = folder, 0
        self.name = f"canary-{os.getpid()}"
        kinds = [
            (socket.AF_INET, ("127.0.0.1", 0)),
            (socket.AF_UNIX, f"{folder}/canary"),
            (socket.AF_UNIX, f"\0{self.name}"),
        ]
        self.sockets = []
        for family, address in kinds:
            listening = socket.socket(family)
            listening.bind(address)
            listening.listen()
            self.sockets.append(listening)
            threading.Thread(target=self._listen, args=(listening,), daemon=True).start()
        self.port = self.sockets[0].getsockname()[1]

    def _listen(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                listening.accept()
                self.touched += 1

    def close(self) -> int:
        """How often one was touched."""
        for listening in self.sockets:
            listening.close()
        return self.touched + sum(path.name != "canary" for path in Path(self.folder).iterdir())


def left_running(seconds: float = 5.0) -> int:
    """How many processes that were left to this one still run after so long; what has ended is reaped."""
    late = time.monotonic() + seconds
    while time.monotonic() < late:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.05)
        except ChildProcessError:
            return 0
    return len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def campaign(
    seed: int = 0, deadline: float = 2.0, workers: int = 2, normals: int = 120, families: Sequence[str] = ()
) -> dict[str, Any]:
    """What came of all programs (or those of some families), as plain JSON. Counts that should be 0: forged, escaped,
    canaries, left_running, lost.

    In a process of its own, whose children are the campaign's alone.
    """
    words = [sys.executable, __file__, "--seed", str(seed), "--deadline", str(deadline), "--workers", str(workers)]
    words += ["--normals", str(normals), "--families", *families]
    found: dict[str, Any] = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)
    return found


def _campaign(seed: int, deadline: float, workers: int, normals: int, families: Sequence[str]) -> dict[str, Any]:
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: what is left running becomes this process's own
    with tempfile.TemporaryDirectory() as folder:
        canaries = Canaries(folder)
        evil = [h for h in hostile(canaries.port, folder, canaries.name) if not families or h.family in families]
        rows = [(h.program, h.tests, None, h.family) for h in evil] + [(*one, "normal") for one in normal(normals)]
        random.Random(seed).shuffle(rows)
        lines = "".join(json.dumps({"answer": program, "gold": tests}) + "\n" for program, tests, _, _ in rows)
        words = [sys.executable, "-m", "reasonloop", "verify", "--kind", "code"]
        words += ["--deadline", str(deadline), "--workers", str(workers)]
        done = subprocess.run(words, input=lines, capture_output=True, text=True, check=False)
        verdicts = [json.loads(line) for line in done.stdout.splitlines()]
        touched = canaries.close()
    left = left_running()
    told = list(zip(rows, verdicts, strict=False))
    by_family: dict[str, Counter[str]] = {}
    for (_, _, _, family), verdict in told:
        by_family.setdefault(family, Counter())[verdict["verdict"]] += 1
    return {
        "programs": len(evil),
        "families": len({h.family for h in evil}),
        "forged": sum(wanted is None and verdict["verdict"] == "right" for (_, _, wanted, _), verdict in told),
        "escaped": [verdict["detail"] for _, verdict in told if "ESCAPED" in verdict.get("detail", "")],
        "canaries": touched,
        "left_running": left,
        "lost": len(rows) - len(told),
        "normal": normals,
        "normal_kept": sum(wanted == verdict["verdict"] for (_, _, wanted, _), verdict in told if wanted),
        "exit_code": done.returncode,
        "verdicts": {family: dict(counts) for family, counts in sorted(by_family.items())},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--deadline", type=float, default=2.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--normals", type=int, default=120, help="programs that are what they seem to be")
    parser.add_argument("--families", nargs="*", default=[], choices=FAMILIES, help="those to run (else all)")
    print(json.dumps(_campaign(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
