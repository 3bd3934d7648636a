"""Progress: what a pipe gets, when, and what becomes of the terminal."""

from __future__ import annotations

import io
import re

import pytest

from reasonloop.runs import progress
from reasonloop.runs.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "monotonic", clock)
    return clock


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal()


def test_a_pipe_gets_at_most_a_line_a_second_and_always_the_last_step(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(20, stream=out) as progress:
        for step in range(1, 21):
            clock.now += 0.25
            progress.step("explore", step, 20, iteration=1, units=1, reward=step / 20)
    lines = out.getvalue().splitlines()
    assert [re.search(r"step (\d+)/20", line)[1] for line in lines] == ["1", "5", "9", "13", "17", "20"]
    assert lines[0].startswith("explore 2  step 1/20  reward 0.050")
    assert "\x1b" not in out.getvalue()


def test_last_steps_of_stages_are_never_throttled_away(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(4, stream=out) as progress:
        for stage in ("explore", "rft", "eval"):
            progress.step(stage, 1, 9)
            progress.step(stage, 2, 9)
            progress.step(stage, 7, 9)
    assert [line.split("  step ") for line in out.getvalue().splitlines()] == [
        ["explore", "1/9"], ["explore", "7/9"], ["rft", "7/9"], ["eval", "7/9"],
    ]  # fmt: skip


def test_a_message_stands_behind_the_step_that_came_before_it(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(4, stream=out) as progress:
        for step in (1, 2, 3):
            progress.step("explore", step, 3)
        progress.say("evaluating")
        progress.step("rft", 1, 1)
    assert [line.split("  step ") for line in out.getvalue().splitlines()] == [
        ["explore", "1/3"], ["explore", "3/3"], ["evaluating"], ["rft", "1/1"],
    ]  # fmt: skip


def test_a_message_from_a_signal_handler_in_the_middle_of_a_write_is_said_later() -> None:
    class Interrupted(io.StringIO):
        busy = True

        def write(self, text: str) -> int:
            if self.busy:
                self.busy = False
                raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")
            return super().write(text)

    out = Interrupted()
    with Progress(2, stream=out) as progress:
        progress.say("stopping after the next checkpoint")
        progress.say("stopped")
    assert out.getvalue().splitlines() == ["stopping after the next checkpoint", "stopped"]


def test_held_out_results_stay_and_training_values_go_with_their_stage(clock: Clock) -> None:
    with Progress(10, stream=io.StringIO()) as progress:
        progress.step("explore", 1, 5, reward=0.4, tokens_per_second=12345.0)
        progress.held_out(**{"test avg@16": 0.31})
        progress.held_out(**{"probe avg@8": 0.25})
        assert "reward 0.400  12,345 tokens/s  test avg@16 0.310  probe avg@8 0.250" in progress.line()
        progress.step("rft", 1, 5, loss=0.002)
        assert "test avg@16 0.310  probe avg@8 0.250  loss 0.002" in progress.line()
        assert "reward" not in progress.line()


def test_time_left_of_steady_work_is_exact_and_counts_down_between_steps(clock: Clock) -> None:
    progress = Progress(100, stream=io.StringIO())
    assert progress.seconds_left() is None
    for _ in range(40):
        clock.now += 3.0
        progress.advance()
    assert progress.seconds_left() == pytest.approx(180.0)
    clock.now += 2.0
    assert progress.seconds_left() == pytest.approx(178.0)
    clock.now += 1000.0
    assert progress.seconds_left() == pytest.approx(177.0)


def test_a_resumed_run_learns_its_speed_from_its_own_work_only(clock: Clock) -> None:
    progress = Progress(100, stream=io.StringIO())
    progress.skip(90)
    assert progress.seconds_left() is None
    clock.now += 2.0
    progress.advance()
    assert progress.seconds_left() == pytest.approx(18.0)


def test_the_estimate_follows_a_change_of_speed_and_ignores_skipped_work(clock: Clock) -> None:
    progress = Progress(1000, stream=io.StringIO())
    for seconds in (1.0,) * 300 + (4.0,) * 300:
        clock.now += seconds
        progress.advance()
    assert progress.seconds_left() == pytest.approx(400 * 4.0, rel=0.15)
    before = progress.seconds_left()
    progress.skip(200)
    assert progress.seconds_left() == pytest.approx(before / 2)
    progress.skip(500)
    assert progress.seconds_left() is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_terminal_is_given_back_however_the_block_ends(terminal: Terminal, error: type[BaseException]) -> None:
    def work(progress: Progress) -> None:
        with progress:
            progress.step("explore", 1, 3, units=1, reward=0.5)
            progress.say("[bold]saved[/bold] to a [file]")
            raise error

    progress = Progress(3, stream=terminal)
    with pytest.raises(error):
        work(progress)
    shown = terminal.getvalue()
    assert "[bold]saved[/bold] to a [file]" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_no_color_is_respected(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    colours = re.compile(r"\x1b\[(?:\d+;)*(?:3|4|9|10)\d")
    with Progress(3, stream=terminal) as progress:
        progress.skip(1)
    assert colours.search(terminal.getvalue())
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    with Progress(3, stream=plain) as progress:
        progress.skip(1)
    assert not colours.search(plain.getvalue())


def test_a_dumb_terminal_gets_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with Progress(3, stream=terminal) as progress:
        progress.step("sft", 3, 3, units=3)
    assert "\x1b" not in terminal.getvalue()
    assert "sft  step 3/3" in terminal.getvalue()


def test_a_reader_that_leaves_does_not_end_the_run() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with Progress(2, stream=Closed()) as progress:
        progress.step("explore", 1, 1, units=1)
        progress.say("still here")
    assert progress.done_units == 1
