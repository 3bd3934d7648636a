"""The sample files in `cases`, in the layouts of 15 trainers' own code, come out as `cases/expected.json` says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from byte_model import byte_model

from reasonloop.errors import InputError
from reasonloop.imports.judging import judged
from reasonloop.imports.reading import Asked, find_rollouts
from reasonloop.imports.scores import Agreement
from reasonloop.policy.codec import Codec
from reasonloop.records import Place
from reasonloop.tasks import load_task, task_problems
from reasonloop.verify.workers import VerifierPool, VerifierSpec

CASES = Path(__file__).parent / "cases"
EXPECTED: dict[str, dict[str, dict[str, Any]]] = json.loads((CASES / "expected.json").read_text(encoding="utf-8"))
ALL = {**EXPECTED["files"], **EXPECTED["folders"]}
READ = [name for name, case in ALL.items() if case.get("expect", "read") == "read"]
OTHERS = [name for name, case in ALL.items() if case.get("expect") in ("skip", "refuse")]
PROBLEMS = task_problems(load_task("jsonl", {"test": str(CASES / "problems.jsonl")}), "cases")


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(VerifierSpec("reasonloop.verify.verifiers:MathVerifier", {"extract": "final"})) as made:
        yield made


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return Codec.load(byte_model(tmp_path_factory.mktemp("bytes")))


@pytest.mark.parametrize("name", READ)
def test_is_read(name: str, pool: VerifierPool, codec: Codec) -> None:
    case, agreement = ALL[name], Agreement()
    asked = Asked(step=0 if not case["steps"] else None)
    with find_rollouts([CASES / name], PROBLEMS, asked, codec if "open-instruct" in name else None) as reading:
        steps = [*judged(reading, pool, agreement, Place())]
    rollouts = [rollout for step in steps for rollout in step.rollouts]
    assert len(rollouts) == case["rollouts"]
    assert [step.step for step in steps] == (case["steps"] or [0])
    assert len({rollout.problem_id for rollout in rollouts}) == case["problems"]
    if case["right"] is not None:
        assert sum(rollout.right for rollout in rollouts) == case["right"]
        table = agreement.table()
        assert table.both + table.score_alone == case["right"]
        assert table.agreement == 1.0
    if "folders" not in case and name in EXPECTED["files"]:
        assert sum(reading.counts.skipped.values()) == case.get("skipped", 0)
        if "truncated" in case:
            assert sum(rollout.finish == "length" for rollout in rollouts) == case["truncated"]


@pytest.mark.parametrize("name", OTHERS)
def test_is_not_read(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError):
        find_rollouts([CASES / name], PROBLEMS)
    assert capfd.readouterr() == ("", "")
