#!/bin/sh
# make test-trackers: wandb, trackio and TensorBoard for real, in an environment of their own on top of the one that is there
# (torch is not installed once more). Without a network: offline, or against a server on this machine. From the Makefile: PYTHON.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH PYTHONHOME

"$PYTHON" -m venv "$work/venv"
where='import sysconfig; print(sysconfig.get_path("purelib"))'
"$PYTHON" -c "$where" >"$("$work/venv/bin/python" -c "$where")/beneath.pth"
"$PYTHON" -c '
import tomllib
extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
print(*(package for name in ("wandb", "trackio", "tensorboard") for package in extras[name]), sep="\n")
' >"$work/packages"
"$work/venv/bin/python" -m pip install --quiet -r "$work/packages"
"$work/venv/bin/python" -m pytest tests/track/test_trackers.py
