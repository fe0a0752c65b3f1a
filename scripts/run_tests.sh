#!/usr/bin/env bash
# Every test, in two processes side by side that take about as long: those of serving wait for
# servers, those of the pages and of the kit run commands. With arguments, which pytest gets, in one.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTEST=(.venv/bin/python -m pytest)
FIRST=(tests/serve tests/docs tests/testing)

if [ $# -gt 0 ]; then
    exec "${PYTEST[@]}" "$@"
fi
log=$(mktemp)
"${PYTEST[@]}" "${FIRST[@]}" >"$log" 2>&1 &
first=$!
# Who breaks it off ends both.
trap 'kill "$first" 2>/dev/null || true; rm -f "$log"' EXIT
status=0
"${PYTEST[@]}" "${FIRST[@]/#/--ignore=}" || status=$?
wait "$first" || status=$?
echo "--- ${FIRST[*]}"
cat "$log"
exit "$status"
