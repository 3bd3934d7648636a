#!/usr/bin/env bash
# Works on evidence/gsm8k-gpu/nine-minutes.toml for at most SECONDS (default 500); the next call goes on where it was.
#
#     bash evidence/gsm8k-gpu/stretch.sh [SECONDS] [STUDY.toml]
#
# Takes the model's pieces and the wheels that pack.sh has made, if there are such. They may come one after the other: until both pieces
# are there it says so, and ends. Copies what is finished, and the metrics so far, into OUT (default: runs/nine-minutes/out).
set -uo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-500} study=${2:-evidence/gsm8k-gpu/nine-minutes.toml}
python=${PYTHON:-python3} runs=runs/nine-minutes
out=${OUT:-$runs/out}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
began=$SECONDS
model=.gpu-model/smollm2-135m.gguf
if [ ! -f "$model" ]; then
    if [ ! -f .gpu-model/part-1 ] || [ ! -f .gpu-model/part-2 ]; then
        echo "stretch.sh: .gpu-model/part-1 and part-2 aren't both here yet; run evidence/gsm8k-gpu/pack.sh, and bring them" >&2
        exit 2
    fi
    cat .gpu-model/part-1 .gpu-model/part-2 > "$model.tmp"
    if [ "$(sha256sum "$model.tmp" | cut -d' ' -f1)" != "$(cat .gpu-model/sha256)" ]; then
        echo "stretch.sh: the two pieces aren't the model that pack.sh has split; expected both from one call of it" >&2
        exit 2
    fi
    mv "$model.tmp" "$model"
fi
if compgen -G ".gpu-wheels/*.whl" >/dev/null; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    missing=$("$python" benchmarks/gpu/missing.py .gpu-wheels/*.whl)
    if [ -n "$missing" ]; then
        # shellcheck disable=SC2086
        "$python" -m pip install -q --no-index --no-deps --no-compile --target "$site" $missing || exit 2
        export PYTHONPATH="$PYTHONPATH:$site"
    fi
fi
# Ctrl-C: the run stops behind its next checkpoint, and the same command goes on
timeout --signal=INT --kill-after=40 "$((seconds - (SECONDS - began)))" \
    "$python" -m reasonloop study "$study" --jobs 1 --runs "$runs"
code=$?
mkdir -p "$out"
cp "$runs"/*/metrics.jsonl "$out/" 2>/dev/null
cp "$runs"/*.log "$out/" 2>/dev/null
name=$(basename "$study" .toml)
folder=$(dirname "$study")
tar -cf "$out/finished.tar" -C "$folder" "$name.finished" "$name.results.json" 2>/dev/null || rm -f "$out/finished.tar"
[ "$code" -eq 0 ] && echo "stretch.sh: finished" || echo "stretch.sh: to be gone on with (exit $code)"
exit "$code"
