"""A table of options and how it is checked: unknown keys are refused with the nearest name. Free of torch."""

from __future__ import annotations

import difflib
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from reasonloop.config.secret import has_secret
from reasonloop.errors import InputError

SectionT = TypeVar("SectionT", bound=BaseModel)


class Section(BaseModel):
    """A table of options: unknown keys are an error, values are frozen after the check."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, ser_json_inf_nan="constants"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        expected = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and bool not in (expected, *get_args(expected)):
            raise ValueError("expected another value than true or false")
        return value


def validated(model: type[SectionT], data: dict[str, Any], where: str) -> SectionT:
    """`data` checked against `model`; raises InputError with `where`, the key, what was got and what was expected."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise InputError(f"{where}: {_explain(model, first)}{more}") from None


def _explain(model: type[BaseModel], error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = known_keys(model)
        near = [name for name in known if _initials(name) == key][:1]
        near = near or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        if not near:
            near = [name for name in known if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]][:1]
        if not near:
            leaf = {name.rsplit(".", 1)[-1]: name for name in known}
            near = [leaf[name] for name in difflib.get_close_matches(key.rsplit(".", 1)[-1], leaf, n=1)]
        hint = f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(known[:12])}"
        shown = "(not shown: it may be a secret)" if any(map(has_secret, key.split("."))) else repr(key)
        return f"unknown key {shown}{hint}"
    message = error["msg"].removeprefix("Value error, ")
    if not key:
        return message
    got = error.get("input")
    if isinstance(got, dict):  # its keys are told apart by the message
        return f"{key}: {message}"
    got = repr(got).lower() if isinstance(got, bool) else repr(got)  # texts and lists as TOML takes them, too
    if error["type"] in ("model_type", "model_attributes_type"):
        message = f"expected a table: [{key}], or {key}.KEY"
    if has_secret(got):
        return f"{key}: {message[0].lower()}{message[1:]} (what was got is not shown: it may be a key)"
    shown = got if len(got) < 80 else got[:77] + "..."
    return f"{key} = {shown}: {message[0].lower()}{message[1:]}"


def _initials(name: str) -> str:
    """rl.lr of rl.learning_rate"""
    table, dot, key = name.rpartition(".")
    return table + dot + "".join(word[:1] for word in key.split("_"))


def known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The dotted keys of a table and of the tables in it."""
    found: list[str] = []
    for name, info in model.model_fields.items():
        found.append(prefix + name)
        if inner := table_of(info.annotation):
            found += known_keys(inner[0], f"{prefix}{name}{inner[1]}.")
    return found


def literals(annotation: Any) -> list[Any]:
    """The values that an option may have, where they are a closed list; an option that may be unset, too."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [value for part in get_args(annotation) for value in literals(part)]


def values(model: type[BaseModel], key: str) -> list[str]:
    """What the option with this dotted key may be, as far as it is listed: as TOML, or a bare word, writes it."""
    name, _, rest = key.partition(".")
    info = model.model_fields.get(name)
    if info is None:
        return []
    if inner := table_of(info.annotation):
        return values(inner[0], rest.partition(".")[2] if inner[1] else rest)
    if bool in (info.annotation, *get_args(info.annotation)):
        return ["true", "false"]
    return [str(value) for value in [*literals(info.annotation), *(info.examples or ())]]


def table_of(annotation: Any) -> tuple[type[BaseModel], str] | None:
    """The options of a table, and what stands behind its key: ".NAME" for tables by name, else nothing; None for a value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    inner = get_args(annotation)[1] if get_origin(annotation) is dict else None
    return (inner, ".NAME") if isinstance(inner, type) and issubclass(inner, BaseModel) else None
