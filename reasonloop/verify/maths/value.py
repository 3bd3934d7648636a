"""The value of an expression: exact where it is rational, else to as many digits as the context keeps; in bounded time."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial, log2
from typing import Any

from reasonloop.verify.maths.tokens import Unreadable
from reasonloop.verify.maths.tree import Tree

Value = Any
"""Fraction, or mpf or mpc of the context"""

DIGITS = (40, 300)
"""Two precisions: what is equal at the first and differs at the second is not equal."""
MOST_BITS = 100_000
"""Of an exact number's numerator or denominator"""
MOST_WORK = 5_000_000
"""Bits of exact numbers in one evaluation, all together"""
MOST_LOG2 = 1e6
"""Of the size of any number"""
MOST_FACTORIAL = 5_000
_LARGEST_ANGLE = 1e15

_contexts = threading.local()


class Undefined(Unreadable):
    """There is no value at this point (division by zero, a logarithm of 0)."""


def context(which: int) -> Any:
    """mpmath's functions at DIGITS[which]; one of each per thread, since mpmath changes its contexts while it works."""
    if not hasattr(_contexts, "made"):
        import mpmath

        _contexts.made = []
        for digits in DIGITS:
            made = mpmath.MPContext()
            made.dps = digits
            _contexts.made.append(made)
    return _contexts.made[which]


def value(tree: Tree, ctx: Any, at: Mapping[str, Fraction], signs: tuple[int, ...] | int = 1, base: int = 0) -> Value:
    r"""The value of `tree` where its variables have the values `at`.

    `signs`: what \pm stands for, +1 or -1 (one for all, or one for each in the order of the text). `base`: of "log"
    without one; 0: natural. Raises Undefined, or Unreadable where a number grows out of bounds.
    """
    try:
        return _Evaluation(ctx, at, signs, base).of(tree)
    except (ZeroDivisionError, OverflowError, ValueError) as error:
        raise Undefined(f"no value: {error}") from None


def rational(tree: Tree) -> Fraction | None:
    """The value of a constant that is rational and exactly known, else None."""
    try:
        found = value(tree, context(0), {})
    except (Unreadable, KeyError):
        return None
    return found if isinstance(found, Fraction) else None


class _Evaluation:
    def __init__(self, ctx: Any, at: Mapping[str, Fraction], signs: tuple[int, ...] | int, base: int) -> None:
        self.ctx, self.at, self.base = ctx, at, base
        self.signs, self.used = signs, 0
        self.work = 0

    def of(self, tree: Tree) -> Value:
        kind = tree[0]
        if kind == "num":
            return tree[1]
        if kind == "sym":
            return self.at[tree[1]]
        if kind == "const":
            return self.constant(tree[1])
        if kind == "pm":
            sign = self.sign()
            return self.checked(sign * tree[1] * self.of(tree[2]))
        if kind == "neg":
            return -self.of(tree[1])
        if kind == "fn":
            return self.checked(self.function(tree[1], self.of(tree[2])))
        operands = [self.of(part) for part in tree[1:]]
        return self.checked(getattr(self, _METHODS[kind])(*operands))

    def sign(self) -> int:
        if isinstance(self.signs, int):
            return self.signs
        self.used += 1
        return self.signs[self.used - 1]

    def constant(self, name: str) -> Value:
        ctx = self.ctx
        return {"pi": +ctx.pi, "e": +ctx.e, "i": ctx.mpc(0, 1), "oo": ctx.inf}[name]

    def checked(self, found: Value) -> Value:
        """`found`, if it is a number and in bounds."""
        if isinstance(found, Fraction):
            bits = found.numerator.bit_length() + found.denominator.bit_length()
            self.work += bits
            if bits > MOST_BITS or self.work > MOST_WORK:
                raise Unreadable("exact numbers out of bounds")
            return found
        if isinstance(found, int):
            return Fraction(found)
        ctx = self.ctx
        if ctx.isnan(found):
            raise Undefined("no number")
        if hasattr(found, "imag") and found.imag == 0 and not isinstance(found, ctx.mpf):
            found = found.real
        if isinstance(found, ctx.mpf) and not ctx.isinf(found) and found and abs(ctx.mag(found)) > MOST_LOG2:
            raise Unreadable("a number out of bounds")
        return found

    def rounded(self, number: Value) -> Value:
        if not isinstance(number, Fraction):
            return number
        return self.ctx.mpf(number.numerator) / self.ctx.mpf(number.denominator)

    def pair(self, a: Value, b: Value) -> tuple[Value, Value]:
        if isinstance(a, Fraction) and isinstance(b, Fraction):
            return a, b
        return self.rounded(a), self.rounded(b)

    def add(self, a: Value, b: Value) -> Value:
        a, b = self.pair(a, b)
        return a + b

    def multiply(self, a: Value, b: Value) -> Value:
        a, b = self.pair(a, b)
        return a * b

    def divide(self, a: Value, b: Value) -> Value:
        a, b = self.pair(a, b)
        return a / b

    def power(self, a: Value, b: Value) -> Value:
        if isinstance(b, Fraction) and b.denominator == 1 and isinstance(a, Fraction):
            bits = max(a.numerator.bit_length(), a.denominator.bit_length()) * abs(b.numerator)
            if a in (1, -1):
                return a if b.numerator % 2 else Fraction(1)
            if a and bits > MOST_BITS:  # rounded, it would be equal to its neighbours
                raise Unreadable("a power out of bounds")
            return a**b.numerator
        if isinstance(a, Fraction) and isinstance(b, Fraction) and a > 0:
            exact = _exact_root(a, b)
            if exact is not None:
                return exact
        x, y = self.pair(a, b)
        x, y = self.rounded(x), self.rounded(y)
        if x == 0:
            if self.ctx.re(y) > 0:
                return Fraction(0)
            raise Undefined("0 to a power that isn't positive")
        if self.ctx.isinf(x) or self.ctx.isinf(y):
            raise Undefined("a power of infinity")
        if abs(self.ctx.mag(x)) * abs(float(abs(y))) > MOST_LOG2 and abs(x) != 1:
            raise Unreadable("a power out of bounds")
        return self.ctx.power(x, y)

    def root(self, degree: Value, a: Value) -> Value:
        if not isinstance(degree, Fraction) or degree.denominator != 1 or not 1 <= degree.numerator <= 1_000:
            return self.power(a, self.divide(Fraction(1), degree))
        n = degree.numerator
        real = isinstance(a, Fraction | self.ctx.mpf)
        if real and a < 0 and n % 2:  # the real root
            return -self.root(degree, -a)
        if isinstance(a, Fraction) and a >= 0:
            exact = _exact_root(a, Fraction(1, n)) if a else Fraction(0)
            if exact is not None:
                return exact
        x = self.rounded(a)
        return self.ctx.sqrt(x) if n == 2 else self.ctx.root(x, n)

    def factorial(self, a: Value) -> Value:
        if isinstance(a, Fraction) and a.denominator == 1:
            if not 0 <= a <= MOST_FACTORIAL:
                if a < 0:
                    raise Undefined("the factorial of a negative number")
                raise Unreadable("a factorial out of bounds")
            return Fraction(_factorial(a.numerator))
        x = self.rounded(a)
        self.bounded(x, MOST_FACTORIAL)
        return self.ctx.gamma(x + 1)

    def binomial(self, n: Value, k: Value) -> Value:
        if isinstance(n, Fraction) and isinstance(k, Fraction) and n.denominator == k.denominator == 1 and n >= 0:
            if k < 0 or k > n:
                return Fraction(0)
            if n > 10 * MOST_FACTORIAL or min(k, n - k) > MOST_FACTORIAL:
                raise Unreadable("a binomial out of bounds")
            return Fraction(comb(n.numerator, k.numerator))
        x, y = self.rounded(n), self.rounded(k)
        self.bounded(x, MOST_FACTORIAL)
        self.bounded(y, MOST_FACTORIAL)
        return self.ctx.binomial(x, y)

    def logarithm(self, base: Value, a: Value) -> Value:
        if isinstance(base, Fraction) and isinstance(a, Fraction) and base > 0 and base != 1 and a > 0:
            exact = _exact_log(base, a)
            if exact is not None:
                return exact
        return self.divide(self.log(a), self.log(base))

    def log(self, a: Value) -> Value:
        if a == 0:
            raise Undefined("the logarithm of 0")
        if a == 1:
            return Fraction(0)
        return self.ctx.log(self.rounded(a))

    def bounded(self, x: Value, most: float) -> None:
        if abs(x) > most:
            raise Unreadable("an argument out of bounds")

    def function(self, name: str, a: Value) -> Value:
        ctx = self.ctx
        if name == "log":
            return self.logarithm(Fraction(self.base), a) if self.base else self.log(a)
        if name == "ln":
            return self.log(a)
        if name == "abs":
            return abs(a)
        if name in ("floor", "ceil"):
            return self.whole(name, a)
        if name == "degrees":
            return self.rounded(a) * ctx.pi / 180
        if name == "sqrt":
            return self.root(Fraction(2), a)
        if name == "doublefactorial":
            if not isinstance(a, Fraction) or a.denominator != 1 or not 0 <= a <= MOST_FACTORIAL:
                raise Undefined("the double factorial of no natural number")
            found = 1
            for factor in range(a.numerator, 1, -2):
                found *= factor
            return Fraction(found)
        x = self.rounded(a)
        if ctx.isinf(x):
            raise Undefined("a function at infinity")
        self.bounded(x, MOST_LOG2 / 2 if name in ("exp", "sinh", "cosh", "tanh", "coth") else _LARGEST_ANGLE)
        return _FUNCTIONS[name](ctx, x)

    def whole(self, name: str, a: Value) -> Value:
        if isinstance(a, Fraction):
            return Fraction(a.__floor__() if name == "floor" else a.__ceil__())
        if not isinstance(a, self.ctx.mpf) or self.ctx.isinf(a):
            raise Undefined("the whole part of no real number")
        near = self.ctx.nint(a)
        if abs(a - near) < self.ctx.mpf(10) ** (-self.ctx.dps // 2):
            return Fraction(int(near))
        return Fraction(int(self.ctx.floor(a) if name == "floor" else self.ctx.ceil(a)))


_METHODS = {
    "+": "add", "*": "multiply", "/": "divide", "^": "power", "root": "root", "!": "factorial", "binom": "binomial",
    "log": "logarithm",
}  # fmt: skip
_FUNCTIONS: dict[str, Any] = {
    "sin": lambda ctx, x: ctx.sin(x),
    "cos": lambda ctx, x: ctx.cos(x),
    "tan": lambda ctx, x: ctx.tan(x),
    "cot": lambda ctx, x: 1 / ctx.tan(x),
    "sec": lambda ctx, x: 1 / ctx.cos(x),
    "csc": lambda ctx, x: 1 / ctx.sin(x),
    "arcsin": lambda ctx, x: ctx.asin(x),
    "arccos": lambda ctx, x: ctx.acos(x),
    "arctan": lambda ctx, x: ctx.atan(x),
    "arccot": lambda ctx, x: ctx.pi / 2 - ctx.atan(x),
    "arcsec": lambda ctx, x: ctx.acos(1 / x),
    "arccsc": lambda ctx, x: ctx.asin(1 / x),
    "sinh": lambda ctx, x: ctx.sinh(x),
    "cosh": lambda ctx, x: ctx.cosh(x),
    "tanh": lambda ctx, x: ctx.tanh(x),
    "coth": lambda ctx, x: 1 / ctx.tanh(x),
    "exp": lambda ctx, x: ctx.exp(x),
}

_factorial = lru_cache(maxsize=64)(factorial)


def _exact_root(a: Fraction, exponent: Fraction) -> Fraction | None:
    """a ** exponent for a positive `a`, if it is rational and small."""
    n = exponent.denominator
    if (
        n == 1
        or n > 64
        or abs(exponent.numerator) > 64
        or a.numerator.bit_length() + a.denominator.bit_length() > 2_000
    ):
        return None
    top, bottom = _integer_root(a.numerator, n), _integer_root(a.denominator, n)
    return None if top is None or bottom is None else Fraction(top, bottom) ** exponent.numerator


def _integer_root(a: int, n: int) -> int | None:
    guess = round(2 ** (log2(a) / n)) if a.bit_length() < 1_000 else 0
    for root in (guess - 1, guess, guess + 1):
        if root > 0 and root**n == a:
            return root
    return None


def _exact_log(base: Fraction, a: Fraction) -> Fraction | None:
    if a.numerator.bit_length() + a.denominator.bit_length() > 2_000:
        return None
    ratio = (log2(a.numerator) - log2(a.denominator)) / (log2(base.numerator) - log2(base.denominator))
    power = round(ratio)
    return Fraction(power) if abs(power) < 2_000 and abs(ratio - power) < 1e-6 and base**power == a else None
