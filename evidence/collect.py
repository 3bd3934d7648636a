"""Makes the committed evidence of a run: python evidence/collect.py RUN FOLDER

FOLDER/results.json: machine, versions, recipe, arms and comparisons as a study has them (one seed: their intervals are over
the held-out problems), every evaluation with its intervals and per-problem counts, the training curve; FOLDER/curve.svg:
train reward and held-out avg@n over rollouts spent.
"""

from __future__ import annotations

import json
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from reasonloop.evaluation.bootstrap import difference

COLOURS = {"RLoop": "#2563eb", "RL": "#2563eb", "vanilla RL": "#d97706", "base": "#6b7280"}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 380, 56, 150, 24, 44


def collect(run: Path) -> dict[str, Any]:
    config = tomllib.loads((run / "config.toml").read_text())
    ran_on = config.pop("ran_on")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evals = sorted((json.loads(path.read_text()) for path in (run / "evals").glob("*.json")), key=lambda e: e["order"])
    arms, comparisons = arms_of(evals, config["seed"]), compare(evals)
    for evaluation in evals:
        evaluation["correct"] = [problem["correct"] for problem in evaluation.pop("problems")]
    kept = ("branch", "iteration", "step", "rollouts", "right", "length", "cut_off", "entropy", "grad_norm", "seconds")
    return {
        "machine": {key: ran_on[key] for key in ("processor", "cores", "threads", "platform")},
        "versions": {"python": ran_on["python"], **ran_on["versions"]},
        "recipe": config,
        "seconds_of_training": round(sum(line.get("seconds", 0) for line in lines), 1),
        "seconds_of_the_run": json.loads((run / "state.json").read_text())["seconds"],
        "arms": arms,
        "evaluations": evals,
        "comparisons": comparisons,
        "experts": [line for line in lines if line["stage"] == "select"],
        "curve": [{k: line[k] for k in kept if k in line} for line in lines if line["stage"] == "explore"],
    }


def arms_of(evals: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """The evaluated policies in the layout of a study's arms, with one seed each."""
    arms = {}
    for e in evals:
        values = {name: metric["value"] for name, metric in e["metrics"].items()}
        average = next(name for name in values if name.startswith("avg@"))
        tries = {name.removeprefix("pass@"): [value] for name, value in values.items() if name.startswith("pass@")}
        arms[e["name"]] = {
            "rollouts": e["rollouts"],
            "seeds": [seed],
            average: [values[average]],
            "pass@k": tries,
        }
    return arms


def compare(evals: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last RFT (or SFT, or RL) policy against vanilla RL and base: paired bootstrap over the held-out problems."""
    named = {e["name"]: e for e in evals}
    product = [e for e in evals if e["stage"] in ("rft", "sft") or e["name"] == "trained"][-1]
    rows = []
    for other in ("vanilla", "base"):
        if other not in named or named[other] is product:
            continue
        n = product["samples"]
        for metric, values in (
            (f"avg@{n}", lambda e: [p["correct"] / p["n"] for p in e["problems"]]),
            (f"pass@{n}", lambda e: [float(p["correct"] > 0) for p in e["problems"]]),
        ):
            found = difference(np.array([values(product)]), np.array([values(named[other])]))
            rows.append({"a": product["name"], "b": other, "metric": metric, **asdict(found)})
    return rows


def curve(results: dict[str, Any]) -> str:
    """Thin line: train reward (share right); thick line with points and bars: held-out avg@n with 95 % intervals."""
    method = results["recipe"]["method"]
    own = {"rloop": "RLoop", "rl": "RL"}.get(method, "RL")
    last = max(point["rollouts"] for point in results["curve"])

    def x(rollouts: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * rollouts / last

    def y(share: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for tick in range(0, 11, 2):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick / 10)}" y2="{y(tick / 10)}" stroke="#e5e7eb"/>'
            f'<text x="{LEFT - 8}" y="{y(tick / 10) + 4}" text-anchor="end" fill="#374151">{tick / 10:.1f}</text>'
        )
    for tick in range(5):
        parts.append(
            f'<text x="{x(last * tick / 4):.0f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle" fill="#374151">'
            f"{last * tick // 4:,}</text>"
        )
    parts.append(f'<text x="{(WIDTH - RIGHT + LEFT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">rollouts spent</text>')
    legend = 0
    for branch, name in (("main", own), ("vanilla", "vanilla RL")):
        points = [point for point in results["curve"] if point["branch"] == branch]
        for iteration in sorted({point["iteration"] for point in points}):
            path = " ".join(
                f"{x(p['rollouts']):.1f},{y(p['right']):.1f}" for p in points if p["iteration"] == iteration
            )
            parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[name]}" opacity="0.45"/>')
        base = [e for e in results["evaluations"] if e["stage"] == "base"]
        final = [e for e in results["evaluations"] if e["branch"] == branch and e["stage"] in ("rft", "explore")]
        if method == "rloop" and branch == "main":
            final = [e for e in final if e["stage"] == "rft"]
        if not final:
            continue
        marks = [(e["rollouts"], e["metrics"][f"avg@{e['samples']}"]) for e in [*base, *final]]
        path = " ".join(f"{x(rollouts):.1f},{y(m['value']):.1f}" for rollouts, m in marks)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2.5"/>')
        for rollouts, m in marks:
            low, high = m["ci95"]
            parts.append(
                f'<line x1="{x(rollouts):.1f}" x2="{x(rollouts):.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}" '
                f'stroke="{COLOURS[name]}"/><circle cx="{x(rollouts):.1f}" cy="{y(m["value"]):.1f}" r="4" '
                f'fill="{COLOURS[name]}"/>'
            )
        row = TOP + 12 + 20 * legend
        parts.append(
            f'<circle cx="{WIDTH - RIGHT + 16}" cy="{row - 4}" r="4" fill="{COLOURS[name]}"/>'
            f'<text x="{WIDTH - RIGHT + 26}" y="{row}">{name}, held out</text>'
        )
        legend += 1
    parts.append(
        f'<line x1="{WIDTH - RIGHT + 8}" x2="{WIDTH - RIGHT + 22}" y1="{TOP + 8 + 20 * legend}" '
        f'y2="{TOP + 8 + 20 * legend}" stroke="#374151" opacity="0.5"/>'
        f'<text x="{WIDTH - RIGHT + 26}" y="{TOP + 12 + 20 * legend}">training reward</text>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python evidence/collect.py RUN FOLDER")
    out = Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    collected = collect(Path(sys.argv[1]))
    (out / "results.json").write_text(json.dumps(collected, indent=1) + "\n")
    if collected["curve"]:
        (out / "curve.svg").write_text(curve(collected))
