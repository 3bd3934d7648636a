"""Lines of metrics.jsonl as runs write them, made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def line(
    stage: str, step: int | None = None, iteration: int = 0, branch: str = "main", **values: Any
) -> dict[str, Any]:
    about = {"stage": stage, "branch": branch, "iteration": iteration} | ({} if step is None else {"step": step})
    return {**about, "arm": branch, "label": branch, "product": False, **values}


def short_run() -> list[dict[str, Any]]:
    """Two iterations of RLoop with vanilla RL beside it, two steps each."""
    lines = [line("eval", name="base", arm="base", rollouts=0, **{"avg@4": 0.1})]
    for i in (0, 1):
        shared = {"shared_with": "vanilla"} if i == 0 else {}
        for k in (0, 1):
            told: dict[str, Any] = {"rollouts": 16 * (2 * i + k + 1), "reward": 0.1 * k + i, "seconds": 0.5 + k}
            lines.append(line("explore", k, i, **shared, **told, verdicts={"right": 3, "wrong": 13}))
        lines.append(line("probe", 1, i, **shared, rollouts=32 * (i + 1), **{"avg@2": 0.25}))
        lines.append(
            line("eval", None, i, name=f"{i}-explored", arm="explored", rollouts=32 * (i + 1), **{"avg@4": 0.2})
        )
        lines += [line("rft", k, i, loss=1.0 / (1 + k), seconds=0.1) for k in range(2 + i)]
        told = {"name": f"{i}-rft", "rollouts": 32 * (i + 1), "avg@4": 0.3 + i, "product": i == 1}
        lines.append(line("eval", None, i, **told))
    lines += [line("explore", k, 0, "vanilla", rollouts=16 * (k + 1), reward=0.5, seconds=1.0) for k in (2, 3)]
    lines.append(line("eval", None, 0, "vanilla", name="vanilla", rollouts=64, **{"avg@4": 0.2}))
    return lines


def make_run(folder: Path, lines: list[dict[str, Any]], stage: str = "done") -> Path:
    """As much of a run folder as trackers read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text('method = "rloop"\n[rl]\nsteps = 2\n[ran_on]\ncores = 8\n')
    (folder / "state.json").write_text(json.dumps({"stage": stage}))
    write(folder, lines)
    return folder


def write(folder: Path, lines: list[dict[str, Any]], half: str = "") -> None:
    """All lines, as a run that goes on writes them: a new file in the old one's place; and the beginning of one more."""
    new = folder / ".metrics"
    new.write_text("".join(json.dumps(one) + "\n" for one in lines) + half)
    new.replace(folder / "metrics.jsonl")
