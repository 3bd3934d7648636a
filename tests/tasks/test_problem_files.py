"""Files, folders and data sets of every kind give the same problems, and what isn't read says what to do."""

import csv
import gzip
import json
import sys
from types import ModuleType, SimpleNamespace

import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reasonloop.cli import main
from reasonloop.errors import InputError
from reasonloop.tasks.files import locate
from reasonloop.tasks.files.hub import load
from reasonloop.tasks.jsonl.task import Jsonl

ROWS = [{"problem": f"What is {n} + {n}?\nSay; \u2028it, \u221a{n}", "answer": str(2 * n), "n": n} for n in range(3)]
MADE = [(row["problem"], row["answer"]) for row in ROWS]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(path, rows, pack=False):
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if pack else data)


def table(path, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def arrow(path, rows, kind=pa.ipc.new_stream):
    batch = pa.RecordBatch.from_pylist(rows)
    with kind(str(path), batch.schema) as writer:
        writer.write(batch)


def parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)


def saved(folder, rows, shards=2):
    """What `Dataset.save_to_disk` leaves."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05}-of-{shards:05}.arrow" for i in range(shards)]
    size = -(-len(rows) // shards)
    for i, name in enumerate(names):
        arrow(folder / name, rows[i * size : (i + 1) * size])
    (folder / "dataset_info.json").write_text("{}")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))


def columns(rows):
    return {key: [row[key] for row in rows] for key in rows[0]}


FILES = {
    "a.jsonl": lambda path: lines(path, ROWS),
    "a.jsonl.gz": lambda path: lines(path, ROWS, pack=True),
    "a.txt": lambda path: lines(path, ROWS),
    "lines.json": lambda path: lines(path, ROWS),
    "a.json": lambda path: path.write_text(json.dumps(ROWS)),
    "array.jsonl": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "pretty.json": lambda path: path.write_text("\n" + json.dumps(ROWS, indent=4)),
    "rows-in-lines.json": lambda path: path.write_text("[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n"),
    "columns.json": lambda path: path.write_text(json.dumps(columns(ROWS))),
    "pandas.json": lambda path: path.write_text(
        json.dumps({key: {str(i): cell for i, cell in enumerate(cells)} for key, cells in columns(ROWS).items()})
    ),
    "wrapped.json": lambda path: path.write_text(json.dumps({"version": 1, "data": ROWS}, indent=2)),
    "a.csv": lambda path: table(path, ROWS),
    "semicolons.csv": lambda path: table(path, ROWS, ";"),
    "a.tsv": lambda path: table(path, ROWS, "\t"),
    "a.parquet": lambda path: parquet(path, ROWS),
    "named-otherwise": lambda path: parquet(path, ROWS),
    "a.arrow": lambda path: arrow(path, ROWS),
    "a.feather": lambda path: arrow(path, ROWS, pa.ipc.new_file),
    "saved": lambda path: saved(path, ROWS),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file(here, name):
    FILES[name](here / name)
    problems = Jsonl(test=name).problems()
    assert [(problem.prompt, problem.answer) for problem in problems] == MADE
    assert {problem.id.rpartition("-")[0] for problem in problems} == {(here / name).stem}


def test_places_are_lines_or_rows(here):
    for name in FILES:
        FILES[name](here / name)
    places = {
        name: [tuple(problem.meta.items())[1] for problem in Jsonl(test=name).problems()][-1]
        for name in ("a.jsonl", "a.csv", "a.json", "a.parquet")
    }
    # each problem of the CSV file has a line break in its prompt
    assert places == {"a.jsonl": ("line", 3), "a.csv": ("line", 6), "a.json": ("row", 3), "a.parquet": ("row", 3)}
    assert Jsonl(test="saved").problems()[-1].meta == {"file": "saved/data-00001-of-00002.arrow", "row": 1}


def test_nested_values_of_parquet(here):
    row = {"prompt": [{"role": "user", "content": "a"}], "reward_model": {"ground_truth": "1"}, "image": b"\xff\x00"}
    parquet(here / "v.parquet", [row])
    (problem,) = Jsonl(test="v.parquet").problems()
    assert (problem.messages, problem.answer) == (({"role": "user", "content": "a"},), "1")


def test_one_row_is_a_row(here):
    turns = [{"from": "human", "value": "a"}, {"from": "assistant", "ground_truth": {"value": "1"}}]
    chat = {"prompt": turns[:1], "final_answer": ["1"]}
    for rows in (turns, [turns], chat, chat | {"data": [{"a": 1}]}, {"problem": "a", "answer": 1, "tags": ["b"]}):
        (here / "one.json").write_text(json.dumps(rows))
        assert [problem.answer for problem in Jsonl(test="one.json").problems()] == ["1"]


def test_many_rows_are_read_one_at_a_time(here):
    """The first rows come before the last ones are there to be read."""
    lines(here / "many.jsonl", ({"prompt": f"q{n}", "answer": n} for n in range(100_000)))
    with (here / "many.jsonl").open("a") as file:
        file.write("{oops\n")
    rows = locate("many.jsonl", "test").rows()
    assert [next(rows).number for _ in range(3)] == [1, 2, 3]
    task = Jsonl(test="many.jsonl", on_bad="skip")
    assert len(task.problems()) == 100_000
    (report,) = task.reports()
    assert (report.rows, report.problems, [row.place for row in report.bad]) == (
        100_001,
        100_000,
        ["many.jsonl line 100001"],
    )


def test_folders_with_splits(here):
    train, test = ROWS[:2], ROWS[2:]
    saved(here / "dict" / "train", train)
    saved(here / "dict" / "test", test, shards=1)
    (here / "dict" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    (here / "hub" / "data").mkdir(parents=True)
    (here / "hub" / "README.md").write_text("about")
    for i, row in enumerate(train):
        parquet(here / "hub" / "data" / f"train-{i:05}-of-00002.parquet", [row])
    parquet(here / "hub" / "data" / "test-00000-of-00001.parquet", test)
    (here / "plain").mkdir()
    lines(here / "plain" / "train.jsonl", train)
    table(here / "plain" / "test.csv", test)
    for folder in ("dict", "hub", "plain"):
        problems = Jsonl(train=folder, test=folder).problems()
        assert [(problem.prompt, problem.answer) for problem in problems] == MADE
        assert [problem.split for problem in problems] == ["train", "train", "test"]
        assert {problem.id.rpartition("-")[0] for problem in problems} == {f"{folder}-train", f"{folder}-test"}
        assert len(Jsonl(test=f"{folder}@train").problems()) == 2
        with pytest.raises(InputError, match=f"{folder}: no split 'dev'; expected one of .*train.*{folder}@t"):
            Jsonl(test=f"{folder}@dev").problems()
        with pytest.raises(InputError, match=f"{folder}: several splits; expected one of"):
            Jsonl(train="plain@train", probe=folder).problems()
    with pytest.raises(
        InputError, match="a folder without files of problems; name one of the folders in it: dict, hub, plain"
    ):
        Jsonl(test=".").problems()


@pytest.mark.parametrize(
    "first",
    [
        "{oops",
        '{"prompt": "a',
        '{"prompt": "a",',
        "{'prompt': 'a'}",
        "# a comment",
        '{"prompt": "a"},',
        "[" * 9_999,
        "a,b",
    ],
)
def test_a_broken_first_line_is_one_bad_row(here, first):
    (here / "t.jsonl").write_text(f"\n{first}\n" + "".join(json.dumps(row) + "\n" for row in ROWS))
    task = Jsonl(test="t.jsonl", on_bad="skip")
    assert [problem.answer for problem in task.problems()] == [answer for _, answer in MADE]
    assert [row.place for row in task.reports()[0].bad] == ["t.jsonl line 2"]


CONVERT = {
    "a.xlsx": (b"PK\x03\x04", "an Excel workbook; .*save it as CSV"),
    "a.zip": (b"PK\x03\x04", "a zip archive; .*unpack it"),
    "zipped.jsonl": (b"PK\x03\x04", "a zip archive; .*unpack it"),
    "a.pkl": (b"\x80\x04", "a Python pickle, which may run any code; .*JSON Lines or Parquet"),
    "pickled.json": (b"\x80\x04\x95", "a Python pickle"),
    "a.jsonl.zst": (b"\x28\xb5\x2f\xfd", "packed with zstd"),
    "a.tar.gz": (gzip.compress(b"x"), "an archive; .*unpack it"),
    "pointer.parquet": (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer, .*git lfs pull"),
    "page.jsonl": (b"<!DOCTYPE html>", "an HTML page; .*download the file itself"),
    "cut.parquet": (b"PAR1\x00", "cannot be read as Parquet"),
    "cut.arrow": (b"\xff\xff\xff\xff\x10", "cannot be read as Arrow"),
    "wide.jsonl": ('{"prompt": "a"}'.encode("utf-16"), "line 1: not UTF-8"),
    "latin.csv": ("prompt,answer\ncaf\xe9,1\n".encode("latin-1"), "line 2: not UTF-8"),
    "cut.jsonl.gz": (gzip.compress(b'{"prompt": "a"}' * 99)[:30], "cannot be read"),
    "broken.json": (b'[\n{"prompt": "a"},\n{oops}\n]', "line 3: not JSON .*{oops}; expected a JSON list"),
    "twice.csv": (b"prompt,answer,prompt\na,1,b\n", "line 1: two columns have the same name"),
    "empty.parquet": (b"", "cannot be read as Parquet"),
    "empty.csv": (b"", "the file is empty"),
    "nothing.json": (b"[]", "the file is empty"),
}


@pytest.mark.parametrize("name", CONVERT)
def test_files_that_are_not_read(here, capsys, name):
    content, message = CONVERT[name]
    (here / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        Jsonl(test=name).problems()
    assert name in str(error.value)
    assert main(["tasks", "check", name]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_row_of_a_table_with_too_many_cells(here):
    (here / "a.csv").write_text('prompt,answer\n"a\nb",1\n\nc,2,3\nd,\n')
    with pytest.raises(
        InputError, match=r"2 of 3 rows are bad .*a\.csv line 5: 3 cells, and the header has 2; a.csv line 6"
    ):
        Jsonl(test="a.csv").problems()


@pytest.mark.parametrize("verb", ["check", "show"])
def test_commands_take_whatever_is_read(here, capsys, verb):
    for name in ("a.parquet", "a.csv", "saved"):
        FILES[name](here / name)
        assert main(["tasks", verb, name]) == 0
        assert f"{name}: 3 problems of 3 rows" in capsys.readouterr().out


# the hub


@pytest.fixture
def hub(monkeypatch):
    """The extra `datasets`, made up, with one data set of two splits."""

    class Split:
        def __init__(self, rows):
            self.rows = rows

        def with_format(self, name):
            assert name == "arrow"
            return self

        def iter(self, batch_size):
            yield from (pa.Table.from_pylist([row]) for row in self.rows)

    def load_dataset(name, config):
        if (name, config) != ("owner/sums", None):
            raise ValueError(f"Couldn't find {name} ({config})\nlong story")
        return {"train": Split(ROWS[:2]), "test": Split(ROWS[2:])}

    made = ModuleType("datasets")
    made.load_dataset, made.config = load_dataset, SimpleNamespace(HF_HUB_OFFLINE=False)
    monkeypatch.setitem(sys.modules, "datasets", made)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "https://nowhere.invalid")
    return made


def test_a_data_set_of_the_hub(hub):
    problems = Jsonl(train="owner/sums", test="hf:owner/sums@test").problems()
    assert [(problem.prompt, problem.answer) for problem in problems] == MADE
    assert [problem.split for problem in problems] == ["train", "train", "test"]
    assert problems[1].meta == {"file": "hf:owner/sums@train", "row": 2}
    assert {problem.id.rpartition("-")[0] for problem in problems} == {"sums-train", "sums-test"}
    with pytest.raises(
        InputError, match="hf:owner/sums: no split 'dev'; expected one of train, test: hf:owner/sums@train"
    ):
        Jsonl(test="owner/sums@dev").problems()


def test_a_data_set_that_cannot_be_had(hub, capsys, monkeypatch):
    expected = "hf download owner/other --repo-type dataset --local-dir other`"
    assert main(["tasks", "check", "hf:owner/other:main"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Couldn't find owner/other (main))" in line
    assert expected in line
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r'pip install "reasonloop\[datasets\]"') as error:
        load("owner/other", None)
    assert expected in str(error.value)


def test_a_path_that_is_not_there(here):
    for name in ("nowhere.jsonl", "a/b/nowhere", "a/nowhere.parquet", "a.b/c.jsonl"):
        with pytest.raises(InputError, match=r"(nowhere.*|a\.b/c\.jsonl): there is no such file"):
            Jsonl(test=name).problems()
