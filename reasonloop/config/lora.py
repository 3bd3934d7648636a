"""LoRA's options: which stages train an adapter instead of all weights. Free of torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import Field

from reasonloop.config.section import Section

Targets = Literal["all-linear"] | tuple[str, ...]


@dataclass(frozen=True)
class LoraSettings:
    """An adapter's shape: W + alpha / rank * B A, with A [rank, in] and B [out, rank], beside each of some layers."""

    rank: int
    alpha: float = 32.0
    targets: Targets = "all-linear"

    def to_json(self) -> dict[str, Any]:
        targets = self.targets if isinstance(self.targets, str) else list(self.targets)
        return asdict(self) | {"targets": targets}


class StageLora(Section):
    """Of this stage alone; what is unset is `[lora]`'s."""

    rank: int | None = Field(None, ge=0)
    """0: all weights are trained here, whatever `lora.rank` is."""
    alpha: float | None = Field(None, gt=0)
    """As `lora.alpha`."""
    targets: Targets | None = Field(None, min_length=1)
    """As `lora.targets`."""


class Lora(Section):
    """LoRA (arXiv 2106.09685): a stage trains an adapter, two small matrices beside each linear layer, instead of all
    weights (docs/lora.md). Needs `reasonloop[peft]`. There is no dropout: what samples is what is trained."""

    rank: int = Field(0, ge=0)
    """The adapters' rank, in RL, RFT and SFT alike unless `[lora.rl]`, `[lora.rft]` or `[lora.sft]` has another one. 0: all
    weights are trained."""
    alpha: float = Field(32.0, gt=0)
    """What an adapter adds is multiplied by alpha / rank. With one alpha the same learning rate serves small and large
    ranks (docs/lora.md)."""
    targets: Targets = Field("all-linear", min_length=1)
    """all-linear (each linear layer but the head), or a list of layers' names, such as `["q_proj", "v_proj"]`."""
    rl: StageLora = StageLora()
    rft: StageLora = StageLora()
    sft: StageLora = StageLora()

    def of(self, stage: str) -> LoraSettings | None:
        """What the stage ("rl", "rft" or "sft") trains; None: all weights."""
        own: StageLora = getattr(self, stage)
        rank = self.rank if own.rank is None else own.rank
        alpha, targets = own.alpha or self.alpha, own.targets or self.targets
        return LoraSettings(rank, alpha, targets) if rank else None
