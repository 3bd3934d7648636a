"""The recipe: what is read is what was written, and everything in it is documented."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from reasonloop import config
from reasonloop.config import Recipe
from reasonloop.config.manual import manual
from reasonloop.config.recipe import GONE
from reasonloop.config.section import table_of
from reasonloop.errors import InputError
from reasonloop.policy.loading import BUNDLED

ROOT = Path(__file__).parents[2]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
# Values that break no rule, whatever else is in the recipe.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "method": st.sampled_from(["sft", "rl", "rloop"]),
    "seed": st.integers(0, 2**63 - 1),
    "checkpoint_seconds": st.floats(0),
    "model.path": TEXT,
    "task.name": TEXT,
    "task.own": st.recursive(
        st.none().filter(bool) | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=6,
    ),
    "sampling.temperature": st.floats(0, exclude_min=True, allow_infinity=False),
    "sampling.top_k": st.integers(0, 10**6),
    "sampling.stop": st.lists(TEXT, max_size=3),
    "optimizer.betas": st.tuples(st.floats(0, 1), st.floats(0, 1)),
    "rl.steps": st.integers(1, 10**9),
    "rl.learning_rate": st.floats(0, 1, exclude_min=True),
    "rl.clip_low": st.none() | st.floats(0, 1, exclude_min=True),
    "rl.probe_every": st.integers(1, 9),
    "rloop.reinitialise_from": st.sampled_from(["iteration_start", "base", "explored"]),
    "rloop.hard_threshold": st.floats(0, 1, exclude_min=True),
    "rloop.weighted": st.booleans(),
    "rft.epochs": st.floats(0, 99, exclude_min=True)
    | st.lists(st.floats(0, 9, exclude_min=True), min_size=1, max_size=3),
    "sft.options": st.dictionaries(TEXT, st.integers().filter(lambda n: abs(n) < 2**63) | TEXT, max_size=3),
    "eval.problems": st.integers(0, 10**6),
}


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, last = key.split(".")
        table = tree
        for section in sections:
            table = table.setdefault(section, {})
        table[last] = value
    return tree


def value_of(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return value


@given(st.fixed_dictionaries({}, optional=VALUES))
@example({"task.own": math.inf, "sft.options": {"own": [-math.inf]}})
def test_a_recipe_is_the_same_after_a_round_trip_through_toml(flat: dict[str, Any]) -> None:
    recipe = config.parse(nested(flat), [], "test")
    text = config.dumps(recipe, {"ran_on": {"cores": 2}})
    data = tomllib.loads(text)
    assert data.pop("ran_on") == {"cores": 2}
    again = config.parse(data, [], "test")
    assert again == recipe
    assert config.dumps(again, {"ran_on": {"cores": 2}}) == text
    for key, value in flat.items():
        as_tuple = key in ("sampling.stop", "optimizer.betas") or (key == "rft.epochs" and isinstance(value, list))
        assert value_of(again, key) == (tuple(value) if as_tuple else value)


@given(
    st.fixed_dictionaries({}, optional={key: VALUES[key] for key in VALUES if key not in ("task.own", "sft.options")})
)
def test_an_override_says_what_the_file_would(flat: dict[str, Any]) -> None:
    flat = {key: value for key, value in flat.items() if value is not None}
    # as a shell hands it over: a TOML value, whatever it holds
    overrides = [f"{key}={_toml(value)}" for key, value in flat.items()]
    assert config.parse({}, overrides, "test") == config.parse(nested(flat), [], "test")


def _toml(value: Any) -> str:
    import tomli_w

    return tomli_w.dumps({"v": value}).removeprefix("v = ").rstrip("\n")


def test_overrides_lie_over_the_file_and_the_last_one_counts(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[rl]\nsteps = 5\ngroup_size = 4\n[model]\npath = "a"\n')
    recipe = config.load(path, ["rl.steps=6", "model.path=some/folder=x", "rl.steps = 7", "task.numbers=[3, 4]"])
    assert (recipe.rl.steps, recipe.rl.group_size, recipe.model.path) == (7, 4, "some/folder=x")
    assert recipe.task.options == {"numbers": [3, 4]}
    assert config.load(path).rl.steps == 5


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.path=countdown", "countdown"),
        ("model.path='a b'", "a b"),
        ('model.path="a\\tb"', "a\tb"),
        ("model.path=/data/models/v1.2", "/data/models/v1.2"),
        ("model.path=", ""),
    ],
)
def test_words_need_no_quotes(override: str, expected: str) -> None:
    assert config.parse({}, [override], "test").model.path == expected


@pytest.mark.parametrize("epochs", ["[]", "0", "[1, -1]", "x", "true", "inf", "[1, [2]]"])
def test_epochs_are_numbers_above_0(epochs: str) -> None:
    with pytest.raises(InputError, match=r"rft\.epochs = .*: expected a number above 0, or a list of such numbers"):
        config.parse({}, [f"rft.epochs={epochs}"], "test")


def test_the_last_epochs_are_for_all_that_follow() -> None:
    rft = config.parse({}, ["rft.epochs=[3, 0.5]"], "test").rft
    assert [rft.epochs_of(i) for i in range(4)] == [3, 0.5, 0.5, 0.5]
    assert config.parse({}, ["rft.epochs=3"], "test").rft.epochs_of(7) == 3


def test_a_recipe_does_not_change_after_the_check() -> None:
    recipe = Recipe()
    with pytest.raises(ValidationError):
        recipe.rl.steps = 3  # type: ignore[misc]


def options(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, info in model.model_fields.items():
        if found := table_of(info.annotation):
            yield from options(found[0], f"{prefix}{name}{found[1]}.")
        else:
            yield prefix + name, info


def test_every_option_is_documented_and_there_are_not_too_many() -> None:
    found = dict(options())
    assert len(found) <= 141  # beside them are the task's own and the engine's own
    assert [key for key, info in found.items() if not info.description] == []


def test_the_reference_has_a_row_for_every_option() -> None:
    section, rows = "", set()
    for line in manual().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ").strip("`[]")
        elif line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 4
            assert all(cells)
            rows.add(cells[0].strip("`") if section == "Top level" else f"{section}.{cells[0].strip('`')}")
    assert rows == dict(options()).keys()


def test_the_documented_reference_is_the_current_one() -> None:
    path = ROOT / "docs" / "recipes.md"
    assert path.read_text(encoding="utf-8") == manual(), "run `make docs`"


@pytest.mark.parametrize(
    "path",
    [*sorted((ROOT / "recipes").rglob("*.toml")), BUNDLED / "countdown" / "recipe.toml"],
    ids=lambda path: path.stem,
)
def test_recipes_that_come_with_the_package_are_valid(path: Path) -> None:
    recipe = config.load(path)
    assert config.parse(tomllib.loads(config.dumps(recipe)), [], "test") == recipe


@pytest.mark.parametrize("name", config.bundled_recipes())
def test_a_bundled_recipe_says_what_it_needs_and_what_comes_of_it(name: str) -> None:
    head = config.recipe_file(Path(name)).read_text(encoding="utf-8").partition("method =")[0]
    for said in (f"reasonloop run {name}", "Needs: ", "Time: ", "You will see: "):
        assert said in head


@pytest.mark.parametrize("key", GONE)
def test_an_option_that_has_gone_is_answered_with_what_became_of_it(key: str) -> None:
    assert key not in dict(options())
    with pytest.raises(InputError, match=re.escape(f"old.toml: unknown key {key!r}: {GONE[key]}")):
        config.parse(nested({key: 1}), [], "old.toml")
    with pytest.raises(InputError, match=re.escape(GONE[key])):
        config.parse({}, [f"{key}=1"], "override")


def test_every_default_passes_its_own_check() -> None:
    assert config.parse(tomllib.loads(config.dumps(Recipe())), [], "test") == Recipe()


@given(st.sampled_from(sorted(dict(options()))), st.integers(0, 30), st.characters(categories=["Ll"]))
def test_a_mistyped_key_is_answered_with_the_nearest_name(key: str, place: int, letter: str) -> None:
    section, _, name = key.rpartition(".")
    place %= len(name)
    typed = name[:place] + letter + name[place + 1 :]
    siblings = {known.rpartition(".")[2] for known in dict(options()) if known.rpartition(".")[0] == section}
    if typed in siblings or section == "task" or len(name) < 5 or typed in Recipe.model_fields:
        return
    with pytest.raises(InputError) as refused:
        config.parse(nested({f"{section}.{typed}".lstrip("."): 1}), [], "recipe.toml")
    said = str(refused.value)
    assert said.startswith("recipe.toml: unknown key ")
    assert "did you mean " in said
    suggested = said.split("did you mean ")[1].strip("'?")
    assert suggested in dict(options()) or suggested in Recipe.model_fields
    assert "\n" not in said
