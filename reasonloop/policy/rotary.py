"""Rotary embeddings whose angles depend on how long a sequence is: transformers turns a whole call by its longest one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reasonloop.policy.reach import ORIGINAL, ropes


@dataclass(frozen=True)
class Rope:
    """Where the angles of a model's positions change."""

    original: int | None = None
    """LongRoPE: a sequence of more tokens is turned by other factors, from its first token on"""
    most: int | None = None
    """Dynamic scaling: beyond so many tokens each length has angles of its own"""

    @classmethod
    def of(cls, config: Any) -> Rope:
        """Of transformers' configuration of a text model."""
        kinds = {rope["rope_type"]: rope.get(ORIGINAL) for rope in ropes(config)}
        most = getattr(config, "max_position_embeddings", None) if "dynamic" in kinds else None
        return cls(kinds.get("longrope"), most)

    def is_long(self, tokens: int) -> bool:
        """Whether a sequence of so many tokens is turned by the other factors."""
        return self.original is not None and tokens > self.original

    def beyond(self, prompt: int, response: int) -> str:
        """Why a response of up to so many tokens can't be sampled behind a prompt of so many; empty where it can."""
        total = prompt + response - 1  # the last one is never an input
        if self.original is not None and prompt <= self.original < total:
            return (
                f"LongRoPE turns all tokens of a sequence by other factors once it has more than {self.original}, so that "
                f"a response has no log-probs of its own across that length; expected at most {self.original + 1} tokens "
                f"with the prompt, or a prompt of more than {self.original}"
            )
        if self.most is not None and total > self.most:
            return (
                f"dynamic rotary scaling has other angles for each length beyond {self.most}; expected no more tokens"
            )
        return ""


STEADY = Rope()
"""Angles that depend on the position alone"""
