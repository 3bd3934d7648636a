"""Curves of average against pass@k: how they lie to each other, and k samples spread over one of them."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from make_arms import drawn, make_run

from reasonloop.compare.arms import read_arms
from reasonloop.compare.command import compare_runs
from reasonloop.compare.tradeoff import at_averages, curves, reached, tradeoff
from reasonloop.errors import InputError
from reasonloop.evaluation.metrics import as_mask, from_mask, pass_at_k, spread_pass_at_k


def test_a_curve_counts_by_its_best_at_an_average():
    """Against a path of many small steps."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        x, y = rng.uniform(0, 1, (2, 1, rng.integers(2, 6)))
        at = np.linspace(x.min() + 1e-3, x.max() - 1e-3, 23)
        fine = np.linspace(0, x.shape[1] - 1, 200_001)
        steps = np.arange(x.shape[1])
        along_x, along_y = np.interp(fine, steps, x[0]), np.interp(fine, steps, y[0])
        crossed = np.diff(np.sign(along_x[:, None] - at), axis=0) != 0
        expected = [along_y[:-1][here].max() for here in crossed.T]
        assert at_averages(x, y, at[None])[0] == pytest.approx(expected, abs=2e-3)
    assert at_averages(np.array([[0.2, 0.4]]), np.array([[0.9, 0.7]]), np.array([[0.1, 0.6]])).tolist() == [[0.9, 0.7]]


def test_one_line_has_no_gap_where_an_arm_stops_on_it():
    """Also where both numbers rise with training."""
    at = np.linspace(0.2, 0.3, 9)
    whole, half = ([[0.2, 0.3, 0.4]], [[0.5, 0.6, 0.7]]), ([[0.2, 0.3]], [[0.5, 0.6]])
    a, b = (at_averages(np.array(x), np.array(y), at[None]) for x, y in (whole, half))
    assert a == pytest.approx(b)


def test_when_a_curve_first_has_an_average():
    x = np.array([[0.2, 0.4, 0.3, 0.5]] * 4)
    y = np.array([[0.9, 0.7, 0.6, 0.5]] * 4)
    spent = np.array([0.0, 100.0, 200.0, 300.0])
    when, passed = reached(x, y, spent, np.array([0.1, 0.3, 0.45, 0.6]))
    assert when[:3] == pytest.approx([0, 50, 275])
    assert passed[:3] == pytest.approx([0.9, 0.8, 0.525])
    assert np.isinf(when[3])
    assert np.isnan(passed[3])


def made(folder: Path, shift: int, seeds: int = 3, problems: int = 60, **also: object) -> list[str]:
    """Runs of RLoop whose every policy solves `shift` more of each problem's samples than vanilla RL's."""
    found = []
    for seed in range(seeds):
        base = [min(c, 20) for c in drawn(seed + 100, problems, -0.5)]
        vanilla = [c + 4 for c in base]
        run = make_run(
            folder / f"run-{seed}", seed=seed, base=base, vanilla=vanilla, main=[c + shift for c in vanilla], **also
        )
        found.append(str(run))
    return found


def test_equal_policies_have_no_gap_and_equal_rollouts(tmp_path):
    found = tradeoff(read_arms(made(tmp_path, 0)).arms)
    # RLoop was evaluated half way, too: its curve bends there, and both end at the same place
    gap, (row, last) = found.gaps["rloop", "vanilla"], found.equal["rloop", "vanilla"]
    assert gap["averages"] == pytest.approx([found.curves[0].correct_NSP[0].mean() / 32, 1 / 8 + gap["averages"][0]])
    assert last["rollouts"] == last["equals"] == 768
    assert last["pass"] == pytest.approx(0, abs=1e-12)
    assert row["equals"] == pytest.approx(384, abs=1)


def test_more_solved_lies_above(tmp_path):
    """A method that turns problems from never to sometimes solved, at equal averages."""
    runs = []
    for seed in range(3):
        base = [0] * 30 + [16] * 30
        vanilla, main = [0] * 30 + [20] * 30, [2] * 30 + [18] * 30
        runs.append(str(make_run(tmp_path / f"run-{seed}", seed=seed, base=base, vanilla=vanilla, main=main)))
    found = tradeoff(read_arms(runs).arms)
    gap = found.gaps["rloop", "vanilla"]
    assert gap["sign"] == 1
    assert gap["ci95"][0] > 0.1
    assert tradeoff(read_arms(runs).arms, baseline="rloop").gaps["vanilla", "rloop"]["gap"] == pytest.approx(
        -gap["gap"]
    )


def test_averages_are_a_curve_of_their_own(tmp_path):
    runs = made(tmp_path, 2)
    for run in map(Path, runs):
        product = json.loads((run / "evals/iteration-1-rft.json").read_text())
        half = {**product, "name": "x", "arm": "main x 0.5", "product": False, "label": "x 0.5"}
        half["depends_on"] = {**product["depends_on"], "average.weight": 0.5}
        (run / "evals/iteration-1-rft-x-0.5.json").write_text(json.dumps(half))
    found = {curve.name: curve for curve in curves(read_arms(runs).arms)}
    assert list(found) == ["rloop", "rloop, averaged", "vanilla"]
    assert found["rloop, averaged"].at == (0.0, 0.5, 1.0)
    assert found["rloop, averaged"].label(1) == "w = 0.5"
    traded = tradeoff(read_arms(runs).arms)
    assert set(traded.gaps) == {("rloop", "vanilla"), ("rloop, averaged", "vanilla")}
    assert set(traded.equal) == {("rloop", "vanilla")}  # weights are no rollouts


def test_a_delivered_average_has_its_arm_s_curve(tmp_path):
    """The run's product is an average, which bears the run's name: the curve that it lies on does, too."""
    runs = made(tmp_path, 2)
    for run in map(Path, runs):
        file = run / "evals/iteration-1-rft.json"
        trained = json.loads(file.read_text())
        file.write_text(json.dumps({**trained, "product": False}))
        chosen = {**trained, "name": "x", "arm": "main averaged", "product": True, "label": "averaged (0.5)"}
        (run / "evals/iteration-1-rft-averaged.json").write_text(json.dumps(chosen))
    found = read_arms([f"mine={run}" for run in runs])
    assert [arm.name for arm in found.arms][:2] == ["mine", "mine x 1"]
    assert [curve.name for curve in curves(found.arms)] == ["mine", "vanilla"]
    assert set(tradeoff(found.arms, baseline="vanilla").gaps) == {("mine", "vanilla")}


def test_an_arm_below_the_other_s_start_equals_nothing_there(tmp_path, capsys):
    runs = []
    for seed in range(3):
        base, vanilla = [10] * 40, [14] * 40
        runs.append(str(make_run(tmp_path / f"{seed}", seed=seed, base=base, vanilla=vanilla, main=[2] * 40)))
    assert tradeoff(read_arms(runs).arms).equal["rloop", "vanilla"] == []
    compare_runs(runs)
    assert "has the average of" not in capsys.readouterr().out


def test_pairs_are_over_the_seeds_that_both_have(tmp_path):
    runs = made(tmp_path, 2)
    other = make_run(tmp_path / "other", seed=9, main=[5] * 60, base=[4] * 60, rloop={"cap": 4})
    alone = tradeoff(read_arms(runs).arms).gaps["rloop", "vanilla"]
    beside = tradeoff(read_arms([*(f"rloop={run}" for run in runs), f"other={other}"]).arms)
    assert beside.gaps["rloop", "vanilla"] == alone
    assert alone["seeds"] == [0, 1, 2]
    assert not [pair for pair in beside.gaps if "other" in pair]


def test_a_baseline_without_a_curve_is_no_baseline_of_curves(tmp_path):
    found = read_arms(made(tmp_path, 2)).arms
    assert set(tradeoff(found, baseline="base").gaps) == set(tradeoff(found).gaps) == {("rloop", "vanilla")}


def test_with_one_sample_there_is_nothing_to_trade(tmp_path):
    run = make_run(tmp_path / "run", main=[1, 0, 1, 1] * 3, vanilla=[0, 0, 1, 0] * 3, base=[0, 0, 0, 1] * 3, n=1)
    assert tradeoff(read_arms([str(run)]).arms).curves == ()


def test_what_is_printed_and_kept(tmp_path, capsys):
    runs = made(tmp_path, 2)
    compare_runs(runs, tmp_path / "page.html", tmp_path / "results.json")
    told, page = capsys.readouterr().out, (tmp_path / "page.html").read_text()
    assert "At equal averages" in told
    assert "rloop after 768 rollouts" not in told  # vanilla never gets there
    assert "rloop after 384 rollouts has the average of vanilla after" in " ".join(told.split())
    assert 'id="tradeoff-section"' in page
    assert 'data-figure="tradeoff"' in page
    kept = json.loads((tmp_path / "results.json").read_text())["tradeoff"]
    assert kept["k"] == 32
    assert [point["rollouts"] for point in kept["curves"]["rloop"]] == [0, 384, 768]
    assert kept["spread"] == {}  # these evaluations don't tell which samples were right


def test_a_run_without_a_way_has_none(tmp_path, capsys):
    compare_runs([str(make_run(tmp_path / "sft", method="sft", main=[4, 8, 12] * 3))])
    assert "At equal averages" not in capsys.readouterr().out


# ---- temporal sampling


def test_spread_over_copies_is_pass_at_k():
    """Policies that answer alike are one policy: of unlike sample numbers, not of the same ones twice."""
    rng = np.random.default_rng(1)
    right = rng.random((1, 40, 8)) < rng.random((1, 40, 1))
    both = np.concatenate([right, right])
    for k in (2, 5, 8):
        expected = pass_at_k(8, right[0].sum(axis=1), k)
        assert spread_pass_at_k(both, k, draws=4000) == pytest.approx(expected, abs=0.03)


def test_spread_is_the_mean_over_all_ways_to_deal():
    rng = np.random.default_rng(2)
    right = rng.random((2, 6, 5)) < 0.3
    k = 3  # two of the last policy, one of the first
    exact = np.zeros(6)
    count = 0
    for taken in combinations(range(5), k):
        for first in taken:
            last = [n for n in taken if n != first]
            exact += right[0][:, first] | right[1][:, last].any(axis=1)
            count += 1
    assert spread_pass_at_k(right, k, draws=6000) == pytest.approx(exact / count, abs=0.03)
    with pytest.raises(ValueError, match="needs 2 <= k <= 5"):
        spread_pass_at_k(right, 6)


def test_policies_that_solve_other_problems_solve_more_together(tmp_path):
    runs = made(tmp_path, 0)
    for run in map(Path, runs):
        for name, mask in (("iteration-0-rft", "0000ffff"), ("iteration-1-rft", "ffff0000")):
            kept = json.loads((run / f"evals/{name}.json").read_text())
            for place, problem in enumerate(kept["problems"]):
                other = (place % 2 == 0) == (name == "iteration-0-rft")
                problem |= {"correct": 16, "right": mask} if other else {"correct": 0, "right": "0"}
            (run / f"evals/{name}.json").write_text(json.dumps(kept))
    own = tradeoff(read_arms(runs).arms).spread["rloop"]
    assert own["policies"] == 2
    assert own["avg"] == 0.25
    assert own["pass"]["value"] > 0.99
    assert own["sign"] == 1


def test_masks_are_read_as_they_were_written():
    rng = np.random.default_rng(3)
    for n in (1, 7, 32, 100):
        right = [bool(one) for one in rng.random(n) < 0.4]
        assert from_mask(as_mask(right), n) == right
    with pytest.raises(ValueError, match="more than 3 samples"):
        from_mask("f", 3)


@pytest.mark.parametrize("mask", ["3", "zz", "1ffffffff"])
def test_which_and_how_many_have_to_agree(tmp_path, mask):
    run = make_run(tmp_path / "run", main=[4, 1, 2, 3])
    file = run / "evals/iteration-1-rft.json"
    kept = json.loads(file.read_text())
    for problem in kept["problems"]:
        problem["right"] = mask
    file.write_text(json.dumps(kept))
    with pytest.raises(InputError, match="iteration-1-rft"):
        read_arms([str(run)])
