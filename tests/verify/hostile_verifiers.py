"""Verifiers that do what a verifier must not, on the response's order. For the tests of the worker pool."""

import ctypes
import os
import sys
import threading
import time

from reasonloop.records import Judgement, Problem, Verdict


class Hostile:
    """Verdict "right" if the response is the gold answer; a misdeed if the response is its name."""

    def verify(self, problem: Problem, response: str) -> Verdict:
        name, _, argument = response.partition(" ")
        misdeed = getattr(self, f"do_{name}", None)
        if misdeed is not None:
            return misdeed(argument)
        return Verdict.RIGHT if response == problem.answer else Verdict.WRONG

    def do_hang(self, _):
        return 9**9**9**9  # one bytecode: the interpreter lock is held throughout

    def do_sleep(self, _):
        time.sleep(3600)

    def do_report(self, path):
        with open(path, "w") as file:
            file.write(f"{os.getpid()}\n")
        return self.do_hang("")

    def do_child(self, path):
        if os.fork() == 0:
            with open(path, "w") as file:
                file.write(f"{os.getpid()}\n")
        time.sleep(3600)

    def do_exit(self, _):
        os._exit(3)

    def do_sysexit(self, _):
        sys.exit("bye")

    def do_segfault(self, _):
        ctypes.string_at(0)

    def do_allocate(self, _):
        return bytearray(100 << 30)

    def do_recurse(self, _):
        return self.do_recurse(_)

    def do_raise(self, _):
        raise KeyError("no such\nthing \ud800")

    def do_none(self, _):
        return None

    def do_bool(self, _):
        return True

    def do_name(self, _):
        return "right"

    def do_text(self, _):
        return "correct"

    def do_half(self, _):
        return Judgement(True)

    def do_score(self, argument):
        return Judgement(Verdict.WRONG, "partly", eval(argument))

    def do_print(self, _):
        print("x" * 100_000)
        sys.stdout.flush()
        os.write(1, b"\x00\x00\x00\x02{}" * 100)
        return Verdict.RIGHT

    def do_read(self, _):
        return Verdict.RIGHT if sys.stdin.read() == "" else Verdict.WRONG

    def do_forge(self, _):
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, b"\xff" * 8)
            except OSError:
                continue
        return Verdict.RIGHT

    def do_nest(self, _):
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, b"[" * 50_000 + b"\n")
            except OSError:
                continue
        return Verdict.RIGHT

    def do_flood(self, _):
        for descriptor in range(3, 64):
            try:
                while True:
                    os.write(descriptor, b"x" * 10_000)
            except OSError:
                continue

    def do_half_a_line(self, _):
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, b'{"verdict": "ri')
            except OSError:
                continue
        time.sleep(3600)

    def do_close(self, _):
        os.closerange(0, 64)
        return Verdict.RIGHT

    def do_detail(self, _):
        return Judgement(Verdict.RIGHT, "\ud800\0\n" + "x" * 1_000_000)

    def do_thread(self, _):
        threading.Thread(target=time.sleep, args=(3600,)).start()
        return Verdict.RIGHT

    def do_modules(self, _):
        heavy = [name for name in ("torch", "transformers") if name in sys.modules]
        return Judgement(Verdict.RIGHT if not heavy else Verdict.WRONG, ",".join(heavy))

    def do_pid(self, _):
        return Judgement(Verdict.RIGHT, str(os.getpid()))


class Quick(Hostile):
    """Judges short responses itself, in the calling process."""

    def quick(self, problem: Problem, response: str) -> Judgement | None:
        if response == "quick raise":
            raise ValueError("quick")
        if response.startswith("here"):
            return self.do_score(response.removeprefix("here"))
        return Judgement(Verdict.RIGHT, f"quick {os.getpid()}") if response.startswith("quick") else None


class Unbuildable:
    def __init__(self) -> None:
        raise RuntimeError("no such luck")

    def verify(self, problem: Problem, response: str) -> Verdict:
        return Verdict.RIGHT


class Unpreparable(Hostile):
    def prepare(self) -> None:
        raise ImportError("a library is missing")


class SlowStart(Hostile):
    def prepare(self) -> None:
        time.sleep(1.0)
