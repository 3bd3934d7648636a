"""The tables of docs/speed.md on more than one process: branches on Ray, ranks, and the simulator of a run's hours."""

from __future__ import annotations

from statistics import median
from typing import Any

import simulated
from cells import digits, machine, ratio, read, seconds, table
from pairs import RESULTS


def scale() -> str:
    """Nothing while it hasn't been measured."""
    if not (RESULTS / "scale.json").is_file():
        return ""
    found = read("scale")
    work, parts, sent = found["workload"], found["parts"], found["traffic"]
    rows = [[name, f"{digits(median(took))} s"] for name, took in parts.items()]
    stored = [
        [one["model"], f"{one['rollouts']:,}", f"{one['tokens']:,}", f"{one['bytes'] / one['tokens']:.1f}"]
        for one in sent["stored"]
    ]
    return f"""## More than one process: `scale.py`
{work["branches"]} explorations side by side on a Ray of this machine against the same in turn ({machine(found)}, in each):
in turn they take {ratio(found)} times as long, {seconds(found, "peer")} against {seconds(found, "ours")}, for
{work["steps"]} steps of {work["problems"]} x {work["group"]} responses of the bundled model. The rollouts are the same
to the bit.

{table(("of it", "seconds"), rows)}
In that iteration {sent["bytes_out"] / 1e6:.1f} MB of weights went out and {sent["bytes_back"] / 1e6:.1f} MB of text
came back. One RL run over the {sent["machines"]} machines would have summed its gradients {sent["updates"]} times: at
least {sent["synchronous_bytes"] / 1e6:,.0f} MB, {digits(sent["times_as_many"])} times as much. What text takes as it is
stored:

{table(("model", "rollouts", "tokens", "bytes a token"), stored)}
{ranks(found["ranks"])}"""


def ranks(found: dict[str, Any]) -> str:
    """Two ranks against one process: what they take for each part of a step."""
    work = found["workload"]
    rows = [
        [name, *(f"{digits(took[part])} s" for part in ("load", "sample", "learn"))]
        for name, took in found["parts"].items()
    ]
    return f"""{work["ranks"]} ranks with a thread each (torchrun, FSDP2 over gloo) against {found["peer"]}, an RL step of
{work["problems"]} x {work["group"]} responses, {work["tokens"]:,} tokens: the one process takes {ratio(found)} times as
long. Loading is where ranks gather the weights and compare them.

{table(("side", "load", "sample", "learn"), rows)}"""


def simulator() -> str:
    rows = [
        [
            one.work,
            one.part,
            f"{digits(one.measured)} s",
            f"{digits(one.simulated)} s",
            digits(one.simulated / one.measured),
        ]
        for one in simulated.compared()
    ]
    return f"""## The simulator of a run's hours: `simulated.py`
`--dry-run` reckons hours with it ([Scale](scale.md)). Here it has the rates of `reasonloop bench` and the work of the
files above: what it says against what was measured, in seconds.

{table(("work", "part", "measured", "simulated", "simulated / measured"), rows)}"""
