from __future__ import annotations

import contextlib
import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonloop.store.show import print_rows

EVIL = "a\x1b[2J\x07\x9b31m\u202etxt\r\nb\tc\\n\x00"
ESCAPES = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}
VALUES = st.none() | st.integers() | st.floats() | st.text() | st.lists(st.floats() | st.text(), max_size=3)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(rows: list, columns: tuple[str, ...] = ("a", "b"), file: io.StringIO | None = None, **options: bool) -> str:
    with contextlib.redirect_stdout(file or io.StringIO()) as out:
        print_rows(columns, rows, **options)
    return out.getvalue()


@given(st.lists(st.tuples(VALUES, VALUES), max_size=4))
def test_nothing_that_is_printed_can_drive_a_terminal(rows: list) -> None:
    for text in (printed(rows), printed(rows, as_json=True), printed(rows, file=Terminal())):
        allowed = re.sub(r"\x1b\[[0-9;]*m", "", text) if "─" in text else text  # the table's own colours
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", allowed)
        text.encode()


@given(st.lists(st.tuples(st.text(), st.text()), max_size=4))
def test_a_pipe_gets_every_value_in_full_and_a_line_a_row(rows: list) -> None:
    lines = printed(rows).split("\n")
    assert lines[0] == "a\tb"
    assert lines[-1] == ""
    assert len(lines) == len(rows) + 2
    for line, row in zip(lines[1:], rows, strict=False):
        fields = line.split("\t")
        assert len(fields) == 2
        for text, value in zip(fields, row, strict=True):
            back = re.sub(
                r"\\(\\|t|n|r|x[0-9a-f]{2}|u[0-9a-f]{4})", lambda m: ESCAPES.get(m[0]) or chr(int(m[1][1:], 16)), text
            )
            assert back == value


@given(st.lists(st.tuples(st.text(), st.integers() | st.none() | st.lists(st.text(), max_size=2)), max_size=4))
def test_json_lines_read_back_equal(rows: list) -> None:
    lines = printed(rows, as_json=True).split("\n")[:-1]
    assert [tuple(json.loads(line).values()) for line in lines] == rows


def test_columns_of_one_name_are_told_apart_in_json() -> None:
    text = printed([(1, 2, 3)], ("a", "a", "a_1"), as_json=True)
    assert json.loads(text) == {"a": 1, "a_1": 2, "a_1_1": 3}


def test_numbers_that_json_does_not_have_are_null() -> None:
    assert printed([(float("nan"), [float("inf"), 1.5])], as_json=True) == '{"a": null, "b": [null, 1.5]}\n'


def test_a_spreadsheet_reads_the_pipe() -> None:
    text = printed([(1, None), ("x" * 5000, {"k": [1, 2]})])
    assert list(csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)) == [
        ["a", "b"],
        ["1", ""],
        ["x" * 5000, '{"k": [1, 2]}'],
    ]


def test_a_terminal_gets_a_table_that_does_not_interpret_what_the_model_wrote() -> None:
    text = printed([("[red]not markup[/red]", 1), (EVIL, None), ("y" * 3000, 2)], file=Terminal())
    assert "[red]not markup[/red]" in text
    assert "\\x1b[2J\\x07" in text
    assert "NULL" in text
    assert "…" in text
    assert text.count("y") < 300
    assert "3 rows" in text


def test_more_columns_than_have_room_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = tuple(f"column_{n}" for n in range(23))
    text = printed([tuple(f"value {n} of row {row}" for n in range(23)) for row in range(2)], names, Terminal())
    plain = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]
    for row in range(2):
        assert [line.split(None, 1) for line in plain[24 * row : 24 * row + 23]] == [
            [f"column_{n}", f"value {n} of row {row}"] for n in range(23)
        ]
    assert plain[23] == ""
    assert plain[-1] == "2 rows"
    assert "┃" in printed([(n, "x" * 300) for n in range(3)], file=Terminal())  # two columns have room


@pytest.mark.parametrize("options", [{}, {"as_json": True}])
def test_no_rows(options: dict) -> None:
    assert printed([], **options) == ("" if options else "a\tb\n")
