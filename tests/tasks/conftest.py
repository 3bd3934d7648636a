"""What the tests of tasks share."""

import json

import pytest


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes rows as JSON Lines to a file in the current directory, and gives its name."""
    monkeypatch.chdir(tmp_path)

    def to_file(name, rows):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return name

    return to_file
