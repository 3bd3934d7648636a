#!/bin/sh
# make wheel-test: builds the wheel, checks that it carries every file that git has of the package, installs it into a new
# environment, and works with it from another folder. From the Makefile: PYTHON, TORCH, TORCH_INDEX.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH PYTHONHOME

rm -rf build # setuptools packs what an earlier build has left there
"$PYTHON" -m pip wheel --quiet --no-deps --wheel-dir "$work" .
git ls-files reasonloop | "$PYTHON" -c '
import sys, zipfile
carried = set(zipfile.ZipFile(sys.argv[1]).namelist())
missing = [name for name in sys.stdin.read().split("\n") if name and name not in carried]
sys.exit(f"wheel-test: not in the wheel: {missing}" if missing else 0)
' "$work"/reasonloop-*.whl

"$PYTHON" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH"
"$work/venv/bin/python" -m pip install --quiet "$work"/reasonloop-*.whl
mkdir "$work/elsewhere"
cd "$work/elsewhere"
PATH="$work/venv/bin:$PATH"
reasonloop --help >help
reasonloop doctor >doctor || { cat doctor; exit 1; }
reasonloop run quickstart --dry-run >plan
reasonloop run quickstart --out run rl.steps=1 rl.problems_per_step=4 rloop.iterations=1 rft.epochs=1 task.train=32 \
    task.probe=4 rl.probe_every=0 eval.problems=4 eval.samples=2 >table
test -s run/report.html && test -s run/model/model.safetensors
"$work/venv/bin/python" -c '
import reasonloop
assert "site-packages" in reasonloop.__file__, reasonloop.__file__
import importlib.util
assert importlib.util.find_spec("ruff") is None  # the environment is clean
'
echo "wheel-test: passed, $(du -h "$work"/reasonloop-*.whl | cut -f1) wheel, $(du -sh "$work/venv" | cut -f1) installed"
