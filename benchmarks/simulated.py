"""The simulator of a run's loop (`reasonloop.runs.clock`) against what the other benchmarks measured: seconds of both.

    python benchmarks/simulated.py

Rates are those of `reasonloop bench` with the same model; work is that of each result file. Nothing is timed here.
`benchmarks/tables.py` and `tests/runs/test_clock.py` read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from pairs import RESULTS

from reasonloop.planning.measured import rates_of_bench
from reasonloop.runs import clock
from reasonloop.runs.clock import Rates, Step

STEPS = {"step": "countdown", "step-mixed": "countdown", "step-smollm2": "smollm2"}
"""Result files of whole steps, and the model whose bench has their rates"""
SAMPLES = ("sample-smollm2-small", "sample-smollm2", "sample-smollm2-large")


@dataclass(frozen=True)
class Compared:
    """Seconds of a part."""

    file: str
    work: str
    part: str
    measured: float
    simulated: float


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def took(result: dict[str, Any], side: str = "ours") -> float:
    return median(pair[side] for pair in result["pairs"])


def compared() -> list[Compared]:
    there = (RESULTS / "scale.json").is_file()
    return [*steps(), *samples(), *engines(), *(scale() if there else ())]


def steps() -> Iterator[Compared]:
    """Sampling, learning and the whole of RL steps: `step.py`."""
    for name, model in STEPS.items():
        result, rates = read(name), rates_of_bench(read(f"bench-{model}"))
        work = result["workload"]
        one = Step(
            responses=work["problems"] * work["group"],
            group=work["group"],
            prompt=work["prompt_tokens"],
            mean=work["response_tokens"],
            most=work["longest"],
            taught=work["mixed_groups"],
        )
        parts = clock.step(one, rates)
        sampled, whole = median(result["sampling_seconds"]["ours"]), took(result)
        said = f"an RL step, {work['model']}, {one.responses} responses"
        said += f", {work['mixed_groups']:.0%} of the groups mixed" if work["mixed_groups"] < 1 else ""
        yield Compared(name, said, "sampling", sampled, parts["sampling"])
        yield Compared(name, said, "learning", whole - sampled, parts["learning"])
        yield Compared(name, said, "all of it", whole, clock.total(parts))


def samples() -> Iterator[Compared]:
    """Sampling 1 to 256 responses, equal and long-tailed, alone and in groups: `sample.py`."""
    rates = rates_of_bench(read("bench-smollm2"))
    for name in SAMPLES:
        for one in read(name)["workloads"]:
            work, seconds = one["workload"], took(one)
            if one["peer"] != "transformers generate":  # the same runs of ours stand beside each peer
                continue
            count, mean = work["batch"], seconds * one["tokens_per_second"]["ours"] / work["batch"]
            drawn = (mean,) * count if work["lengths"] == "equal" else clock.lengths(count, mean, 4 * work["response"])
            group = 8 if work["prompts"] == "shared" else 1
            said = f"{work['model']}, {count} response{'s' * (count > 1)}, {work['prompts']} prompts, {work['lengths']}"
            yield Compared(name, said, "sampling", seconds, clock.sampling(drawn, group, work["prompt"], rates))


def engines() -> Iterator[Compared]:
    """A step from the parts that `engines.py` timed in it, by either engine."""
    result = read("engines")
    work, tokens = result["workload"], result["workload"]["tokens"]
    for side, name in (("ours", "native"), ("peer", "vllm")):
        parts = result["parts"][name]
        rates = Rates(0.0, parts["sample"] / tokens, 0.0, parts["learn"] / tokens, 0.0, load=parts["load"])
        count = work["problems"] * work["group"]
        one = Step(count, work["group"], 0.0, tokens / count, tokens)
        said = f"an RL step, {work['model']}, engine {name}, from its own parts"
        yield Compared("engines", said, "all of it", took(result, side), clock.total(clock.step(one, rates)))


def scale() -> Iterator[Compared]:
    """Branches from their own steps, and a step of several ranks from that of one: `scale.py`."""
    result = read("scale")
    work, parts = result["workload"], result["parts"]
    said = f"{work['branches']} branches of {work['model']}"
    for side, seconds, each in (
        ("Ray", took(result), median(parts["longest branch's steps"]) + median(parts["beginning and handing over"])),
        ("in turn", took(result, "peer"), median(parts["all steps, in turn"])),
    ):
        yield Compared("scale", f"{said}, {side}, from their steps", "all of it", seconds, each)
    found = result["ranks"]
    work, alone, ranks = found["workload"], found["parts"]["one thread"], found["parts"]["ranks"]
    count, tokens, exchanged = (
        work["problems"] * work["group"],
        work["tokens"],
        ranks["learn"] - alone["learn"] / work["ranks"],
    )
    rates = Rates(0.0, alone["sample"] / tokens, 0.0, alone["learn"] / tokens, 0.0, ranks["load"], max(0.0, exchanged))
    whole = clock.total(clock.step(Step(count, work["group"], 0.0, tokens / count, tokens), rates, work["ranks"]))
    said = (
        f"an RL step of {work['ranks']} ranks, {work['model']}: sampling from one thread's, the rest from its own parts"
    )
    yield Compared("scale", said, "all of it", took(found), whole)


def main() -> None:
    for one in compared():
        apart = one.simulated / one.measured
        print(f"{one.work:62} {one.part:10} {one.measured:8.3f} s {one.simulated:8.3f} s {apart:5.2f}  {one.file}")


if __name__ == "__main__":
    main()
