#!/usr/bin/env bash
# Make .venv/extras, an environment over .venv that has torchao, hqq and the trackers too, for the
# tests with the mark `extras`. They are apart because transformers imports some of them wherever
# they are installed, and others hold back releases of libraries that all share.
# Without it set-up goes on, and those tests do not run; where $CI is set it fails.
set -euo pipefail
cd "$(dirname "$0")/.."

EXTRAS="adapterhub[torchao,hqq,trackers]"
VENV=.venv
STAMP=$VENV/extras/.setup

say() {
    echo "setup: $*" >&2
}

purelib() {
    "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
}

digest=$(cat "$VENV/.setup" scripts/setup_extras.sh | sha256sum | cut -d ' ' -f 1)
if [ "$(cat "$STAMP" 2>/dev/null)" = "$digest" ]; then
    exit 0
fi

say "installing $EXTRAS into $VENV/extras: a minute, 190 MB"
"$VENV/bin/python" -m venv --clear --without-pip "$VENV/extras"
echo "import site; site.addsitedir('$(purelib "$VENV/bin/python")')" \
    >"$(purelib "$VENV/extras/bin/python")/over.pth"
# An index that is busy may say that a package does not exist.
for pause in 5 20 0; do
    if "$VENV/extras/bin/python" -m pip install --disable-pip-version-check --quiet \
        --constraint scripts/constraints.txt "$EXTRAS"; then
        echo "$digest" >"$STAMP"
        exit 0
    fi
    sleep "$pause"
done
say "the tests of torchao, hqq and the trackers will not run: pip failed"
[ -z "${CI:-}" ]
