"""Every command that a page shows runs: `reasonloop` verbs for real, in a folder with what the pages speak of.

Trainings are planned (`--dry-run`): the tests train elsewhere. Scripts and make targets must be there.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from byte_model import byte_model
from run_fixtures import small_recipe
from tiny_models import tiny_policy

from reasonloop.cli import main
from reasonloop.config import LoraSettings
from reasonloop.policy import hub

ROOT = Path(__file__).parent.parent
GENERATED = {"cli.md", "recipes.md", "log.md"}
PAGES = [
    page
    for page in sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")], key=str)
    if page.name not in GENERATED and not {"_build", "log"} & {*page.relative_to(ROOT).parts}
]
OURS = ("reasonloop", "make", "python", "torchrun", "echo")
"""What the pages' commands begin with, the system's own (git, pip, ...) left aside"""


def commands(text: str) -> Iterator[str]:
    """The command lines of a page: of its blocks for a shell, and of its indented blocks."""
    blocks = re.findall(r"(?ms)^```(?:bash|sh|console)?\n(.*?)^```$", text)
    outside = re.sub(r"(?ms)^(```+|:::+).*?^\1\s*$", "", text)
    blocks += [re.sub(r"(?m)^    ", "", block) for block in re.findall(r"(?m)(?:^    .*\n)+", outside)]
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            words = line.split(None, 1)
            if words and words[0] in OURS:
                yield line.strip()


def all_commands() -> dict[str, str]:
    """Command line -> the page that shows it."""
    return {line: page.relative_to(ROOT).as_posix() for page in PAGES for line in commands(page.read_text())}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages speak of: problem files, recipes, a model, and finished runs."""
    here = tmp_path_factory.mktemp("world")
    for name in ("recipes", "docs", "benchmarks", "examples", "reasonloop"):
        (here / name).symlink_to(ROOT / name)
    problems = [{"prompt": f"{n} plus {n} ?", "answer": str(2 * n)} for n in range(2, 14)]
    lines = [json.dumps(one) + "\n" for one in problems]
    (here / "data" / "gsm8k").mkdir(parents=True)
    worked = [
        json.dumps({"question": f"{n} + {n}", "answer": f"It is {2 * n}.\n#### {2 * n}"}) + "\n" for n in range(300)
    ]
    (here / "data" / "gsm8k" / "train.jsonl").write_text("".join(worked[:200]))
    (here / "data" / "gsm8k" / "test.jsonl").write_text("".join(worked[200:]))
    for split, numbers in {"train": range(200), "test": range(200, 300)}.items():  # as verl's script writes it
        verl = [
            {"prompt": [{"role": "user", "content": f"{n} + {n}?"}], "reward_model": {"ground_truth": str(2 * n)}}
            for n in numbers
        ]
        pq.write_table(pa.Table.from_pylist(verl), here / "data" / "gsm8k" / f"{split}.parquet")
    for name, count in {"DAPO-Math-17k": 700, "AIME-2024": 30}.items():  # as verl has them; a step takes 512
        (here / "BytedTsinghua-SIA" / name).mkdir(parents=True)
        asked = [{"prompt": [{"role": "user", "content": f"{name}: {n} + {n} ?"}]} for n in range(count)]
        rows = [row | {"reward_model": {"ground_truth": str(2 * n)}} for n, row in enumerate(asked)]
        pq.write_table(pa.Table.from_pylist(rows), here / "BytedTsinghua-SIA" / name / "train.parquet")
    (here / "train.jsonl").write_text("".join(lines[:8]))
    (here / "MATH-500").mkdir()
    for name in ("test.jsonl", "MATH-500/test.jsonl"):
        (here / name).write_text("".join(lines[8:]))
    pq.write_table(pa.Table.from_pylist(problems[:8]), here / "train.parquet")
    (here / "mine.csv").write_text("Exercise,Key\n1 + 1,2\n2 + 2,4\n")
    rows = [
        {"extra_info": {"question": f"{n} + 1", "index": n}, "reward_model": {"ground_truth": str(n + 1)}}
        for n in (1, 2)
    ]
    pq.write_table(pa.Table.from_pylist(rows), here / "rl.parquet")
    for page in PAGES:  # files of their own that the pages show, named in their first line
        for text in re.findall(r"(?ms)^```(?:toml|python)\n(.*?)^```$", page.read_text(encoding="utf-8")):
            name = text.split("\n", 1)[0].rpartition("# ")[2]
            if re.fullmatch(r"[\w-]+\.(toml|py)", name):
                (here / name).write_text(text)
    (here / "rates").mkdir()
    (here / "rates" / "study.toml").write_text(
        re.findall(r"(?ms)^```toml\n(.*?)^```$", (ROOT / "docs" / "study.md").read_text(encoding="utf-8"))[0]
    )
    model = chat_model(here / "path" / "to" / "hf-folder")
    for name in ("path/to/model", "MODEL", "hub/models--Qwen--Qwen2.5-0.5B-Instruct/snapshots/" + 40 * "a"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).symlink_to(model)
    (here / "hub/models--Qwen--Qwen2.5-0.5B-Instruct/refs").mkdir()
    (here / "hub/models--Qwen--Qwen2.5-0.5B-Instruct/refs/main").write_text(40 * "a")
    adapted = tiny_policy("qwen2")
    adapted.adapt(LoraSettings(2), base="../model")
    adapted.save_adapter(here / "path" / "to" / "adapter")
    recipe = small_recipe(here)
    for name, overrides in {"quickstart": [], "slower": ["rl.learning_rate=1e-4"]}.items():
        assert main(["run", str(recipe), "rloop.iterations=1", *overrides, "--out", str(here / "runs" / name)]) == 0
    for name in ("runs/my", "runs/my-run", "runs/other", "RUN"):
        (here / name).symlink_to(here / "runs" / "quickstart")
    cases = ROOT / "tests" / "imports" / "cases"
    (here / "problems.jsonl").symlink_to(cases / "problems.jsonl")
    (here / "rollout_data").symlink_to(cases / "verl" / "v0.9.1" / "rollout_data")
    (here / "rollouts").symlink_to(cases / "prime-rl" / "v0.8.1" / "rollouts")
    byte_model(here / "bytes")
    argv = ["import", str(cases / "verl" / "v0.6.1-dapo"), "--eval", "--task", "problems.jsonl", "--out"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert main([*argv, "runs/of-verl"]) == 0
    (here / "runs" / "of-prime-rl").symlink_to(here / "runs" / "of-verl")
    for study in (ROOT / "evidence").iterdir():  # what they hold is committed, and must not be written by a test
        if study.is_dir():
            shutil.copytree(study, here / "evidence" / study.name)
        else:
            (here / "evidence").mkdir(exist_ok=True)
            shutil.copy(study, here / "evidence")
    return here


def chat_model(folder: Path) -> Path:
    """A tiny random model with a chat template, as a Hugging Face folder."""
    policy = tiny_policy("qwen2")
    each = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}"
    policy.codec.tokenizer.chat_template = each + "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    policy.save(folder)
    return folder


REFUSED = {line for line in all_commands() if line.split("#")[0].split() == ["reasonloop", "tasks", "check", "gym"]}
"""Shown for the error that they give"""


def lacking(argv: list[str]) -> bool:
    """Whether it is for a tracker that isn't installed; `make test-trackers` is for those."""
    return argv[0] == "track" and any(name in argv and find_spec(name) is None for name in ("wandb", "trackio"))


@pytest.fixture(autouse=True)
def no_other_test_finds_the_models() -> Iterator[None]:
    """The process keeps where names of the hub stand."""
    yield
    hub._fetched.cache_clear()
    hub._located.cache_clear()


@pytest.mark.parametrize(("line", "page"), sorted(all_commands().items()))
def test_a_command_runs(line: str, page: str, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(world)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(world / "hub"))
    before, _, command = line.rpartition(" | ")
    words = shlex.split(command, comments=True)
    if before:
        said = shlex.split(before)
        assert said[0] == "echo"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said[1].encode() + b"\n")))
    match words:
        case ["reasonloop", *argv]:
            argv = [
                word.replace("train=100", "train=4&probe=1&test=2") for word in argv
            ]  # a generator's answers take time
            if argv[:2] == ["study", "rates"]:  # none of its runs is finished
                argv = [word for word in argv if word != "--compare-only"]
            if argv[0] == "bench":  # measures for minutes
                with pytest.raises(SystemExit, match="0"):
                    main([*argv, "--help"])
            else:
                assert main([*argv, *quick(argv)]) == (line in REFUSED or lacking(argv)) * 2, capsys.readouterr().err
        case ["make", *targets]:
            known = re.findall(r"(?m)^([\w-]+):", (ROOT / "Makefile").read_text())
            assert {word for word in targets if "=" not in word} <= {*known}
        case ["python" | "torchrun", *rest]:
            script = next(word for word in rest if not word.startswith("-"))
            assert (ROOT / script).exists() or "-m" in rest
        case _:
            raise AssertionError(f"{line}: what is it?")


def quick(argv: list[str]) -> list[str]:
    """What makes a command a matter of a moment."""
    match argv:
        case ["run", recipe, *_]:
            # the model that stands in has no room for 512; the one that is too large for here has none
            stands_in = recipe.startswith(("scale/", "around-")) and "math" not in recipe
            short = ["sampling.max_tokens=64"] * stands_in
            return ["--dry-run", "--out", "runs/planned", *short]
        case ["import", *_]:
            speaking = ["--model", "bytes"] * ("--model" in argv)  # the model that stands in has no words for numbers
            return ["--out", argv[argv.index("--out") + 1] + "-again", *speaking]
        case ["study", *_]:
            return [] if "--compare-only" in argv else ["--dry-run"]
        case ["eval" | "sample", *_]:
            return ["eval.problems=2", "sampling.max_tokens=4", *([] if "--samples" in argv else ["--samples", "1"])]
    return []
