"""Values between the checker and a program."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonloop.verify.sandbox import guest as sandbox_guest
from reasonloop.verify.sandbox import wire as sandbox_wire

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
scalars |= st.decimals(allow_nan=False) | st.fractions() | st.dates() | st.datetimes() | st.timedeltas()
hashable = st.recursive(scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.sets(hashable, max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(values)
def test_a_value_survives_the_wire(value):
    again = sandbox_wire.decode(json.loads(json.dumps(sandbox_wire.encode(value))))
    assert (again, type(again)) == (value, type(value))


ODD = st.sampled_from(
    [*sandbox_wire._SEQUENCES, *sandbox_wire._MAPPINGS, *sandbox_wire._BUILDERS, "eval", "__import__"]
)
garbage = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | ODD,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.builds(lambda kind, rest: [kind, *rest], ODD, st.lists(inner, max_size=4))
        | st.dictionaries(st.text(), inner, max_size=2)
    ),
    max_leaves=8,
)


class Marker:
    """Equal to nothing but what claims to be equal to everything."""


@settings(max_examples=60, deadline=None)
@given(garbage)
def test_garbage_is_refused_or_plain(data):
    try:
        value = sandbox_wire.decode(data)
    except sandbox_wire.WireError:
        return
    assert value != Marker()
    assert type(value).__module__ in (
        "builtins",
        "collections",
        "decimal",
        "fractions",
        "datetime",
        "reasonloop.verify.sandbox.wire",
    )


def test_a_circle_ends():
    circle: list = []
    circle.append(circle)
    with pytest.raises(sandbox_wire.WireError, match="deep"):
        sandbox_wire.encode(circle)


@pytest.mark.parametrize(
    ("tests", "names"),
    [
        ("assert f(1) == g(2)", ["f", "g"]),
        ("import math\nassert math.isclose(f(1), 2)", ["f"]),
        ("def check(candidate):\n  x = len(candidate(1))\ncheck(f)", ["f"]),
        ("for i in range(3):\n  assert f(i) == [j for j in range(i)]", ["f"]),
    ],
)
def test_names_that_the_tests_do_not_define(tests, names):
    assert sandbox_guest.free_names(tests) == names
