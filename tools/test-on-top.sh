#!/bin/sh
# sh tools/test-on-top.sh TESTS PACKAGE ...: tests that need other packages for real, in an environment of their own on top of the
# one that is there (torch and transformers are not installed once more). A PACKAGE is one of pip's, or an extra of pyproject.toml.
# From the Makefile: PYTHON.
set -eu
tests=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH PYTHONHOME

"$PYTHON" -m venv "$work/venv"
where='import sysconfig; print(sysconfig.get_path("purelib"))'
beneath=$("$PYTHON" -c "$where")
# as a site of its own, so that what is installed there to be edited is found, too
echo "import site; site.addsitedir('$beneath')" >"$("$work/venv/bin/python" -c "$where")/beneath.pth"
"$PYTHON" -c '
import sys, tomllib
extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
print(*(package for name in sys.argv[1:] for package in extras.get(name, [name])), sep="\n")
' "$@" >"$work/packages"
"$work/venv/bin/python" -m pip install --quiet -r "$work/packages"
"$work/venv/bin/python" -m pytest "$tests"
