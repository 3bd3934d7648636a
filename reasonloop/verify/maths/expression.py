"""The grammar of expressions: from the tokens between an answer's commas and equals signs to a tree.

Linear in the number of tokens; nesting is bounded. Never evaluates anything.
"""

from __future__ import annotations

from fractions import Fraction

from reasonloop.verify.maths.tokens import Token, Unreadable, Unsupported, endless, number_token
from reasonloop.verify.maths.tree import Tree, integer, variable
from reasonloop.verify.maths.words import APPLIED, CONSTANTS, GREEK, UNSUPPORTED

MOST_DEPTH, MOST_FACTORS = 60, 100
_END = Token("end", "")
_CALLED = frozenset("fghFGHPQTuvyIVNSE")
"""Names that are functions where a number stands in brackets behind them"""
_ACCENTS = frozenset(("bar", "dot", "ddot", "tilde", "overline"))
_CLOSING = {"(": ")", "[": "]", "{": "}", "lfloor": "rfloor", "lceil": "rceil"}


def parsed(tokens: list[Token]) -> Tree:
    """The tree of an expression's tokens. Raises Unreadable where they are none, Unsupported where they use more."""
    if not tokens:
        raise Unreadable("nothing where an expression should stand")
    parser = _Parser(tokens)
    tree = parser.whole()
    if parser.at < len(tokens):
        raise Unreadable(f"{parser.next.text!r} where an expression should have ended")
    return tree


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = list(tokens)
        self.at = 0
        self.depth = 0
        self.bars = 0
        """Open | ... | around the place"""

    @property
    def next(self) -> Token:
        return self.tokens[self.at] if self.at < len(self.tokens) else _END

    def take(self) -> Token:
        self.at += 1
        return self.peek(-1)

    def sees(self, *texts: str) -> bool:
        token = self.next
        return token.kind in ("op", "command", "unit") and token.text in texts

    def expect(self, text: str) -> None:
        if not self.sees(text):
            raise Unreadable(f"{self.next.text!r} where {text!r} should stand")
        self.at += 1

    def whole(self) -> Tree:
        left = self.sum()
        if self.sees("choose", "over"):
            return ("binom" if self.take().text == "choose" else "/", left, self.sum())
        return left

    def sum(self) -> Tree:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise Unreadable("too deep")
        terms: list[Tree] = []
        while not terms or self.sees("+", "-", "pm", "mp"):
            sign = self.take().text if self.sees("+", "-", "pm", "mp") else "+"
            term = self.product()
            terms.append({"+": term, "-": ("neg", term), "pm": ("pm", 1, term), "mp": ("pm", -1, term)}[sign])
        self.depth -= 1
        while len(terms) > 1:  # a long sum is no deep tree
            terms = [("+", *terms[i : i + 2]) if i + 1 < len(terms) else terms[i] for i in range(0, len(terms), 2)]
        return terms[0]

    def product(self) -> Tree:
        left = self.signed()
        for _ in range(MOST_FACTORS):
            if self.sees("*"):
                self.take()
                left = ("*", left, self.signed())
            elif self.sees("/"):
                self.take()
                left = ("/", left, self.signed())
            elif self.begins_factor():
                if self.next.kind == "num" and not (left[0] == "const" or self.follows_bracket()):
                    raise Unreadable("two numbers side by side")
                left = ("*", left, self.factor())
            else:
                return left
        raise Unreadable(f"more than {MOST_FACTORS} factors")

    def follows_bracket(self) -> bool:
        before = self.tokens[self.at - 1]
        return before.kind == "op" and before.text in ")]}!"

    def signed(self) -> Tree:
        if self.sees("-"):
            self.take()
            return ("neg", self.signed())
        if self.sees("+"):
            self.take()
            return self.signed()
        if self.sees("pm", "mp"):
            return ("pm", 1 if self.take().text == "pm" else -1, self.signed())
        return self.factor()

    def begins_factor(self) -> bool:
        token = self.next
        if token.kind in ("num", "name", "letters"):
            return True
        if token.kind == "command":
            return token.text not in (
                "pm",
                "mp",
                "rfloor",
                "rceil",
                "circ",
                "choose",
                "over",
                "endmatrix",
                "ldots",
                "mod",
            )
        return token.kind == "op" and (token.text in "({[" or (token.text == "|" and not self.bars))

    def factor(self) -> Tree:
        if self.next.kind == "letters":
            return self.letters()
        return self.postfixed(self.mixed() or self.primary())

    def letters(self) -> Tree:
        """Several variables side by side; what follows (a power, a subscript) belongs to the last."""
        names = self.take().text
        tree: Tree | None = None
        for name in names[:-1]:
            tree = variable(name) if tree is None else ("*", tree, variable(name))
        last = self.postfixed(self.subscripted(names[-1]))
        return last if tree is None else ("*", tree, last)

    def postfixed(self, base: Tree) -> Tree:
        while True:
            if self.sees("!"):
                self.take()
                base = ("fn", "doublefactorial", base[1]) if base[0] == "!" else ("!", base)
            elif self.sees("^"):
                self.take()
                if self.sees("circ"):
                    self.take()
                    base = ("fn", "degrees", base)
                    continue
                if self.sees("'", "*"):
                    raise Unsupported("a mark in the exponent")
                if self.sees("{") and self.peek(1).text == "circ" and self.peek(2).text == "}":
                    self.at += 3
                    base = ("fn", "degrees", base)
                    continue
                base = ("^", base, self.argument())
            elif self.sees("circ"):
                self.take()
                base = ("fn", "degrees", base)
            elif self.sees("%"):
                self.take()
                base = ("/", base, integer(100))
            else:
                return base

    def peek(self, ahead: int) -> Token:
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else _END

    def mixed(self) -> Tree | None:
        r"""2\frac12, 2 1/2: an integer and a fraction below 1 behind it."""
        whole = self.next
        if whole.value is None or whole.kind != "num" or whole.decimals > 0:
            return None
        start = self.at
        follower = self.peek(1)
        if follower.kind == "command" and follower.text == "frac":
            self.at += 2
            try:
                top, bottom = self.digit_argument(), self.digit_argument()
            except Unreadable:
                top = bottom = ("sym", "")
        elif follower.kind == "num" and self.peek(2).text == "/" and self.peek(3).kind == "num" and follower.spaced:
            top, bottom = (("num", self.peek(i).value, self.peek(i).decimals) for i in (1, 3))
            self.at += 4
        else:
            return None
        proper = (
            top[0] == bottom[0] == "num"
            and top[2] == bottom[2] == -1
            and 0 < top[1] < bottom[1]
            and not self.sees("^", "!")
        )
        if not proper:
            self.at = start
            return None
        return ("num", whole.value + Fraction(top[1], bottom[1]), -1)

    def primary(self) -> Tree:
        token = self.take()
        if token.kind == "num":
            return self.number(token)
        if token.kind == "name":
            return self.called(token.text) or self.subscripted(token.text)
        if token.kind == "command":
            return self.command(token.text)
        if token.kind == "op" and token.text in ("(", "[", "{"):
            return self.group(token.text)
        if token.kind == "op" and token.text == "|":
            self.bars += 1
            inner = self.sum()
            self.expect("|")
            self.bars -= 1
            return ("fn", "abs", inner)
        raise Unreadable(
            f"{token.text!r} where a value should stand" if token.text else "an expression that breaks off"
        )

    def called(self, name: str) -> Tree | None:
        """f(2): a value of its own, and no product. C(10, 3): a binomial."""
        if not self.sees("(") or self.next.spaced:
            return None
        end = next((i for i in range(self.at, len(self.tokens)) if self.tokens[i].text == ")"), 0)
        inside = self.tokens[self.at + 1 : end]
        commas = [i for i, token in enumerate(inside) if token.kind == "sep"]
        if name == "C" and len(commas) == 1 and inside[commas[0]].text == ",":
            self.at = end + 1
            return ("binom", parsed(inside[: commas[0]]), parsed(inside[commas[0] + 1 :]))
        plain = [token.text for token in inside if token.kind == "num" or token.text == "-"]
        if not plain or len(plain) < len(inside) or not (name in _CALLED or plain == ["0"]):
            return None
        self.at = end + 1
        return ("sym", f"{name}({''.join(plain)})")

    def group(self, opening: str) -> Tree:
        bars, self.bars = self.bars, 0
        inner = self.whole()
        self.expect(_CLOSING[opening])
        self.bars = bars
        return inner

    def number(self, token: Token) -> Tree:
        if self.sees("_"):
            raise Unreadable("a number with a subscript")
        assert token.value is not None
        lined = self.sees("overline", "bar", "dot")
        if token.decimals >= 0 and (lined or (self.sees("(") and self.is_repetend())):
            self.at += lined
            repeated = self.repetend()
            places = max(token.decimals, 0)
            period = Fraction(int(repeated), 10**places * (10 ** len(repeated) - 1))
            return ("num", token.value + period, -1)
        if self.sees("...", "ldots"):
            self.take()
            return ("num", endless(token), -1)
        return ("num", token.value, token.decimals or -1)

    def is_repetend(self) -> bool:
        return (
            self.peek(1).kind == "num"
            and self.peek(1).decimals <= 0
            and self.peek(2).text == ")"
            and not self.next.spaced
        )

    def repetend(self) -> str:
        closing = _CLOSING.get(self.next.text, "")
        if closing:
            self.take()
        digits = self.take()
        if digits.kind != "num" or not digits.text.isdecimal() or len(digits.text) > 100:
            raise Unreadable("a repeating decimal without its digits")
        if closing:
            self.expect(closing)
        return digits.text.rstrip(".")

    def subscripted(self, name: str) -> Tree:
        """A variable: a letter, its subscript and its primes."""
        while self.sees("'"):
            name += self.take().text
        if not self.sees("_"):
            return variable(name)
        self.take()
        start = self.at
        subscript = self.subscript()
        if name == "C" and self.sees("^"):
            below = parsed(self.tokens[start : self.at])
            self.take()
            return ("binom", below, self.argument())
        return ("sym", f"{name}_{subscript}")

    def subscript(self) -> str:
        if not self.sees("{"):
            return self.take().text
        self.take()
        text, depth = "", 1
        while depth:
            token = self.take()
            if token.kind == "end":
                raise Unreadable("a subscript that breaks off")
            depth += {"{": 1, "}": -1}.get(token.text, 0) if token.kind == "op" else 0
            text += token.text if depth else ""
        return text

    def command(self, name: str) -> Tree:
        if name == "frac":
            return ("/", self.digit_argument(), self.digit_argument())
        if name == "binom":
            return ("binom", self.digit_argument(), self.digit_argument())
        if name == "sqrt":
            degree: Tree = integer(2)
            if self.sees("["):
                self.take()
                degree = self.group("[")
            return ("root", degree, self.argument())
        if name in ("log", "lg"):
            return self.logarithm(name)
        if name in APPLIED:
            return self.function(name)
        if name in CONSTANTS:
            return ("const", CONSTANTS[name])
        if name in ("lfloor", "lceil"):
            inner = self.sum()
            self.expect("r" + name[1:])
            return ("fn", name[1:], inner)
        if name in GREEK:
            return self.subscripted("\\" + name)
        if name in _ACCENTS and self.sees("{"):
            return self.subscripted(f"{name} {self.subscript()}")
        if name in UNSUPPORTED:
            raise Unsupported(f"\\{name}")
        raise Unreadable(f"\\{name}")

    def logarithm(self, name: str) -> Tree:
        base: Tree | None = integer(10) if name == "lg" else None
        if self.sees("_"):
            self.take()
            base = self.argument()
        power = self.power()
        argument = self.applied()
        tree: Tree = ("fn", "log", argument) if base is None else ("log", base, argument)
        return tree if power is None else ("^", tree, power)

    def function(self, name: str) -> Tree:
        power = self.power()
        if power == ("neg", integer(1)) and name in ("sin", "cos", "tan", "cot", "sec", "csc"):
            return ("fn", "arc" + name, self.applied())
        tree = ("fn", name, self.applied())
        return tree if power is None else ("^", tree, power)

    def power(self) -> Tree | None:
        if not self.sees("^"):
            return None
        self.take()
        return self.argument()

    def applied(self) -> Tree:
        """What a function is applied to: what stands in the brackets behind it, else the factors up to the next function."""
        if self.sees("(", "{", "["):
            return self.group(self.take().text)
        if self.sees("-", "+"):
            return self.signed()
        tree = self.factor()
        while self.begins_factor() and not self.begins_function() and self.next.kind != "num" and not self.sees("("):
            tree = ("*", tree, self.factor())
        return tree

    def begins_function(self) -> bool:
        return self.next.kind == "command" and (self.next.text in APPLIED - {"sqrt"} or self.next.text in ("log", "lg"))

    def argument(self) -> Tree:
        """What an exponent, a root or a subscript takes: a group, or the next factor without what is behind it."""
        if self.sees("{", "("):
            return self.group(self.take().text)
        if self.sees("-", "+"):
            return ("neg", self.argument()) if self.take().text == "-" else self.argument()
        if self.next.kind == "letters":
            return self.first_letter()
        return self.primary()

    def first_letter(self) -> Tree:
        name, rest = self.next.text[0], self.next.text[1:]
        self.tokens[self.at] = Token("letters" if len(rest) > 1 else "name", rest)
        return variable(name)

    def digit_argument(self) -> Tree:
        r"""As `argument`, but \frac12 is one digit over another."""
        token = self.next
        if token.kind == "num" and token.decimals <= 0 and token.text.isdigit() and len(token.text) > 1:
            self.tokens[self.at] = number_token(token.text[1:])
            return integer(int(token.text[0]))
        return self.argument()
