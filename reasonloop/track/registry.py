"""Trackers by name: ours, and classes of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import cast

from reasonloop.config.sections import TRACKERS
from reasonloop.errors import InputError
from reasonloop.own import load_named, load_own
from reasonloop.track.protocol import Tracker

OURS = {name: f"reasonloop.track.to_{name}:{name.capitalize()}" for name in TRACKERS}
"""The class behind each name, as `module:Class`; the package that it needs, and our extra for it, are called as it is"""


def tracker_of(name: str) -> Tracker:
    """A new tracker. Raises InputError where there is none of this name."""
    return cast(Tracker, _class_of(name)())


def _class_of(name: str) -> Callable[[], object]:
    where, expected = f"track.to = {name!r}", "a tracker (see reasonloop.track.protocol.Tracker)"
    made = load_named(OURS[name], where, expected) if name in OURS else load_own(name, where, expected)
    lacks = [part for part in ("start", "log", "finish") if not hasattr(made, part)]
    if lacks:
        raise InputError(f"{where}: has no {lacks[0]}; expected {expected}")
    return cast(Callable[[], object], made)


def check_trackers(names: Sequence[str]) -> None:
    """Raises InputError for one that couldn't be used. Of ours none is imported: they are for another process."""
    for name in names:
        if name not in OURS:
            _class_of(name)
            continue
        found = find_spec(name)
        if found is None or found.origin is None:  # without an origin: a folder of this name, which wandb itself leaves
            raise InputError(
                f'track.to = {name!r}: it needs the package {name}; expected it after: pip install "reasonloop[{name}]"'
            )
