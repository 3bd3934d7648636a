r"""Poison answers, and gold answers, for the maths verifier, and what came of them and of the normal ones beside them.

    python benchmarks/hostile/answers.py --seed 1 --deadline 3 --workers 2

They are judged by `reasonloop verify --kind math`, shuffled among normal ones. A poison answer may be anything but right;
all normal ones keep their verdicts, in order, however many of the others hang, grow or crash.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

Row = tuple[str, str, str | None]
"""(answer, gold answer, verdict; None: any but right)"""


def towers() -> list[str]:
    """What is huge when it is worked out."""
    tower = "9"
    for _ in range(8):
        tower = f"9^{{{tower}}}"
    return [
        tower,
        "2^{2^{2^{2^{2^{2}}}}}",
        "9^9^9^9^9",
        r"\int_0^1 9^{9^{9^{9}}} dx",
        r"\sum_{n=1}^{10^{10}} n!",
        "(10^{100000})!",
        "100000!!!",
        "999999999!",
        r"\binom{10^{9}}{5 \cdot 10^{8}}",
        r"\prod_{k=1}^{10^{9}} k",
        r"\lim_{n\to\infty} (1+1/n)^{n^{n^{n}}}",
        r"\sqrt[10^{9}]{10^{10^{9}}}",
        "1e999999999",
        "1e-999999999",
        r"\frac{1}{10^{-10^{10^{10}}}}",
        "(1+x)^{100000}",
        "(a+b+c+d)^{500}",
        r"\int \frac{x^{50}+1}{x^{100}+x+1} dx",
        r"\int_0^\infty e^{-x^{x^{x}}} \sin(x^{100}) dx",
        r"\sum_{k=0}^{\infty} \sum_{j=0}^{k} \frac{1}{k^{j}!}",
        r"\lim_{x\to 0} \frac{\sin(\tan x) - \tan(\sin x)}{x^{7^{7}}}",
        r"\sin^{5000}(x) + \cos^{5000}(x)",
        r"\frac{d^{200}}{dx^{200}} \tan x",
        r"\log_{2}(2^{2^{2^{2^{100}}}})",
    ]


def nested(n: int = 300) -> list[str]:
    """What is deep, or long, as mathematics."""
    return [
        r"\frac{1}{1+" * n + "x" + "}" * n,
        r"\sqrt{2+" * n + "2" + "}" * n,
        "(" * n + "x" + ")" * n,
        "(" * 4_000 + "6" + ")" * 4_000,
        "{" * n + "6" + "}" * n,
        r"\left(" * n + "1" + r"\right)" * n,
        "|" * (2 * n) + "x",
        "-" * 5_000 + "6",
        "+".join(f"x_{{{i}}}" for i in range(n)),
        "+".join(["x"] * 3_000),
        "*".join(f"(x+{i})" for i in range(n)),
        "+".join(rf"\sqrt{{{i}}}" for i in range(2, 120)),
        "+".join(rf"\sin({i}x)\cos({i}x)" for i in range(60)),
        r"\begin{pmatrix}" + r"\\".join(" & ".join(["x"] * 30) for _ in range(30)) + r"\end{pmatrix}",
        r"\begin{pmatrix}"
        + r"\\".join(" & ".join(f"{i}^{{{j}}}" for j in range(20)) for i in range(20))
        + r"\end{pmatrix}",
        r"\{" + ", ".join(str(i) for i in range(2_000)) + r"\}",
        r"\{" + ", ".join(rf"\sqrt{{{i}}}" for i in range(300)) + r"\}",
        ", ".join(f"({i}, {i + 1})" for i in range(500)),
        r" \cup ".join(f"[{i}, {i + 0.5})" for i in range(300)),
        " or ".join(f"x = {i}" for i in range(500)),
        "x<" * 1_000 + "1",
        r"\overline{" * n + "9" + "}" * n,
        "1/" * 2_000 + "1",
        "2^" * 2_000 + "2",
        "!".join(["5"] * 500),
        "5" + "!" * 1_000,
        r"\log" * 500 + "x",
        r"\int" * 200 + "x" + "dx" * 200,
    ]


def long_texts() -> list[str]:
    """What is only long."""
    return [
        "7" * 1_000_000,
        "0." + "3" * 900_000,
        "1" + ",000" * 200_000,
        "1" + ",000" * 20_000 + "0",
        "1 000 " * 5_000 + "0000",
        "e\u0301" * 400_000,
        "5" + "\u0301" * 900_000,
        r"\boxed{5} " * 50_000 + "x",
        r"\boxed{" * 100_000,
        r"\boxed{" * 5_000 + "6" + "}" * 5_000,
        r"\boxed{" * 60_000 + "6" + "}" * 60_000,
        "\\" * 1_000_000,
        "$" * 1_000_000,
        "{" * 1_000_000,
        r"\frac" * 200_000,
        "x" * 10_000_000,
        " " * 999_999 + "6",
        "\n" * 999_999 + "6",
        "the answer is not 5. " * 40_000,
        "answer: " * 100_000,
        "#### " * 150_000,
        "`" * 900_000,
        "<answer>" * 100_000,
        "<think>" * 100_000,
        r"\text{" * 150_000,
        r"\begin{cases}" * 70_000,
        r"\bbox[" * 100_000,
        "^ { " * 200_000,
        "1e" * 400_000,
        "½" * 500_000,
    ]


def texts() -> list[str]:
    """What is no mathematics, or looks like another thing."""
    return [
        "\0",
        "6\0",
        "\ud800",
        "6\udfff",
        "\u202e6",
        "\u200b\u200b",
        "\ufeff7",
        "\u0666",
        "\u2166",
        "𝟞 + 1",
        "__import__('os').system('touch /tmp/poisoned')",
        "eval('5')",
        "exec(open('/etc/passwd').read())",
        r"\write18{touch /tmp/poisoned}",
        r"\input{/etc/passwd}",
        "lambda: 5",
        "sympify('5')",
        "open('x','w')",
        "5; import os",
        "{{6*1}}",
        "${6}",
        "%s%s%s%n",
        "nan",
        "inf",
        "-inf",
        "None",
        "True",
        "[[[[",
        "{'a': 5}",
        "\x1b[2J6",
        "x = y = z = w",
        "5 = 6",
        "0/0",
        "1/0",
        r"\infty - \infty",
        "?" * 1_000,
    ]


def poison() -> list[Row]:
    answers = [*towers(), *nested(), *long_texts(), *texts()]
    rows: list[Row] = [(answer, "5", None) for answer in answers]
    rows += [("5", gold, None) for gold in (*towers()[:12], *nested()[:12], "7" * 1_000_000, "x" * 20_000_000, "\0")]
    return rows


def normal(count: int) -> list[Row]:
    """Right and wrong in turn; fast ones, and others that math-verify has to judge."""
    kinds = (
        lambda i: (str(i), str(i), str(i + 1)),
        lambda i: (f"{i}.50", f"{2 * i + 1}/2", f"{2 * i + 3}/2"),
        lambda i: (rf"\frac{{{2 * i}}}{{4}}", rf"\frac{{{i}}}{{2}}", rf"\frac{{{i + 1}}}{{2}}"),
        lambda i: (f"x^2+{i}x+1", f"1+x^2+{i}x", f"1+x^2-{i}x"),
        lambda i: (rf"\sqrt{{{4 * i}}}", rf"2\sqrt{{{i}}}", rf"3\sqrt{{{i}}}"),
        lambda i: (rf"\{{{i}, {i + 1}\}}", rf"\{{{i + 1}, {i}\}}", rf"\{{{i}, {i + 2}\}}"),
        lambda i: (rf"\int_0^{{{i}}} x dx", rf"\frac{{{i * i}}}{{2}}", rf"\frac{{{i * i + 1}}}{{2}}"),
    )
    found: list[Row] = []
    for place in range(count):
        answer, right, wrong = kinds[place % len(kinds)](place + 3)
        found.append((answer, wrong, "wrong") if place // len(kinds) % 2 else (answer, right, "right"))
    return found


def campaign(
    seed: int = 0, deadline: float = 3.0, workers: int = 2, normals: int = 200, evil: Sequence[Row] = ()
) -> dict[str, Any]:
    """What came of all poison rows (or `evil` ones), as plain JSON. Counts that should be 0: forged, lost, changed."""
    evil = evil or poison()
    rows = [*evil, *normal(normals)]
    random.Random(seed).shuffle(rows)
    lines = "".join(json.dumps({"answer": answer, "gold": gold}) + "\n" for answer, gold, _ in rows)
    words = [sys.executable, "-m", "reasonloop", "verify", "--kind", "math"]
    words += ["--deadline", str(deadline), "--workers", str(workers)]
    began = time.monotonic()
    done = subprocess.run(words, input=lines, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    told = [(row, json.loads(line)["verdict"]) for row, line in zip(rows, done.stdout.splitlines(), strict=False)]
    of_poison = Counter(verdict for (_, _, wanted), verdict in told if wanted is None)
    return {
        "poison": len(evil),
        "poison_verdicts": dict(of_poison),
        "forged": [answer[:60] for (answer, _, wanted), verdict in told if wanted is None and verdict == "right"],
        "normal": normals,
        "normal_kept": sum(wanted == verdict for (_, _, wanted), verdict in told if wanted),
        "changed": [[a, g, w, v] for (a, g, w), v in told if w and w != v],
        "lost": len(rows) - len(told),
        "exit_code": done.returncode,
        "seconds": round(seconds, 1),
        "seconds_of_timeouts": round(of_poison["timeout"] * deadline / workers, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--deadline", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=2)
    print(json.dumps(campaign(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
