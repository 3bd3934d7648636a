"""The manual of recipes, docs/recipes.md, made from the options in `reasonloop.config`."""

from __future__ import annotations

import json
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from reasonloop.config import Recipe
from reasonloop.config.section import table_of


def manual() -> str:
    """All options as Markdown, made from the fields and their docstrings."""
    lines = [
        "# Recipe reference",
        "",
        "Made from `reasonloop/config` by `make docs`; do not edit.",
        "",
        "A recipe is a TOML file; every key has a default, and `section.key=value` on the command line overrides it. Paths "
        "in it are relative to the current directory; modules of yours (`module:name`) are looked for there and beside the "
        "recipe, behind all that is installed. They are code: it is run, and may do all that you may; `--dry-run` names it.",
    ]
    tables: list[tuple[str, type[BaseModel]]] = [("", Recipe)]

    def collect(model: type[BaseModel], prefix: str = "") -> None:
        for name, info in model.model_fields.items():
            if found := table_of(info.annotation):
                inner, behind = found
                tables.append((prefix + name + behind, inner))
                collect(inner, f"{prefix}{name}{behind}.")

    collect(Recipe)
    for name, model in tables:
        lines += ["", f"## `[{name}]`" if name else "## Top level", ""]
        if name and model.__doc__:
            lines += [" ".join(model.__doc__.split()), ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        for key, info in model.model_fields.items():
            if table_of(info.annotation):
                continue
            default = info.get_default(call_default_factory=True)
            text = " ".join((info.description or "").split())
            shown = "unset" if default is None else f"`{json.dumps(default)}`"  # on one line; TOML reads it the same
            lines.append(f"| `{key}` | {_type(info.annotation)} | {shown} | {text} |")
    return "\n".join(lines) + "\n"


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    args = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) in (Union, UnionType) and len(args) > 1:
        return " or ".join(_type(part) for part in args)
    if get_origin(annotation) in (tuple, dict):
        return "table" if get_origin(annotation) is dict else "list"
    if len(args) == 1:
        return _type(args[0])
    return getattr(args[0] if args else annotation, "__name__", str(annotation))
