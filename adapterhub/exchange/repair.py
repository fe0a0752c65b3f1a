"""`adz fsck --repair`: what can be put right here, and from a remote what cannot."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from adapterhub.errors import AdzError
from adapterhub.exchange.bounds import Bounds
from adapterhub.exchange.download import Download
from adapterhub.exchange.found import Found, find_version, remote_files
from adapterhub.manifest import FileRecord
from adapterhub.protocols import Finding, Progress, Registry, Remote, Repaired
from adapterhub.staging import home_staging, staging_folder

# A lost manifest comes first, then the version that it describes, then that version's files.
_ROUNDS = 4


def repair(
    registry: Registry,
    findings: Sequence[Finding],
    remote: Remote | None,
    progress: Progress,
    bounds: Bounds | None = None,
) -> tuple[list[Repaired], list[Finding]]:
    """Repair `findings` from what is here, then by digest from `remote`. Returns what was done
    and what is still wrong.

    The remote is not trusted: a file is stored only when its bytes have the digest that is
    missing. What it does not have, or has otherwise, is a warning.
    """
    done: list[Repaired] = []
    left = list(findings)
    for _ in range(_ROUNDS):
        before = left
        done += registry.mend(left)
        left = _again(registry, left)
        if remote is not None:
            done += _fetch(registry, left, remote, progress, bounds or Bounds())
            left = _again(registry, left)
        if not left or left == before:
            break
    return done, left


def _again(registry: Registry, findings: Sequence[Finding]) -> list[Finding]:
    """What is wrong now of what was wrong, and what came to light with it."""
    files = {finding.digest for finding in findings if finding.kind == "file"}
    bases = [finding for finding in findings if finding.kind == "base"]
    found = registry.check(bases=False, only={digest for digest in files if digest})
    return [*found, *bases]


def _fetch(
    registry: Registry,
    findings: Sequence[Finding],
    remote: Remote,
    progress: Progress,
    bounds: Bounds,
) -> Iterator[Repaired]:
    for finding in findings:
        if finding.digest is None or finding.kind not in ("file", "names"):
            continue
        for reference in finding.versions:
            name, _, number = reference.rpartition("@")
            try:
                found = find_version(remote, name, number, bounds)
                if found and _bring(registry, finding.digest, found, remote, progress, bounds):
                    yield Repaired(finding.subject, f"fetched from {remote.url}")
                    break
            except AdzError as error:
                progress.warn(f"{finding.subject}: {error}")


def _bring(
    registry: Registry,
    digest: str,
    found: Found,
    remote: Remote,
    progress: Progress,
    bounds: Bounds,
) -> bool:
    """Fetch the file or the manifest with this digest; False where the version has none such."""
    with staging_folder(home_staging()) as folder:
        target = folder / "file"
        if digest == found.digest:
            body = found.remote_version.manifest
            target.write_bytes(body)
            registry.heal(FileRecord(sha256=digest, size=len(body)), target)
            return True
        files = [f for f in remote_files(found.manifest) if f.record.sha256 == digest]
        if not files:
            return False
        label = f"fetching {files[0].name} of {found.reference} (MB)"
        with (
            progress.task(label, files[0].record.size / 1e6) as bar,
            target.open("w+b") as stream,
        ):
            Download(
                remote, found, bounds, lambda count: bar.advance(count / 1e6), threading.Event()
            ).fetch(files[0], stream)
        registry.heal(files[0].record, target)
        return True
