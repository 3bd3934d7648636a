#!/usr/bin/env bash
# Is the GPU path right, and how fast is it? At most nine minutes; no network. See docs/gpu.md.
#
#     bash benchmarks/gpu/check.sh [--cpu] [--only PART ...]
#
# Takes torch, transformers and what else is there from PYTHON (default: python3), and what is missing from the wheels that
# benchmarks/gpu/pack.sh has put into .gpu-wheels. Writes check.json and check.log into OUT (default: benchmarks/gpu/results/
# and the GPU's name). Without a GPU, or with --cpu: the same parts at toy sizes, in the environment as it is.
set -uo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
began=$SECONDS

mode=""
case " $* " in *" --cpu "*) mode=cpu ;; esac
if [ -z "$mode" ]; then
    device=$("$python" -c "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')") || exit 2
    if [ -z "$device" ]; then
        echo "torch sees no GPU: toy sizes on the CPU"
        mode=cpu
        set -- --cpu "$@"
    fi
fi
if [ "$mode" = cpu ]; then
    exec "$python" benchmarks/gpu/check.py "${OUT:-benchmarks/gpu/results/cpu}" "$@"
fi

if compgen -G ".gpu-wheels/*.whl" >/dev/null; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    # only what this Python doesn't have: its own torch and all that belongs to it must stay as they are
    missing=$("$python" benchmarks/gpu/missing.py .gpu-wheels/*.whl)
    if [ -n "$missing" ]; then
        # shellcheck disable=SC2086
        "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" $missing || exit 2
        export PYTHONPATH="$PYTHONPATH:$site"
    fi
fi
name=$(echo "$device" | tr -cs 'A-Za-z0-9' '-' | sed 's/-*$//' | tr 'A-Z' 'a-z')
"$python" benchmarks/gpu/check.py "${OUT:-benchmarks/gpu/results/$name}" --deadline $((530 - (SECONDS - began))) "$@"
