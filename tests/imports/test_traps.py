"""What lies in wait in other trainers' files: each counted and named, none guessed."""

from __future__ import annotations

import gzip
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from byte_model import byte_model
from writers import PAD, SYSTEM, Made, encoded, nemo, open_instruct, template, verl

from reasonloop.errors import InputError
from reasonloop.imports.judging import Imported, headline, judged
from reasonloop.imports.matching import Matcher, questions
from reasonloop.imports.reading import Asked, find_rollouts
from reasonloop.imports.rows import Row
from reasonloop.imports.scores import Agreement, Rule
from reasonloop.policy.codec import Codec
from reasonloop.records import Place, Problem, Rollout, Verdict
from reasonloop.verify.workers import VerifierPool, VerifierSpec

ONE, TWO = Problem("one", prompt="7 + 2 = ?", answer="9"), Problem("two", prompt="17 + 2 = ?", answer="19")
PLAIN = Asked()
RIGHT, WRONG = "\\boxed{9}", "\\boxed{8}"


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(VerifierSpec("reasonloop.verify.verifiers:MathVerifier", {"extract": "boxed"})) as made:
        yield made


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return Codec.load(byte_model(tmp_path_factory.mktemp("bytes")))


def written(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def of_verl(text: str | None = RIGHT, **more: Any) -> dict[str, Any]:
    return {"input": "user\n7 + 2 = ?\nassistant\n", "output": text, "gts": "9", "score": 1.0, "step": 1, **more}


def of_own(text: object = RIGHT, **more: Any) -> dict[str, Any]:
    return {"prompt": "7 + 2 = ?", "response": text, "step": 1, **more}


class Read:
    """What an import of files gives."""

    def __init__(
        self,
        pool: VerifierPool,
        *paths: Path,
        asked: Asked = PLAIN,
        codec: Codec | None = None,
        problems: Any = (ONE, TWO),
    ) -> None:
        self.agreement = Agreement()
        with find_rollouts(paths, problems, asked, codec) as reading:
            self.counts, self.trainer = reading.counts, reading.trainer
            self.steps: list[Imported] = [*judged(reading, None if asked.trust else pool, self.agreement, Place())]
        self.rollouts: list[Rollout] = [r for step in self.steps for r in step.rollouts]


def refused(*paths: Path, asked: Asked = PLAIN, codec: Codec | None = None, problems: Any = (ONE, TWO)) -> str:
    with pytest.raises(InputError) as error:
        find_rollouts(paths, problems, asked, codec)
    assert "\n" not in str(error.value)
    return str(error.value)


# what is no rollout


def test_lines_end_at_line_feeds_alone_and_torn_ones_are_counted(tmp_path: Path, pool: VerifierPool) -> None:
    rows = [json.dumps(of_verl(f"a\u2028b\x85c {RIGHT}"), ensure_ascii=False), '{"input": "user', of_verl()]
    path = written(tmp_path / "1.jsonl", *rows)
    path.write_bytes(path.read_bytes() + b'{"input": "user\n7 +')
    found = Read(pool, path)
    assert [r.text for r in found.rollouts] == [f"a\u2028b\x85c {RIGHT}", RIGHT]
    assert found.counts.skipped == {"torn line": 3}
    assert [s.line for s in found.steps[0].sources] == [1, 3]


def test_an_empty_response_is_one_and_a_null_is_none(tmp_path: Path, pool: VerifierPool) -> None:
    found = Read(pool, written(tmp_path / "1.jsonl", of_verl(""), of_verl(None), of_verl()))
    assert [r.text for r in found.rollouts] == ["", RIGHT]
    assert found.counts.skipped == {"no response": 1}
    assert len(found.rollouts[0].response_tokens) == 0


def test_pickles_are_never_loaded(tmp_path: Path, pool: VerifierPool, capfd: pytest.CaptureFixture[str]) -> None:
    cases = Path(__file__).parent / "cases"
    loud = cases / "skyrl/v0.3.0/dumped_data/global_step_1_training_input.pkl"
    told = refused(loud)
    assert "pickle" in told
    assert "docs/import.md" in told
    assert "pickle" in refused(cases / "slime/v0.3.1/rollout_data")
    (tmp_path / "0.jsonl").write_bytes(loud.read_bytes())  # whatever it is called
    assert "pickle" in refused(tmp_path / "0.jsonl")
    found = Read(pool, tmp_path, written(tmp_path / "1.jsonl", of_verl()))
    assert found.counts.files == {"pickles": 1}
    assert capfd.readouterr() == ("", "")


def test_what_holds_no_rollouts_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl.gz").write_bytes(gzip.compress(json.dumps(of_verl()).encode()))
    assert "compressed" in refused(tmp_path / "1.jsonl.gz")
    (tmp_path / "rank_0.bin").write_bytes(b"\x90")
    assert "rank_0.bin" in refused(tmp_path / "rank_0.bin")
    assert "no texts" in refused(written(tmp_path / "s.jsonl", {"traj_idx": 0, "steps": [], "total_reward": 1.0}))
    pq.write_table(pa.table({"step": [1], "reward": [0.5]}), tmp_path / "t.parquet")
    assert "the keys step, reward" in refused(tmp_path / "t.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-20])
    assert "damaged" in refused(tmp_path / "cut.parquet")
    assert "no such file" in refused(tmp_path / "not there")
    assert "no files" in refused(written(tmp_path / "empty" / ".hidden", of_verl()).parent)
    assert "areal" in refused(written(tmp_path / "1.jsonl", of_verl()), asked=Asked("arael"))
    assert "no rollouts of trl" in refused(tmp_path / "1.jsonl", asked=Asked("trl"))
    assert "padding: 1" in refused(written(tmp_path / "2.jsonl", of_verl("", input="")))


def test_a_table_that_is_being_written_is_passed_over(tmp_path: Path, pool: VerifierPool) -> None:
    rows = [{"step": 1, "prompt": "7 + 2 = ?", "completion": RIGHT, "r": 1.0, "advantage": 0.0}]
    for name in ("completions_00001.parquet", "completions_00002.parquet"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-30])
    found = Read(pool, tmp_path)
    assert len(found.rollouts) == 1
    assert found.counts.files == {"files that begin with a damaged table": 1}


def test_pipes_and_odd_names_in_a_folder(tmp_path: Path, pool: VerifierPool) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / os.fsdecode(b"\xff\x1b[2J.jsonl")).write_text(json.dumps(of_verl()) + "\nno\n")
    found = Read(pool, tmp_path)
    assert len(found.rollouts) == 1
    assert "\x1b" not in found.steps[0].sources[0].file + "".join(found.counts.lines())
    found.steps[0].sources[0].file.encode()


def test_two_trainers_in_a_folder_need_a_name(tmp_path: Path, pool: VerifierPool) -> None:
    written(tmp_path / "1.jsonl", of_verl())
    written(tmp_path / "mine" / "g.jsonl", {"input": "7 + 2 = ?", "output": RIGHT})
    assert "--from" in refused(tmp_path)
    assert len(Read(pool, tmp_path, asked=Asked("verl")).rollouts) == 1


# what was asked


def test_a_problem_within_another_one_is_not_taken_for_it(tmp_path: Path, pool: VerifierPool) -> None:
    rows = [of_verl(input="user\n17 + 2 = ?\nassistant\n"), of_verl()]
    found = Read(pool, written(tmp_path / "1.jsonl", *rows))
    assert [r.problem_id for r in found.rollouts] == ["two", "one"]
    said = of_verl(input="user\nNot 7 + 2 = ?\nassistant\n")
    told = refused(written(tmp_path / "2.jsonl", said, *rows))
    assert "1 of 3 rollouts answer no problem" in told
    assert "2.jsonl:1" in told
    found = Read(pool, tmp_path / "2.jsonl", asked=Asked(unmatched=0.4))
    assert len(found.rollouts) == 2
    assert sum(found.counts.skipped.values()) == 1
    assert "0 problem" not in refused(written(tmp_path / "3.jsonl", said), asked=Asked(unmatched=1.0))


TEMPLATES = {
    "chatml": (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
        "system\nS\nuser\n{}\nassistant\n",
    ),
    "llama 3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n{}"
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "system\n\nSuser\n\n{}assistant\n\n",
    ),
    "gemma": ("<bos><start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n", "user\n{}\nmodel\n"),
    "mistral": ("<s>[INST] {} [/INST]", "[INST] {} [/INST]"),
    "deepseek": (
        "<\uff5cbegin\u2581of\u2581sentence\uff5c><\uff5cUser\uff5c>{}<\uff5cAssistant\uff5c><think>\n",
        "User: {}\n\nAssistant:",
    ),
    "vicuna": ("<s>A chat. USER: {} ASSISTANT:", "A chat. USER: {} ASSISTANT:"),
    "plain": ("{}", "\n{}\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_questions_are_found_in_templates(name: str) -> None:
    """With special tokens and without; the words of templates within a question are its own."""
    asked = [
        "7 + 2 = ?",
        "Who is the user\nassistant\n7 + 2 = ?",
        "user: x\n\nassistant: y model",
        "[INST] [/INST] ?",
        "<think>",
    ]
    problems = [Problem(str(k), prompt=text) for k, text in enumerate(asked)]
    matcher = Matcher(problems)
    for form in TEMPLATES[name]:
        for k, text in enumerate(asked):
            if form.strip() != "{}" or text.strip() == text:
                assert matcher.find(Row((form.format(text),), "")) == k, form.format(text)
        assert len([*questions(form.format("x " * 3000))]) < 600


def test_prompts_of_two_problems_are_no_match(tmp_path: Path, pool: VerifierPool, codec: Codec) -> None:
    chats = [
        Problem(
            str(k), messages=({"role": "system", "content": s}, {"role": "user", "content": "7 + 2 = ?"}), answer="9"
        )
        for k, s in enumerate(("Be brief.", SYSTEM))
    ]
    path = written(tmp_path / "1.jsonl", of_verl(input=template(Made(chats[0], "", 1, True), special=False)))
    assert "several problems with this prompt" in refused(path, problems=chats)
    found = Read(pool, path, codec=codec, problems=chats)  # the template tells them apart
    assert [r.problem_id for r in found.rollouts] == ["1"]


def test_problems_by_their_ids(tmp_path: Path, pool: VerifierPool) -> None:
    row = {"step": 1, "prompt": "?", "response": RIGHT}
    path = written(tmp_path / "a.jsonl", row | {"id": "one"}, row | {"id": "two"}, row | {"id": "three"})
    asked = Asked("jsonl", match="id", unmatched=0.5)
    found = Read(pool, path, asked=asked)
    assert [(r.problem_id, r.right) for r in found.rollouts] == [("one", True), ("two", False)]
    of_file = [Problem("train-one", prompt="?", answer="9", meta={"file": "data/train.jsonl"})]
    assert len(Read(pool, path, asked=Asked("jsonl", match="id", unmatched=1.0), problems=of_file).rollouts) == 1


# steps


def test_the_record_s_step_counts_and_a_difference_is_said(tmp_path: Path, pool: VerifierPool) -> None:
    found = Read(pool, written(tmp_path / "10.jsonl", of_verl(step=10)), written(tmp_path / "2.jsonl", of_verl(step=3)))
    assert [r.step for r in found.rollouts] == [3, 10]
    assert sum(found.counts.noted.values()) == 1


def test_without_a_step_one_is_asked_for(tmp_path: Path, pool: VerifierPool) -> None:
    path = written(tmp_path / "g.jsonl", {"input": "7 + 2 = ?", "output": RIGHT})
    assert "--step" in refused(path)
    assert [r.step for r in Read(pool, path, asked=Asked(step=4)).rollouts] == [4]
    path = written(tmp_path / "1.jsonl", of_verl(step=-1), of_verl(step=1 << 40), of_verl())
    assert len(Read(pool, path).rollouts) == 1


def test_steps_are_in_the_order_of_numbers(tmp_path: Path, pool: VerifierPool) -> None:
    for step in (10, 9, 100, 1):
        written(tmp_path / f"{step}.jsonl", of_verl(step=step))
    found = Read(pool, tmp_path)
    assert [step.step for step in found.steps] == [1, 9, 10, 100]
    with find_rollouts([tmp_path], (ONE,)) as reading:
        again = [*judged(reading, pool, Agreement(), Place("main.2", iteration=3), renumber=True)]
    assert [s.rollouts[0].place for s in again] == [Place("main.2", iteration=3, step=k) for k in range(4)]
    assert [s.step for s in again] == [1, 9, 10, 100]


# repeats


def test_equal_texts_are_repeats_only_where_nothing_tells_them_apart(tmp_path: Path, pool: VerifierPool) -> None:
    same = [of_verl(), of_verl()]  # two samples of a group that say the same
    found = Read(pool, written(tmp_path / "a" / "1.jsonl", *same), written(tmp_path / "b" / "2.jsonl", of_verl(step=2)))
    assert [(r.step, r.sample) for r in found.rollouts] == [(1, 0), (1, 1), (2, 0)]
    found = Read(pool, tmp_path / "a", written(tmp_path / "copy" / "1.jsonl", *same))
    assert len(found.rollouts) == 2
    assert found.counts.skipped == {"repeats": 2}
    assert len(Read(pool, tmp_path / "a", tmp_path / "a" / "1.jsonl").rollouts) == 2
    ids = [of_verl(uid="u_0_0"), of_verl(uid="u_1_0"), of_verl(uid="u_0_0"), of_verl(uid="group"), of_verl(uid="group")]
    assert len(Read(pool, written(tmp_path / "c" / "1.jsonl", *ids)).rollouts) == 4


def test_a_name_is_of_one_rollout_in_a_step(tmp_path: Path, pool: VerifierPool) -> None:
    """Some trainers count from 0 in each step; and what two rollouts of a step have is no name of either."""
    rows = [of_own(rollout_id=0), of_own(WRONG, rollout_id=1), of_own(rollout_id=0, step=2), of_own(rollout_id=0)]
    found = Read(pool, written(tmp_path / "a.jsonl", *rows), asked=Asked("jsonl"))
    assert [r.step for r in found.rollouts] == [1, 1, 2]
    assert found.counts.skipped == {"repeats": 1}
    path = written(tmp_path / "b.jsonl", *rows, of_own(WRONG, rollout_id=0))
    assert "b.jsonl:5: its name" in refused(path, asked=Asked("jsonl"))


def test_two_runs_in_a_folder_are_not_one(tmp_path: Path, pool: VerifierPool) -> None:
    one, two = (written(tmp_path / run / "1.jsonl", of_verl(text)) for run, text in (("a", RIGHT), ("b", WRONG)))
    told = refused(tmp_path)
    assert "a/1.jsonl and b/1.jsonl: both have rollouts of step 1" in told
    assert len(Read(pool, one.parent).rollouts) == 1
    assert len(Read(pool, one, two).rollouts) == 2  # by name they are meant
    shards = tmp_path / "shards"
    for name in ("x_rollouts_000000", "x_rollouts_000001", "y_rollouts_000000"):
        open_instruct(tmp_path / name, [Made(ONE, name, 1, False)], Random(0))
        shards.mkdir(exist_ok=True)
        next((tmp_path / name).glob("*_rollouts_*")).rename(shards / f"{name}.jsonl")
    codec = Codec.load(byte_model(tmp_path / "bytes"))
    assert "x_rollouts_000000.jsonl and y_rollouts_000000.jsonl" in refused(shards, codec=codec)
    (shards / "y_rollouts_000000.jsonl").unlink()
    assert len(Read(pool, shards, codec=codec).rollouts) == 2


def test_steps_that_are_not_there_are_told(tmp_path: Path, pool: VerifierPool) -> None:
    for step in (1, 2, 4):
        written(tmp_path / f"{step}.jsonl", of_verl(step=step))
    with find_rollouts([tmp_path], (ONE,)) as reading:
        assert headline(reading).endswith("3 rollouts of 1 problems, 3 of the steps 1 to 4")


def test_one_score_for_several_outputs_was_earned_by_the_last(tmp_path: Path, pool: VerifierPool) -> None:
    rows = [of_verl(WRONG, uid="u_0_0"), of_verl(RIGHT, uid="u_0_1"), of_verl(RIGHT, uid="u_1_0")]
    found = Read(pool, written(tmp_path / "1.jsonl", *rows))
    assert [math.isnan(r.reward) for r in found.rollouts] == [True, False, False]
    assert found.agreement.table().agreement == 1.0


# scores


def test_scores_that_are_text_or_none(tmp_path: Path, pool: VerifierPool) -> None:
    rows = ['{"input": "user\\n7 + 2 = ?\\nassistant\\n", "output": "", "score": NaN, "step": 1}']
    rows += [of_verl(WRONG, score=None), of_verl(WRONG, score="False", acc="False"), of_verl(RIGHT, score=1e400)]
    found = Read(pool, written(tmp_path / "1.jsonl", *rows, of_verl(score="1.0", acc="True", pred="9", note="7")))
    assert [r.reward for r in found.rollouts][2:3] == [0.0]
    assert [math.isnan(r.reward) for r in found.rollouts] == [True, True, False, True, False]
    assert found.rollouts[4].reward_parts == {"acc": 1.0}
    assert [s.said_right for s in found.steps[0].sources] == [None, None, False, None, True]
    assert found.counts.noted["without a score"] == 3
    table = found.agreement.table()
    assert (table.both, table.neither, table.unscored) == (1, 1, 3)


@pytest.mark.parametrize(
    ("paid", "limit"),
    [({True: 1.0, False: 0.0}, "score == 1"), ({True: 1.0, False: -1.0}, "score == 1"), ({True: 1.2, False: 0.2}, ">= 1.2"),
     ({True: 0.9, False: -0.1}, ">= 0.9"), ({True: 10.0, False: 1.0}, ">= 10"), ({False: 0.2}, "no score")],
)  # fmt: skip
def test_the_line_between_right_and_wrong(paid: dict[bool, float], limit: str) -> None:
    agreement = Agreement()
    for k in range(10):
        right = k % 2 == 0 and True in paid
        agreement.add(right, Row((), "", score=paid[right]), str)
    table = agreement.table()
    assert table.agreement == 1.0
    assert limit in table.rule


def test_low_agreement_is_said_with_two_cases() -> None:
    agreement = Agreement()
    for k in range(100):
        agreement.add(k % 2 == 0, Row((), "", score=float(k % 2 == 0 or k < 20)), lambda k=k: f"case {k}")
    table = agreement.table()
    assert (table.both, table.score_alone, table.neither) == (50, 10, 40)
    told = "\n".join(table.lines())
    assert "90.0 %" in told
    assert "below 95 %" in told
    assert "case 1" in told
    for _ in range(200):
        agreement.add(False, Row((), "", score=0.0), str)
    assert "below" not in "\n".join(agreement.table().lines())


def test_a_reward_model_s_numbers_say_nothing(tmp_path: Path, pool: VerifierPool) -> None:
    path = written(tmp_path / "g.jsonl", {"input": "7 + 2 = ?", "output": RIGHT, "reward": 1.0})
    with find_rollouts([path], (ONE,), Asked(step=1)) as reading:
        agreement = Agreement(reading.scored)
        (step,) = judged(reading, pool, agreement, Place())
    assert step.rollouts[0].reward == 1.0
    assert agreement.table().agreement is None


def test_scores_are_trusted_by_a_rule(tmp_path: Path, pool: VerifierPool) -> None:
    rows = [of_verl("?", score=s, acc=a) for s, a in ((1.2, 1), (0.9, 0), (None, None))]
    path = written(tmp_path / "1.jsonl", *rows)
    for rule, expected in (("score >= 1", "right wrong"), ("acc == 1", "right wrong"), ("score>0", "right right")):
        found = Read(pool, path, asked=Asked(trust=Rule.parse(rule)))
        assert " ".join(r.verdict for r in found.rollouts) == f"{expected} unparseable"
    for wrong in ("score", "score > high", "> 1", "score => 1", ""):
        with pytest.raises(InputError, match="score >= 1"):
            Rule.parse(wrong)


def of_trl(text: object = RIGHT, **rewards: Any) -> dict[str, Any]:
    return {"step": 1, "prompt": "7 + 2 = ?", "completion": text, "advantage": 0.0, **rewards}


@pytest.mark.parametrize(
    ("right", "wrong", "scores"),
    [
        ({"reward": 1.0}, {"reward": 0.0}, [1.0, 0.0]),
        ({"xml_reward_func": 0.5, "correctness_reward_func": 2.0}, {"xml_reward_func": 0.5, "correctness_reward_func": 0.0},
         [2.0, 0.0]),
        ({"correct_format": 0.0, "r": 1.0}, {"correct_format": 1.0, "r": 0.0}, None),
        ({"think_accuracy": 0.0, "countdown_accuracy": 1.0}, {"think_accuracy": 1.0, "countdown_accuracy": 0.0}, [1.0, 0.0]),
        ({"style": 0.0, "accuracy": 1.0}, {"style": 1.0, "accuracy": None}, [1.0, None]),
        ({"r": 1.0, "s": None}, {"r": None, "s": 1.0}, None),
        ({"r": 1.0, "note": "x"}, {"r": 0.0, "note": "y"}, [1.0, 0.0]),
    ],
)  # fmt: skip
def test_the_reward_is_of_the_right_function(
    tmp_path: Path, pool: VerifierPool, right: dict[str, Any], wrong: dict[str, Any], scores: list[float | None] | None
) -> None:
    """By its column's name, whatever stands in the row at hand; where that leaves a choice there is none."""
    rows = [of_trl(RIGHT, **right), of_trl(WRONG, **wrong)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "completions_00001.parquet")
    found = Read(pool, tmp_path)
    assert [None if math.isnan(r.reward) else r.reward for r in found.rollouts] == (scores or [None, None])
    assert found.agreement.table().agreement == (1.0 if scores else None)


# ids


def test_padding_is_no_part_of_ids(tmp_path: Path, pool: VerifierPool, codec: Codec) -> None:
    asked, said = [*b"7 + 2 = ?"], [*RIGHT.encode(), 257]
    whole = of_own(prompt_tokens=asked, response_tokens=said, logprobs=[-0.5] * len(said))
    rows = [
        whole,
        whole | {"prompt_tokens": [PAD, PAD, *asked]},
        whole | {"response_tokens": [*said, PAD], "logprobs": [-0.5] * (len(said) + 1)},
        whole | {"response_tokens": [*said, 257, 257]},
    ]
    path = written(tmp_path / "a.jsonl", *rows)
    found = Read(pool, path, asked=Asked("jsonl"), codec=codec)
    assert {len(r.response_tokens) for r in found.rollouts} == {len(said)}
    assert not any(PAD in r.prompt_tokens for r in found.rollouts)
    assert [bool(np.isnan(r.logprobs).any()) for r in found.rollouts] == [False, True, True, True]
    assert found.counts.noted["ids with padding: made of the text instead"] == 3
    noted = Read(pool, path, asked=Asked("jsonl")).counts.noted  # nothing says what the ids are
    assert noted["ids that begin or end with one id several times (padding?)"] == 2


def test_ids_that_are_not_whole_are_made_of_the_text(tmp_path: Path, pool: VerifierPool, codec: Codec) -> None:
    made = [Made(ONE, RIGHT, 1, True), Made(ONE, f"so {WRONG}", 1, False)]
    nemo(tmp_path, made, Random(0))
    path = next(tmp_path.rglob("*.jsonl"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    whole = Read(pool, path)
    assert [*whole.rollouts[0].response_tokens] == [*RIGHT.encode(), 257]
    assert PAD not in whole.rollouts[0].response_tokens
    assert [*whole.rollouts[0].prompt_tokens] == encoded(template(made[0]))
    for broken in ("token_loss_mask", "token_ids", "input_lengths"):
        row = json.loads(json.dumps(rows[0]))
        row[broken] = [row[broken][0][:-1]] if broken != "input_lengths" else [12]
        written(path, row, rows[1])
        assert "--model" in refused(path)
        found = Read(pool, path, codec=codec)
        assert [r.text for r in found.rollouts] == [RIGHT, f"so {WRONG}"]
        assert [*found.rollouts[0].response_tokens] == [*RIGHT.encode(), 257]
        assert np.isnan(found.rollouts[0].logprobs).all()
        assert not np.isnan(found.rollouts[1].logprobs).any()


def test_ids_alone_need_their_tokenizer(tmp_path: Path, pool: VerifierPool, codec: Codec) -> None:
    open_instruct(tmp_path, [Made(ONE, RIGHT, 1, True)] * 2, Random(0))
    assert "--model" in refused(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "mini_rollouts_000001.jsonl").read_text().splitlines()]
    rows[0]["logprobs"] = rows[0]["logprobs"][:-1]
    found = Read(pool, written(tmp_path / "x.jsonl", *rows), codec=codec)
    assert [*found.rollouts[0].response_tokens] == [*RIGHT.encode(), 257]
    assert np.isnan(found.rollouts[0].logprobs).all()


def test_ids_of_another_tokenizer_are_refused(tmp_path: Path, pool: VerifierPool, codec: Codec) -> None:
    rows = [
        {"step": 1, "prompt": "7 + 2 = ?", "response": RIGHT, "prompt_tokens": [1, 2], "response_tokens": [70, 71, 257]}
    ]
    path = written(tmp_path / "a.jsonl", *rows)
    assert [*Read(pool, path, asked=Asked("jsonl")).rollouts[0].response_tokens] == [70, 71, 257]
    with pytest.raises(InputError, match="another text"):
        Read(pool, path, asked=Asked("jsonl"), codec=codec)


def test_texts_get_the_model_s_tokens(tmp_path: Path, pool: VerifierPool, codec: Codec) -> None:
    made = [Made(ONE, RIGHT, 1, True)]
    verl(tmp_path, made, Random(0))
    (rollout,) = Read(pool, tmp_path, codec=codec).rollouts
    assert [*rollout.prompt_tokens] == [*codec.encode_prompt(ONE)]
    assert [*rollout.response_tokens] == [*RIGHT.encode(), 257]
    assert (rollout.finish, rollout.verdict) == ("unknown", Verdict.RIGHT)


def test_end_tokens_say_that_a_response_ended_and_are_no_text(tmp_path: Path, pool: VerifierPool) -> None:
    base = {"input_prompt": "7 + 2 = ?", "score": 1.0, "stop_reason": None, "env_class": "e", "env_extras": {}}
    texts = [f"{RIGHT}<|im_end|>", f"{RIGHT}<|im_end|><|endoftext|>", f"{RIGHT}</s>", f"<|x|>{RIGHT}", RIGHT]
    rows = [base | {"output_response": text} for text in texts]
    found = Read(pool, written(tmp_path / "global_step_5_evals" / "d.jsonl", *rows))
    assert [r.text for r in found.rollouts] == [RIGHT, RIGHT, RIGHT, f"<|x|>{RIGHT}", RIGHT]
    assert [r.finish for r in found.rollouts] == ["stop", "stop", "stop", "unknown", "unknown"]


# forms of messages


@pytest.mark.parametrize("written_down", [json.dumps, str])
def test_messages_that_became_text(tmp_path: Path, pool: VerifierPool, written_down: Any) -> None:
    asked, said = ([{"role": r, "content": c}] for r, c in (("user", "7 + 2 = ?"), ("assistant", RIGHT)))
    rows = [{"step": 1, "prompt": written_down(asked), "completion": written_down(said), "acc": 1.0, "advantage": 0.0}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "completions_00001.parquet")
    assert [r.text for r in Read(pool, tmp_path).rollouts] == [RIGHT]
    path = written(tmp_path / "own.jsonl", of_own(written_down(said)), of_own(RIGHT, prompt=written_down(asked)))
    assert [r.text for r in Read(pool, path, asked=Asked("jsonl")).rollouts] == [written_down(said), RIGHT]


def test_several_responses_in_a_record_are_refused(tmp_path: Path) -> None:
    for key in ("response", "responses", "completions"):
        path = written(tmp_path / "a.jsonl", {"prompt": "7 + 2 = ?", key: [RIGHT, WRONG], "step": 1})
        assert "several responses in a record" in refused(path, asked=Asked("jsonl"))


def test_contents_in_parts_thoughts_and_halves_of_pairs(tmp_path: Path, pool: VerifierPool) -> None:
    parts = [{"type": "text", "text": "7 + 2"}, {"type": "text", "text": " = ?"}]
    base = {"prompt": [{"role": "user", "content": parts}], "reward": 1.0, "answer": "9", "error": None}
    said = {"role": "assistant", "content": RIGHT, "reasoning_content": "Nine."}
    image = [{"type": "image_url", "image_url": {"url": "x"}}]
    rows = [
        base | {"completion": [said], "timing": {"start_time": 1}},
        base | {"completion": [{"role": "assistant", "content": image}], "timing": {"start_time": 2}},
        base | {"completion": f"\ud800 {RIGHT}", "timing": {"start_time": 3}},
    ]
    found = Read(pool, written(tmp_path / "results.jsonl", *rows), asked=Asked(step=0))
    assert [r.text for r in found.rollouts] == [f"<think>\nNine.\n</think>\n\n{RIGHT}", f"? {RIGHT}"]
    assert all(r.right for r in found.rollouts)
    assert found.counts.skipped == {"no text in the response": 1}


def test_a_table_of_weights_and_biases(tmp_path: Path, pool: VerifierPool) -> None:
    data = [["3", "7 + 2 = ?", RIGHT, 1.0], ["3", "7 + 2 = ?", WRONG, 0.0]]
    table = {"columns": ["step", "prompt", "completion", "accuracy_reward"], "data": data}
    (tmp_path / "completions_3.table.json").write_text(json.dumps(table))
    found = Read(pool, tmp_path)
    assert (found.trainer, [r.step for r in found.rollouts]) == ("trl", [3, 3])
    assert [s.said_right for s in found.steps[0].sources] == [True, False]


def test_several_turns_keep_what_was_not_sampled_apart(tmp_path: Path, pool: VerifierPool, codec: Codec) -> None:
    def node(parent: int | None, role: str, text: str, sampled: bool) -> dict[str, Any]:
        head = encoded(f"<|im_start|>{role}\n")
        body, tail = [*text.encode(), 257], [10]
        mask = [False] * len(head) + [sampled] * len(body) + [False]
        own = {"token_ids": head + body + tail, "mask": mask, "logprobs": [-0.5] * len(body) * sampled}
        return {"parent": parent, "message": {"role": role, "content": text}, "sampled": sampled, **own}

    nodes = [node(None, "user", "7 + 2 = ?", False), node(0, "assistant", "Asks.", True)]
    nodes += [
        node(1, "tool", "9", False),
        node(2, "assistant", RIGHT, True),
        node(0, "assistant", "A dead end.", False),
    ]
    trace = {"id": "t", "task": {"data": {}}, "nodes": nodes, "rewards": {"r": 1.0}, "info": {"env_name": "e"}}
    path = written(tmp_path / "step_1" / "train" / "all" / "traces.jsonl", trace)
    (rollout,) = Read(pool, path).rollouts
    assert rollout.right
    assert rollout.sampled is not None
    assert rollout.length == len("Asks.") + 1 + len(RIGHT) + 1
    assert rollout.logprob == pytest.approx(-0.5 * rollout.length)
    assert rollout.text == f"Asks.\n9\n{RIGHT}"
