"""The report: whole runs, runs that have hardly begun, and text that tries to be more than text."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_run import HOSTILE, make_run

from reasonloop import config
from reasonloop.config import stored_recipe
from reasonloop.errors import InputError
from reasonloop.report.figures import MAX_POINTS, all_figures
from reasonloop.report.page import write_report
from reasonloop.report.run import RunData, read_run
from reasonloop.report.sample import MAX_ROLLOUTS, browse
from reasonloop.report.shell import embedded
from reasonloop.store.experts import chosen_experts

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """The page as a browser's parser takes it apart: tags, text, and the content of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._raw = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._raw = ""

    def handle_data(self, data: str) -> None:
        if self._raw == "script":
            self.scripts[-1] += data
        elif self._raw != "style":
            self.text += data

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run", iterations=2, steps=12, stored_every=3)


@pytest.fixture(scope="module")
def page(made: Path) -> Page:
    return Page(write_report(made).read_text(encoding="utf-8"))


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def text_of(folder: Path) -> str:
    return Page(write_report(folder).read_text(encoding="utf-8")).text


def test_a_whole_run_has_every_section_and_names_nothing_missing(page: Page) -> None:
    sections = [attrs.get("id") for tag, attrs in page.tags if tag == "section"]
    assert sections == [
        "results", "overfitting", "tradeoff-section", "pass-at-k-section", "specialisation", "scaling-section",
        "forgetting-section", "diversity-section", "stability", "responses", "parts", "behaviours-section", "selection",
        "browser", "configuration",
    ]  # fmt: skip
    assert "Not here yet" not in page.text
    assert "2 iterations of exploration (12 steps of DAPO on 32 problems × 8 responses)" in page.text
    assert "RLoop 2, after RFT against vanilla RL" in page.text


def test_every_drawn_figure_has_its_place_and_its_data(page: Page) -> None:
    places = [attrs["data-figure"] for tag, attrs in page.tags if "data-figure" in attrs]
    figures = {figure["id"]: figure for figure in page.data["figures"]}
    assert sorted(places) == sorted(figures)
    for figure in figures.values():
        for trace in figure["traces"]:
            assert len(trace["x"]) == len(trace["y"] or trace["lo"])
            if trace["kind"] == "heat":
                assert [len(row) for row in trace["z"]] == [len(trace["x"])] * len(trace["y"])
    assert {trace["name"] for trace in figures["pass-at-k"]["traces"]} >= {"base", "vanilla RL", "RLoop"}
    held_out = {trace["name"]: trace for trace in figures["held-out-avg"]["traces"]}
    assert held_out["RLoop"]["text"] == ["base", "RLoop 1, after RFT", "RLoop 2, after RFT"]
    assert held_out["RLoop"]["x"] == sorted(held_out["RLoop"]["x"])
    assert held_out["vanilla RL"]["text"] == ["base", "vanilla RL", "vanilla RL"]


def test_steps_that_vanilla_rl_shares_with_rloop_are_drawn_for_both_and_counted_once(page: Page) -> None:
    reward = {trace["name"]: trace for trace in page.data["figures"][0]["traces"] if trace["kind"] == "line"}
    main, vanilla = reward["RLoop"], reward["vanilla RL"]
    assert len(vanilla["x"]) == 24
    assert (vanilla["x"][:12], vanilla["y"][:12]) == (main["x"][:12], main["y"][:12])
    spent = max(main["x"]) + max(vanilla["x"]) - main["x"][11]
    ends = f"RLoop {max(main['x']):,.0f} and vanilla RL {max(vanilla['x']):,.0f}"
    each = f"{ends}; the first {main['x'][11]:,.0f} are the same"
    assert f"{spent:,.0f} training rollouts ({each}" in page.text


def test_the_page_needs_nothing_but_itself(page: Page) -> None:
    for tag, attrs in page.tags:
        assert tag not in ("iframe", "object", "embed", "img", "base")
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert value is not None
                assert value.startswith("#") if tag == "a" else value == "data:,"
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    data, packed, own = page.scripts
    assert json.loads(data)["figures"]
    # the two that may run: the page's own, and what its own unpacks
    for script in (own.encode(), gzip.decompress(base64.b64decode(packed))):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" in policy
    assert policy.count("sha256-") == 2


def test_a_page_is_small_enough_to_mail(made: Path) -> None:
    assert (made / "report.html").stat().st_size < 1_500_000


def test_plotly_is_the_one_that_its_readme_names() -> None:
    folder = files("reasonloop.report") / "plotly"
    script = gzip.decompress((folder / "plotly-cartesian.min.js.gz").read_bytes())
    assert hashlib.sha256(script).hexdigest() in (folder / "README.md").read_text()
    assert b"plotly.js (cartesian - minified) v4.1.1" in script[:200]


def test_the_contents_lead_to_every_section(page: Page) -> None:
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links == ["#" + str(attrs["id"]) for tag, attrs in page.tags if tag == "section"]


def test_text_of_models_stays_text(page: Page, made: Path) -> None:
    texts = {rollout["text"] for rollout in page.data["rollouts"]}
    assert texts >= set(HOSTILE)
    raw = (made / "report.html").read_text(encoding="utf-8")
    assert "title='owned'" not in raw.replace(embedded(HOSTILE)[1:-1], "").replace("\\u003e", ">").split("<main>")[0]
    for piece in ("</script><script>", "<img", "\u2028", "\u202e"):
        assert piece not in page.scripts[0]
        assert piece not in raw[: raw.index('id="data"')]


def test_hostile_names_in_recipe_evaluations_and_lines_are_escaped(copy: Path) -> None:
    recipe = (copy / "config.toml").read_text().replace('name = "countdown"', f"name = '''{HOSTILE[0]}'''")
    (copy / "config.toml").write_text(recipe)
    path = copy / "evals" / "base.json"
    evaluation = json.loads(path.read_text())
    path.write_text(json.dumps({**evaluation, "name": HOSTILE[1], "stage": HOSTILE[1], "arm": HOSTILE[0]}))
    with (copy / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({**STEP, "arm": HOSTILE[1], "verdicts": {"right": 1}}) + "\n")
    page = Page(write_report(copy).read_text(encoding="utf-8"))
    assert len(page.scripts) == 3
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert HOSTILE[0] in page.text


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.recursive(st.text() | st.floats() | st.integers() | st.none(), lambda x: st.lists(x, max_size=3), max_leaves=6)
)
def test_embedded_data_comes_back_and_cannot_leave_its_element(data: Any) -> None:
    text = embedded(data)
    assert text.isascii()
    assert not re.search(r"[<>&]", text)
    if "nan" not in repr(data) and "inf" not in repr(data):
        assert json.loads(text) == data


def test_the_sample_of_rollouts_is_bounded_reproducible_and_spread(made: Path) -> None:
    run = read_run(made)
    first, again = browse(run), browse(run)
    assert first == again
    rollouts = first["rollouts"]
    addresses = {(r["problem"], r["branch"], r["iteration"], r["step"], r["sample"]) for r in rollouts}
    assert len(addresses) == len(rollouts) <= MAX_ROLLOUTS < first["stored"]
    assert {r["branch"] for r in rollouts} == {"main", "vanilla"}
    assert {r["verdict"] for r in rollouts} == {"right", "wrong", "unparseable", "crashed"}
    assert {r["iteration"] for r in rollouts if r["branch"] == "main"} == {0, 1}
    assert all(re.fullmatch(r"\d+ from( \d+)+ :", r["prompt"]) for r in rollouts)


def test_cards_have_the_gold_answer_where_the_task_is_at_hand(copy: Path, tmp_path: Path) -> None:
    task = tmp_path / "train.jsonl"
    rows = ({"id": f"{i:05}", "prompt": f"{i}?", "answer": str(7 * i)} for i in range(35))
    task.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = f'name = "jsonl"\nverifier = "numeric"\ntrain = "{task}"'
    (copy / "config.toml").write_text((copy / "config.toml").read_text().replace('name = "countdown"', chosen))
    run = read_run(copy)
    found = browse(run, "wrong")
    assert run.missing == []
    assert [rollout["verdict"] for rollout in found["samples"]] == ["wrong"] * 3
    assert len({rollout["problem"] for rollout in found["samples"]}) == 3
    for rollout in (*found["rollouts"], *found["samples"]):
        number = int(rollout["problem"].split("-")[1])
        assert rollout.get("gold") == (str(7 * number) if number < 35 else None)
    unknown = sum("gold" not in rollout for rollout in found["rollouts"])
    assert unknown > 0
    assert f"has no gold answer for {unknown} of them" in text_of(copy)
    (copy / "config.toml").write_text((copy / "config.toml").read_text().replace("train.jsonl", "gone.jsonl"))
    text = text_of(copy)
    assert "Gold answers: the task could not be loaded" in text
    assert "RLoop 2, after RFT" in text


@pytest.mark.parametrize("source", ["all_steps", "last_step"])
def test_the_examples_of_experts_are_experts(copy: Path, source: str) -> None:
    recipe = config.parse(stored_recipe(read_run(copy).config), [f"rloop.experts={source}", "rloop.cap=1"], "")
    (copy / "config.toml").write_text(config.dumps(recipe))
    shown = browse(read_run(copy))["experts"]
    assert {example["iteration"] for example in shown} == {0, 1}
    for example in shown:
        chosen = chosen_experts(recipe, copy, example["iteration"])
        rate = next(rate for rate in chosen.rates if rate.problem_id == example["problem"])
        assert (example["rate"], example["seen"]) == (rate.rate, rate.seen)
        address = (example["problem"], example["step"], example["sample"])
        assert address in {(r.problem_id, r.step, r.sample) for r in chosen.rollouts}


STEP = {"stage": "explore", "branch": "main", "iteration": 0, "step": 0, "rollouts": 256, "reward": 0.25}


@pytest.mark.parametrize(
    "files",
    [
        {"config.toml": 'method = "rloop"\n'},
        {"metrics.jsonl": ""},
        {"config.toml": "method = ", "metrics.jsonl": '{"stage": "explore"}\n'},
        {"config.toml": 'method = "rl"\n[rl]\nsteps = 5\n', "metrics.jsonl": json.dumps(STEP) + "\n"},
        {"config.toml": 'method = "sft"\n', "metrics.jsonl": '{"stage": "sft", "step": 0, "loss": 1.5}\n'},
        {"config.toml": 'method = "rloop"\n', "metrics.jsonl": '{"stage": "select", "iteration": 0}\n'},
    ],
    ids=["config only", "empty", "damaged config", "rl begun", "sft only", "bare select"],
)
def test_a_run_that_has_hardly_begun_says_what_is_not_there_yet(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    text = text_of(tmp_path)
    assert "Not here yet" in text
    assert "nothing has been evaluated yet" in text
    assert "none has been stored yet" in text


@pytest.mark.parametrize("gone", ["config.toml", "metrics.jsonl", "evals", "trajectories", "model"])
def test_any_piece_may_be_missing(copy: Path, gone: str) -> None:
    path = copy / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    text_of(copy)


def test_a_torn_last_line_is_no_damage_and_other_damage_is_named(copy: Path) -> None:
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "expl')
    assert "Not here yet" not in text_of(copy)
    (copy / "metrics.jsonl").write_text('not json\n{"stage": "explore", "reward": NaN, "rollouts": Infinity}\n')
    (copy / "evals" / "base.json").write_text("[1")
    text = text_of(copy)
    assert "1 damaged line of metrics.jsonl" in text
    assert "base.json" in text


def figure_of(folder: Path, name: str) -> dict[str, Any]:
    data = json.loads(write_report(folder).read_text().split('id="data">')[1].split("</script>")[0])
    return {figure["id"]: figure for figure in data["figures"]}[name]


def test_the_curves_are_of_evaluations_that_can_stand_on_one_axis(copy: Path) -> None:
    """A start that was evaluated with fewer samples, and an average whose weight is no number, are left out of them."""
    whole = figure_of(copy, "tradeoff")
    file = next((copy / "evals").glob("*base*.json"))
    base = json.loads(file.read_text())
    odd = {**base, "arm": "main x zz", "product": False, "name": "odd"}
    (copy / "evals/odd.json").write_text(json.dumps(odd))
    assert figure_of(copy, "tradeoff") == whole
    file.write_text(json.dumps({**base, "metrics": {"avg@2": {"value": 0.5, "ci95": [0.4, 0.6]}}}))
    left = figure_of(copy, "tradeoff")["traces"]
    assert sum(len(trace["x"]) for trace in left) < sum(len(trace["x"]) for trace in whole["traces"])


def test_a_damaged_segment_costs_the_rollouts_and_not_the_report(copy: Path) -> None:
    path = sorted((copy / "trajectories").glob("*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:200])
    text = text_of(copy)
    assert "the store could not be read" in text
    assert "RLoop 2, after RFT" in text


def test_a_folder_that_is_no_run_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="no such run folder"):
        write_report(tmp_path / "nowhere")


def test_the_report_goes_where_it_is_asked_to_and_leaves_nothing_else(made: Path, tmp_path: Path) -> None:
    out = write_report(made, tmp_path / "new" / "r.html")
    assert [p.name for p in out.parent.iterdir()] == ["r.html"]


def test_steps_done_again_after_a_kill_count_once(tmp_path: Path) -> None:
    again = {**STEP, "reward": 0.75}
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in (STEP, {**STEP, "step": 1}, again))
    )
    run = read_run(tmp_path)
    assert [(line["step"], line["reward"]) for line in run.lines] == [(0, 0.75), (1, 0.25)]


def test_long_runs_are_thinned_without_losing_their_spikes_or_joining_iterations() -> None:
    norms = np.full(20_000, 0.3)
    norms[[77, 13_331]] = 50.0
    lines = [{**STEP, "iteration": i // 10_000, "step": i, "grad_norm": g} for i, g in enumerate(norms.tolist())]
    figure = next(f for f in all_figures(RunData(Path(), lines=lines)) if f["id"] == "grad-norm")
    for trace in figure["traces"]:
        assert len(trace["x"]) <= MAX_POINTS
        assert trace["y"].count(None) == 1
    assert figure["traces"][0]["y"].count(50.0) == 2
    assert max(y for y in figure["traces"][1]["y"] if y is not None) == pytest.approx(0.3)
    assert figure["marks"] == [10_000.5]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_draws_it_without_a_word_on_the_console(made: Path, tmp_path: Path) -> None:
    path = write_report(made, tmp_path / "r.html")
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", *quiet,
            f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0",
            "--virtual-time-budget=4000", "--dump-dom", path.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    dom = Page(done.stdout)
    classes = [attrs.get("class") or "" for _, attrs in dom.tags]
    drawn = [name for name in classes if name == "main-svg"]
    figures = [attrs for _, attrs in dom.tags if "data-figure" in attrs]
    assert len(drawn) >= len(figures) == 22
    assert sum(tag == "article" for tag, _ in dom.tags) > 12
    assert "w-back" in classes
    assert re.search(r"<title>RLoop on countdown · ReasonLoop</title>", done.stdout)
