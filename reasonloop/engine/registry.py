"""Engines by name: registered ones, and classes of the user's own."""

from __future__ import annotations

from typing import cast

from reasonloop.config import EngineOptions
from reasonloop.engine.checked import CheckedEngine
from reasonloop.engine.protocol import Engine
from reasonloop.errors import InputError
from reasonloop.own import load_named, load_own, nearest

ENGINES = {"native": "reasonloop.engine.native:NativeEngine", "vllm": "reasonloop.engine.vllm:VllmEngine"}
"""Registered names, and the class behind each as `module:Class`; it is called with the engine's options"""


def engine_of(options: EngineOptions) -> Engine:
    """The engine that `[engine]` names, held to the learner's numbers where it isn't exact. Raises InputError where there is
    none, or where it refuses its options."""
    name = options.name
    where = f"engine.name = {name!r}"
    if name not in ENGINES and ":" not in name:
        raise InputError(f"{where}: unknown; {nearest(name, ENGINES)} (or an engine of your own as module:Class)")
    expected = "an engine (see reasonloop.engine.protocol.Engine)"
    made = load_named(ENGINES[name], where, expected) if name in ENGINES else load_own(name, where, expected)
    try:
        engine = made(**options.options)
    except TypeError as error:
        raise InputError(f"{where}: its options {options.options} were refused ({error})") from None
    lacks = [part for part in ("exact", "load", "generate", "rest", "close") if not hasattr(engine, part)]
    if lacks:
        raise InputError(f"{where}: has no {lacks[0]}; expected {expected}")
    return cast(Engine, engine) if engine.exact else CheckedEngine(name, engine, getattr(engine, "tolerance", 0.0))
