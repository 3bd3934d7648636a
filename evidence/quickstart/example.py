"""Two held-out problems before and after, and one rollout taken apart.

    python evidence/quickstart/example.py RUN     # makes example.json beside this file, and prints it for a reader
    python evidence/quickstart/example.py         # prints it again

Samples a finished quickstart's base policy and product on the held-out problems again. The draws are those of the run's
evaluations, so that these are the very responses that were counted there; the counts are compared, and a difference ends
the script. Then, without looking at a response:

- the problems are sorted by their gain (right tries of the product less those of the base), ties by their id;
- the middle one of those that gained and the middle one of those that lost are shown (the later of two middles);
- of each policy's tries the first with its commonest verdict on that problem.

The rollout is the first right one of the run's first step, by problem id.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from reasonloop import config
from reasonloop.engine.registry import engine_of
from reasonloop.engine.sample import Sampler
from reasonloop.evaluation.evaluate import block_size
from reasonloop.machine.threads import prepare_threads
from reasonloop.policy.codec import Codec
from reasonloop.policy.loading import resolve_device
from reasonloop.policy.policy import Policy, Weights
from reasonloop.records import Group, Place
from reasonloop.store.segments import TrajectoryStore
from reasonloop.tasks import load_task, task_problems
from reasonloop.tasks.show import verifier_pool

HERE = Path(__file__).parent / "example.json"


def make(run: Path) -> None:
    stored = tomllib.loads((run / "config.toml").read_text())
    ran_on = stored.pop("ran_on")
    recipe = config.parse(stored, [], where=str(run))
    prepare_threads(recipe.threads)
    evaluations = [json.loads(path.read_text()) for path in (run / "evals").glob("*.json")]
    (base,) = (e for e in evaluations if e["name"] == "base")
    (product,) = (e for e in evaluations if e["product"])
    before, after = (
        sampled(recipe, source, e) for source, e in ((recipe.model.source, base), (run / "model", product))
    )
    gains = {one.problem.id: right(two) - right(one) for one, two in zip(before, after, strict=True)}
    found = {
        "run": {key: ran_on[key] for key in ("processor", "kernels", "threads")} | {"seed": recipe.seed},
        "average": {"base": average(base), "product": average(product)},
        "problems": {
            "gained": sum(gain > 0 for gain in gains.values()),
            "level": sum(gain == 0 for gain in gains.values()),
            "lost": sum(gain < 0 for gain in gains.values()),
        },
    }
    for name, sign in (("gained", 1), ("lost", -1)):
        ids = sorted((i for i in gains if sign * gains[i] > 0), key=lambda i: (sign * gains[i], i))
        place = [group.problem.id for group in before].index(ids[len(ids) // 2])
        found[name] = {"problem": before[place].problem.id, "prompt": before[place].problem.prompt}
        found[name] |= {"base": typical(before[place]), "product": typical(after[place])}
    found["rollout"] = taken_apart(run, recipe.model.source)
    HERE.write_text(json.dumps(found, indent=1) + "\n")


def sampled(recipe: config.Recipe, source: str | Path, evaluation: dict[str, Any]) -> list[Group]:
    """The held-out problems with the responses that the evaluation counted."""
    task, samples = recipe.task, evaluation["samples"]
    policy = Policy.load(source, resolve_device(recipe.model.device), recipe.model.dtype)
    problems = [p for p in task_problems(load_task(task.name, task.options), task.name) if p.split == "test"]
    prompts = [Group(problem, policy.codec.encode_prompt(problem)) for problem in problems]
    groups: list[Group] = []
    size = block_size(samples)
    with (
        verifier_pool(task.name, task.options, task.verify_deadline, task.verify_workers) as pool,
        closing(engine_of(recipe.engine)) as engine,
    ):
        engine.load(Weights(policy=policy))
        sampler = Sampler(engine, policy.codec, recipe.eval_sampling, recipe.seed, pool)
        for start in range(0, len(prompts), size):
            groups += sampler.sample(prompts[start : start + size], samples, Place("eval", "eval/test"))
    if [(g.problem.id, right(g)) for g in groups] != [(p["id"], p["correct"]) for p in evaluation["problems"]]:
        sys.exit(f"{evaluation['name']}: other responses than the run counted; run this where the run was made")
    return groups


def right(group: Group) -> int:
    return sum(rollout.right for rollout in group.rollouts)


def average(evaluation: dict[str, Any]) -> float:
    return next(metric["value"] for name, metric in evaluation["metrics"].items() if name.startswith("avg@"))


def typical(group: Group) -> dict[str, Any]:
    """The first try with the commonest verdict, and how often each verdict was given."""
    verdicts = Counter(str(rollout.verdict) for rollout in group.rollouts)
    (commonest, _), *_ = verdicts.most_common(1)
    shown = next(rollout for rollout in group.rollouts if str(rollout.verdict) == commonest)
    told = {"try": shown.sample, "verdict": commonest, "text": shown.text, "tokens": shown.length}
    return told | {"finish": shown.finish, "verdicts": dict(verdicts.most_common())}


def taken_apart(run: Path, model: str) -> dict[str, Any]:
    """A rollout token by token: its log-probs are of the distribution that it was sampled from, in nats."""
    codec = Codec.load(model)
    explored = TrajectoryStore(run / "trajectories", run.name).read("main", 0)
    shown = min((r for r in explored if r.right and r.step == 0), key=lambda r: (r.problem_id, r.sample))
    return {
        "problem": shown.problem_id,
        "sample": shown.sample,
        "prompt": codec.decode(shown.prompt_tokens),
        "tokens": [codec.decode(shown.response_tokens[i : i + 1]) for i in range(shown.length)],
        "logprobs": [round(float(value), 3) + 0.0 for value in shown.logprobs],
        "verdict": str(shown.verdict),
        "reward": shown.reward,
    }


def told(found: dict[str, Any]) -> str:
    """The two problems with both policies' typical responses, as text."""
    lines = []
    for name in ("gained", "lost"):
        lines.append(found[name]["prompt"])
        for policy, label in (("base", "base "), ("product", "RLoop")):
            shown = found[name][policy]
            verdicts = shown["verdicts"]
            ending = f"{shown['text']} ..." if shown["finish"] == "length" else shown["text"]
            verdict = "cut off" if shown["finish"] == "length" else shown["verdict"]
            tries = f"{verdicts.get('right', 0)} of {sum(verdicts.values())} tries right"
            lines += [f"  {label}  {ending}", f"         -> {verdict}; {tries}"]
    counts = ", ".join(f"{count} {name}" for name, count in found["problems"].items())
    return "\n".join([*lines, f"(of {sum(found['problems'].values())} held-out problems: {counts})"])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        make(Path(sys.argv[1]))
    print(told(json.loads(HERE.read_text())))
