"""`reasonloop import`: other trainers' rollouts, judged again, as the folder of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from reasonloop.config import Recipe, TaskConfig, validated
from reasonloop.errors import InputError
from reasonloop.exchange.steps import Steps
from reasonloop.files import existing, made_whole, require_new
from reasonloop.imports.judging import headline, judged, lines
from reasonloop.imports.reading import Asked, Reading, find_rollouts
from reasonloop.imports.scores import Agreement, Table
from reasonloop.machine.threads import available_cores
from reasonloop.records import Place, Problem
from reasonloop.runs.progress import Progress
from reasonloop.runs.ran_on import describe_machine
from reasonloop.store.segments import TrajectoryStore
from reasonloop.store.sources import write_sources
from reasonloop.store.texts import write_problems
from reasonloop.tasks import load_task, parse_task_spec, require_gold, task_problems, tell
from reasonloop.tasks.show import verifier_pool
from reasonloop.written.ledger import Ledger

if TYPE_CHECKING:
    from reasonloop.policy.codec import Codec
    from reasonloop.verify.workers import VerifierPool

METHOD = "import"
"""What stands in config.toml in place of a method"""
BYTES = "UTF-8 bytes"
"""What stands for tokens where there are neither ids nor a tokenizer"""


def import_run(given: Sequence[Path], task: str, out: Path, asked: Asked, model: str | None = None) -> Table:
    """The verb: reads, judges, prints what came of it, and leaves a run in `out`, whole or not at all.

    Raises InputError for what can't be read, or a folder that isn't new.
    """
    if any((out / "sources").glob("*.parquet")):
        raise InputError(
            f"--out {out}: holds imported rollouts already (they would be there twice); expected a new folder"
        )
    require_new(out)
    name, options = parse_task_spec(task)
    chosen = validated(
        TaskConfig, {"name": name, "verify_workers": min(4, available_cores()), **options}, f"task {name!r}"
    )
    loaded = load_task(chosen.name, chosen.options)
    problems = task_problems(loaded, chosen.name)
    codec = _codec(model)
    with verifier_pool(chosen.name, chosen.options, chosen.verify_deadline, chosen.verify_workers) as pool:
        if asked.trust is None:
            require_gold(loaded, problems, pool, chosen.name)
        tell(loaded)
        with find_rollouts(given, problems, asked, codec, existing(out)) as reading:
            _check_trust(reading)
            print(headline(reading), flush=True)
            table = _write(reading, None if asked.trust else pool, out, _About(chosen, given, model))
    for line in table.lines() if asked.trust is None else [f"verdicts: by the trainer's numbers, {asked.trust}"]:
        print(line)
    print(f"run       {out}")
    return table


def _codec(model: str | None) -> Codec | None:
    """Of the model that was named; a folder with a tokenizer alone will do."""
    if model is None:
        return None
    from reasonloop.policy.asking import quiet
    from reasonloop.policy.codec import Codec
    from reasonloop.policy.loading import has_tokenizer, unloadable

    folder = Path(model)
    if has_tokenizer(folder) and not (folder / "config.json").is_file():
        from transformers import PretrainedConfig

        from reasonloop.policy.tokenizers import load_tokenizer

        quiet()
        try:
            tokenizer = load_tokenizer(folder, trust_remote_code=False)
            return Codec(tokenizer, PretrainedConfig.from_dict({"vocab_size": len(tokenizer)}))
        except Exception as error:  # a damaged folder fails anywhere inside of transformers
            raise unloadable(model, error) from error
    return Codec.load(model)


def _check_trust(reading: Reading) -> None:
    """Raises InputError where no rollout has the number that the rule asks for."""
    rule = reading.asked.trust
    if rule is None:
        return
    found: set[str] = set()
    for key in reading.keys:
        for kept in reading.spool.read(key):
            if rule.right(kept.row.score, kept.row.parts) is not None:
                return
            found |= {"score"} if kept.row.score is not None else set()
            found |= kept.row.parts.keys()
    raise InputError(
        f"--trust-scores {str(rule)!r}: no rollout has {rule.name!r}; there are: {', '.join(sorted(found)) or 'none'}"
    )


class _About:
    """What is known of an import beside its rollouts."""

    def __init__(self, task: TaskConfig, given: Sequence[Path], model: str | None) -> None:
        self.task, self.given, self.model = task, [str(path) for path in given], model

    def config(self, reading: Reading, logprobs: str) -> dict[str, Any]:
        """RUN/config.toml: what a recipe would say, as far as it applies, and where all came from."""
        tokens = "the trainer's" if reading.whole_ids == reading.rollouts else BYTES
        if self.model is not None and reading.whole_ids < reading.rollouts:
            tokens = "by the tokenizer of model.path" + (", as far as the files have none" if reading.whole_ids else "")
        recipe = {
            "method": METHOD,
            "seed": 0,
            **({"model": {"path": self.model}} if self.model is not None else {}),
            "task": self.task.model_dump(mode="json", exclude_none=True),
        }
        counts = reading.counts
        imported = {
            "trainer": reading.trainer,
            "given": self.given,
            "files": len(reading.files),
            "rollouts": reading.rollouts,
            "tokens": tokens,
            "logprobs": logprobs,
            "verdicts": f"trusted: {reading.asked.trust}" if reading.asked.trust else "the task's verifier",
            "not_read": dict(counts.files),
            "left_out": dict(counts.skipped),
            "noted": dict(counts.noted),
        }
        ran_on = describe_machine(Recipe(threads=1))
        return {**recipe, "imported": imported, "ran_on": ran_on}


def _write(reading: Reading, pool: VerifierPool | None, out: Path, about: _About) -> Table:
    agreement = Agreement(reading.scored)
    with made_whole(out) as folder:
        with Progress(reading.rollouts) as progress:
            written = _judge(reading, pool, agreement, folder, out.name, progress)
        write_problems(folder, _asked(reading.problems, reading.matched))
        (folder / "config.toml").write_text(tomli_w.dumps(about.config(reading, written.logprobs)), encoding="utf-8")
        written.finish(folder, about.task.name, reading)
        (folder / "state.json").write_text(json.dumps({"stage": "done"}) + "\n", encoding="utf-8")
        Ledger(folder)
    for line in [*lines(reading)[1:], *written.told()]:
        print(line)
    return agreement.table()


def _asked(problems: Sequence[Problem], matched: set[int]) -> Sequence[Problem]:
    return [
        problem for i, problem in enumerate(problems) if i in matched or problem.split in ("train", "probe", "test")
    ]


def _judge(
    reading: Reading, pool: VerifierPool | None, agreement: Agreement, folder: Path, name: str, progress: Progress
) -> Steps:
    store, written = TrajectoryStore(folder / "trajectories", name), Steps(reading.trainer)
    for number, step in enumerate(judged(reading, pool, agreement, Place()), start=1):
        segment = store.write(step.rollouts, step.rollouts[0].place)
        write_sources(folder, segment, step.sources)
        written.add(step)
        progress.step(reading.trainer, number, len(reading.keys), units=len(step.rollouts))
    return written
