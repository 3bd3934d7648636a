#!/bin/sh
# make install: this checkout's virtual environment, whole or marked as not whole; what can't work is one line before
# anything is made. From the Makefile: VENV, the folder; TORCH, what pip is asked for; and where they are set PYTHON, the
# interpreter (else the first that will do), and TORCH_INDEX, the package index that torch comes from (else pip's own).
set -eu
supported="Python 3.11 to 3.14" # what torch has wheels for

fail() {
    echo "install: $*" >&2
    exit 1
}
version() { "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null || echo none; }
will_do() {
    case $(version "$1") in 3.11.* | 3.12.* | 3.13.* | 3.14.*) true ;; *) false ;; esac
}

case $(uname -s) in Linux | Darwin) ;; *) fail "this is $(uname -s); expected Linux or macOS; on Windows, WSL (docs/install.md)" ;; esac

python=
for name in ${PYTHON:-python3 python3.12 python3.13 python3.11 python3.14}; do
    if will_do "$name"; then
        python=$name
        break
    fi
done
if [ -z "$python" ]; then
    name=${PYTHON:-python3}
    fail "$name is Python $(version "$name"); expected $supported: install one, then for example: make PYTHON=python3.12 quickstart"
fi
if [ "$("$python" -c 'import platform; print(platform.system(), platform.machine())')" = "Darwin x86_64" ]; then
    fail "$python is for Intel's Macs, which PyTorch has no builds for any more; expected Python for arm64, or Linux"
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    fail "$python can make no virtual environment; on Debian and Ubuntu: apt install python$(version "$python" | cut -d. -f1,2)-venv"
fi

# an environment that a stopped install has left is made anew; one that is whole, or somebody's own, is kept
if [ -e "$VENV/.incomplete" ] || [ ! -e "$VENV" ]; then
    echo "install: Python $(version "$python") ($python) into $VENV"
    rm -rf "$VENV"
    mkdir -p "$VENV"
    touch "$VENV/.incomplete"
    "$python" -m venv "$VENV"
elif ! will_do "$VENV/bin/python"; then
    fail "$VENV has Python $(version "$VENV/bin/python"); expected $supported: rm -r $VENV, then the same command"
fi

# measured in docs/install.md
case "$(uname -s) ${TORCH_INDEX:-}" in
    Darwin*) size="0.3 GB" ;;
    *cpu) size="0.4 GB" ;;
    *) size="0.4 GB if pip finds torch's CPU build, 3 GB if it finds the one for GPUs (docs/install.md has how to choose)" ;;
esac
echo "install: to download, but for what pip has kept from before: $size; takes minutes"
{
    "$VENV/bin/python" -m pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH" &&
        "$VENV/bin/python" -m pip install --editable ".[dev]"
} || fail "pip has failed, and says why above; the same command tries again"
rm -f "$VENV/.incomplete"
touch "$VENV/bin/.installed"
