"""The responses of an evaluation: a Parquet file beside its JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reasonloop.errors import InputError, RunError
from reasonloop.files import write_atomically
from reasonloop.records import Rollout
from reasonloop.store.texts import TEXTS, Write, read_checked, write_texts


def text_row(rollout: Rollout) -> dict[str, Any]:
    """What is kept of a response, as JSON has it: the columns of `store.texts.TEXTS` but for the problem."""
    return {
        "sample": rollout.sample,
        "verdict": str(rollout.verdict),
        "score": rollout.score,
        "detail": rollout.detail,
        "finish": rollout.finish,
        "n_tokens": rollout.length,
        "text": rollout.text,
    }


def texts_of(evaluation: Path) -> Path:
    """Where the responses of the evaluation in this JSON file are."""
    named = evaluation.with_suffix("") if evaluation.suffix == ".json" else evaluation
    return named.with_name(f"{named.name}.parquet")


def expect_own(evaluation: Path) -> None:
    """Raises InputError where another file has the place of the evaluation's responses: problems, say."""
    path = texts_of(evaluation)
    if not path.exists():
        return
    try:
        own = {*read_checked(path).names} >= {*TEXTS.names}
    except RunError:
        own = False
    if not own:
        raise InputError(
            f"{path}: the responses would go there, and it holds something else; expected another name for {evaluation}"
        )


def keep_texts(evaluation: Path, rows: Sequence[Mapping[str, Any]], write: Write = write_atomically) -> None:
    """Writes the responses of an evaluation's rows (`evaluate.count`), in their order; before its JSON file, which says that
    the evaluation is whole. Whole or not at all; equal responses are equal bytes."""
    texts = [{"problem_id": row["id"], **rollout} for row in rows for rollout in row["rollouts"]]
    write_texts(texts_of(evaluation), texts, write)
