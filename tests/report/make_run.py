"""Makes a run folder that looks like a real one: curves that learn and overfit, search traces, odd text.

`python tests/report/make_run.py FOLDER` writes one to look at.
"""

from __future__ import annotations

import json
import math
import sys
import tomllib
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from made_arms import recorded

from reasonloop.config import stored_recipe
from reasonloop.evaluation.metrics import summarise
from reasonloop.records import Place, Rollout, Verdict
from reasonloop.store.segments import TrajectoryStore
from reasonloop.tasks.countdown.search import search

CONFIG = """\
method = "rloop"
seed = 3
threads = 2

[model]
path = "countdown"
dtype = "float32"

[task]
name = "countdown"

[sampling]
max_tokens = 64

[rl]
steps = {steps}
problems_per_step = 32
group_size = 8
objective = "dapo"

[rloop]
iterations = {iterations}
reinitialise_from = "iteration_start"
hard_threshold = 0.5
cap = 8
vanilla = true

[ran_on]
processor = "a made-up one"
cores = 8

[ran_on.versions]
reasonloop = "0.1.0"
torch = "2.13.0"
"""

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "line\u2028separator \u2029 and <!-- a comment & \x00 \u202e reversed",
)


def make_run(folder: Path, *, iterations: int = 3, steps: int = 40, stored_every: int = 5, seed: int = 0) -> Path:
    """Write a finished RLoop run with vanilla RL beside it to `folder`."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evals").mkdir(exist_ok=True)
    (folder / "config.toml").write_text(CONFIG.format(steps=steps, iterations=iterations))
    (folder / "state.json").write_text(json.dumps({"stage": "done"}))
    words = _write_tokenizer(folder / "model")
    store = TrajectoryStore(folder / "trajectories", "made")
    lines: list[dict[str, Any]] = []
    shared = 0
    ability = rng.normal(-0.9, 1.3, 120)
    kept = recorded(stored_recipe(tomllib.loads((folder / "config.toml").read_text())))
    evaluate = partial(_evaluate, folder, rng, kept.evaluations)
    evaluate(ability, "base", Place(stage="base"), 0, 0)
    for branch in ("main", "vanilla"):
        # Vanilla RL goes on from RLoop's first exploration, as in a real run.
        rollouts, clock = (shared, 60.0) if branch == "vanilla" else (0, 0.0)
        for iteration in range(iterations if branch == "main" else 1):
            many = steps if branch == "main" else steps * iterations
            for step in range(0 if branch == "main" else steps, many):
                if branch == "vanilla" and step % steps == 0:  # on its way: where RLoop's iterations end
                    skill, name = ability * (1 + 0.5 * step / many) + 0.75 * step / many, f"vanilla-{step // steps}"
                    evaluate(skill, name, Place(branch), rollouts, clock)
                rollouts += 256 + 8 * int(rng.integers(0, 12))
                start = 0.35 + (0.09 * iteration if branch == "main" else 0)
                share = start + (0.95 - start) * (1 - math.exp(-step / (1.2 * steps)))
                place = Place(branch, "explore", iteration, step)
                arms = kept.keys[branch, iteration, "explore"]
                line = _rl_line(rng, share, place, many) | arms | {"rollouts": rollouts}
                clock += line["seconds"]
                lines.append(line)
                if step % stored_every == 0:
                    store.write(_rollouts(rng, words, share, place), place)
                if step % 10 == 9:
                    probe = {"avg@8": 0.3 + 0.25 * share - 0.1 * share**4, "pass@8": 0.75 - 0.15 * share**3}
                    lines.append({**place.keys, **arms, "stage": "probe", "rollouts": rollouts, **probe})
            if branch == "main" and iteration == 0:
                shared = rollouts
            if branch == "vanilla":
                evaluate(ability * 1.5 + 0.75, "vanilla", Place(branch), rollouts, clock)
                continue
            gain = 0.35 * (iteration + 1)
            name, own = f"iteration-{iteration}", kept.keys[branch, iteration, "explore"]
            evaluate(ability * 1.25 + gain, f"{name}-explored", Place(iteration=iteration), rollouts, clock)
            counts = {"seen": steps * 256, "right": steps * 140, "problems": 256, "hard_problems": 118 - 20 * iteration}
            counts |= {"deduplicated": 2210 - 300 * iteration, "selected": 830 - 140 * iteration}
            lines.append({**Place(branch, "select", iteration).keys, **own, **counts})
            for step in range(30):
                loss = 0.2 + 0.5 * math.exp(-step / 9) + 0.02 * rng.normal()
                fit = {"loss": loss, "learning_rate": 5e-4, "grad_norm": 0.4, "seconds": 0.3, "rollouts": rollouts}
                lines.append({**Place(branch, "rft", iteration, step).keys, **own, **fit})
            clock += 9
            evaluate(ability + gain + 0.1, f"{name}-rft", Place(stage="rft", iteration=iteration), rollouts, clock)
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return folder


def _rl_line(rng: np.random.Generator, share: float, place: Place, many: int) -> dict[str, Any]:
    right = float(np.clip(share + 0.03 * rng.normal(), 0, 1))
    wrong = 0.8 * (1 - right)
    spike = 30.0 if place.branch == "vanilla" and place.step in (int(0.8 * many), int(0.9 * many)) else 1.0
    return {
        **place.keys,
        "reward": right, "right": right, "length": 48 - 14 * share + rng.normal(), "cut_off": 0.2 * (1 - right),
        "entropy": 0.62 * (1 - share) + 0.08 + 0.01 * rng.normal(),
        "grad_norm": spike * float(rng.lognormal(-1.2, 0.3)), "kl": 0.0, "clip_fraction": 0.01,
        "groups_used": 30, "groups_sampled": 36, "skipped_updates": 0, "seconds": 1.6, "tokens_per_second": 9000.0,
        "reward_parts": {"outcome": right, "overlong": -0.1 * (1 - right)},
        "verdicts": {"right": round(256 * right), "wrong": round(256 * wrong), "unparseable": round(51 * (1 - right))},
    }  # fmt: skip


def _rollouts(rng: np.random.Generator, words: dict[str, int], share: float, at: Place) -> list[Rollout]:
    batch = []
    for place, problem in enumerate(rng.choice(40, size=10, replace=False)):
        numbers = tuple(sorted(int(n) for n in np.random.default_rng(problem).integers(2, 25, 4)))
        target = numbers[0] * numbers[1] + numbers[3] - numbers[2]
        prompt = np.array([words[w] for w in [str(target), "from", *map(str, numbers), ":"]], dtype=np.int32)
        for sample in range(4):
            trace = search(numbers, max(target, 1), Random(int(rng.integers(1 << 30))), skill=share, max_words=60)
            text, finish = " ".join(trace.words), "stop" if trace.solved else "length"
            verdict = Verdict.RIGHT if trace.solved else Verdict.UNPARSEABLE if sample else Verdict.WRONG
            detail = "" if trace.solved else "no `answer` in the response"
            if at.step == 0 and place == 0:
                text, verdict, detail = HOSTILE[sample % 3], Verdict.CRASHED, HOSTILE[1]
            tokens = np.array([words.get(w, 0) for w in text.split()] + [1], dtype=np.int32)
            batch.append(
                Rollout(
                    problem_id=f"train-{problem:05}",
                    prompt_tokens=prompt,
                    response_tokens=tokens,
                    logprobs=np.full(len(tokens), -0.5, dtype=np.float32),
                    finish=finish,
                    text=text,
                    verdict=verdict,
                    detail=detail,
                    reward=float(verdict is Verdict.RIGHT),
                    place=at,
                    sample=sample,
                )
            )
    return batch


def _evaluate(
    folder: Path, rng: np.random.Generator, kept: dict[str, dict[str, Any]], ability: np.ndarray, name: str,
    place: Place, rollouts: int, seconds: float,
) -> None:  # fmt: skip
    shares = 1 / (1 + np.exp(-ability))
    problems = [{"id": f"test-{i}", "n": 32, "correct": int(rng.binomial(32, p))} for i, p in enumerate(shares)]
    record = {
        "name": name, **place.keys, **kept[name], "rollouts": rollouts,
        "seconds": seconds, "task": "countdown", "split": "test", "samples": 32, "sampling": {"temperature": 1.0},
        "metrics": summarise(problems), "mean_tokens": 40.0, "cut_off": 0.1, "verdicts": {},
        "problems": problems,
    }  # fmt: skip
    values = {key: metric["value"] for key, metric in record["metrics"].items()}
    keys = {key: kept[name][key] for key in ("arm", "label", "product")}
    line = {**place.keys, "stage": "eval", **keys, "rollouts": rollouts, "name": name, **values}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    (folder / "evals" / f"{name}.json").write_text(json.dumps(record))


def _write_tokenizer(folder: Path) -> dict[str, int]:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<unk>", "<eos>", *map(str, range(1000)), *"+-*/()=;:", "from", "no", "back", "yes", "answer"]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return vocabulary


if __name__ == "__main__":
    make_run(Path(sys.argv[1]))
