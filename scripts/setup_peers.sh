#!/usr/bin/env bash
# Install the programs that the tests of remotes talk to, where they are missing and it is possible.
# Without them set-up goes on: those tests are then skipped, and fail where $CI is set.
set -euo pipefail

PEERS=(docker-registry skopeo)

say() {
    echo "setup: $*" >&2
}

missing=()
for peer in "${PEERS[@]}"; do
    command -v "$peer" >/dev/null 2>&1 || missing+=("$peer")
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo --non-interactive)
fi
if ! command -v apt-get >/dev/null 2>&1; then
    reason="there is no apt-get"
elif ! ${as_root[@]+"${as_root[@]}"} true >/dev/null 2>&1; then
    reason="this user is not root and sudo asks for a password"
else
    say "installing ${missing[*]} with apt-get"
    get=(${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get --quiet --quiet)
    install=("${get[@]}" install --yes --no-install-recommends "${missing[@]}")
    # The lists of packages may be missing or old: fetch them only when it fails without.
    if "${install[@]}" >/dev/null 2>&1 ||
        { "${get[@]}" update >/dev/null 2>&1 && "${install[@]}" >/dev/null 2>&1; }; then
        # Debian starts a registry that anyone can write to; the tests start one of their own.
        ${as_root[@]+"${as_root[@]}"} systemctl disable --now docker-registry >/dev/null 2>&1 || true
        exit 0
    fi
    reason="apt-get failed; see: apt-get install ${missing[*]}"
fi
say "the tests that need ${missing[*]} will be skipped: $reason"
