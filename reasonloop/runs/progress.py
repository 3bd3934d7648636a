"""What a run shows while it works: a live display on a terminal, plain lines in a pipe."""

from __future__ import annotations

import json
import math
import os
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from reasonloop.files import partial_of, write_atomically

# The estimate forgets with a length of this share of the run: long enough to be calm, short enough to notice that
# responses have grown longer.
MEMORY = 0.1
LINE_SECONDS = 1.0
KEEP_SECONDS = 3.0


class Progress:
    """Shows stage, step, reward, held-out avg@k, speed and time left of a run of `total_units` planned units of work.

    A unit is whatever the run plans with, best something that takes about equal time wherever it is spent. Use it as a
    context manager: the terminal is restored however the block is left. Colour follows NO_COLOR.
    """

    def __init__(self, total_units: float, stream: TextIO | None = None) -> None:
        self.total_units = float(total_units)
        """May be set anew while the run goes on, when its plan changes."""
        self.done_units = 0.0
        self._last_advance = monotonic()
        self._seconds = self._units = 0.0
        """What the estimate remembers: units of work, and the seconds that they took"""
        self._stream = stream or sys.stderr
        self._live: Live | None = None
        self._waiting: list[str] = []
        self._late: list[str] = []
        self._last_line = -math.inf
        self._where: tuple[str, int | None, int, int] | None = None
        self.kept: Path | None = None
        """A file for other processes, as a report that follows the run: where it is, and the seconds left"""
        self._last_kept = monotonic()
        self._shown: dict[str, float] = {}

    def __enter__(self) -> Progress:
        console = Console(file=self._stream, highlight=False, markup=False, emoji=False)
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.kept is not None:
            for left in (self.kept, partial_of(self.kept)):
                left.unlink(missing_ok=True)
        self._write_late_line()
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a message that stays, above the live display or between the lines, behind that of the last step."""
        self._write_late_line()
        if self._live is not None:
            self._live.console.print(text, soft_wrap=True)
        else:
            self._write(text)

    def step(
        self,
        stage: str,
        done: int,
        total: int,
        *,
        iteration: int | None = None,
        units: float = 0.0,
        **values: float | None,
    ) -> None:
        """Report that `done` of the stage's `total` steps are finished, 1 after the first, and `units` more of the run.

        `iteration` counts from 0 and is shown from 1. `values` are the numbers to show, by name: reward,
        tokens_per_second, and held-out results such as {"test avg@16": 0.31}; a value of an earlier step stays until it is
        replaced or its stage ends, a held-out one until it is replaced. None values are left out.
        """
        if self._where is None or self._where[:2] != (stage, iteration):
            self._write_late_line()
            self._shown = {name: value for name, value in self._shown.items() if "@" in name}
        self._where = (stage, iteration, done, total)
        self._shown |= {name: value for name, value in values.items() if value is not None}
        if units:
            self.advance(units)
        self._keep()
        if self._live is None:
            self._late = [self.line()]
            if monotonic() - self._last_line >= LINE_SECONDS:
                self._last_line = monotonic()
                self._write_late_line()

    def held_out(self, **values: float) -> None:
        """Set held-out results without a step: `held_out(**{"test avg@16": 0.31})`. Shown until replaced."""
        self._shown |= values

    def advance(self, units: float = 1.0) -> None:
        """Count `units` of finished work; the time since the last call is what they took."""
        now = monotonic()
        keep = 0.5 ** (units / max(MEMORY * self.total_units, 1e-9))
        self._seconds = keep * self._seconds + (now - self._last_advance)
        self._units = keep * self._units + units
        self._last_advance = now
        self.done_units += units

    def skip(self, units: float) -> None:
        """Count planned work that was not needed (a stage that stopped early): no time is learnt from it."""
        self.done_units += units
        self._last_advance = monotonic()

    def seconds_left(self) -> float | None:
        """Estimated seconds to the end of the run; None before any work was timed."""
        left = self.total_units - self.done_units
        if self._units <= 0.0 or left < 0.0:
            return None
        ahead = left * self._seconds / self._units
        # Time already spent on the unit at work is no longer ahead, but a slow unit must not eat the others' share.
        at_work = min(monotonic() - self._last_advance, min(1.0, left) * self._seconds / self._units)
        return max(0.0, ahead - at_work)

    def _keep(self) -> None:
        if self.kept is None or self._where is None or monotonic() - self._last_kept < KEEP_SECONDS:
            return
        self._last_kept = monotonic()
        known = dict(zip(("stage", "iteration", "step", "steps"), self._where, strict=True))
        with suppress(OSError):  # a full disk is the run's own to tell
            write_atomically(self.kept, json.dumps({**known, "seconds_left": self.seconds_left()}) + "\n")

    def line(self) -> str:
        """What is known now, as one plain line."""
        return "  ".join(filter(None, [self._place(), *self._figures(), self._left()]))

    def _left(self) -> str:
        seconds = self.seconds_left()
        return "" if seconds is None else f"{timedelta(seconds=round(seconds))} left"

    def _place(self) -> str:
        if self._where is None:
            return "starting"
        stage, iteration, done, total = self._where
        turn = "" if iteration is None else f" {iteration + 1}"
        return f"{stage}{turn}  step {done}/{total}"

    def _figures(self) -> list[str]:
        figures = []
        for name, value in self._shown.items():
            if name == "tokens_per_second":
                figures.append(f"{value:,.0f} tokens/s")
            elif "@" in name:
                figures.append(f"{name} {value:.3f}")
            else:
                figures.append(f"{name.replace('_', ' ')} {_number(value)}")
        return figures

    def _write_late_line(self) -> None:
        """The last step of a stage is always written, also where its line came too soon after another one."""
        late, self._late = self._late, []
        self._write(*late)

    def _write(self, *lines: str) -> None:
        self._waiting += lines
        line = ""
        try:
            while self._waiting:
                line = self._waiting.pop(0)
                print(line, file=self._stream, flush=True)
        except IndexError:
            pass  # another thread, which speaks for a tracker, has just written it
        except RuntimeError:
            # A signal handler speaks while the stream is in the middle of a write ("reentrant call"): said next time.
            self._waiting.insert(0, line)
        except BrokenPipeError:
            # Whoever read the lines has gone (`| head`); the run is worth more than its progress lines.
            self._stream = open(os.devnull, "w")  # noqa: SIM115

    def _render(self) -> Group:
        share = min(1.0, self.done_units / self.total_units) if self.total_units > 0 else 0.0
        head = Table.grid(padding=(0, 2))
        # The bar comes first, so that nothing before it changes width and makes it jump.
        bar = ProgressBar(total=1.0, completed=share, width=30)
        head.add_row(bar, f"{share:4.0%}", self._left(), Text(self._place(), style="bold"))
        return Group(head, Text("  ".join(self._figures()), no_wrap=True, overflow="ellipsis"))


def _number(value: Any) -> str:
    return f"{value:.3f}" if value == 0 or 0.01 <= abs(value) < 1000 else f"{value:.3g}"
