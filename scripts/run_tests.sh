#!/usr/bin/env bash
# Every test, in two processes side by side: those of serving wait for servers most of their time.
# With arguments, which pytest gets, in one.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTEST=(.venv/bin/python -m pytest)

if [ $# -gt 0 ]; then
    exec "${PYTEST[@]}" "$@"
fi
log=$(mktemp)
"${PYTEST[@]}" tests/serve >"$log" 2>&1 &
serving=$!
# Who breaks it off ends both.
trap 'kill "$serving" 2>/dev/null || true; rm -f "$log"' EXIT
status=0
"${PYTEST[@]}" --ignore tests/serve || status=$?
wait "$serving" || status=$?
echo "--- tests/serve"
cat "$log"
exit "$status"
