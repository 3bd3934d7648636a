"""Tests with the real Ray, several nodes of it on this machine: `make test-ray`. Where there is none they don't exist."""

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

collect_ignore_glob = [] if find_spec("ray") else ["*"]
HERE = Path(__file__).parent
os.environ |= {
    "TROUBLE": tempfile.mkdtemp(prefix="reasonloop-trouble-"),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "OMP_NUM_THREADS": "1",
}
