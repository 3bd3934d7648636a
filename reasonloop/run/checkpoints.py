"""Checkpoints of stages: a Hugging Face folder, the trainer's state and a cursor, replaced as one."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonloop.files import drop_folder, write_atomically


@dataclass(frozen=True)
class Checkpoint:
    """RUN/checkpoints/<stage>. The cursor says how far the stage has come; a finished one has "done"."""

    folder: Path

    CURSOR = "cursor.json"

    def cursor(self) -> dict[str, Any] | None:
        """None when the stage has not made a checkpoint yet."""
        from reasonloop.files import recover_folder

        recover_folder(self.folder)
        path = self.folder / self.CURSOR
        return json.loads(path.read_text()) if path.is_file() else None

    @property
    def done(self) -> bool:
        cursor = self.cursor()
        return cursor is not None and bool(cursor.get("done"))

    def save(self, learner: Any, cursor: dict[str, Any], trainer_state: bool = True) -> None:
        """Weights, tokenizer, optimizer and cursor, whole or not at all."""
        from reasonloop.files import replace_folder

        partial = self.folder.with_name(self.folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        learner.policy.model.save_pretrained(partial)
        learner.policy.tokenizer.save_pretrained(partial)
        if trainer_state:
            learner.save(partial)
        (partial / self.CURSOR).write_text(json.dumps(cursor) + "\n")
        replace_folder(partial, self.folder)

    def skip(self, cursor: dict[str, Any]) -> None:
        """A finished stage that made no policy of its own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / self.CURSOR, json.dumps(cursor) + "\n")

    def drop_weights(self) -> None:
        """Frees the disk that a finished stage's policy takes; that it is finished stays known."""
        if self.done:
            drop_folder(self.folder, keep=self.CURSOR)
