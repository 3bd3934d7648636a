"""The page's sections of plots, in reading order: what each is about, and where its figures stand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

from reasonloop.report.figures import FEW_SOLVED, Figure

Section = tuple[str, str, str, Mapping[str, tuple[str, str]]]
TRADEOFF: Section = (
    "tradeoff-section",
    "What is traded for what?",
    "Right is better, up is better. Each line begins at the policy that RL started from; its marks are the same arm after "
    "more rollouts, and crosses their 95 % intervals. A dashed line joins averages of an arm's weights with its start's. "
    "Any method can be moved along its line, by stopping earlier or by averaging: what counts is whose line lies above.",
    {"tradeoff": ("{metric}", "held-out problems")},
)

# The page's sections: id, title, the sentences that a reader needs, and by figure's id (or group) its heading and unit.
SECTIONS: list[Section] = [
    (
        "overfitting",
        "Does it generalise?",
        "Reward on the training problems against accuracy on held-out ones, over the rollouts spent. Reward that rises "
        "while held-out accuracy, above all pass@k, stalls or falls is RL overfitting.",
        {
            "reward": ("Training reward", "mean over a step's rollouts"),
            "held-out-avg": ("Held-out {metric}", "95 % intervals"),
            "held-out-pass": ("Held-out {metric}", "95 % intervals"),
        },
    ),
    TRADEOFF,
    (
        "pass-at-k-section",
        "Solved with k tries",
        "pass@k is the chance that at least one of k samples is right: k = 1 is everyday accuracy, a large k shows "
        "which problems a policy can reach at all. Bands are 95 % intervals over problems.",
        {"pass-at-k": ("pass@k on held-out problems", "k on a logarithmic axis")},
    ),
    (
        "specialisation",
        "Does it over-specialise?",
        "A policy that over-specialises is better on what it trained on than on the rest (the gap grows), and says the same "
        "whenever it is asked (more tries are worth less). Training accuracy is that of the nearest RL steps.",
        {
            "gap": ("Training minus held-out accuracy", "95 % intervals over held-out problems"),
            "spread": ("{metric}", "held-out; 95 % intervals"),
        },
    ),
    (
        "scaling-section",
        "What does each iteration add?",
        "The gain over the policy that RL started from, problem by problem, after each iteration; an arm without iterations "
        "stands where it has spent as many rollouts.",
        {
            "scaling-avg": ("Gain in held-out {metric}", "paired 95 % intervals"),
            "scaling-pass": ("Gain in held-out {metric}", "paired 95 % intervals"),
        },
    ),
    (
        "forgetting-section",
        "What is forgotten",
        "A problem is solved where at least half of a policy's samples are right. A cell counts the problems that the row's "
        f"policy solves and the column's doesn't; the darker, the larger their share. Grey: of fewer than {FEW_SOLVED} that "
        "the row's solves, too few for a share. Right of the diagonal is what was forgotten, left of it what wasn't learned "
        "yet.",
        {"forgetting": ("Solved by the row's policy, not by the column's", "of the problems that the row's solves")},
    ),
    (
        "diversity-section",
        "Do policies of different steps solve problems differently?",
        "1 − similarity (shared runs of four tokens) of right responses to the same training problem: on the diagonal two "
        "samples of one step, off it one response of each stretch of steps. What is off the diagonal is the diversity that "
        "experts of all steps have and the last policy has lost.",
        {
            "diversity": ("Diversity between steps, {arm}", "0: the same, 1: nothing in common"),
        },
    ),
    (
        "stability",
        "Is training stable?",
        "Spikes of the gradient norm announce collapses; entropy that runs to zero means that the policy has stopped "
        "exploring.",
        {
            "grad-norm": ("Gradient norm", "before clipping"),
            "entropy": ("Entropy", "nats per token"),
            "kl": ("KL divergence", "nats per token, to the policy that RL started from"),
            "loss": ("Fine-tuning loss", "nats per response token"),
        },
    ),
    (
        "responses",
        "What the responses are like",
        "Length in tokens and what the verifier said, over the RL steps.",
        {
            "length": ("Response length", "mean tokens"),
            "verdicts": ("Verdicts, {arm}", "share of rollouts"),
        },
    ),
    (
        "parts",
        "What the reward is made of",
        "The mean of each part over a step's rollouts: a part that rises while the outcome doesn't is being played.",
        {
            "parts": ("Reward parts, {arm}", "before weighting"),
        },
    ),
    (
        "behaviours-section",
        "How it reasons",
        "Reasoning behaviours per 1,000 response tokens over the RL steps.",
        {
            "behaviours": ("Behaviours, {arm}", "in right responses, per 1,000 tokens"),
        },
    ),
]


_HEADING = re.compile(r'<section id="([^"]+)"><h2>(.*?)</h2>')


def contents(sections: Sequence[str]) -> str:
    """A page's table of contents: links to those of its sections that there are."""
    links = "".join(
        f'<li><a href="#{found[1]}">{found[2]}</a></li>' for text in sections if (found := _HEADING.match(text))
    )
    return f'<nav aria-label="Contents"><ol>{links}</ol></nav>' if links else ""


def plots_section(
    name: str,
    title: str,
    text: str,
    shown: Mapping[str, tuple[str, str]],
    figures: Sequence[Figure],
    notes: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Headings and places for those of the `shown` figures (by id, or by group) that there are; empty where there is none.

    `notes`: sentences by section.
    """
    plots = []
    for kind, (heading, unit) in shown.items():
        for figure in (figure for figure in figures if figure.get("group", figure["id"]) == kind):
            told = escape(heading.format(metric=figure.get("metric", ""), arm=figure.get("arm", "")))
            rows, place = figure.get("forest") or figure.get("rows"), escape(figure["id"])
            height = f' style="height:{90 + 36 * max(rows, 3)}px"' if rows else ""
            plots.append(
                f"<figure><figcaption><b>{told}</b> <span>{escape(unit)}</span></figcaption>"
                f'<div class="legend" data-legend="{place}"></div>'
                f'<div class="plot" data-figure="{place}" role="img" aria-label="{told}"{height}></div></figure>'
            )
    if not plots:
        return ""
    grid = f"grid-{min(len(plots), 3)}" if len(plots) != 4 else "grid-2"
    points = "".join(f"<li>{escape(note)}</li>" for note in (notes or {}).get(name, ()))
    return (
        f'<section id="{name}"><h2>{escape(title)}</h2><p>{escape(text)}</p>'
        f'{f"<ul>{points}</ul>" if points else ""}<div class="plots {grid}">{"".join(plots)}</div></section>'
    )
