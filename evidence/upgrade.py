"""Brings run folders of earlier versions up to what this one reads: python evidence/upgrade.py RUN ..."""

from __future__ import annotations

import sys
from pathlib import Path

from reasonloop.study.earlier import upgrade

if __name__ == "__main__":
    for argument in sys.argv[1:]:
        upgrade(Path(argument))
