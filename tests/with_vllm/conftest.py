"""Tests with the real vLLM, in an environment of its own: `make test-vllm`. Where there is none they don't exist."""

import sys
from importlib.util import find_spec
from pathlib import Path

collect_ignore_glob = [] if find_spec("vllm") else ["*"]
sys.path.append(str(Path(__file__).parent.parent / "engine"))  # its models with tokenizers
