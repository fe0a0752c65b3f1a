#!/usr/bin/env bash
# Install the programs that tests need, where they are missing and it is possible: what remotes
# talk to, and a C compiler for the library that lets the calls of the C library fail.
# Without them set-up goes on: those tests are then skipped, and fail where $CI is set.
set -euo pipefail

PEERS=(docker-registry skopeo cc)

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
# Programs are in packages of their name, but for the compiler, which needs the C headers too.
read -ra packages <<<"${missing[*]/%cc/gcc libc6-dev}"

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo --non-interactive)
fi
if ! command -v apt-get >/dev/null 2>&1; then
    reason="there is no apt-get"
elif ! ${as_root[@]+"${as_root[@]}"} true >/dev/null 2>&1; then
    reason="this user is not root and sudo asks for a password"
else
    say "installing ${packages[*]} with apt-get"
    get=(${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get --quiet --quiet)
    install=("${get[@]}" install --yes --no-install-recommends "${packages[@]}")
    # The lists of packages may be missing or old: fetch them only when it fails without.
    if "${install[@]}" >/dev/null 2>&1 ||
        { "${get[@]}" update >/dev/null 2>&1 && "${install[@]}" >/dev/null 2>&1; }; then
        # Debian starts a registry that anyone can write to; the tests start one of their own.
        ${as_root[@]+"${as_root[@]}"} systemctl disable --now docker-registry >/dev/null 2>&1 || true
        exit 0
    fi
    reason="apt-get failed; see: apt-get install ${packages[*]}"
fi
say "the tests that need ${missing[*]} will be skipped: $reason"
