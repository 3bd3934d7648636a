"""What a run ends with on the terminal beside its table: who leads, and where something went wrong, what and why."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from reasonloop.analysis.diagnosis import diagnose
from reasonloop.evaluation.table import WIDTH
from reasonloop.report.findings import nothing_learned, shown_verdict
from reasonloop.report.headline import headline
from reasonloop.report.run import read_run
from reasonloop.report.sample import latest
from reasonloop.text import visible

_ASCII = str.maketrans({"−": "-", "\xa0": " "})

SHOWN = 300
"""Characters of a prompt (its end) and of a response (its start)"""


def ending(run_folder: Path) -> list[str]:
    """Lines of plain text, at most WIDTH wide; all but what models and tasks say is ASCII."""
    run = read_run(run_folder)
    findings = diagnose(run.evidence())
    told = [] if nothing_learned(findings) else headline(run)
    lines = [line for text in told for line in _wrapped(text)]
    for finding in findings:
        lines += [*([""] if lines else []), finding.title]
        lines += [line for text in finding.evidence for line in _wrapped(text, "  ")]
        lines += _wrapped(finding.why, "  ")
        lines += [line for text in finding.tries for line in _wrapped(text, "    ", "  - ")]
    verdict = shown_verdict(run, findings)
    for sample in latest(run, verdict) if verdict else []:
        lines += ["", *_sample(sample)]
    return [*lines, ""] if lines else []


def _sample(sample: dict[str, Any]) -> list[str]:
    told = f"{sample['verdict']}{': ' if sample['detail'] else ''}{sample['detail']}"
    rows = {"problem": sample["problem"], "prompt": sample["prompt"][-SHOWN:], "response": sample["text"][:SHOWN]}
    rows |= {
        "verifier": told + (", cut off" if sample["cut"] else ""),
        "gold": sample.get("gold", "not at hand")[:SHOWN],
    }
    return [line for name, text in rows.items() for line in _wrapped(visible(text), " " * 12, f"  {name:10}")]


def _wrapped(text: str, indent: str = "", first: str | None = None) -> list[str]:
    start = indent if first is None else first
    return textwrap.wrap(text.translate(_ASCII), WIDTH, initial_indent=start, subsequent_indent=indent)
