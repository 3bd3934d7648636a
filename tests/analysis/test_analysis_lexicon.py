"""The lexicon against its own examples and the hand-labelled sample."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reasonloop.analysis.behaviours import language_behaviours
from reasonloop.analysis.lexicon import BEHAVIOURS, LEXICON, Phrase

EVIDENCE = Path(__file__).parents[2] / "evidence" / "behaviours"
SAMPLE = [json.loads(line) for line in (EVIDENCE / "sample.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("phrase", LEXICON, ids=lambda phrase: phrase.example)
def test_every_pattern_finds_its_example(phrase: Phrase) -> None:
    assert re.search(phrase.pattern, phrase.example.lower())
    assert language_behaviours(phrase.example).behaviours[phrase.behaviour] == 1


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_match_is_without_a_cue(data: st.DataObject) -> None:
    phrase = data.draw(st.sampled_from(LEXICON))
    match = data.draw(st.from_regex(phrase.pattern, fullmatch=True))
    assert any(cue in match for cue in phrase.cues.split("|")), (phrase.pattern, match)


def test_no_quantifier_is_unbounded() -> None:
    for phrase in LEXICON:
        assert not re.search(r"(?<!\\)[*+](?![^\[]*\])|\{\d+,\}", phrase.pattern), phrase.pattern


def test_the_committed_figures_are_those_of_this_lexicon() -> None:
    script = _precision_script()
    committed = json.loads((EVIDENCE / "precision.json").read_text(encoding="utf-8"))
    assert committed["lexicon_patterns"] == len(LEXICON)
    for half in ("first", "second"):
        assert committed[half] == script.score([row for row in SAMPLE if row["half"] == half])


def test_the_sample_is_large_mixed_and_labelled_by_known_names() -> None:
    assert len(SAMPLE) >= 160
    assert len({row["text"] for row in SAMPLE}) == len(SAMPLE)
    assert {name for row in SAMPLE for name in row["behaviours"]} == set(BEHAVIOURS)
    assert len([row for row in SAMPLE if row["source"].startswith("GSM8K (MIT) ")]) >= 40


@given(st.integers(1, 50), st.data())
def test_wilson_is_the_interval_whose_ends_are_z_away(total: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, total))
    script = _precision_script()
    low, high = script.wilson(hits, total)["ci95"]
    for end in (low, high):
        if 0.001 < end < 0.999:  # (share - end)^2 = z^2 end (1 - end) / n defines the score interval; ends are rounded
            distance = abs(hits / total - end) / (end * (1 - end) / total) ** 0.5
            assert distance == pytest.approx(script.Z, abs=0.03)


def _precision_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("behaviours_precision", EVIDENCE / "precision.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
