"""A model's shape as its config.json has it: what its weights, keys and values take, and what computing with it costs.
Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHUNK_ELEMENTS = 1 << 24
"""Logits held at once when log-probs are made: 64 MiB of float32"""
GPU_CHUNK_ELEMENTS = 1 << 28
"""On a GPU 1 GiB, of which there are about three at once: each chunk reads the whole weight, and a chunk of few rows takes
longer for that than for its products. No more than a 32nd of the GPU's memory."""
SCORED_AT_ONCE = 16384
"""Tokens in one forward pass of `Policy.score`"""
PREFILL_TOKENS = 4096
"""Prompt tokens computed at once, ahead of free slots. What all prompts begin with is computed once in each such batch, so
that few and large ones are good; keys and values of waiting prompts cost memory, so that there is a bound."""

MOST_THREADS = 4
"""Threads at most that learn side by side on a CPU: each holds gradients of its own"""


@dataclass(frozen=True)
class Cost:
    """A model's multiply-adds a token, the base of every FLOP count here. Norms, activations and softmax are left out."""

    body: int
    """Elements of all matrices but the head's; the embedding table is not in it"""
    head: int
    """vocabulary x hidden size"""
    attention: int
    """Query heads x head size, summed over layers: multiply-adds a (query, visible key) pair, for scores and for values"""
    keys: int
    """Elements of keys and values a token of context, all layers"""

    def training_flops(self, stream: float, targets: float, visible: float) -> float:
        """Forward and backward (3 x forward): 6 (body x stream tokens + head x target tokens) + 12 attention x visible.

        This is 6 N tokens + attention (PaLM, arXiv 2204.02311 appendix B), N without the embedding table and with the
        head, but counts only what packing leaves to do: a shared prompt once, the head only where a loss needs it.
        `visible`: (query, key) pairs that causal attention really has, summed over the stream. Recomputation (gradient
        checkpointing, logits made again in the backward pass) is work that no one asked for, and doesn't count.
        """
        return 6.0 * (self.body * stream + self.head * targets) + 12.0 * self.attention * visible

    def decoding_bytes(self, batch: float, context: float, bytes_per_element: int) -> float:
        """What one decoding step must read: all matrices once, and the keys and values of `batch` contexts."""
        return bytes_per_element * (self.body + self.head + batch * context * self.keys)

    def decoding_flops(self, batch: float, context: float) -> float:
        """What one decoding step computes."""
        return batch * (2.0 * (self.body + self.head) + 4.0 * self.attention * context)


@dataclass(frozen=True)
class Shape:
    """Of a causal language model with one kind of layer."""

    count: int
    """Weights, tied ones once"""
    hidden: int
    inner: int
    """Of the MLP: intermediate size"""
    layers: int
    heads: int
    key_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    mixture: bool
    """Whether a token passes some of the MLPs alone: what it costs isn't known here"""

    @classmethod
    def of(cls, config: Mapping[str, Any], count: int | None = None) -> Shape | None:
        """From a config.json; None where it lacks what is needed. `count`: of the weights as they are stored."""
        text = config.get("text_config")
        own = text if isinstance(text, Mapping) else config

        def number(*names: str) -> int:
            found = next((own[name] for name in names if isinstance(own.get(name), int)), 0)
            return int(found)

        hidden, layers = number("hidden_size", "n_embd"), number("num_hidden_layers", "n_layer")
        heads, vocabulary = number("num_attention_heads", "n_head"), number("vocab_size")
        if not (hidden and layers and heads and vocabulary):
            return None
        inner = number("intermediate_size", "n_inner") or 4 * hidden
        dim = number("head_dim") or hidden // heads
        mixture = bool(number("num_experts", "num_local_experts", "n_routed_experts"))
        tied = bool(own.get("tie_word_embeddings", config.get("tie_word_embeddings", "n_embd" in own)))
        made = cls(
            0, hidden, inner, layers, heads, number("num_key_value_heads") or heads, dim, vocabulary, tied, mixture
        )
        if count is None and mixture:
            return None
        gated = "n_embd" not in own and own.get("hidden_act", "silu") in ("silu", "swish", "gelu_pytorch_tanh")
        return made.counting(count or made._counted(gated))

    def counting(self, count: int) -> Shape:
        return Shape(count, *(getattr(self, name) for name in list(self.__dataclass_fields__)[1:]))

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """A layer's matrices by the names that Llama and its like have: (in, out)."""
        queries, keys = self.heads * self.head_dim, self.key_heads * self.head_dim
        return {
            "q_proj": (self.hidden, queries),
            "k_proj": (self.hidden, keys),
            "v_proj": (self.hidden, keys),
            "o_proj": (queries, self.hidden),
            "gate_proj": (self.hidden, self.inner),
            "up_proj": (self.hidden, self.inner),
            "down_proj": (self.inner, self.hidden),
        }

    def _counted(self, gated: bool) -> int:
        """Weights where no file tells: matrices, tables and norms; biases are left out."""
        matrices = {name: a * b for name, (a, b) in self.linear.items() if gated or name != "gate_proj"}
        return self.tables + self.layers * (sum(matrices.values()) + 2 * self.hidden) + self.hidden

    @property
    def layer(self) -> int:
        """Weights of a layer's matrices"""
        return sum(a * b for a, b in self.linear.values())

    @property
    def tables(self) -> int:
        """Weights of the embedding table and the head, once where they are one"""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def cost(self) -> Cost:
        """Norms and biases count as matrices: they are a thousandth."""
        return Cost(
            self.count - self.tables,
            self.vocabulary * self.hidden,
            self.layers * self.heads * self.head_dim,
            2 * self.layers * self.key_heads * self.head_dim,
        )

    def adapter(self, rank: int, targets: str | tuple[str, ...]) -> int:
        """Weights of an adapter beside these layers, or all that are linear."""
        if isinstance(targets, str) or not any(name.rpartition(".")[2] in self.linear for name in targets):
            return rank * self.layers * sum(a + b for a, b in self.linear.values())
        of_one = {name: a + b for name, (a, b) in self.linear.items()}
        # a name with a number in it, such as model.layers.3.mlp.up_proj, is one layer's
        return rank * sum(
            of_one.get(last, 0) * (1 if any(part.isdigit() for part in owner.split(".")) else self.layers)
            for owner, _, last in (name.rpartition(".") for name in targets)
        )

    def activations(self, dtype_bytes: int) -> int:
        """Bytes a token that one layer keeps for the backward pass: norms' inputs and outputs (float32 inside), queries,
        keys, values and what attention gives, and the MLP's four."""
        attended = 2 * self.heads * self.head_dim + 2 * self.key_heads * self.head_dim
        return 6 * self.hidden * max(dtype_bytes, 3) + dtype_bytes * (attended + 4 * self.inner)

    def transient(self, dtype_bytes: int) -> int:
        """Bytes a token while a layer is computed, or its gradient."""
        return dtype_bytes * (4 * self.hidden + 3 * self.inner)
