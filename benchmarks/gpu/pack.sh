#!/usr/bin/env bash
# Wheels for benchmarks/gpu/check.sh on a machine without a network, into .gpu-wheels (git-ignored). See docs/gpu.md.
#
#     bash benchmarks/gpu/pack.sh [--python 3.12] [--pyarrow] [--without-trl]
#
# Left out: torch, triton, transformers and what they need, which such a machine has; pyarrow, which most have and which is
# as large as all others together (--pyarrow takes it along).
set -euo pipefail
cd "$(dirname "$0")/../.."
limit=$((60 * 1024 * 1024))
version=3.12 trl=yes arrow=
while [ $# -gt 0 ]; do
    case "$1" in
        --python) version=${2:?--python needs a version}; shift 2 ;;
        --pyarrow) arrow=yes; shift ;;
        --without-trl) trl=; shift ;;
        *) echo "pack.sh: unknown option $1; expected --python X.Y, --pyarrow or --without-trl" >&2; exit 2 ;;
    esac
done
python=${PYTHON:-python3}
wanted=(
    "pydantic>=2.11" annotated-types typing-inspection "tomli-w>=1.2" "duckdb>=2.0"
    "math-verify>=0.9" latex2sympy2-extended "antlr4-python3-runtime==4.13.2"
    "pytest>=8" "pytest-timeout>=2.3" iniconfig pluggy "hypothesis>=6.130" sortedcontainers "rich>=14" liger-kernel
)
[ -z "$trl" ] || wanted+=("trl==1.16.0" "datasets>=4.4" "dill>=0.4.1,<0.4.2" multiprocess "accelerate>=1.10" "peft" xxhash)
[ -z "$arrow" ] || wanted+=("pyarrow>=20")
rm -rf .gpu-wheels
platforms=()
for old in 2_35 2_34 2_31 2_28 2_27 2_24 2_17 2_12 2_5; do platforms+=(--platform "manylinux_${old}_x86_64"); done
get() {
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --dest .gpu-wheels --python-version "$version" \
        --implementation cp "${platforms[@]}" --platform manylinux2014_x86_64 "$@"
}
get "${wanted[@]}"
# the compiled half of pydantic must be the very version that the other half names
core=$(unzip -p .gpu-wheels/pydantic-*.whl '*/METADATA' | sed -n 's/^Requires-Dist: \(pydantic-core==[0-9.]*\).*/\1/p')
get "$core"
size=$(du -cb .gpu-wheels/*.whl | tail -1 | cut -f1)
du -b .gpu-wheels/*.whl | sort -n | awk '{printf "%8.1f MiB  %s\n", $1 / 1048576, $2}'
if [ "$size" -gt "$limit" ]; then
    echo "pack.sh: $((size / 1048576)) MiB in .gpu-wheels; expected at most $((limit / 1048576)): leave out --pyarrow, or TRL with --without-trl" >&2
    exit 1
fi
echo "$((size / 1048576)) MiB in .gpu-wheels for Python $version"
