"""Which of the files that were named hold rollouts, and whose: told by their keys, not by their names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from reasonloop.errors import InputError
from reasonloop.imports import flat, nested
from reasonloop.imports.counts import Counts
from reasonloop.imports.files import PICKLE, Found, kind_of, list_files, records
from reasonloop.imports.rows import NoRollout, Trainer
from reasonloop.own import nearest
from reasonloop.text import shown

KNOWN = (*flat.TRAINERS, *nested.TRAINERS)
NAMES = (*sorted({trainer.name for trainer in KNOWN}), "jsonl")
LOOKED_AT = 8
"""Records at a file's beginning by which it is told"""
WITHOUT_TEXT = {
    ("traj_idx", "steps", "total_reward"): "tinker's summaries hold no texts (train_logtree.json does, of some groups)",
}
"""Records by their keys that speak of rollouts and hold no text of them"""
EXPORTS = (
    "another trainer's export to JSON Lines (docs/import.md says how) can be read; a pickle runs whatever is in it"
)


def recognised(given: Sequence[Path], name: str | None, counts: Counts) -> list[tuple[Found, Trainer]]:
    """The files that hold rollouts, each with its reader: those of the trainer `name`, or of the one that they are of.

    Raises InputError where there is none, or more than one.
    """
    if name == "slime":
        raise InputError(f"--from slime: it dumps pickles; {EXPORTS}")
    if name is not None and name not in NAMES:
        raise InputError(f"--from {name}: unknown; {nearest(name, NAMES)}")
    wanted = [t for t in (*KNOWN, *([flat.JSONL] if name == "jsonl" else [])) if name in (None, t.name)]
    chosen: list[tuple[Found, Trainer]] = []
    others: dict[str, str] = {}
    for path in list_files(given):
        found = kind_of(path)
        if found.kind not in ("jsonl", "json", "parquet"):
            counts.pass_over(found.kind, path.name)
            continue
        looked_at = [record for _, record in islice(records(found), LOOKED_AT)]
        first = [record for record in looked_at if not isinstance(record, NoRollout)]
        fitting = [trainer for trainer in wanted if any(map(trainer.fits, first))]
        if len({trainer.name for trainer in fitting}) > 1:
            fits = " and ".join(trainer.name for trainer in fitting)
            raise InputError(f"{path}: may be of {fits}; expected --from with one of them")
        if fitting:
            chosen.append((found, fitting[0]))
        else:
            counts.pass_over(_why_not(looked_at, first), path.name)
            others |= {str(path): _described(first[0])} if first else {}
    chosen = _without_parts(chosen, counts)
    names = sorted({trainer.name for _, trainer in chosen})
    if len(names) > 1:
        raise InputError(f"{given[0]}: holds rollouts of {' and '.join(names)}; expected --from with one of them")
    if not chosen:
        raise InputError(_nothing(given, name, counts, others))
    return chosen


def _nothing(given: Sequence[Path], name: str | None, counts: Counts, others: dict[str, str]) -> str:
    """Why there is no rollout to read, in a line."""
    where = ", ".join(map(str, given[:1])) + (f" (and {len(given) - 1} more)" if len(given) > 1 else "")
    pickles = counts.files[PICKLE]
    if pickles:
        named = ", ".join(counts.first[PICKLE])
        return f"{where}: nothing but pickles to read ({named}); {EXPORTS}"
    for why in WITHOUT_TEXT.values():
        if counts.files[why]:
            return f"{where}: {why}; expected files with prompts and responses"
    whose = f" of {name}" if name else ""
    kinds = "; ".join(f"{why}: {count:,} ({', '.join(counts.first[why])})" for why, count in counts.files.most_common())
    keys = next((f"; the first has {told}" for told in others.values()), "")
    return f"{where}: no rollouts{whose} in it ({kinds or 'no files'}){keys}; expected files of {', '.join(NAMES)}"


def _described(record: object) -> str:
    if isinstance(record, dict):
        return f"the keys {shown(', '.join(map(str, record)), 100)}"
    return f"a {type(record).__name__}"


def _why_not(looked_at: Sequence[object], first: Sequence[object]) -> str:
    """What a file is that is nobody's: by the records at its beginning, and those of them that could be read."""
    if looked_at and not first:
        return f"files that begin with a {looked_at[0]}"
    return (_without_text(first[0]) if first else None) or "files without rollouts"


def _without_text(record: object) -> str | None:
    keys = record.keys() if isinstance(record, dict) else ()
    return next((why for named, why in WITHOUT_TEXT.items() if all(key in keys for key in named)), None)


def _without_parts(chosen: list[tuple[Found, Trainer]], counts: Counts) -> list[tuple[Found, Trainer]]:
    """Without the files that hold a part of another one again: prime-rl's effective/ beside all/."""
    whole = {found.path.parent.parent for found, _ in chosen if found.path.parent.name == "all"}
    kept = []
    for found, trainer in chosen:
        if found.path.parent.name == "effective" and found.path.parent.parent in whole:
            counts.pass_over("files in effective/ (their rollouts are in all/)", found.path.name)
        else:
            kept.append((found, trainer))
    return kept
