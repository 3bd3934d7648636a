"""Data sets of the Hugging Face hub by their names, through the extra `datasets`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from reasonloop.errors import InputError, first_line
from reasonloop.hub import offline
from reasonloop.tasks.files.raw import RawRow

NAME = re.compile(r"(?P<hf>hf:)?(?P<name>(?:[\w.-]+/)?[\w.-]+)(?::(?P<config>[\w.+-]+))?(?:@(?P<split>[\w.+-]+))?")
"""`hf:owner/name:config@split`, all but owner/name may be left out"""
BATCH = 1_000
"""Rows"""


def load(name: str, config: str | None) -> dict[str, Any]:
    """The data set's splits, from the hub or from what `datasets` keeps of it on this machine.

    Raises InputError, with what to download and what to name then, where the extra or the data set can't be had.
    """
    try:
        import datasets
    except ImportError:
        raise _unavailable(
            name, 'the hub is read with `pip install "reasonloop[datasets]"`, which is missing'
        ) from None
    import huggingface_hub.constants

    if offline():
        # what was downloaded before is still there, and nobody waits for retries
        datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        return dict(datasets.load_dataset(name, config))
    except Exception as error:  # of the hub's, the network's, or the data set's own
        raise _unavailable(name, f"got from the hub: {first_line(error)}") from None


def hub_rows(data: Any, name: str) -> Iterator[RawRow]:
    """The rows of one split, which messages call `name`."""
    number = 0
    for batch in data.with_format("arrow").iter(batch_size=BATCH):
        for value in batch.to_pylist():
            number += 1
            yield RawRow(name, "row", number, value)


def _unavailable(name: str, reason: str) -> InputError:
    folder = name.rpartition("/")[2]
    return InputError(
        f"{name}: no such file or folder here, and the Hugging Face data set can't be had ({reason}); download it where "
        f"the hub can be reached (`hf download {name} --repo-type dataset --local-dir {folder}`), and name the folder "
        f"({folder}) or a file in it"
    )
