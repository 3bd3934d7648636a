"""A reward of the user's own that makes trouble where a file in $TROUBLE, named by branch, iteration and step, asks for it:
"wait" for as long as the file is there, "die" once, "die always", or "raise". It keeps a list of the steps that it saw."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def reward(problem: Any, rollout: Any) -> float:
    folder, step = Path(os.environ["TROUBLE"]), f"{rollout.branch}-{rollout.iteration}-{rollout.step}"
    told = folder / step
    if rollout.sample == 0:
        with (folder / "seen").open("a") as file:
            file.write(f"{step} {os.getpid()}\n")
    order = told.read_text() if told.is_file() else ""
    if order == "wait":
        import ray

        (folder / f"{step}.waiting").write_text(ray.get_runtime_context().get_node_id())
        while told.is_file():
            time.sleep(0.05)
    elif order.startswith("die"):
        if order == "die":
            told.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    elif order == "raise":
        raise ValueError("broken on purpose")
    return float(rollout.right)
