"""`reasonloop track`: a run's metrics into trackers afterwards, or from another terminal while it goes on."""

from __future__ import annotations

import sys
import time
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from reasonloop.config import Track, validated
from reasonloop.errors import InputError, RunError
from reasonloop.files import read_object
from reasonloop.track.processes import Followers
from reasonloop.track.registry import check_trackers

SECONDS = 1.0
"""Between two looks at whether the run is done"""


def track_run(folder: Path, given: Mapping[str, Any], follow: bool = False) -> None:
    """Sends what the run in `folder` has written down; with `follow` until it is done, or Ctrl-C. `given`: options of
    `[track]`, laid over those that the run has.

    Raises InputError where there is no run or no such tracker, RunError where a tracker hasn't got everything.
    """
    file = folder / "config.toml"
    if not file.is_file():
        raise InputError(f"{folder}: no run folder (no config.toml in it)")
    try:
        own = tomllib.loads(file.read_text(encoding="utf-8")).get("track", {})
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from None
    if not isinstance(own, dict):
        raise InputError(f"{file}: track = {own!r}; expected a table [track]")
    track = validated(Track, {**own, **given}, "track")
    if not track.to:
        raise InputError("track: the run's recipe names no tracker; expected some: --to wandb trackio tensorboard")
    check_trackers(track.to)
    sending = Followers(folder, track, lambda line: print(line, file=sys.stderr, flush=True), again=True, seconds=1e9)
    with sending, suppress(KeyboardInterrupt):
        while follow and read_object(folder / "state.json").get("stage") != "done":
            time.sleep(SECONDS)
    if sending.failed:
        raise RunError(f"not everything was sent to {', '.join(sending.failed)}")
