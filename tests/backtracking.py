r"""Whether a regular expression's matching is linear in the length of the text, proved from its parse tree.

`re` tries the ways to match one after the other, so that the time is the number of ways to begin a match. That number is
linear for every text unless the pattern has two states p and q, and there is a text v, with which p comes back to p, p comes
to q, and q comes back to q (Weber and Seidl, "On the degree of ambiguity of finite automata", 1991): then v v v ... v has a
way for each place at which p is left for q. A search may begin anywhere, as if the pattern had a first state that comes
back to itself with every character. What is found in a pattern is v; nothing found is a proof, up to a constant factor:
what is not modelled only makes the matcher try less.

Modelled: characters, look-around of one character, anchors, word boundaries, possessive repeats of one class. A longer
look-ahead may be walked, and only forbids plain words; other atomic groups may be walked as if they weren't. A state from
which the match is certain to succeed is no q: once there, nothing in front of it is tried again, and the next search begins
behind it.
"""

from __future__ import annotations

import re
import re._compiler as compiler  # type: ignore[import-not-found]
import re._constants as sre  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Use = Literal["full", "match", "search", "anywhere"]
"""How a pattern is used: `fullmatch`; `match`; `search`, `finditer`, `sub`, ...; `match(text, place)` at many places"""
LONGEST_UNROLLED = 300
"""A bounded repeat of more is taken for an endless one"""
_ONE = (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN)
_REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)

Condition = tuple[int, int, frozenset[str]]
"""Sets of symbols, as bits: what may stand in front, what behind; and words that must not follow"""
State = tuple[int, frozenset[str], int]
_NONE: frozenset[str] = frozenset()
_MAY_FAIL = frozenset(("\U0010ffff\U0010ffff",))
"""Of a condition that is not modelled: no text has this word, and what depends on it is not certain"""


@dataclass
class Part:
    """A piece of a pattern: ways in, ways out, and ways past it without a character."""

    entries: list[tuple[Condition, int]] = field(default_factory=list)
    exits: list[tuple[int, Condition]] = field(default_factory=list)
    skips: list[Condition] = field(default_factory=list)


class Automaton:
    """The positions of a pattern's characters, and from which one may follow upon which."""

    def __init__(self, pattern: str, flags: int) -> None:
        tree = parser.parse(pattern, flags)
        self._flags = tree.state.flags
        self._state = tree.state
        self._members: dict[str, list[str]] = {}
        self._groups: dict[int, Any] = {}
        self._alphabet(tree)
        self._kept: dict[State, dict[int, list[State]]] = {}
        self._of_mask: dict[int, list[int]] = {}
        self._alike: dict[int, dict[int, int]] = {}
        self._atomic: dict[int, int] = {}
        """Of each position in an atomic group: where the positions of the innermost one begin"""
        self._closing: dict[int, list[Condition]] = {}
        """Of each position that may be the last of that group: on which conditions"""
        self.masks: list[int] = []
        """Of each position: the symbols that it reads"""
        self.edges: dict[int, list[tuple[int, Condition]]] = {}
        whole = self._sequence(tree, self._flags)
        self.entries, self.exits = whole.entries, whole.exits

    # The alphabet: one character for each set of leaves that match it.

    def _alphabet(self, tree: Any) -> None:
        leaves = {repr((leaf, flags)): self._compiled(leaf, flags) for leaf, flags in self._leaves(tree, self._flags)}
        points = set(map(chr, range(0x180))) | set("\u00a0\u2028\u2212\u0660\u4e00\u0301\u2003\u200b\uff15")
        for leaf, _ in self._leaves(tree, self._flags):
            for low, high in _ranges([leaf]):
                points.update(chr(p) for end in (low, high) for p in (end - 1, end, end + 1) if 0 <= p < 0x110000)
        word, kinds = re.compile(r"\w"), {}
        for point in sorted(points):
            kinds.setdefault(
                (*(bool(leaf.match(point)) for leaf in leaves.values()), bool(word.match(point)), point == "\n"), point
            )
        self.symbols = list(kinds.values())
        self.everything = (1 << len(self.symbols)) - 1
        self.edge = 1 << len(self.symbols)
        """The symbol that stands for the text's beginning, or its end"""
        self._of_leaf = {name: self._set(leaf) for name, leaf in leaves.items()}
        self._word = self._set(word)
        self._newline = self._set(re.compile("\n"))
        self.free: Condition = (self.everything | self.edge, self.everything | self.edge, _NONE)

    def _set(self, pattern: re.Pattern[str]) -> int:
        return sum(1 << i for i, symbol in enumerate(self.symbols) if pattern.match(symbol))

    def _compiled(self, leaf: Any, flags: int) -> re.Pattern[str]:
        alone = parser.SubPattern(parser.State(), [leaf])
        alone.state.flags = flags & ~re.DEBUG
        return compiler.compile(alone, flags & ~re.DEBUG)

    def _leaves(self, tree: Any, flags: int) -> Iterator[tuple[Any, int]]:
        for op, argument in tree:
            if op in _ONE:
                yield (op, argument), flags
            elif op in _REPEATS:
                yield from self._leaves(argument[2], flags)
            elif op is sre.SUBPATTERN:
                if argument[0] is not None:
                    self._groups[argument[0]] = argument[3]
                yield from self._leaves(argument[3], (flags | argument[1]) & ~argument[2])
            elif op is sre.BRANCH:
                for branch in argument[1]:
                    yield from self._leaves(branch, flags)
            elif op in (sre.ASSERT, sre.ASSERT_NOT):
                yield from self._leaves(argument[1], flags)
            elif op is sre.ATOMIC_GROUP:
                yield from self._leaves(argument, flags)
            elif op is sre.GROUPREF_EXISTS:
                for branch in argument[1:]:
                    yield from self._leaves(branch or (), flags)

    # The positions, and what follows upon what.

    def _position(self, mask: int) -> Part:
        self.masks.append(mask)
        place = len(self.masks) - 1
        self.edges[place] = []
        return Part([(self.free, place)], [(place, self.free)])

    def _then(self, a: Part, b: Part) -> Part:
        self._link(a, b)
        entries = a.entries + [
            (both, place) for skip in a.skips for entry, place in b.entries if (both := _and(skip, entry))
        ]
        exits = b.exits + [(place, both) for place, out in a.exits for skip in b.skips if (both := _and(out, skip))]
        return Part(entries, exits, _distinct(both for x in a.skips for y in b.skips if (both := _and(x, y))))

    def _link(self, a: Part, b: Part) -> None:
        for place, out in a.exits:
            for entry, target in b.entries:
                both = _and(out, entry)
                if both and self.masks[target] & both[1] and self.masks[place] & both[0]:
                    self.edges[place].append((target, both))

    def _sequence(self, tree: Any, flags: int) -> Part:
        whole = Part(skips=[self.free])
        for op, argument in tree:
            whole = self._then(whole, self._piece(op, argument, flags))
        return whole

    def _piece(self, op: Any, argument: Any, flags: int) -> Part:
        if op in _ONE:
            return self._position(self._of_leaf[repr(((op, argument), flags))])
        if op in _REPEATS:
            return self._repeat(op is sre.POSSESSIVE_REPEAT, argument, flags)
        if op is sre.SUBPATTERN:
            return self._sequence(argument[3], (flags | argument[1]) & ~argument[2])
        if op is sre.BRANCH:
            return _either([self._sequence(branch, flags) for branch in argument[1]])
        if op is sre.ATOMIC_GROUP:
            (first, inside), *more = argument
            if not more and first in _REPEATS:
                return self._repeat(first is not sre.MIN_REPEAT, inside, flags)
            return self._closed(len(self.masks), self._sequence(argument, flags))
        if op is sre.GROUPREF:  # some text that the group has matched
            return self._then(self._doubtful(), self._sequence(self._groups[argument], flags))
        if op is sre.GROUPREF_EXISTS:
            branches = [self._sequence(branch or (), flags) for branch in argument[1:]]
            return self._then(self._doubtful(), _either(branches))
        if op is sre.AT:
            return Part(skips=self._anchor(argument, flags))
        assert op in (sre.ASSERT, sre.ASSERT_NOT), f"{op} is not modelled"
        return self._look(op is sre.ASSERT, *argument, flags)

    def _doubtful(self) -> Part:
        """Something that needs no character, and may fail."""
        return Part(skips=[(self.free[0], self.free[1], _MAY_FAIL)])

    def _closed(self, start: int, part: Part) -> Part:
        """The part as an atomic group, whose positions are those from `start` on."""
        for place, out in part.exits:
            if place not in self._atomic:
                self._closing.setdefault(place, []).append(out)
        for place in range(start, len(self.masks)):
            self._atomic.setdefault(place, start)
        return part

    def _repeat(self, possessive: bool, argument: tuple[int, Any, Any], flags: int) -> Part:
        least, most, body = argument
        endless = most is sre.MAXREPEAT or most > LONGEST_UNROLLED
        start, mask = len(self.masks), self._one(body, flags)
        if endless:
            whole = self._sequence(body, flags)
            self._link(whole, whole)
            if least == 0:
                whole.skips = [self.free]
            if possessive and mask:  # never left where it could go on
                behind = (self.free[0], self.free[1] & ~mask, _NONE)
                whole.exits = [(place, both) for place, out in whole.exits if (both := _and(out, behind))]
                whole.skips = [behind for _ in whole.skips]
        else:
            whole = Part(skips=[self.free])
            for _ in range(most - least):
                whole = self._then(self._sequence(body, flags), whole)
                whole.skips = [self.free]
        for _ in range(least - 1 if endless else least):
            whole = self._then(self._sequence(body, flags), whole)
        return self._closed(start, whole) if possessive and not (endless and mask) else whole

    def _one(self, tree: Any, flags: int) -> int:
        """The symbols of a piece that is one character; 0 if it isn't."""
        if len(tree) != 1:
            return 0
        op, argument = tree[0]
        if op in _ONE:
            return self._of_leaf[repr(((op, argument), flags))]
        if op is sre.SUBPATTERN:
            return self._one(argument[3], (flags | argument[1]) & ~argument[2])
        if op is sre.BRANCH:
            masks = [self._one(branch, flags) for branch in argument[1]]
            return sum(1 << i for i in range(len(self.symbols)) if any(m >> i & 1 for m in masks)) if all(masks) else 0
        return 0

    def _anchor(self, kind: Any, flags: int) -> list[Condition]:
        front, behind, _ = self.free
        if kind is sre.AT_BEGINNING_STRING or (kind is sre.AT_BEGINNING and not flags & re.MULTILINE):
            return [(self.edge, behind, _NONE)]
        if kind is sre.AT_BEGINNING:
            return [(self.edge | self._newline, behind, _NONE)]
        if kind is sre.AT_END_STRING:
            return [(front, self.edge, _NONE)]
        if kind is sre.AT_END:
            return [(front, self.edge | self._newline, _NONE)]
        others = self.free[0] & ~self._word
        if kind is sre.AT_BOUNDARY:
            return [(self._word, others, _NONE), (others, self._word, _NONE)]
        return [(self._word, self._word, _NONE), (others, others, _NONE)]

    def _look(self, wanted: bool, direction: int, body: Any, flags: int) -> Part:
        front, behind, _ = self.free
        if not body:
            return Part(skips=[self.free] if wanted else [])
        if mask := self._one(body, flags):
            allowed = mask if wanted else self.free[0] & ~mask
            return Part(skips=[(front, allowed, _NONE) if direction > 0 else (allowed, behind, _NONE)])
        if direction < 0:  # of a fixed width
            return self._doubtful()
        inside = self._sequence(body, flags)
        words = None if wanted or flags & re.IGNORECASE else _words(body)
        forbidden = _MAY_FAIL if words is None else frozenset(words)
        if wanted and not inside.skips:
            behind = 0
            for entry, place in inside.entries:
                behind |= entry[1] & self.masks[place]
        return Part(inside.entries, [], [(front, behind, forbidden)])

    # What the proof asks. A state is a position, the words that must not follow there, and the symbol that was read last.

    def certain(self) -> dict[tuple[int, int], int]:
        """(position, symbol that it has read) -> the symbols before which a match is certain to succeed from there."""
        found = {(place, last): self.free[1] for place in self.edges for last in self._bits(self.masks[place])}
        exits: dict[int, list[Condition]] = {}
        for place, out in self.exits:
            exits.setdefault(place, []).append(out)
        changed = True
        while changed:
            changed = False
            for (place, last), before in found.items():
                now = 0
                group = self._atomic.get(place)
                for out in exits.get(place, ()):
                    # what follows upon an atomic group may fail, and the group is then not tried in another way
                    if out[0] >> last & 1 and not out[2] and (group is None or out in self._closing.get(place, ())):
                        now |= out[1]
                for target, (front, behind, words) in self.edges[place]:
                    inside = group is None or (self._atomic.get(target) == group and target >= group)
                    if front >> last & 1 and not words and inside:
                        reads = behind & self.masks[target]
                        now |= sum(1 << s for s in self._bits(reads) if found[target, s] == self.free[1])
                if now & before != before:
                    found[place, last] = now & before
                    changed = True
        return found

    def _following(self, state: State) -> dict[int, list[State]]:
        """By the symbol that is read next: the states to which it leads."""
        if state not in self._kept:
            place, words, last = state
            edges = self.edges[place] if place >= 0 else [(target, entry) for entry, target in self.entries]
            found: dict[int, list[State]] = {}
            for target, (front, behind, more) in edges:
                if front >> last & 1:
                    for symbol in self._bits(behind & self.masks[target] & self.everything):
                        left = _left(words | more, self.symbols[symbol])
                        if left is not None:
                            found.setdefault(symbol, []).append((target, left, self._like(target, symbol)))
            if place < 0:
                for symbol in range(len(self.symbols)):
                    found.setdefault(symbol, []).append((-1, _NONE, self._like(-1, symbol)))
            self._kept[state] = found
        return self._kept[state]

    def _like(self, place: int, last: int) -> int:
        """The first symbol that allows the same behind a position that has read it as `last` does."""
        if place not in self._alike:
            edges = self.edges[place] if place >= 0 else [(target, entry) for entry, target in self.entries]
            fronts = {out[0] for _, out in edges} | {out[0] for of, out in self.exits if of == place}
            first: dict[tuple[int, ...], int] = {}
            read = self._bits(self.masks[place] if place >= 0 else self.everything)
            self._alike[place] = {
                symbol: first.setdefault(tuple(front >> symbol & 1 for front in fronts), symbol) for symbol in read
            }
        return self._alike[place][last]

    def _bits(self, mask: int) -> list[int]:
        if mask not in self._of_mask:
            self._of_mask[mask] = [i for i in range(len(self.symbols)) if mask >> i & 1]
        return self._of_mask[mask]

    def _cycles(self) -> tuple[dict[State, int], dict[State, set[State]]]:
        """The cycle of each state that can come back to itself, and what each state reaches."""
        states: set[State] = set()
        todo: list[State] = [(-1, _NONE, self._like(-1, last)) for last in range(len(self.symbols))]
        todo.append((-1, _NONE, len(self.symbols)))
        while todo:
            state = todo.pop()
            for following in self._following(state).values():
                for target in following:
                    if target not in states:
                        states.add(target)
                        todo.append(target)
        onward = {state: {t for targets in self._following(state).values() for t in targets} for state in states}
        component = _components(onward)
        sizes: dict[int, int] = {}
        for number in component.values():
            sizes[number] = sizes.get(number, 0) + 1
        loops = {s: n for s, n in component.items() if s[0] >= 0 and (sizes[n] > 1 or s in onward[s])}
        return loops, onward

    def repeated(self, anywhere: bool, certain: dict[tuple[int, int], int]) -> str | None:
        """A text v as the module's docstring has it, or None. `anywhere`: a match may begin at every place."""
        loops, onward = self._cycles()
        for state, number in loops.items():
            for symbol, following in self._following(state).items():
                again = [target for target in following if loops.get(target) == number]
                if len(again) != len(set(again)):  # two ways without a character between them
                    return self.symbols[symbol]

        def uncertain(state: State) -> dict[int, list[State]]:
            sure = 0 if state[1] else certain.get((state[0], state[2]), 0)
            return {
                symbol: inside
                for symbol, following in self._following(state).items()
                if not sure >> symbol & 1 and (inside := [t for t in following if loops.get(t) == loops[state]])
            }

        walk = {state: uncertain(state) for state in loops}
        slow = _components({state: {t for ts in walk[state].values() for t in ts} for state in loops})
        sizes: dict[int, int] = {}
        for number in slow.values():
            sizes[number] = sizes.get(number, 0) + 1
        reached: dict[State, set[State]] = {}
        for q in loops:
            if sizes[slow[q]] == 1 and not any(q in targets for targets in walk[q].values()):
                continue
            starts = [state for state in onward if state[0] < 0] if anywhere else []
            for p in loops:
                if p != q:
                    if p not in reached:
                        reached[p] = _reached(p, onward)
                    if q in reached[p]:
                        starts.append(p)
            for p in starts:
                if (v := self._pumped(p, q, loops, walk)) is not None:
                    return v
        return None

    def _pumped(
        self, p: State, q: State, loops: dict[State, int], walk: dict[State, dict[int, list[State]]]
    ) -> str | None:
        start, goal = (p, p, q), (p, q, q)
        before: dict[tuple[State, State, State], tuple[tuple[State, State, State], int] | None] = {start: None}
        todo = deque([start])
        while todo:
            node = todo.popleft()
            a, m, b = node
            first, second = self._following(a), self._following(m)
            for symbol, thirds in walk[b].items():
                if symbol not in first or symbol not in second:
                    continue
                firsts = [t for t in first[symbol] if (t[0] < 0 if p[0] < 0 else loops.get(t) == loops[p])]
                for following in ((x, y, z) for x in firsts for y in second[symbol] for z in thirds):
                    if following not in before:
                        before[following] = node, symbol
                        if following == goal:
                            return self._word_to(following, before)
                        todo.append(following)
        return None

    def _word_to(self, node: Any, before: dict[Any, Any]) -> str:
        found = []
        while before[node] is not None:
            node, symbol = before[node]
            found.append(self.symbols[symbol])
        return "".join(reversed(found))


def _left(words: frozenset[str], character: str) -> frozenset[str] | None:
    """What is left of forbidden words behind a character; None where one is complete."""
    if not words:
        return words
    left = frozenset(word[1:] for word in words if word[0] == character)
    return None if "" in left else left


def _components(onward: dict[Any, set[Any]]) -> dict[Any, int]:
    """The strongly connected component of each node, by number (Tarjan's, without recursion)."""
    number: dict[Any, int] = {}
    low: dict[Any, int] = {}
    component: dict[Any, int] = {}
    stack: list[Any] = []
    for root in onward:
        if root in number:
            continue
        number[root] = low[root] = len(number)
        stack.append(root)
        work = [(root, iter(onward[root]))]
        while work:
            node, targets = work[-1]
            for target in targets:
                if target not in number:
                    number[target] = low[target] = len(number)
                    stack.append(target)
                    work.append((target, iter(onward[target])))
                    break
                if target not in component:
                    low[node] = min(low[node], number[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    while True:
                        member = stack.pop()
                        component[member] = number[node]
                        if member == node:
                            break
    return component


def _reached(node: Any, onward: dict[Any, set[Any]]) -> set[Any]:
    found: set[Any] = set()
    todo = [node]
    while todo:
        for target in onward[todo.pop()]:
            if target not in found:
                found.add(target)
                todo.append(target)
    return found


def _and(a: Condition, b: Condition) -> Condition | None:
    front, behind = a[0] & b[0], a[1] & b[1]
    return (front, behind, a[2] | b[2]) if front and behind else None


def _distinct(conditions: Iterator[Condition]) -> list[Condition]:
    return list(dict.fromkeys(conditions))


def _either(parts: list[Part]) -> Part:
    return Part(
        [entry for part in parts for entry in part.entries],
        [out for part in parts for out in part.exits],
        _distinct(skip for part in parts for skip in part.skips),
    )


def _words(tree: Any) -> list[str] | None:
    """The texts that a piece of plain characters and alternatives matches; None where it is more than that."""
    found = [""]
    for op, argument in tree:
        if op is sre.LITERAL:
            more: list[str] | None = [chr(argument)]
        elif op is sre.BRANCH:
            branches = [_words(branch) for branch in argument[1]]
            more = None if None in branches else [word for branch in branches for word in branch or ()]
        elif op is sre.SUBPATTERN:
            more = _words(argument[3])
        else:
            more = None
        if more is None:
            return None
        found = [a + b for a in found for b in more]
    return found


def _ranges(tree: Any) -> Iterator[tuple[int, int]]:
    for op, argument in tree:
        if op in (sre.LITERAL, sre.NOT_LITERAL):
            yield argument, argument
        elif op is sre.RANGE:
            yield argument
        elif op is sre.IN:
            yield from _ranges(argument)


def superlinear(pattern: str, flags: int = 0, use: Use = "search") -> str | None:
    """A text whose repetition may take more than linear time, or None where there is none."""
    automaton = Automaton(pattern, flags)
    if use == "full":
        return automaton.repeated(False, {})
    certain = automaton.certain()
    found = automaton.repeated(use == "search", certain)
    if found is None and use == "anywhere":
        found = automaton.repeated(True, {})
    return found
