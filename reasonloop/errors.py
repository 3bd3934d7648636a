"""The two ways in which a command fails: what the user gave is wrong (exit 2), or the run could not go on (exit 1)."""


class InputError(Exception):
    """Bad input. The message is one line: the file, line or key; what was got; what was expected. Exit code 2."""


class Unavailable(InputError):
    """What the input names may well be there, but can't be had from here and now: there is no network, say."""


class RunError(Exception):
    """The run failed. The message says what happened and what to do next. Exit code 1."""


class Diverged(RunError):
    """A policy in training gives what is no number any more. The message says what; a run adds where, and what to do."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: training has diverged; lower the learning rate")
        self.what = what


class Stopped(Exception):
    """The run was asked to stop (Ctrl-C, SIGTERM) and stopped after a checkpoint; the same command goes on from there."""


def first_line(error: BaseException) -> str:
    """What a library's error says, short enough for a line of ours."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
