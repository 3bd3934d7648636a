"""The diagnosis at the report's top: what went wrong, with its numbers, its reason, samples, and what to try."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from reasonloop.analysis.diagnosis import Finding
from reasonloop.report.run import RunData

_CODE = re.compile(r"`([^`]+)`")


def findings_section(findings: Sequence[Finding], samples: bool) -> str:
    """Empty where nothing was found. `samples`: whether the page has some to show."""
    if not findings:
        return ""
    blocks = []
    for finding in findings:
        evidence, tries = _items(finding.evidence), _items(finding.tries)
        blocks.append(
            f'<h3>{escape(finding.title)}</h3><ul class="numbers">{evidence}</ul><p>{with_code(finding.why)}</p>'
            f"<p>What to try:</p><ul>{tries}</ul>"
        )
    cards = '<h3>What such responses look like</h3><div id="samples" class="cards"></div>' if samples else ""
    return f'<section id="diagnosis"><h2>Diagnosis</h2>{"".join(blocks)}{cards}</section>'


def _items(texts: Sequence[str]) -> str:
    return "".join(f"<li>{with_code(text)}</li>" for text in texts)


def with_code(text: str) -> str:
    """The text as HTML, what stands between backquotes as code."""
    return _CODE.sub(r"<code>\1</code>", escape(text))


def nothing_learned(findings: Sequence[Finding]) -> bool:
    return any(finding.name == "nothing-right" for finding in findings)


def shown_verdict(run: RunData, findings: Sequence[Finding]) -> str:
    """The verdict whose samples a reader should see to understand the findings; empty where numbers say it all."""
    names = {finding.name for finding in findings}
    counts = run.evidence().verdicts
    wrong = [verdict for verdict, _ in counts.most_common() if verdict != "right"]
    if "verifier" in names:
        wrong = [verdict for verdict in wrong if verdict in ("timeout", "crashed")]
    return wrong[0] if wrong and names - {"few-experts", "gradient"} else ""
