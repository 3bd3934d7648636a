"""What a run shows while it works: a live display on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

# The estimate forgets with a length of this share of the run: long enough to be calm, short enough to notice that
# responses have grown longer.
MEMORY = 0.1
LINE_SECONDS = 1.0


class Progress:
    """Shows stage, step, reward, held-out avg@k, speed and time left of a run of `total_units` planned units of work.

    A unit is whatever the run plans with, best something that takes about equal time wherever it is spent. A resumed
    run passes the units that earlier processes finished as `done_units`: they count for the bar, not for the speed.
    Use it as a context manager: the terminal is restored however the block is left. Colour follows NO_COLOR.
    """

    def __init__(
        self,
        total_units: float,
        done_units: float = 0.0,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total_units = float(total_units)
        """May be set anew while the run goes on, when its plan changes."""
        self.done_units = float(done_units)
        self._stream = stream if stream is not None else sys.stderr
        self._unheard = False
        self._waiting: list[str] = []
        self._late_line: str | None = None
        self._clock = clock
        self._last_advance = clock()
        self._seconds = 0.0
        self._units = 0.0
        self._last_line = -LINE_SECONDS
        self._where: tuple[str, int | None, int, int] | None = None
        self._shown: dict[str, float] = {}
        self._console: Console | None = None
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        from rich.console import Console

        self._last_advance = self._clock()
        self._last_line = self._last_advance - LINE_SECONDS
        self._console = Console(file=self._stream, highlight=False, markup=False, emoji=False)
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            from rich.live import Live

            self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the display away and give the terminal back as it was. Does no harm when called twice."""
        self._write_late_line()
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def say(self, text: str) -> None:
        """Print a message that stays, above the live display or between the lines."""
        if self._live is not None and self._console is not None:
            self._console.print(text, soft_wrap=True)
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
        tokens_per_second, and held-out results such as {"avg@16": 0.31}; a value of an earlier step stays until it is
        replaced or its stage ends, a held-out one until it is replaced. None values are left out.
        """
        if self._where is None or self._where[:2] != (stage, iteration):
            self._write_late_line()
            self._shown = {name: value for name, value in self._shown.items() if "@" in name}
        self._where = (stage, iteration, done, total)
        self._shown |= {name: value for name, value in values.items() if value is not None}
        if units:
            self.advance(units)
        if self._live is not None:
            return
        now = self._clock()
        self._late_line = self.line()
        if now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            self._write_late_line()

    def held_out(self, **values: float) -> None:
        """Set held-out results without a step: `held_out(**{"avg@16": 0.31})`. Shown until replaced."""
        self._shown |= values

    def advance(self, units: float = 1.0) -> None:
        """Count `units` of finished work; the time since the last call is what they took."""
        now = self._clock()
        keep = 0.5 ** (units / max(MEMORY * self.total_units, 1e-9))
        self._seconds = keep * self._seconds + (now - self._last_advance)
        self._units = keep * self._units + units
        self._last_advance = now
        self.done_units += units

    def skip(self, units: float) -> None:
        """Count planned work that was not needed (a stage that stopped early): no time is learnt from it."""
        self.done_units += units
        self._last_advance = self._clock()

    def seconds_left(self) -> float | None:
        """Estimated seconds to the end of the run; None before any work was timed."""
        left = self.total_units - self.done_units
        if self._units <= 0.0 or left < 0.0:
            return None
        ahead = left * self._seconds / self._units
        # Time already spent on the unit at work is no longer ahead, but a slow unit must not eat the others' share.
        at_work = min(self._clock() - self._last_advance, min(1.0, left) * self._seconds / self._units)
        return max(0.0, ahead - at_work)

    def line(self) -> str:
        """What is known now, as one plain line."""
        parts = [self._place(), *self._figures()]
        left = self.seconds_left()
        return "  ".join([*parts, f"{_clock_text(left)} left"] if left is not None else parts)

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
                figures.append(f"held-out {name} {value:.3f}")
            else:
                figures.append(f"{name.replace('_', ' ')} {_number(value)}")
        return figures

    def _write_late_line(self) -> None:
        """The last step of a stage is always written, also where its line came too soon after another one."""
        line, self._late_line = self._late_line, None
        if line is not None:
            self._write(line)

    def _write(self, text: str) -> None:
        if self._unheard:
            return
        self._waiting.append(text)
        try:
            while self._waiting:
                print(self._waiting[0], file=self._stream, flush=True)
                self._waiting.pop(0)
        except RuntimeError:
            # A signal handler speaks while the stream is in the middle of a write ("reentrant call"): said next time.
            pass
        except BrokenPipeError:
            # Whoever read the lines has gone (`| head`); the run is worth more than its progress lines.
            self._unheard = True

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        share = min(1.0, self.done_units / self.total_units) if self.total_units > 0 else 0.0
        left = self.seconds_left()
        head = Table.grid(padding=(0, 2))
        # The bar comes first, so that nothing before it changes width and makes it jump.
        head.add_row(
            ProgressBar(total=1.0, completed=share, width=30),
            f"{share:4.0%}",
            f"{_clock_text(left)} left" if left is not None else "",
            Text(self._place(), style="bold"),
        )
        return Group(head, Text("  ".join(self._figures()), no_wrap=True, overflow="ellipsis"))


def _clock_text(seconds: float) -> str:
    """125 -> "2:05", 7325 -> "2:02:05"."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{s:02}" if hours else f"{minutes}:{s:02}"


def _number(value: Any) -> str:
    return f"{value:.3f}" if value == 0 or 0.01 <= abs(value) < 1000 else f"{value:.3g}"
