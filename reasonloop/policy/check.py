"""Whether a model computes on packed streams and in slots what it computes by itself: looked at whenever one is loaded, in
the type that it will compute in."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reasonloop.errors import InputError, first_line
from reasonloop.policy.attention import NAME
from reasonloop.policy.finite import NotFinite
from reasonloop.policy.logprobs import HALVES
from reasonloop.policy.masks import MASK_WINDOW, Watch
from reasonloop.policy.reach import Reaches, shortened
from reasonloop.policy.scorer import Scorer, has_plain_head
from reasonloop.policy.slots import PrefillPlan, SlotCache
from reasonloop.policy.stream import Layout

LENGTH = 12
"""Of the rows that a model is checked on: more than any number that it is shortened to"""
LEAST = 1e-3
"""Of the logits' spread: what no path may differ by, however finely it computes"""
UNFIT = (TypeError, AttributeError, NotImplementedError, RuntimeError, ValueError, IndexError, KeyError)
"""What modules raise that don't know what they are given"""

OF_OTHER_INPUT = re.compile("vision|visual|image|audio|speech")

Places = list[tuple[int, int]]
"""(row, position) of each token in the rows that a trial is made of"""


class Unpackable(Exception):
    """Why a model can't be computed on packed streams: a clause whose subject is the model."""


def check_packing(scorer: Scorer, vocabulary: int, name: str) -> None:
    """Raises InputError unless packed streams and slots give the logits of the model's own forward pass, with transformers'
    own attention, and no sequence of a stream changes another's. Tells attention of windows that only masks know.

    The model's windows, chunks and the like are shortened for it, so that a few tokens are beyond all of them.

    The first is so to rounding, which grows with the depth and the type's coarseness, of the logits' spread. The second is
    so to the last bit, whatever the type: a product's row doesn't depend on the other rows. So a layer that mixes neighbours
    outside of attention (a convolution, a recurrent state) shows itself however little it mixes. Where tokens are sorted
    by experts a product's shape depends on the neighbours, and rounding with it.
    """
    try:
        with torch.inference_mode(), shortened(scorer.model) as reaches:
            trial = _Trial(scorer, vocabulary, name)
            windows = trial.watch_masks(reaches)
            trial.compare()
    except Unpackable as reason:
        raise InputError(f"model {name}: {reason}; this architecture is not supported on packed streams") from reason
    for module, window in windows:
        setattr(module, MASK_WINDOW, reaches.real(window))


def rounding(model: Any, bits: float | None = None) -> float:
    """The most that two ways of computing the same logits may differ by, of their spread: each layer rounds a few times what
    it adds to the stream, independently. `bits`: of a type's last place, where a finer type must show finer numbers."""
    config = model.config.get_text_config()
    layers = int(getattr(config, "num_hidden_layers", None) or 1)
    last = torch.finfo(next(model.parameters()).dtype).eps * math.sqrt(layers + 1)
    most = max(LEAST, 2 * last)
    return most if bits is None else min(most, bits * last)


_FOREIGN: Places = [(1, t) for t in range(4)]
_PROMPT: Places = [(0, t) for t in range(5)]
_FIRST: Places = [(0, t) for t in range(5, 12)]
_SECOND: Places = [(1, t) for t in range(5, 10)]
_STREAM = [*_FOREIGN, *_PROMPT, *_FIRST, *_SECOND]
_KEPT = [*_PROMPT, *_SECOND]
"""What must know nothing of the rest"""


class _Trial:
    """A foreign prompt of 4 tokens, and one of 5 with responses of 7 and 5: in a stream, and in slots."""

    def __init__(self, scorer: Scorer, vocabulary: int, name: str) -> None:
        self.scorer, self.model, self.name = scorer, scorer.model, name
        self.device = self.model.device
        first, second = ordinary(self.model, vocabulary, 0, (LENGTH, LENGTH))
        self.rows = np.stack([first, np.concatenate([first[:5], second[5:]])])
        self.rows[1, 6] = filler(self.model, vocabulary)
        self.others = (self.rows + 1) % vocabulary

    def watch_masks(self, reaches: Reaches) -> list[tuple[Any, int | None]]:
        """Raises Unpackable where a mask is neither causal nor a window. Tells attention the windows of masks, and returns
        them, as they are now, with the modules that pass others."""
        watch = Watch()
        try:
            self.model.base_model(input_ids=self._sent(self.rows[:1]), use_cache=False, watch=watch)
        except UNFIT as error:
            told = f"its modules don't pass on what attention is told{_mixers(self.model)}: {first_line(error)}"
            raise Unpackable(told) from error
        if not watch.calls:
            raise Unpackable(
                f"none of its layers attends through transformers' attention interface{_mixers(self.model)}"
            )
        windows: dict[Any, int | None] = {}
        for number, call in enumerate(watch.calls):
            layer = f"layer {getattr(call.module, 'layer_idx', number)} ({type(call.module).__name__})"
            if call.more:
                raise Unpackable(f"{layer} {call.more}")
            try:
                window = call.band()
            except ValueError:
                named = ", ".join(f"{name} = {value}" for name, value in reaches.names.items())
                why = f" ({named})" if named else ""
                raise Unpackable(f"{layer} chooses which of the tokens before it each token sees{why}") from None
            if windows.setdefault(call.module, window) != window:
                raise Unpackable(f"{layer} attends several times, behind other windows")
            if window != call.window:
                setattr(call.module, MASK_WINDOW, window)
        return [(module, window) for module, window in windows.items() if MASK_WINDOW in vars(module)]

    def compare(self) -> None:
        """Raises Unpackable where logits differ from those of the model by itself."""
        reference = self._by_itself()
        if not has_plain_head(self.model):
            raise Unpackable(f"its head ({type(self.model.get_output_embeddings()).__name__}) is more than a matrix")
        if not bool(reference.isfinite().all()):
            raise NotFinite(
                f"model {self.name}: its logits are not finite, although its weights are: they are too large; expected "
                "those of a model whose training has not diverged"
            )
        try:
            packed, plan = self._packed(self.rows)
            slots = self._in_slots(plan)
            mixed, _ = self._packed(self.others)
        except UNFIT as error:
            raise Unpackable(f"it does not run on packed streams ({first_line(error)})") from error
        if convolution := _convolution(self.model):
            raise Unpackable(f"{convolution} mixes neighbours outside of attention")
        tolerance, kept = rounding(self.model), [_STREAM.index(place) for place in _KEPT]
        for logits, places, where in ((packed, _STREAM, "on a packed stream"), (*slots, "in slots")):
            worst = worst_of(self.model, differences(logits, torch.stack([reference[place] for place in places])))
            if not worst < tolerance:
                raise Unpackable(
                    f"{where} its logits differ by {worst:.2g} of their spread from its own forward pass (rounding: at most "
                    f"{tolerance:.2g}){_mixers(self.model)}"
                )
        mixing = float(differences(mixed[kept], packed[kept]).max())
        if not mixing <= (tolerance if _sorts_tokens(self.model) else 0.0):
            raise Unpackable(
                f"on a packed stream a sequence changes the logits of another by {mixing:.2g} of their spread: a layer "
                f"mixes neighbours outside of attention{_mixers(self.model)}"
            )

    def _by_itself(self) -> Tensor:
        """float32 [2, LENGTH, V], by transformers' own attention: equal rows, so that nothing is padded."""
        try:
            self.model.set_attn_implementation("eager")
            logits: Tensor = self.model(input_ids=self._sent(self.rows), use_cache=False).logits.float()
        finally:
            self.model.set_attn_implementation(NAME)
        return logits

    def _packed(self, rows: np.ndarray) -> tuple[Tensor, PrefillPlan]:
        """float32 [N, V] of the stream. `rows`: what is not kept is from them."""
        tokens = [(self.rows if place in _KEPT else rows)[place] for place in _STREAM]
        layout = Layout()
        parts = np.split(np.array(tokens), np.cumsum([len(_FOREIGN), len(_PROMPT), len(_FIRST)]))
        layout.lay(parts[0])
        prompt = layout.lay(parts[1])
        for response in parts[2:]:
            layout.lay(response, (prompt,))
        plan = PrefillPlan(layout.segments, self.device)
        hidden = self.scorer.hidden(layout.tokens(self.device), layout.positions(self.device), plan)
        return self.scorer.head().logits(hidden), plan

    def _in_slots(self, plan: PrefillPlan) -> tuple[Tensor, Places]:
        """Logits of the next tokens of two sequences of unlike lengths, of which one has got a third one's slot: float32
        [2, V], and what they are logits of."""
        cache = SlotCache(3, LENGTH, self.device)
        rows = [_FOREIGN, [*_PROMPT, *_SECOND[:3]], [*_PROMPT, *_FIRST[:6]]]
        stream = [_STREAM.index(place) for row in rows for place in row]
        slots = [slot for slot, row in enumerate(rows) for _ in row]
        cache.admit(plan, *map(self._sent, (stream, slots, [place for row in rows for _, place in row])))
        cache.move([2], [0], 11)
        places = [(0, 11), (1, 8)]
        positions = self._sent([position for _, position in places])
        cache.decode_at(positions, LENGTH)
        hidden = self.scorer.hidden(self._sent([self.rows[place] for place in places]), positions, cache)
        return self.scorer.head().logits(hidden), places

    def _sent(self, numbers: Any) -> Tensor:
        return torch.from_numpy(np.asarray(numbers, dtype=np.int64)).to(self.device)


def differences(logits: Tensor, expected: Tensor) -> Tensor:
    """[N, V] each -> [N]: the root mean square difference at each token, of the spread of its logits; inf where one is not a
    number."""
    found = (logits - expected).square().mean(-1).sqrt() / expected.std(-1).clamp(min=1e-30)
    return found.nan_to_num(torch.inf)


def worst_of(model: Any, found: Tensor) -> float:
    """The largest of `differences` that counts: in half precision a few tokens are left out, which another expert may get
    for a rounding, or which a coarse number puts far off."""
    half = next(model.parameters()).dtype in HALVES
    return float(found.float().quantile(0.75) if half else found.max())


def filler(model: Any, vocabulary: int) -> int:
    """The token that a batch is padded with: a family may take it for no token at all, wherever it stands."""
    pad = getattr(model.config.get_text_config(), "pad_token_id", None)
    return pad if isinstance(pad, int) and 0 <= pad < vocabulary else 0


def ordinary(model: Any, vocabulary: int, seed: int, lengths: Sequence[int]) -> list[np.ndarray]:
    """Random tokens, int64 of each of these lengths, without `filler`."""
    drawn = (np.random.default_rng([seed, i]).integers(1, vocabulary, length) for i, length in enumerate(lengths))
    return [(filler(model, vocabulary) + tokens) % vocabulary for tokens in drawn]


def _sorts_tokens(model: Any) -> bool:
    return any("expert" in name for name, _ in model.named_modules())


def _convolution(model: Any) -> str:
    """The first convolution over tokens; "" where there is none. However little it mixes, it is seen."""
    names = (name for name, module in model.named_modules() if isinstance(module, nn.Conv1d))
    return next((name for name in names if not OF_OTHER_INPUT.search(name)), "")


def _mixers(model: Any) -> str:
    """What a configuration calls its layers that aren't attention over all tokens or a window of them."""
    kinds = dict.fromkeys(getattr(model.config.get_text_config(), "layer_types", None) or ())
    named = [kind for kind in kinds if kind not in ("full_attention", "sliding_attention", "attention")]
    return f" (its layers: {', '.join(named)})" if named else ""
