"""docs/speed.md, made from the committed result files:

python benchmarks/tables.py > docs/speed.md
"""

from __future__ import annotations

import re
from itertools import groupby
from statistics import median
from typing import Any

from cells import digits, machine, ratio, read, seconds, table
from scale_tables import scale, simulator

HEAD = """# Speed

How long do others take for the same work, on the same two CPU cores? Ratios say *how many times as long the other side
takes*: 1 is level, more is better for us.

Each is the median over pairs of timings, with the lowest and the highest pair in brackets. The sides take turns, in
float32. `benchmarks/results/*.json` names the machine, the versions and every timing; this page is made from these
files by `make docs`. **No GPU has been measured**: none was at hand.
"""


def main() -> None:
    sections = (
        summary,
        steps,
        engines,
        sampling,
        learning,
        limits,
        equal,
        ideas,
        matmul,
        verdicts,
        store,
        scale,
        simulator,
    )
    page = HEAD + "\n" + "\n".join(text for section in sections if (text := section()))
    print(re.sub(r"(?<=\d)%", " %", page), end="")


def summary() -> str:
    """The page in one table: the main workload of each section."""
    steps = {name: read(f"step{name}") for name in ("-mixed", "", "-avx2", "-smollm2")}
    samples, learned = read("sample-smollm2"), read("learn-smollm2")

    def sampled(prompts: str, lengths: str, peer: str) -> str:
        """64 responses' row in the table below."""
        (found,) = (
            one
            for one in samples["workloads"]
            if (one["workload"]["prompts"], one["workload"]["lengths"], one["peer"]) == (prompts, lengths, peer)
            and one["workload"]["batch"] == 64
        )
        return ratio(found)

    work = "sampling SmolLM2-135M, 64 responses"
    best, worst = ("shared", "long-tailed"), ("distinct", "equal")
    hugging_face, vllm = "transformers generate", "vLLM (CPU), blocks of 32"
    updates = {one["workload"]["kind"]: one for one in learned["workloads"]}
    rows = [
        ["a whole RL step, bundled model, as in real runs", "TRL", ratio(steps["-mixed"])],
        ["the same, no group of equal rewards", "TRL", ratio(steps[""])],
        ["that on a processor without AVX-512", "TRL", ratio(steps["-avx2"])],
        ["a whole RL step, SmolLM2-135M", "TRL", ratio(steps["-smollm2"])],
        [f"{work}, groups of 8, long-tailed", "transformers", sampled(*best, hugging_face)],
        [f"{work}, distinct prompts, equal lengths", "transformers", sampled(*worst, hugging_face)],
        [f"{work}, groups of 8, long-tailed", "vLLM, blocks of 32", sampled(*best, vllm)],
        [f"{work}, distinct prompts, equal lengths", "vLLM, blocks of 32", sampled(*worst, vllm)],
        ["an RL update, SmolLM2-135M", "TRL", ratio(updates["rl"])],
        ["an SFT update, SmolLM2-135M", "TRL", ratio(updates["sft"])],
    ]
    return f"""## In short

{table(("work", "against", "takes"), rows)}"""


def steps() -> str:
    rows, all_of_them, notes = [], [], []
    for name in ("step", "step-mixed", "step-smollm2", "step-avx2"):
        result = read(name)
        work, settings = result["workload"], result["peer_settings"]
        mixed = "all" if work["mixed_groups"] == 1 else f"{work['mixed_groups']:.0%}"
        tried = ", ".join(f"{how} {digits(sum(took.values()))} s" for how, took in settings["tried"].items())
        kernels = result["machine"]["kernels"].partition(",")[0]
        rows.append(
            [
                f"{work['model']}, {work['problems']} x {work['group']}, {work['response_tokens']:.0f} tokens",
                *(mixed, kernels),
                *(seconds(result, "ours"), seconds(result, "peer"), ratio(result), str(len(result["pairs"]))),
            ]
        )
        chosen = f"{settings['engine']}, {settings['responses_a_pass']} responses a pass"
        notes.append(f"- Row {len(rows)}: {chosen}" + (f". Tried: {tried}" if tried else "") + ".")
        all_of_them.append(result)
    settings_of_all = "\n".join(notes)
    return f"""## A whole RL step against TRL: `step.py`
Sample, verify, learn ({machine(*all_of_them)}). Work is problems x group, and the mean length of a response. Every
response's length is drawn and forced on both sides. Verdicts are stored ones, so that each group, or the share said,
has right and wrong responses. Groups of equal rewards never reach our forward pass, and do reach TRL's. A vector of 16
floats is AVX-512.

{table(("work", "mixed groups", "vector", "ours", "TRL", "TRL takes", "pairs"), rows)}
TRL's settings, the fastest of those tried:

{settings_of_all}
"""


def engines() -> str:
    found = read("engines")
    workload, parts = found["workload"], found["parts"]
    rows = [
        [name, *(f"{digits(one[part])} s" for part in ("load", "sample", "learn"))]
        for name, one in (("native", parts["native"]), ("vLLM", parts["vllm"]))
    ]
    kinds = list(dict.fromkeys(kind for one in found["mismatch"].values() for kind in one))
    apart = [[kind, *(f"{one[kind]:.2g}" for one in found["mismatch"].values())] for kind in kinds]
    return f"""## An RL step with the vLLM engine against the native one: `engines.py`
{workload["model"]}, {workload["problems"]} x {workload["group"]} responses, {workload["tokens"]:,} tokens
({machine(found)}), the same learner, forced lengths. With vLLM a step takes {ratio(found)} times as long.
Loading is what sends the weights.

{table(("engine", "load", "sample", "learn"), rows)}

How far apart the engine's and the learner's log-probs are, as the check of a run measures it, nats; weights are old by
updates at a rate of {found["rate"]:g}:

{table(("sampling, or age", *found["mismatch"]), apart)}"""


def sampling() -> str:
    names = ("sample-smollm2-small", "sample-smollm2", "sample-smollm2-large")
    results = [read(name) for name in names]
    peers = (
        "transformers generate",
        "transformers continuous batching",
        "vLLM (CPU)",
        "vLLM (CPU), blocks of 32",
    )
    measured = [one for result in results for one in result["workloads"]]
    measured.sort(key=lambda one: one["workload"]["batch"])
    rows = []
    for (batch, prompts, lengths), group in groupby(
        measured, key=lambda one: tuple(one["workload"][key] for key in ("batch", "prompts", "lengths"))
    ):
        of = {one["peer"]: one for one in group}
        first = next(iter(of.values()))
        rows.append(
            [
                f"{batch}, {'groups of 8' if prompts == 'shared' else 'distinct prompts'}, {lengths}",
                f"{first['tokens_per_second']['ours']:,.0f}",
                *(ratio(of[peer]) if peer in of else "" for peer in peers),
            ]
        )
    work = measured[0]["workload"]
    return f"""## Sampling against transformers and vLLM: `sample.py`
SmolLM2-135M, prompts of {work["prompt"]} tokens, responses of {work["response"]} on average ({machine(*results)}); all
responses of a row are given at once. "Equal": all of the same length. "Long-tailed": drawn from a log-normal, at most
4 times the mean. Ours also keeps every token's log-prob. vLLM shares prompts by blocks of 128 tokens unless told
otherwise; with blocks of 32 it shares these, too.

{table(("responses", "ours, tokens/s", "`generate`", "continuous batching", "vLLM", "vLLM, blocks of 32"), rows)}"""


def learning() -> str:
    result = read("learn-smollm2")
    rows = [
        [
            f"{one['workload']['kind'].upper()}, {one['workload']['responses']} responses, "
            f"{one['workload']['packed_tokens']:,} tokens packed",
            *(seconds(one, "ours"), seconds(one, "peer"), ratio(one)),
            f"{one['share_of_peak']['ours']:.0%} and {one['share_of_peak']['TRL']:.0%}",
            f"{one['share_of_torch_peak']['ours']:.0%} and {one['share_of_torch_peak']['TRL']:.0%}",
        ]
        for one in result["workloads"]
    ]
    return f"""## Learning against TRL: `learn.py`
A whole update of SmolLM2-135M on the same tokens ({machine(result)}), TRL with
{result["peer_settings"]["responses_a_pass"]} responses a forward pass. Shares are of the best float32 rate of matrix
products measured in the same run: by our kernels ({result["peak_gflops"]:.0f} GFLOP/s), and by torch
({result["torch_peak_gflops"]:.0f}), ours and TRL's.

{table(("workload", "ours", "TRL", "TRL takes", "of our products' peak", "of torch's"), rows)}"""


def limits() -> str:
    rows, found = [], []
    for name in ("bench-smollm2", "bench-countdown"):
        result = read(name)
        found.append(result)
        model = result["model"]["name"]
        for one in result["sampling"]:
            rows.append(
                [
                    f"{model}: decoding {one['batch']} at once",
                    f"{one['decoded_per_second']:,.0f} tokens/s",
                    f"{one['share_of_ceiling']:.2f} times torch's matrix products alone; "
                    f"{one['share_of_laid_out_ceiling']:.0%} of our own; "
                    f"{one['share_of_bandwidth']:.0%} of the memory's bandwidth",
                ]
            )
        for one in result["training"]:
            rows.append(
                [
                    f"{model}: {one['kind'].upper()} update, {one['stream_tokens']:,} tokens packed",
                    f"{one['tokens_per_second']:,.0f} trained tokens/s",
                    f"{one['share_of_torch_peak']:.0%} of the peak of torch's products; {one['share_of_peak']:.0%} of ours'",
                ]
            )
    return f"""## Against the machine's limits: `reasonloop bench`
{machine(*found)}. torch's products come from MKL, which has AVX-512 for Intel's processors alone: so ours may pass
"the peak" of torch's.

{table(("work", "rate", "share"), rows)}"""


def equal() -> str:
    rows = []
    for name in ("equal", "equal-smollm2"):
        for one in read(name)["workloads"]:
            largest, updates = one["largest_difference"], one["updates"]["ours"]
            (first, other) = (side[0]["loss"] for side in one["updates"].values())
            losses = max(abs(update["loss"]) for update in updates)
            norms = max(update["grad_norm"] for update in updates)
            rows.append(
                [
                    f"{one['workload']['model']}: {one['workload']['kind'].upper()}, {len(updates)} updates",
                    f"{abs(first - other):.1g}",
                    f"{largest['loss']:.1g}, of at most {losses:.2g}",
                    f"{largest['grad_norm'] or 0:.1g}, of at most {norms:.3g}",
                ]
            )
    return f"""## The same results: `equal.py`
The same updates on the same rollouts by TRL's trainers and by ours: differences. At the first update the weights are
the same; AdamW's first steps, of the size of the rate whatever the gradient, enlarge what rounding has left. That the
right tokens are drawn is a chi-square test over 100,000 draws in the test suite (`tests/engine/test_draw.py`).

{table(("workload", "loss of the first update", "loss of any", "gradient norm of any"), rows)}"""


def ideas() -> str:
    result = read("ideas")
    rows = [[one["workload"]["idea"], one["peer"], ratio(one)] for one in result["workloads"]]
    return f"""## What single ideas are worth: `ideas.py`
The same work with the idea and without it, bundled model ({machine(result)}). Below 1 the idea loses time: the static
cache's rival neither draws nor keeps log-probs, and logits in chunks are for memory.

{table(("idea", "without it", "takes without it"), rows)}"""


def matmul() -> str:
    ours = read("matmul")
    rows = []
    for one in ours["workloads"]:
        rates = {side: median(found) for side, found in one["gflops"].items()}
        rows.append(
            [
                f"{one['workload']['model']}: {one['workload']['product']}",
                *(f"{rates[side]:.0f}" for side in ("ours", "torch", "oneDNN")),
                ratio(one),
            ]
        )
    return f"""## Matrix products: `matmul.py`
The learner's, 2,048 tokens, GFLOP/s ({machine(ours)}):

{table(("product", "ours", "torch", "oneDNN", "torch takes"), rows)}"""


def verdicts() -> str:
    result = read("verify")
    rows = [
        [
            f"{one['workload']['data']}: {one['workload']['responses']:,} responses",
            one["peer"],
            ratio(one),
            f"{one['verdicts_per_second']['ours']:,.0f}",
            str(len(one["disagreements"])),
            f"{one['judged_by_the_worker']:,}",
        ]
        for one in result["workloads"]
    ]
    before = ""
    if "before" in result:
        one = result["before"]
        before = f"\nOn GSM8K's responses {one['peer']}, the comparison before, takes {ratio(one)} times as long.\n"
    return f"""## Verdicts against math-verify: `verify.py`
One worker ({machine(result)}). Whole responses, and expressions (fractions, roots, pairs, intervals).

{table(("workload", "against", "it takes", "our verdicts/s", "judged otherwise", "by the worker"), rows)}
{before}
{accuracy(result["accuracy"])}"""


def accuracy(found: dict[str, Any]) -> str:
    """Whether verdicts are right: on handed cases, and on gold answers written otherwise."""
    handed, written = found["cases"], found["rewritings"]
    cases = [
        [name, f"{one['cases']}", str(one["right_refused"]), str(one["wrong_paid"])]
        for name, one in handed["bare"].items()
    ]
    sides = list(handed["bare"])
    rows = [
        [
            name if one["keeps_the_value"] else f"*{name}*",
            str(one["pairs"]),
            *(str(one["faults"][side]) for side in sides),
        ]
        for name, one in written.items()
    ]
    missed = handed["not_as_expected"]
    named = "; ".join(f"`{one['answer']}` for `{one['gold']}`" for one in missed)
    told = f"Not as expected: {named}." if missed else "All of ours are as expected."
    return f"""## Accuracy of verdicts
{handed["cases"]} cases that people stumbled over, decided by hand (they are no sample: the shares are no error rates).
{told} Of the bare ones, which math-verify is given in a box:

{table(("verifier", "cases", "right answers refused", "wrong answers paid"), cases)}

Gold answers of {" and ".join(found["files"])} ({found["golds"]:,} distinct ones) written otherwise: verdicts that are
not what they have to be. Rewritings in italics change the value: there a fault is a wrong answer that is paid.

{table(("rewriting", "pairs", *sides), rows)}"""


def store() -> str:
    result = read("store")
    chosen = result["selection"]
    rows = [
        [
            f"{result['workload']['rollouts']:,} rollouts, {result['workload']['problems']:,} problems",
            f"{result['written_per_second']:,} rollouts/s",
            f"{chosen['seconds']:.0f} s",
            f"{chosen['peak_bytes'] / 1e9:.1f} GB",
        ]
    ]
    return f"""## The store: `store.py`
{machine(result)}.

{table(("store", "written", "experts selected in", "peak memory"), rows)}"""


if __name__ == "__main__":
    main()
