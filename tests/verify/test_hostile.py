"""A part of the hostile campaigns (benchmarks/hostile), so that they stay what they are: all of it takes a minute."""

from __future__ import annotations

import sys
from pathlib import Path

from sandboxes import needs_namespaces

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from hostile import answers, programs

QUICK = ("crashes", "ends", "ends of loops", "environment", "memory", "monkey-patching", "network", "writing outside")


@needs_namespaces
def test_hostile_programs_are_contained_and_told_for_what_they_are():
    found = programs.campaign(seed=3, deadline=1.5, normals=20, families=QUICK)
    assert (found["programs"], found["normal_kept"], found["exit_code"]) == (29, 20, 0), found
    for count in ("forged", "escaped", "canaries", "left_running", "lost"):
        assert not found[count], found


def test_poison_costs_no_other_answer_its_verdict():
    evil = [(answer, "5", None) for answer in (*answers.texts(), *answers.long_texts()[:8], *answers.towers()[:4])]
    found = answers.campaign(seed=3, deadline=2.0, normals=40, evil=evil)
    assert (found["poison"], found["normal_kept"], found["exit_code"]) == (48, 40, 0), found
    for count in ("forged", "changed", "lost"):
        assert not found[count], found
