"""The tables of docs/evidence/runs.md, of single runs and of checks, made from result files as page_tables.py's are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from page_tables import table
from quoted import read

QUICKSTART = {
    "base": "base",
    "vanilla": "vanilla RL",
    "iteration-0-rft": "RLoop 1, after RFT",
    "iteration-1-rft": "RLoop 2, after RFT",
    "iteration-2-explored": "RLoop 3, explored",
    "iteration-2-rft": "RLoop 3, after RFT: the product",
}
PRODUCTS = {
    "base": "base",
    "iteration-0-rft": "after one iteration",
    "iteration-1-rft": "after two",
    "iteration-2-rft": "after three",
}
SINGLE = {"base": "before", "sft": "after SFT", "iteration-0-rft": "after RL and RFT"}


def run(study: str, names: dict[str, str], metrics: tuple[str, ...]) -> str:
    """A run's policies with their intervals over problems, the rollouts spent and the seconds of training."""
    found = {one["name"]: one for one in read(study)["evaluations"]}
    rows = []
    for name, label in names.items():
        one = found[name]
        cells = [one["metrics"][metric] for metric in metrics]
        own = [f"{c['value']:.3f} [{c['ci95'][0]:.3f}, {c['ci95'][1]:.3f}]" for c in cells]
        rows.append([label, *own, f"{one['rollouts']:,}", f"{one['seconds']:.0f}"])
    return table(("policy", *metrics, "rollouts", "seconds of training"), rows)


def behaviours() -> str:
    """Hits of the lexicon on the passages that it was not tuned on."""
    found = read("behaviours/precision")["second"]
    rows = [
        [name.replace("_", "-"), *(f"{found[name][key]['hits']} of {found[name][key]['of']}" for key in keys)]
        for keys in [("precision", "recall")]
        for name in ("backtracking", "self_correction", "verification", "alternative")
    ]
    return table(("behaviour", "found rightly", "of those there, found"), rows)


def code() -> str:
    """Canonical solutions, and small mutants of them, in the sandbox."""
    names = {"humaneval": "HumanEval", "mbpp": "MBPP", "humaneval+": "HumanEval+", "mbpp+": "MBPP+"}
    rows = []
    for name, label in names.items():
        one = read("code/canonical")["results"][name]
        share = one.get("mutation_score")
        passed = one.get("return_none_right")
        rows.append(
            [
                label,
                f"{one['canonical']['right']} of {one['problems']}",
                "not tried" if passed is None else str(len(passed)),
                "not tried" if share is None else f"{share:.0%}".replace("%", " %"),
            ]
        )
    return table(("tests", "solutions right", "`return None` right", "small mutants caught"), rows)


RUNS: dict[str, Callable[[], str]] = {
    "run-quickstart": partial(run, "quickstart", QUICKSTART, ("avg@32", "pass@8", "pass@32")),
    "run-products": partial(run, "smollm2-products", PRODUCTS, ("avg@16", "pass@16")),
    "run-gsm8k": partial(run, "gsm8k", SINGLE, ("avg@4",)),
    "behaviours": behaviours,
    "code": code,
}
