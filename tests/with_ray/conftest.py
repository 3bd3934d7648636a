"""Several real Ray nodes on this machine: `make test-ray`. It takes minutes, so that the plain suite does without."""

import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ASKED = any("with_ray" in argument for argument in sys.argv)
collect_ignore_glob = [] if ASKED and find_spec("ray") else ["*"]
HERE = Path(__file__).parent
os.environ |= {
    "TROUBLE": tempfile.mkdtemp(prefix="reasonloop-trouble-"),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "OMP_NUM_THREADS": "1",
}
