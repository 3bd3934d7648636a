"""What a run will need: memory by kind of stage, and disk at its fullest; reckoned from its plan and its model's shape.

Free of torch. Two numbers a stage: what is *certain* (weights, gradients, optimizer; a run that lacks the room for these
is refused), and the whole estimate with what depends on lengths and libraries (a run beyond what is free is warned of).
`benchmarks/memory.py` holds it against real stages.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from reasonloop.config import LoraSettings, Recipe
from reasonloop.policy.shape import (
    CHUNK_ELEMENTS,
    GPU_CHUNK_ELEMENTS,
    MOST_THREADS,
    PREFILL_TOKENS,
    SCORED_AT_ONCE,
    Shape,
)
from reasonloop.runs.dry import Asked, DryStages

PROCESS = {"cpu": 400 << 20, "cuda": 600 << 20}
"""Python with torch and transformers, or a CUDA context: bytes"""
KEPT = 1 << 30
"""Freed memory that a process on a CPU keeps at most for its next step (`machine.threads.keep_freed_memory`)"""
STATE_BYTES = {"float32": 8.0, "8bit": 2.07}
"""Of AdamW's two moments, a weight"""
FLOAT32 = 4
UNKNOWN_PROMPT = 64
"""Tokens of a prompt where the problems aren't known yet"""
CHARACTERS_A_TOKEN = 3.0

KINDS = {"explore": "rl", "sft": "sft", "rft": "rft"}


@dataclass(frozen=True)
class Plan:
    """What is reckoned with."""

    recipe: Recipe
    stages: tuple[Asked, ...]
    shape: Shape
    device: str
    """ "cpu" or "cuda" """
    threads: int = 1
    prompt: int = UNKNOWN_PROMPT
    """Tokens of the longest prompt, guessed from its characters"""
    memory: int = 80 * 10**9
    """Bytes of the GPU's memory"""
    ranks: int = 1
    """Devices that learn together, each with its share of masters, moments and gradients of all weights (FSDP2). Adapters
    and critics are whole on each"""

    @classmethod
    def of(cls, recipe: Recipe, dry: DryStages, shape: Shape, device: str, threads: int, longest: int) -> Plan:
        """`longest`: characters of the longest prompt; 0 where it isn't known."""
        prompt = round(longest / CHARACTERS_A_TOKEN) if longest else UNKNOWN_PROMPT
        return cls(recipe, tuple(dry.stages), shape, device, recipe.threads or threads, prompt)

    @property
    def chunk(self) -> int:
        """Logits that are held at once"""
        return CHUNK_ELEMENTS if self.device == "cpu" else min(GPU_CHUNK_ELEMENTS, self.memory // 128)

    @property
    def element(self) -> int:
        """Bytes of a weight in the dtype that the model computes in."""
        dtype = self.recipe.model.dtype
        return 2 if dtype == "bfloat16" or (dtype == "auto" and self.device == "cuda") else FLOAT32

    @property
    def weights(self) -> int:
        return self.shape.count * self.element

    def adapter(self, stage: str) -> LoraSettings | None:
        return self.recipe.lora.of(KINDS.get(stage, stage))

    def trained(self, stage: str) -> int:
        """Weights that the stage trains."""
        settings = self.adapter(stage)
        return self.shape.count if settings is None else self.shape.adapter(settings.rank, settings.targets)

    def shares(self, stage: str) -> int:
        """Into how many parts what a stage trains is cut."""
        return 1 if self.adapter(stage) else self.ranks

    def checkpoint(self, stage: str) -> float:
        """Bytes of one to go on from: weights, float32 masters and moments; of an adapter nothing else."""
        trained = self.trained(stage)
        size = trained * (FLOAT32 * (self.element < FLOAT32) + STATE_BYTES[self.recipe.optimizer.state])
        size += trained * self.element if self.adapter(stage) else self.weights
        if stage == "explore" and self.recipe.rl.objective == "ppo":
            size += trained * (FLOAT32 + STATE_BYTES[self.recipe.optimizer.state])
        return size

    def microbatch(self, stage: str) -> int:
        """Tokens of the largest one: no more than a rank has of an update."""
        recipe = self.recipe
        rl, batch = recipe.rl, (recipe.sft if stage == "sft" else recipe.rft).batch_size
        examples = rl.rollouts_per_step // rl.updates_per_step if stage == "explore" else batch
        examples = -(-examples // self.ranks)
        update = examples * self.recipe.sampling.max_tokens + -(-examples // rl.group_size) * self.prompt
        return max(min(recipe.optimizer.microbatch_tokens, update), self.length)

    @property
    def slots(self) -> int:
        return int(self.recipe.engine.options.get("slots", 256))

    @property
    def length(self) -> int:
        return self.prompt + self.recipe.sampling.max_tokens


@dataclass
class Need:
    """Bytes of one kind of stage at its fullest, by what takes them."""

    stage: str
    parts: dict[str, float] = field(default_factory=dict)
    certain: float = 0.0

    @property
    def bytes(self) -> float:
        return sum(self.parts.values())

    def add(self, part: str, size: float, certain: bool = False) -> Need:
        if size:
            self.parts[part] = self.parts.get(part, 0.0) + size
            self.certain += size if certain else 0.0
        return self


def memory(plan: Plan) -> list[Need]:
    """Of each kind of stage that the plan has."""
    kinds = list(dict.fromkeys((one.kind, one.stage, one.learn) for one in plan.stages))
    found: list[Need] = []
    for kind, stage, learn in kinds:
        if kind == "evaluate":
            asked = max(one.amount for one in plan.stages if one.kind == kind)
            found.append(_sampling(plan, _based(plan, "evaluation"), int(asked)))
        elif kind == "explore":
            title = "exploration" if learn else "sampling"
            found.append(_sampling(plan, _learned(plan, title, stage) if learn else _based(plan, title)))
            if learn:
                found.append(_update(plan, _learned(plan, f"{title}, update", stage), stage))
        elif kind == "finetune" and learn:
            found.append(_update(plan, _learned(plan, f"{stage.upper()}, update", stage), stage))
        elif kind == "average":
            found.append(_based(plan, "averaging").add("the start's weights", plan.weights, certain=True))
    return found


def _based(plan: Plan, title: str) -> Need:
    """A process with the policy's weights."""
    return Need(title).add("process", PROCESS[plan.device]).add("weights", plan.weights, certain=True)


def _learned(plan: Plan, title: str, stage: str) -> Need:
    """What lasts through a stage that learns: weights, float32 masters, moments; a KL's reference, a critic."""
    need, options, trained = _based(plan, title), plan.recipe, plan.trained(stage)
    on_gpu = plan.device == "cuda" and options.optimizer.offload
    need.add("weights", trained * plan.element if plan.adapter(stage) else 0, certain=True)
    if plan.adapter(stage):  # written whole when the stage ends
        need.add("merged", plan.weights)
    own = trained / plan.shares(stage)
    need.add("masters", own * FLOAT32 if plan.element < FLOAT32 or plan.shares(stage) > 1 else 0, certain=True)
    need.add("optimizer", 0 if on_gpu else own * STATE_BYTES[options.optimizer.state], certain=True)
    if options.engine.name == "vllm" and plan.device == "cpu":  # there it doesn't sleep
        need.add("engine", plan.weights + float(options.engine.options.get("kv_gib", 2.0)) * 2**30)
    if stage == "explore":
        if options.rl.kl_coef and plan.adapter(stage) is None:
            need.add("reference", plan.weights, certain=True)
        if options.rl.objective == "ppo":
            size = plan.shape.count * FLOAT32 + trained * STATE_BYTES[options.optimizer.state]
            need.add("critic", size, certain=True)
    return need


def _sampling(plan: Plan, need: Need, requests: int = 0) -> Need:
    """Responses in flight beside what is there. `requests`: how many are asked for at most; 0: not known."""
    shape, element = plan.shape, plan.element
    native = plan.recipe.engine.name == "native"
    if plan.device == "cpu" and native and element == FLOAT32:
        need.add("panels", plan.weights)  # our kernels' copy of the weights
    if plan.recipe.engine.name == "vllm" and plan.device == "cuda":
        need.add("engine", float(plan.recipe.engine.options.get("memory", 0.4)) * plan.memory)
    elif plan.recipe.engine.name == "vllm" and "engine" not in need.parts:
        need.add("engine", plan.weights + float(plan.recipe.engine.options.get("kv_gib", 2.0)) * 2**30)
    if native:
        keys = shape.cost.keys * element
        slots = min(plan.slots, requests or plan.slots)
        if need.stage == "exploration":
            slots = min(slots, plan.recipe.rl.rollouts_per_step)
        need.add("keys, values", slots * plan.recipe.sampling.max_tokens * keys, certain=plan.device == "cuda")
        need.add("keys, values", slots * plan.prompt * keys + PREFILL_TOKENS * keys)
        need.add("activations", PREFILL_TOKENS * shape.transient(element) + 4 * slots * shape.vocabulary * FLOAT32)
    if plan.recipe.rl.kl_coef and need.stage == "exploration":
        need.add("activations", SCORED_AT_ONCE * shape.transient(element))
    return need


def _update(plan: Plan, need: Need, stage: str) -> Need:
    """A forward and backward pass over the largest micro-batch."""
    shape, element, trained = plan.shape, plan.element, plan.trained(stage)
    recipe = plan.recipe
    need.add("gradients", trained * FLOAT32 / plan.shares(stage), certain=True)
    alone = (
        recipe.model.gradient_checkpointing
        or element < FLOAT32
        or plan.ranks > 1
        or (stage == "explore" and recipe.rl.objective == "ppo")
    )
    if plan.device == "cpu" and not alone:
        need.add("gradients", (min(plan.threads, MOST_THREADS) - 1) * trained * FLOAT32)
    if plan.shares(stage) > 1:  # two layers at once and the tables, whole, with their gradients
        need.add("gathered", 2 * element * (2 * shape.layer + shape.tables))
    elif element < FLOAT32:
        need.add("gradients", trained * element)
    tokens = plan.microbatch(stage)
    layer = shape.activations(element)
    kept = tokens * layer * shape.layers
    if recipe.model.gradient_checkpointing:
        kept = tokens * (shape.layers * shape.hidden * element + layer)
    chunk = 3 * FLOAT32 * min(plan.chunk, tokens * shape.vocabulary)
    tables = 0 if plan.adapter(stage) else 2 * shape.vocabulary * shape.hidden * element
    twice = 2 if stage == "explore" and recipe.rl.objective == "ppo" else 1
    need.add("activations", twice * (kept + tokens * shape.transient(element)) + chunk + tables)
    if stage == "explore" and recipe.rl.objective == "ppo":
        need.add("critic", trained * FLOAT32, certain=True)
    if plan.device == "cpu":
        need.add("process", min(KEPT, 0.3 * tokens * layer * shape.layers))
    else:
        need.add("process", 0.1 * (kept + chunk))  # what the allocator can't use again
    return need


@dataclass(frozen=True)
class Disk:
    """Bytes in the run's folder."""

    checkpoints: float
    """At their most, while it works"""
    left: float
    """Of the policies, when it is done: the product, and checkpoints that are kept"""
    rollouts: float
    texts: float
    """Of evaluations"""

    @property
    def most(self) -> float:
        return self.checkpoints + self.rollouts + self.texts


class _Checkpoints:
    """Which of them lie there at once. Linked files count once."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.most = plan, 0.0
        self.held: dict[str, int] = {}
        self.sizes: list[float] = []

    def now(self, but: str = "") -> float:
        return sum(self.sizes[i] for i in {own for name, own in self.held.items() if name != but})

    def put(self, name: str, size: float) -> None:
        self.held[name] = len(self.sizes)
        self.sizes.append(size)

    def finished(self, stage: str) -> float:
        return self.plan.weights + (self.plan.trained(stage) * self.plan.element if self.plan.adapter(stage) else 0)

    def work(self, one: Asked) -> None:
        """A stage's checkpoints, each written beside the one before."""
        finished = self.finished(one.stage) if one.learn else self.plan.weights
        full = self.plan.checkpoint(one.stage)
        last = finished if one.ends else full + (finished if self.plan.adapter(one.stage) else 0)
        if one.keep_best:
            self.put(f"{one.name}'s best", finished)
        self.most = max(self.most, self.now(one.name) + full + max(full, last))
        self.put(one.name, last)

    def take(self, one: Asked) -> None:
        if one.kind in ("explore", "finetune"):
            self.work(one)
        elif one.kind == "average":
            self.put(one.name, self.plan.weights)
            self.most = max(self.most, self.now())
        elif one.kind == "share":
            self.held[one.others[0]] = self.held[one.name]
        elif one.kind == "leave" or (one.kind == "drop" and not self.plan.recipe.keep_checkpoints):
            self.held.pop(one.name, None)
        elif one.kind == "deliver" and one.name not in self.held:
            self.put("model", self.plan.weights)
            self.most = max(self.most, self.now())


def disk(plan: Plan) -> Disk:
    """What the run's folder holds at its fullest. Responses count as half as long as they may be."""
    checkpoints = _Checkpoints(plan)
    for one in plan.stages:
        checkpoints.take(one)
    length = plan.recipe.sampling.max_tokens / 2
    rollouts = sum(one.amount for one in plan.stages if one.kind in ("explore", "elsewhere"))
    answers = sum(one.amount for one in plan.stages if one.kind == "evaluate")
    left = plan.weights * (len(checkpoints.held) if plan.recipe.keep_checkpoints else 1)
    return Disk(checkpoints.most, left, rollouts * (60 + 9 * length), answers * (40 + 2 * length))
