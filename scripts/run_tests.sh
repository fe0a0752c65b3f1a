#!/usr/bin/env bash
# Every test, in two processes side by side that take about as long: those of serving wait for
# servers, those of the pages, of packages and of the kit run commands. What needs the libraries of
# .venv/extras runs after the second. With arguments, which pytest gets, in one.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTEST=(.venv/bin/python -m pytest)
FIRST=(tests/serve tests/docs tests/packaging tests/testing)
WITH_EXTRAS=(tests/bases/test_quantise.py tests/peft/test_pairs.py tests/train/test_trackers.py)

if [ $# -gt 0 ]; then
    exec "${PYTEST[@]}" "$@"
fi
log=$(mktemp)
"${PYTEST[@]}" -m "not extras" "${FIRST[@]}" >"$log" 2>&1 &
first=$!
# Who breaks it off ends both.
trap 'kill "$first" 2>/dev/null || true; rm -f "$log"' EXIT
status=0
"${PYTEST[@]}" -m "not extras" "${FIRST[@]/#/--ignore=}" || status=$?
if [ -e .venv/extras/.setup ]; then
    .venv/extras/bin/python -m pytest -m extras "${WITH_EXTRAS[@]}" || status=$?
fi
wait "$first" || status=$?
echo "--- ${FIRST[*]}"
cat "$log"
exit "$status"
