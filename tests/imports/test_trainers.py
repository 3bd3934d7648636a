"""Every trainer's layout, written by the tests' own code from random rollouts, is read back: none lost, doubled or moved."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from byte_model import byte_model
from writers import ALONE, IDS, MIXED, SAYS_FINISH, STEPLESS, WRITERS, Made, encoded, response_ids, template

from reasonloop.imports.judging import Imported, judged
from reasonloop.imports.reading import Asked, Reading, find_rollouts
from reasonloop.imports.scores import Agreement
from reasonloop.policy.codec import Codec
from reasonloop.records import Place, Problem
from reasonloop.verify.workers import VerifierPool, VerifierSpec

ODD = [
    "\u2028",
    "\x85",
    "\n",
    "user\n",
    "assistant\n",
    "≈ 答え ",
    "😀",
    '"',
    "\\/",
    "\t",
    "<think>",
    "system: ",
    "\r\n",
]


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(VerifierSpec("reasonloop.verify.verifiers:MathVerifier", {"extract": "boxed"})) as made:
        yield made


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return Codec.load(byte_model(tmp_path_factory.mktemp("bytes")))


def random_problems(rng: Random, count: int) -> list[Problem]:
    """Of which some are contained in others, and some have a template's words in them."""
    found = []
    for k in range(count):
        base = "".join(rng.choice([*ODD, f"{rng.randrange(100)} + {k} = ?", "x"]) for _ in range(rng.randrange(1, 5)))
        asked = f"{base.strip()} {k}?" if k % 3 or not found else f"Think.\n{found[-1].prompt}"
        chat = {"messages": ({"role": "user", "content": asked},)} if k % 2 else {"prompt": asked}
        found.append(Problem(f"p{k}", **chat, answer=str(k + 100)))  # type: ignore[arg-type]
    return found


def random_rollouts(rng: Random, problems: list[Problem], *, mixed: bool, alone: bool, stepless: bool) -> list[Made]:
    found = []
    for step in [3] if stepless else rng.sample([0, 1, 2, 7, 9, 10, 11, 100], rng.randrange(1, 5)):
        for problem in rng.sample(problems, rng.randrange(1, len(problems) + 1)):
            for k in range(rng.randrange(1, 4)):
                right = rng.random() < 0.5
                words = "".join(rng.choice([*ODD, "a", "b "]) for _ in range(rng.randrange(6))).replace("<think>", "")
                answer = problem.answer if right else str(rng.randrange(50))
                text = f"{k} {words} so \\boxed{{{answer}}}"
                cut = rng.random() < 0.2
                if not right and not cut and rng.random() < 0.3:
                    text = ""
                evaluation = alone or (mixed and rng.random() < 0.3)
                found.append(Made(problem, text, step, right, cut, evaluation))
    return found


def made_files(layout: str, folder: Path, seed: int) -> tuple[list[Problem], list[Made], Asked]:
    rng = Random(f"{layout} {seed}")
    problems = random_problems(rng, 6)
    trainer, write = WRITERS[layout]
    kind = {"mixed": layout in MIXED, "alone": layout in ALONE, "stepless": layout in STEPLESS}
    rollouts = random_rollouts(rng, problems, **kind)
    if layout in MIXED:
        rollouts += [Made(problems[0], "\\boxed{1}", 5, False)]  # training for sure
    write(folder, list(rollouts), rng)
    asked = Asked(trainer if layout == "jsonl" else None, 3 if layout in STEPLESS else None, seed % 2 == 1)
    return problems, [made for made in rollouts if layout in ALONE or asked.evaluation or not made.evaluation], asked


def steps_of(reading: Reading, pool: VerifierPool) -> list[Imported]:
    return [*judged(reading, pool, Agreement(), Place())]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("layout", WRITERS)
def test_what_a_trainer_wrote_comes_out(
    layout: str, seed: int, tmp_path: Path, pool: VerifierPool, codec: Codec
) -> None:
    problems, rollouts, asked = made_files(layout, tmp_path, seed)
    named = codec if layout == "open-instruct" or seed % 4 >= 2 else None
    with find_rollouts([tmp_path], problems, asked, named) as reading:
        assert reading.trainer == WRITERS[layout][0]
        steps = steps_of(reading, pool)
    told = [(made.evaluation, made.step, made.problem.id, made.text, made.right) for made in rollouts]
    found = [(s.evaluation, s.step, r.problem_id, r.text, r.right) for s in steps for r in s.rollouts]
    assert Counter(found) == Counter(told)
    assert [(s.evaluation, s.step) for s in steps] == sorted({(made.evaluation, made.step) for made in rollouts})
    for step in steps:
        samples: dict[str, list[int]] = {}
        for rollout, source in zip(step.rollouts, step.sources, strict=True):
            assert rollout.place.branch == ("eval" if step.evaluation else "main")
            samples.setdefault(rollout.problem_id, []).append(rollout.sample)
            assert (tmp_path / source.file).is_file()
            if layout not in ("openrlhf", "jsonl"):
                assert source.said_right in (None, rollout.right)
        assert all(own == [*range(len(own))] for own in samples.values())
    if layout in SAYS_FINISH:
        cut = Counter(made.text for made in rollouts if made.cut)
        assert Counter(r.text for s in steps for r in s.rollouts if r.finish == "length") == cut
    if named is not None or layout in IDS:
        check_ids(steps, rollouts, logprobs=layout in IDS)


def check_ids(steps: list[Imported], rollouts: list[Made], *, logprobs: bool) -> None:
    """Ids are those that the texts have in this tokenizer, and log-probs one for each, where there are some."""
    by_text = {(made.step, made.problem.id, made.text, made.cut): made for made in rollouts}
    for step in steps:
        for r in step.rollouts:
            made = next(made for key, made in by_text.items() if key[:3] == (step.step, r.problem_id, r.text))
            given = logprobs and (not step.evaluation or not np.isnan(r.logprobs).any())
            assert [*r.response_tokens[: len(made.text.encode())]] == [*made.text.encode()]
            if given:
                assert [*r.prompt_tokens] == encoded(template(made))
                assert [*r.response_tokens] in (response_ids(made), [*made.text.encode()], [*made.text.encode(), 257])
                assert not np.isnan(r.logprobs).any()
            assert len(r.logprobs) == len(r.response_tokens)


@pytest.mark.parametrize("layout", WRITERS)
def test_a_line_is_where_its_rollout_stands(layout: str, tmp_path: Path, pool: VerifierPool, codec: Codec) -> None:
    problems, _, asked = made_files(layout, tmp_path, 4)
    with find_rollouts([tmp_path], problems, asked, codec if layout == "open-instruct" else None) as reading:
        steps = steps_of(reading, pool)
    for step in steps:
        for rollout, source in zip(step.rollouts, step.sources, strict=True):
            path = tmp_path / source.file
            if path.suffix == ".jsonl" and rollout.text and layout != "open-instruct":
                line = json.loads(path.read_bytes().split(b"\n")[source.line - 1])
                assert json.dumps(rollout.text)[1:-1] in json.dumps(line)
