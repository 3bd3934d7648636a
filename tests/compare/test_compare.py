"""Arms out of run folders, what may be compared with what, and the three faces of the result."""

from __future__ import annotations

import html
import itertools
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_arms import drawn, make_run

from reasonloop.cli import main
from reasonloop.compare.arms import read_arms
from reasonloop.compare.command import compare_runs
from reasonloop.compare.figures import mean_curve
from reasonloop.compare.policies import identity_of
from reasonloop.compare.study import compare_arms, metrics_of, per_problem, results
from reasonloop.errors import InputError
from reasonloop.evaluation.bootstrap import FEWEST
from reasonloop.evaluation.metrics import pass_at_k
from reasonloop.report.headline import lead
from reasonloop.report.run import read_run


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    """Three seeds of RLoop with vanilla RL beside it."""
    return [
        str(
            make_run(
                tmp_path / f"run-{s}", seed=s, main=drawn(s, 30, 0.8), vanilla=drawn(s + 9, 30, 0.0), base=[4] * 30
            )
        )
        for s in range(3)
    ]


def arms_of(runs: list[str], every: bool = False) -> dict[str, list[int]]:
    return {arm.name: arm.seeds for arm in read_arms(runs, every).arms}


def test_a_run_with_vanilla_rl_beside_it_is_two_arms_and_the_base(pair: list[str]) -> None:
    assert arms_of(pair) == {"rloop": [0, 1, 2], "vanilla": [0, 1, 2], "base": [0, 1, 2]}
    assert list(arms_of(pair, every=True)) == ["rloop", "rloop explored", "vanilla", "base"]


def test_the_result_file_has_the_contract_s_keys_and_each_seed_s_own_numbers(pair: list[str]) -> None:
    found = read_arms(pair)
    made = json.loads(json.dumps(results(found, compare_arms(found.arms, draws=200)), allow_nan=False))
    assert list(made) == ["machine", "versions", "arms", "comparisons"]
    assert made["machine"] == {"processor": "a made-up one", "cores": 8, "threads": 2}
    assert made["versions"] == {"python": "3.11", "torch": "2.13"}
    assert made["arms"]["vanilla"]["rollouts"] == 768
    assert made["arms"]["base"]["rollouts"] == 0
    for seed in range(3):
        correct = np.array(drawn(seed, 30, 0.8))
        assert made["arms"]["rloop"]["avg@32"][seed] == pytest.approx((correct / 32).mean())
        for k in (1, 2, 4, 8, 16, 32):
            assert made["arms"]["rloop"]["pass@k"][str(k)][seed] == pytest.approx(pass_at_k(32, correct, k).mean())
    for arm in made["arms"].values():
        for (low, high), own in [(arm["ci95"]["avg@32"], arm["avg@32"])] + [
            (arm["ci95"]["pass@k"][k], arm["pass@k"][k]) for k in arm["pass@k"]
        ]:
            assert low - 1e-9 <= np.mean(own) <= high + 1e-9
    first = made["comparisons"][0]
    assert list(first) == ["a", "b", "metric", "relative", "ci95", "probability", "absolute", "ci95_absolute", "pairs"]
    assert (first["a"], first["b"], first["metric"]) == ("rloop", "vanilla", "avg@32")
    means = [(p["a"], p["b"]) for p in first["pairs"]]
    assert first["absolute"] == pytest.approx(np.mean([a - b for a, b in means]))
    assert first["relative"] == pytest.approx(np.mean([a for a, _ in means]) / np.mean([b for _, b in means]) - 1)
    assert first["ci95_absolute"][0] > 0


def test_the_order_of_runs_and_of_their_problems_changes_nothing(tmp_path: Path, pair: list[str]) -> None:
    def outcome(runs: list[str]) -> object:
        found = read_arms(runs)
        return results(found, compare_arms(found.arms, draws=100))

    expected = outcome(pair)
    assert all(outcome(list(order)) == expected for order in itertools.permutations(pair))
    for path in Path(pair[1]).glob("evals/*.json"):
        evaluation = json.loads(path.read_text())
        evaluation["problems"].reverse()
        path.write_text(json.dumps(evaluation))
    assert outcome(pair) == expected


def test_runs_of_one_recipe_are_one_arm_and_are_named_by_what_sets_them_apart(tmp_path: Path) -> None:
    plain = [str(make_run(tmp_path / f"plain-{s}", seed=s)) for s in (0, 1)]
    cap = [str(make_run(tmp_path / f"cap-{s}", seed=s, rloop={"cap": 2})) for s in (0, 1)]
    last = str(make_run(tmp_path / "last", rloop={"experts": "last_step"}))
    # how a run is executed and watched is no difference
    watched = str(make_run(tmp_path / "watched", seed=2, rl={"probe_every": 5}, engine={"slots": 7}))
    found = arms_of([*plain, *cap, last, watched])
    assert found == {
        "rloop": [0, 1, 2], "rloop cap=2": [0, 1], "rloop experts=last_step": [0], "base": [0, 1, 2],
    }  # fmt: skip
    assert set(arms_of([plain[0], cap[0]])) == {"rloop cap=8", "rloop cap=2", "base"}


def test_vanilla_rl_is_one_arm_wherever_it_was_run(tmp_path: Path) -> None:
    beside = str(make_run(tmp_path / "beside", seed=0, vanilla=[1, 2, 3, 4]))
    again = str(make_run(tmp_path / "again", seed=0, vanilla=[1, 2, 3, 4], rloop={"cap": 2}))
    alone = str(make_run(tmp_path / "alone", seed=1, method="rl"))
    assert arms_of([beside, again, alone])["vanilla"] == [0, 1]
    other = str(make_run(tmp_path / "other", seed=0, method="rl", main=[5, 5, 5, 5]))
    with pytest.raises(InputError, match="'vanilla' has seed 0 twice"):
        read_arms([beside, other])


def test_names_from_the_command_line(tmp_path: Path) -> None:
    first = str(make_run(tmp_path / "a=b", seed=0))  # a path may hold the sign
    second = str(make_run(tmp_path / "second", seed=1))
    other = str(make_run(tmp_path / "other", seed=0, rloop={"cap": 2}))
    assert arms_of([f"Ours={second}", first, other]) == {"Ours": [0, 1], "rloop cap=2": [0], "base": [0, 1]}
    beside = str(make_run(tmp_path / "beside", seed=0, vanilla=[4, 4, 4, 4]))
    slow = str(make_run(tmp_path / "slow", seed=0, method="rl", rl={"learning_rate": 1e-7}))
    assert list(arms_of([f"Ours={beside}", f"slow={slow}"])) == ["Ours", "slow", "vanilla", "base"]
    for runs, match in (
        ([f"X={second}", f"X={other}"], "'X'.*rloop.cap"),
        ([f"X={second}", f"Y={first}"], "under two names"),
        ([f"base={second}"], "'base' is given to two arms"),
        ([f"={second}"], "expected RUN or NAME=RUN"),
    ):
        with pytest.raises(InputError, match=match):
            read_arms(runs)


def test_vanilla_rl_beside_named_runs_is_called_after_them(tmp_path: Path) -> None:
    runs = []
    for name, options in (("usual", {}), ("gentle", {"rl": {"learning_rate": 1e-5}}), ("cap", {"rloop": {"cap": 2}})):
        for seed in (0, 1):
            run = make_run(tmp_path / f"{name}-{seed}", seed=seed, vanilla=[1, 2, 3, len(name)], **options)
            if name == "cap":  # what stands beside it is that of the usual one
                shutil.copytree(
                    tmp_path / f"usual-{seed}" / "evals", run / "evals", dirs_exist_ok=True, ignore=_but_vanilla
                )
            runs.append(f"{name}={run}")
    found = arms_of(runs)
    assert list(found) == ["usual", "gentle", "cap", "vanilla of usual", "vanilla of gentle", "base"]
    assert list(arms_of(runs[:2])) == ["usual", "vanilla", "base"]
    assert "vanilla learning_rate=1e-05" in arms_of([run.partition("=")[2] for run in runs[:4]])


def _but_vanilla(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name != "vanilla.json"]


def test_what_a_study_leaves_between_its_runs_is_passed_over(pair: list[str], tmp_path: Path) -> None:
    for name in ("compare.html", "run-0.log"):
        (tmp_path / name).write_text("")
    compare_runs([*pair, str(tmp_path / "compare.html"), str(tmp_path / "run-0.log")], json_file=tmp_path / "all.json")
    assert list(json.loads((tmp_path / "all.json").read_text())["arms"]) == ["rloop", "vanilla", "base"]
    with pytest.raises(InputError, match="expected run folders"):
        compare_runs([str(tmp_path / "run-0.log")])


def test_of_one_run_the_report_s_interval_is_this_one(pair: list[str]) -> None:
    run, compared = read_run(Path(pair[0])), {c.metric: c for c in compare_arms(read_arms(pair[:1]).arms)[:4]}
    own, vanilla = (next(e for e in run.evals if e["name"] == name) for name in ("iteration-1-rft", "vanilla"))
    for metric in ("avg@32", "pass@8"):
        found, told = compared[metric].difference, lead(own, vanilla, metric)
        assert told is not None
        assert told.ci95 == pytest.approx(found.ci95_absolute, abs=1e-12)
        assert told.share == pytest.approx(found.probability, abs=1e-12)


def test_what_cannot_be_compared_is_refused_by_name(tmp_path: Path, pair: list[str]) -> None:
    small: dict[str, Any] = {"main": [1] * 30, "base": [4] * 30}
    problems = make_run(tmp_path / "problems", ids=[f"q{i}" for i in range(30)], **small)
    samples = make_run(tmp_path / "samples", n=8, **small)
    hot = make_run(tmp_path / "hot", drawn={"temperature": 1.5, "slots": 9}, **small)
    rollouts = make_run(tmp_path / "rollouts", rollouts=1536, rl={"steps": 6}, **small)
    torn = make_run(tmp_path / "torn", seed=7, **small)
    (torn / "evals" / "iteration-1-rft.json").write_text(
        '{"name": "x", "stage": "rft", "arm": "main", "product": true, "rollouts": 768, "metrics": {"a": 1}, "problems": 3}'
    )
    unmeasured = make_run(tmp_path / "unmeasured", seed=9, **small)
    (unmeasured / "evals" / "iteration-1-rft.json").unlink()
    damaged = make_run(tmp_path / "damaged", seed=10, **small)
    (damaged / "evals" / "base.json").write_text("{")  # its arm would be missing without a word
    begun = make_run(tmp_path / "begun", seed=8, **small)
    (begun / "state.json").write_text('{"stage": "main-explore-0"}')
    for run, match in (
        (problems, "'p0' is in one of them only"),
        (samples, "evaluated with 8 samples"),
        (hot, r"run-0: evaluated with temperature = 1.0, .*hot with 1.5; expected the same distribution"),
        (rollouts, "unequal rollouts at seed 0: .*run-0.* spent 768, .*rollouts.* spent 1,536"),
        (torn, "expected problems, each with id, n and correct"),
        (unmeasured, "its product has no evaluation"),
        (damaged, r"base.json: damaged .*; expected a JSON object"),
        (begun, "not finished .it is at main-explore-0"),
        (tmp_path / "nowhere", "no run folder"),
        (pair[0], "seed 0 twice"),
    ):
        with pytest.raises(InputError, match=match) as caught:
            read_arms([*pair, str(run)])
        assert "\n" not in str(caught.value)


def test_the_base_and_sft_spend_no_rollouts_and_are_compared_all_the_same(tmp_path: Path, pair: list[str]) -> None:
    sft = make_run(tmp_path / "sft", method="sft", seed=1, main=[9] * 30, base=[4] * 30)
    assert arms_of([*pair, str(sft)])["sft"] == [1]


def test_rlsp_stands_beside_the_sft_policy_that_it_began_from_and_vanilla_rl_without_its_reward(tmp_path: Path) -> None:
    lengthy: dict[str, Any] = {"exploration": {"form": "length", "alpha": 0.8}, "rl": {"steps": 6}}
    runs = [
        str(
            make_run(
                tmp_path / f"rlsp-{s}", method="rlsp", seed=s, vanilla=[1, 2, 3, 4], rlsp={"vanilla": True}, **lengthy
            )
        )
        for s in (0, 1)
    ]
    assert arms_of(runs) == {"rlsp": [0, 1], "vanilla": [0, 1], "sft": [0, 1], "base": [0, 1]}
    plain = str(make_run(tmp_path / "rl", method="rl", seed=2, sft={"before": True}))
    assert arms_of([*runs, plain])["vanilla"] == [0, 1, 2]
    without = str(make_run(tmp_path / "without", method="rl", seed=3))
    assert [name for name in arms_of([*runs, without]) if name.startswith("vanilla")] != ["vanilla"]


def test_arms_that_train_at_other_temperatures_have_one_base(tmp_path: Path) -> None:
    """Evaluated alike, the base is the same, whatever an arm's rollouts are sampled at."""
    hot = str(make_run(tmp_path / "hot", seed=0, sampling={"temperature": 1.4}, eval={"temperature": 1.0}))
    cold = str(make_run(tmp_path / "cold", method="rl", seed=0, eval={"temperature": 1.0}))
    assert arms_of([hot, cold]) == {"rloop": [0], "vanilla": [0], "base": [0]}


def test_options_that_came_later_set_no_arms_apart() -> None:
    """A run from before them is the same arm as one of today's that has their defaults."""
    before = {"rl.steps": 3, "optimizer.grad_clip": 1.0}
    later = {"optimizer.state": "float32", "optimizer.offload": False, "keep_checkpoints": True}
    assert identity_of("main", before | later) == identity_of("main", before)
    assert identity_of("main", before | {"optimizer.state": "8bit"}) != identity_of("main", before)


def test_what_sets_arms_apart_beside_their_training_is_told(tmp_path: Path, pair: list[str]) -> None:
    assert read_arms(pair).notes == []
    other = make_run(tmp_path / "other", method="rl", seed=0, main=[3] * 30, base=[4] * 30, task={"max_number": 9})
    given = make_run(
        tmp_path / "given", method="sft", seed=0, main=[3] * 30, base=[4] * 30, sft={"experts_of": "runs/x"}
    )
    notes = read_arms([*pair, str(other), str(given)]).notes
    assert any("task.max_number" in note for note in notes)
    assert any(note.startswith("sft has learned from the experts of runs/x") for note in notes)


def test_pairs_are_over_common_seeds_and_there_must_be_one(tmp_path: Path, pair: list[str]) -> None:
    short = make_run(tmp_path / "short", seed=2, main=[3] * 30, base=[4] * 30, rloop={"cap": 2})
    found = read_arms([*pair, str(short)])
    rows = {(c.a.name, c.b.name): c.seeds for c in compare_arms(found.arms, draws=50)}
    assert rows["rloop cap=8", "rloop cap=2"] == (2,)
    assert rows["rloop cap=8", "vanilla"] == (0, 1, 2)
    lone = make_run(tmp_path / "lone", seed=5, main=[3] * 30, base=[4] * 30, rloop={"cap": 3})
    with pytest.raises(InputError, match="no seed in common"):
        compare_arms(read_arms([*pair, str(lone)]).arms, draws=50)


@pytest.mark.parametrize(("n", "expected"), [(1, [1]), (4, [1, 4]), (8, [1, 8]), (20, [1, 8, 16]), (64, [1, 8, 32])])
def test_metrics_are_those_that_there_are(tmp_path: Path, n: int, expected: list[int]) -> None:
    assert metrics_of(n) == [f"avg@{n}", *(f"pass@{k}" for k in expected)]
    arm = read_arms([str(make_run(tmp_path / "run", n=n, main=[0, 1, n], base=[0, 0, 0]))]).arms[0]
    for metric in metrics_of(n):
        values = per_problem(arm, metric)
        assert values.shape == (1, 3)
        assert values[0, [0, 2]] == pytest.approx([0, 1])


def test_the_command_prints_within_100_columns_and_writes_both_files(
    tmp_path: Path, pair: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a name that somebody took a long time to think of <b>"
    pair[0] = f"{name}={pair[0]}"
    page, file = tmp_path / "c.html", tmp_path / "c.json"
    assert main(["compare", *pair, "--out", str(page), "--json", str(file), "--all"]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert all(len(line) <= 100 for line in out.splitlines() if str(tmp_path) not in line)
    assert "vanilla - base" in out
    assert next(iter(json.loads(file.read_text())["arms"])) == name
    text = page.read_text()
    assert html.escape(name) in text
    assert name not in text
    for place in ("forest-avg@32", "forest-pass@32", "pass-at-k", "held-out-avg"):
        assert f'data-figure="{place}"' in text
    assert all(ord(c) < 128 for c in text.split('id="data">')[1].split("</script>")[0])


@pytest.fixture
def many(tmp_path: Path) -> list[str]:
    """Four named arms, two of them with a vanilla RL of their own beside them: 7 arms and 21 pairs."""
    made: dict[str, dict[str, Any]] = {
        "zeta": {"vanilla": [8] * 6},
        "alpha": {"vanilla": [9] * 6, "rl": {"objective": "grpo"}},
        "mid": {"rloop": {"cap": 2}},
        "late": {"method": "rl", "rl": {"learning_rate": 1e-5}},
    }
    runs = []
    for i, (name, options) in enumerate(made.items()):
        for seed in (0, 1):
            right = {"main": [16, 10 + i, 2, 30, 3 * i, 5 + seed], "base": [4] * 6}
            runs.append(f"{name}={make_run(tmp_path / f'{name}-{seed}', seed=seed, **right, **options)}")
    return runs


def told(argv: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, list[tuple[str, str]], str]:
    """What `compare` says of these runs: on the terminal, as pairs in the JSON's order, and on the page."""
    page, file = folder / "c.html", folder / "c.json"
    assert main(["compare", *argv, "--out", str(page), "--json", str(file)]) == 0
    pairs = dict.fromkeys((row["a"], row["b"]) for row in json.loads(file.read_text())["comparisons"])
    return capsys.readouterr().out, list(pairs), page.read_text()


def test_the_first_arm_s_pairs_come_first_and_none_is_left_out(
    tmp_path: Path, many: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out, pairs, page = told(many, tmp_path, capsys)
    arms = list(json.loads((tmp_path / "c.json").read_text())["arms"])
    assert arms[:3] == ["zeta", "alpha", "mid"]  # as given, not by name
    assert len(arms) == 7
    assert pairs[:6] == [("zeta", other) for other in arms[1:]]
    assert len(pairs) == 21
    table = out.partition("Differences")[2]
    for other in arms[1:]:
        assert re.search(rf"zeta -\s.*?{re.escape(other.split()[0])}", table, re.DOTALL), other
    assert "6 of 21 pairs are shown" in out
    shown = json.loads(page.split('id="data">')[1].split("</script>")[0])["figures"]
    (forest,) = [figure for figure in shown if figure["id"] == "forest-avg@32"]
    assert [tuple(trace["y"][0]) for trace in forest["traces"]] == pairs[:6]
    heads = re.findall(
        r'<th scope="row">([^<]*) <span class="against">against</span> (.*?)</th>', page.partition('id="pairs"')[2]
    )
    assert heads == pairs
    last, *others = [many[-1], *many[:-1]]
    assert told([last, *others], tmp_path, capsys)[1][0][0] == "late"


def test_with_a_baseline_every_arm_is_compared_with_it_first(
    tmp_path: Path, many: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("mid", "base"):
        out, pairs, _ = told([*many, "--baseline", name], tmp_path, capsys)
        assert [b for _, b in pairs[:6]] == [name] * 6
        assert len({frozenset(pair) for pair in pairs}) == 21
        assert out.splitlines()[0].startswith("In avg@32 ")
        assert f" {name}" in out.splitlines()[0]
    file = tmp_path / "none.json"
    assert main(["compare", *many, "--baseline", "mit", "--json", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--baseline 'mit': no such arm; expected one of zeta, alpha, mid, late, " in error
    assert not file.exists()


def test_the_headline_says_who_leads_by_how_much_and_how_surely(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    low = rng.integers(0, 8, 40)
    runs = [
        f"{name}={make_run(tmp_path / f'{name}-{seed}', seed=seed, main=list(right), base=[32] * 40, rloop=options)}"
        for name, right, options in (
            ("better", low + 6, {"cap": 1}), ("worse", low, {"cap": 2}), ("same", low[::-1], {"cap": 3}),
        )
        for seed in (0, 1)
    ]  # fmt: skip
    better, worse, same = runs[:2], runs[2:4], runs[4:]
    mean = low.mean() / 32
    for argv, expected in (
        (
            [*better, *worse],
            f"In avg@32 better leads worse: {mean + 6 / 32:.3f} against {mean:.3f}, +0.188 [+0.18",
        ),
        ([*worse, *better], f"In avg@32 worse is behind better: {mean:.3f} against {mean + 6 / 32:.3f}, -0.188"),
        ([*worse, *same, *better], "In avg@32 worse is behind better, the best of 2 arms:"),
        ([*worse, *same], "In avg@32 worse and same can't be told apart: "),
        ([*better, *same, *worse, "--baseline", "worse"], "In avg@32 better, the best of 2 arms, leads worse:"),
    ):
        out = " ".join(told(argv, tmp_path, capsys)[0].split())
        assert out.startswith(expected)
        assert "base, from where RL starts, has 1.000." in out  # the base is above both
    assert "leads in &gt;99 % of resamples" in " ".join(told([*better, *worse], tmp_path, capsys)[2].split())


def test_every_sign_is_explained_and_none_is_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An arm that hardly ever solves anything, beside one that never does, and two that are equal."""
    rare, equal = [0] * 11 + [1], [3] * 12
    runs = [
        f"{name}={make_run(tmp_path / f'{name}-{seed}', seed=seed, main=main_, base=[0] * 12, rloop={'cap': i + 1})}"
        for i, (name, of) in enumerate(
            {"rare": lambda seed: rare if seed else [0] * 12, "one": lambda _: equal, "two": lambda _: equal}.items()
        )
        for seed in (0, 1, 2)
        for main_ in (of(seed),)
    ]
    out, _, page = told([*runs, "--baseline", "rare"], tmp_path, capsys)
    relative = [row["ci95"] for row in json.loads((tmp_path / "c.json").read_text())["comparisons"]]
    assert min(lo for lo, _ in relative if lo is not None) >= -1
    for text in (out, page.replace("−", "-")):
        assert not re.search(r"[-+]0\.0+\b(?!\d)", text.partition("<style")[0] + text.partition("<main")[2])
        assert "P 0." not in text
    assert "?]" in out
    assert "? no bound: in some resamples the second arm solves nothing." in out
    assert "- no relative difference: the second arm solves nothing." in out
    assert "* the 95 % interval leaves out zero" in out
    assert "leads: the share of resamples" in " ".join(out.split())
    assert "solves nothing" in page


def test_one_run_alone_and_one_seed_are_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    assert main(["compare", str(run)]) == 0
    out = capsys.readouterr().out
    assert "over problems only" in " ".join(out.split())


def test_bad_input_is_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.json"
    assert main(["compare", str(tmp_path / "nowhere"), "--json", str(file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not file.exists()


def test_mean_curve_is_over_the_stretch_that_all_curves_cover() -> None:
    assert mean_curve([[(0, 0.0), (10, 1.0)], [(0, 0.0), (4, 0.8), (8, 0.4)]]) == [
        (0, 0.0),
        (4, pytest.approx(0.6)),
        (8, pytest.approx(0.6)),
    ]


def test_nothing_heavy_is_imported_for_it() -> None:
    import subprocess

    heavy = ("torch", "duckdb", "pyarrow", "plotly")
    code = f"import sys, reasonloop.compare.command; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("problems", [FEWEST - 1, FEWEST])
def test_a_handful_of_problems_shows_no_difference(problems: int, tmp_path: Path) -> None:
    ids = [f"q{i}" for i in range(problems)]
    run = make_run(tmp_path / "run", ids=ids, n=8, main=[8] * problems, base=[0] * problems)
    for found in compare_arms(read_arms([str(run)]).arms):
        assert found.difference.ci95_absolute == ((1.0, 1.0) if problems == FEWEST else (-1.0, 1.0))
        assert found.difference.sign == (problems == FEWEST)
