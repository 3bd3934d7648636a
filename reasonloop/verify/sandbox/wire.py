"""Python values and messages between the checker and a program that nobody trusts. Standard library only.

A message is 4 bytes of length, big-endian, and JSON. A value travels as JSON too, containers tagged with their kind, and
is rebuilt as a plain builtin: nothing that a program sends can run code or bring its own `__eq__` along.
"""

from __future__ import annotations

import json
import os
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

MESSAGE_LIMIT = 64 << 20
"""Bytes of a message from a program."""
DEPTH_LIMIT = 60
"""Containers within containers."""
ITEM_LIMIT = 200_000
"""Items taken from an iterator."""
_PLAIN_INT = 1 << 63

# how a container is built of its items, and a mapping of its pairs
_SEQUENCES: dict[str, Callable[[Iterable[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
    # a view doesn't give away its dict: what the other half of each pair is, nobody can ask
    "dict_keys": lambda items: dict.fromkeys(items).keys(),
    "dict_values": lambda items: dict(enumerate(items)).values(),
    "dict_items": lambda items: dict(items).items(),
    "iterator": lambda items: iter(list(items)),
}
_MAPPINGS: dict[str, Callable[[Iterable[tuple[Any, Any]]], Any]] = {
    "Counter": lambda items: Counter(dict(items)),
    "OrderedDict": OrderedDict,
    "dict": dict,
}
_ITERABLES: tuple[Any, ...] = (list, tuple, set, frozenset, deque, type({}.keys()), type({}.values()), type({}.items()))


class Opaque:
    """Stands for a value of a type that isn't carried: all that is left of it is whether it is true."""

    def __init__(self, name: str, truth: bool) -> None:
        self._name, self._truth = name, truth

    def __bool__(self) -> bool:
        return self._truth

    def __repr__(self) -> str:
        return f"<a {self._name}, which is not carried>"


class WireError(Exception):
    """A value that can't be carried, or a message that is none."""


def encode(value: Any, opaque: bool = True, depth: int = 0) -> Any:
    """`value` as JSON data. Raises WireError for what is too deep or too long.

    Carried: None, bool, int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset, dict, Counter,
    OrderedDict, defaultdict (as a dict), deque, range, Decimal, Fraction, date, time, datetime, timedelta; dict views
    and iterators (up to ITEM_LIMIT items). A subclass of a builtin is carried as the builtin; anything else as an
    `Opaque`, which equals nothing, or, unless `opaque`, not at all: WireError.
    """
    if value is None or value is True or value is False:
        return value
    if depth > DEPTH_LIMIT:
        raise WireError(f"a value more than {DEPTH_LIMIT} containers deep")
    if isinstance(value, int):
        value = int(value)
        return value if -_PLAIN_INT < value < _PLAIN_INT else ["int", hex(value)]
    if isinstance(value, float):
        return float(value)  # JSON as Python writes and reads it is exact, and has nan and inf
    if isinstance(value, str):
        return str.__str__(value)
    for kind, fields, _ in _SCALARS:
        if isinstance(value, kind):
            return [kind.__name__, *fields(value)]
    for kind in (Counter, OrderedDict, dict):
        if isinstance(value, kind):
            return [kind.__name__, *(encode(half, opaque, depth + 1) for pair in value.items() for half in pair)]
    for kind in _ITERABLES:
        if isinstance(value, kind):
            return [kind.__name__, *(encode(item, opaque, depth + 1) for item in value)]
    if isinstance(value, Iterator):
        return ["iterator", *(encode(item, opaque, depth + 1) for item in _limited(value))]
    if not opaque:
        raise WireError(f"a value of type {type(value).__name__}, which is not carried")
    return ["object", type(value).__name__[:100], bool(value)]


def decode(data: Any, depth: int = 0) -> Any:
    """The value that `encode` gave. Raises WireError for anything else."""
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if depth > DEPTH_LIMIT + 1 or not isinstance(data, list) or not data or not isinstance(data[0], str):
        raise WireError("not an encoded value")
    kind, parts = data[0], data[1:]
    try:
        if kind in _SEQUENCES:
            return _SEQUENCES[kind](decode(part, depth + 1) for part in parts)
        if kind in _MAPPINGS:
            items = [decode(part, depth + 1) for part in parts]
            return _MAPPINGS[kind](zip(items[::2], items[1::2], strict=True))
        if kind in _BUILDERS:
            return _BUILDERS[kind](*parts)
    except WireError:
        raise
    except Exception as error:  # an unhashable member, a date out of range, a text where a number belongs
        raise WireError(f"not an encoded {kind}: {error}") from None
    raise WireError(f"a value of unknown kind {kind[:20]!r}")


def send(descriptor: int, message: Any) -> None:
    """Write one message. Raises OSError if nobody reads any more."""
    body = json.dumps(message, separators=(",", ":")).encode()
    rest = memoryview(len(body).to_bytes(4, "big") + body)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def receive(descriptor: int, limit: int = MESSAGE_LIMIT) -> Any:
    """Read one message. Raises EOFError at the end of input, WireError for what is no message or too long."""
    size = int.from_bytes(_exactly(descriptor, 4), "big")
    if size > limit:
        raise WireError(f"a message of {size:,} bytes (limit {limit:,})")
    try:
        return json.loads(_exactly(descriptor, size))
    except (ValueError, RecursionError):
        raise WireError("a message that is no JSON") from None


def _exactly(descriptor: int, size: int) -> bytes:
    body = bytearray()
    while len(body) < size:
        part = os.read(descriptor, min(size - len(body), 1 << 20))
        if not part:
            raise EOFError
        body += part
    return bytes(body)


def _limited(items: Iterator[Any]) -> Iterator[Any]:
    for count, item in enumerate(items):
        if count == ITEM_LIMIT:
            raise WireError(f"an iterator of more than {ITEM_LIMIT:,} items")
        yield item


def _int(text: str) -> int:
    return int(text, 16)  # not decimal, which Python refuses beyond 4,300 digits


# type, its value as JSON data, and back
_SCALARS: tuple[tuple[type, Callable[[Any], list[Any]], Callable[..., Any]], ...] = (
    (complex, lambda value: [value.real, value.imag], complex),
    (bytes, lambda value: [value.hex()], bytes.fromhex),
    (bytearray, lambda value: [value.hex()], bytearray.fromhex),
    (Decimal, lambda value: [str(value)], Decimal),
    (
        Fraction,
        lambda value: [hex(value.numerator), hex(value.denominator)],
        lambda above, below: Fraction(_int(above), _int(below)),
    ),
    (datetime, lambda value: [value.isoformat()], datetime.fromisoformat),  # in front of date, whose subclass it is
    (date, lambda value: [value.isoformat()], date.fromisoformat),
    (time, lambda value: [value.isoformat()], time.fromisoformat),
    (timedelta, lambda value: [value.days, value.seconds, value.microseconds], timedelta),
    (
        range,
        lambda value: [encode(part) for part in (value.start, value.stop, value.step)],
        lambda *parts: range(*(decode(part) for part in parts)),
    ),
)
_BUILDERS: dict[str, Callable[..., Any]] = {kind.__name__: build for kind, _, build in _SCALARS}
_BUILDERS["int"] = _int
_BUILDERS["object"] = lambda name, truth: Opaque(str(name), bool(truth))
