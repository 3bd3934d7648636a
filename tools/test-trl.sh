#!/bin/sh
# make test-trl: RLoop around the real TRL, in an environment of its own on top of the one that is there (torch and transformers
# are not installed once more). From the Makefile: PYTHON.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH PYTHONHOME

"$PYTHON" -m venv "$work/venv"
where='import sysconfig; print(sysconfig.get_path("purelib"))'
beneath=$("$PYTHON" -c "$where")
# as a site of its own, so that what is installed there to be edited is found, too
echo "import site; site.addsitedir('$beneath')" >"$("$work/venv/bin/python" -c "$where")/beneath.pth"
"$work/venv/bin/python" -m pip install --quiet "trl==1.16.0"
"$work/venv/bin/python" -m pytest tests/with_trl
