"""Whether what a run finds in its folder is what it has written, when it goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reasonloop.files import ADAPTER, write_atomically
from reasonloop.written.digests import METRICS, SEGMENTS, size_of
from reasonloop.written.known import LENIENT, MODEL, NAME, Written, alone, verify
from reasonloop.written.ledger import Ledger

AT_ONCE = 1 << 20
"""Bytes of a file whose content is looked at when a run goes on; that of a larger one is when it is read"""
ASIDE = "metrics.damaged.jsonl"
"""Lines of metrics.jsonl that can't be read any more, as they are"""


def ledger_of(run: Path, began: Mapping[str, Any], *, resumed: bool) -> tuple[Ledger, list[str]]:
    """The digests of a run that begins or goes on, and what a reader should be told of it. Raises RunError where something
    that it depends on isn't what was written."""
    if not resumed:
        (run / NAME).unlink(missing_ok=True)
        return Ledger(run, began), []
    _remove_litter(run)
    ledger = Ledger(run, began)
    if ledger.new:
        told = [f"{run}: no digests of what was written before ({NAME} is kept from now on): taken as it is"]
    else:
        verify(run, wrong_in)
        known = ledger.known
        told = [
            f"{run / name}: {wrong}, not what the run has written" for name in LENIENT if (wrong := known.wrong(name))
        ]
    return ledger, [*told, *_mend_metrics(run, ledger)]


def wrong_in(written: Written, *, whole: bool = False) -> dict[str, str]:
    """What a run would go wrong with, by name. `whole`: every byte is read."""
    lenient = {METRICS, *LENIENT}
    left_out = tuple(f"{folder}/" for folder in (MODEL, ADAPTER) if not (written.run / folder).is_dir())  # made again
    found = {}
    for name in dict.fromkeys([*written.names(), *alone(written.run)]):
        known = [value for value in written.expected(name) if value is not None]
        if name in lenient or name.startswith(left_out):
            continue
        small = all(size_of(value) <= AT_ONCE for value in known) or name.startswith(SEGMENTS)
        if wrong := written.wrong(name, whole=whole or small):
            found[name] = wrong
    return found


def _mend_metrics(run: Path, ledger: Ledger) -> list[str]:
    """Puts lines of metrics.jsonl that can't be read aside, and takes away what a killed process has left of a last one.
    What should be told: also where lines were lost or changed."""
    path, aside = run / METRICS, run / ASIDE
    wrong = ledger.known.wrong(METRICS)
    content = path.read_bytes() if path.is_file() else b""
    *lines, torn = content.split(b"\n")
    damaged = {number: line for number, line in enumerate(lines, 1) if line.strip() and not _readable(line)}
    if wrong and torn and not _readable(torn):
        damaged[len(lines) + 1] = torn
    told = (
        [f"{path}: {wrong}, not what the run has written: what is missing of it can't be made again"] if wrong else []
    )
    if damaged:
        which = f"line{'s' * (len(damaged) > 1)} {', '.join(map(str, damaged))}"
        told.append(f"{path}, {which}: damaged, and kept aside in {aside}: the run goes on without")
        before = aside.read_bytes() if aside.is_file() else b""
        write_atomically(aside, before + b"".join(line + b"\n" for line in damaged.values() if line not in before))
    if told or torn:
        kept = [line for number, line in enumerate(lines, 1) if number not in damaged and line.strip()]
        if wrong and torn and _readable(torn):
            kept.append(torn)
        ledger.write(path, b"".join(line + b"\n" for line in kept))
    return told


def _readable(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _remove_litter(run: Path) -> None:
    """What killed processes have left of files that weren't whole yet."""
    for folder in (run, run / "evals", run / SEGMENTS, run / "sources"):
        for left in folder.glob(".*.partial"):
            if not left.name.split(".")[-2].isdigit():  # one with a number has a writer, which may be alive
                left.unlink(missing_ok=True)
    for left in run.glob("[!.]*.partial"):
        shutil.rmtree(left, ignore_errors=True)
