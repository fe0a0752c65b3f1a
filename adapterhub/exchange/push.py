"""`adz push`: versions of this registry to a remote, whole or not at all."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from adapterhub.cards import model_card
from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.exchange.bounds import Bounds
from adapterhub.exchange.found import Found, check_manifest, find_version, remote_files
from adapterhub.exchange.parallel import StoppedError, run_parallel
from adapterhub.exchange.result import Transferred
from adapterhub.exchange.signatures import signature_to_push
from adapterhub.exchange.wanted import Outgoing, is_tag, outgoing
from adapterhub.manifest import Version
from adapterhub.protocols import Progress, Registry, Remote, RemoteFile, RemoteVersion
from adapterhub.staging import home_staging, staging_folder

# For a push that is killed; one that ends lets go itself.
_LEASE_SECONDS = 6 * 3600.0


def push(
    registry: Registry,
    remote: Remote,
    references: Sequence[str],
    progress: Progress,
    *,
    every: bool = False,
    key: Path | None = None,
    dry_run: bool = False,
    bounds: Bounds | None = None,
) -> Iterator[Transferred]:
    """Copy versions to `remote`, one after the other; `name@alias` sets the alias there too.

    every: all versions and aliases of the names. key: a private key to sign with; a signature
    that was made or verified here before goes along in any case. Files that the remote has are
    not sent again, and a version is found there only when all of its files are. Raises AdzError
    with exit code 3 where the remote has another version of the same number.
    """
    # How much is too much is for who pulls to say.
    bounds = replace(bounds or Bounds(), version_bytes=sys.maxsize)
    pushing = _Push(registry, remote, progress, bounds, key)
    items = outgoing(registry, references, every=every)
    for item in items:
        for alias in item.aliases:
            if f"{item.version.name}@{alias}" in registry.splits(item.version.name):
                progress.warn(
                    f"{item.version.name}@{alias} is split here; there it becomes "
                    f"{item.version.reference}, its heaviest version"
                )
    holder = f"push by process {os.getpid()} to {remote.url}"
    if dry_run:
        yield from (pushing.one(item, dry_run=True) for item in items)
        return
    registry.lease([item.version for item in items], holder, _LEASE_SECONDS)
    try:
        yield from (pushing.one(item, dry_run=False) for item in items)
    finally:
        registry.lease([], holder, 0)


@dataclass(frozen=True, slots=True)
class _Push:
    registry: Registry
    remote: Remote
    progress: Progress
    bounds: Bounds
    key: Path | None

    def one(self, item: Outgoing, *, dry_run: bool) -> Transferred:
        version = item.version
        name, number, body = version.name, str(version.number), version.manifest.canonical()
        # What nobody could pull is not pushed.
        check_manifest(body, name, number, "this registry", self.bounds)
        there = self._find(version)
        files = remote_files(version.manifest)
        missing = self._missing(version, files)
        # Signing leaves an attestation, so a dry run does not.
        key = None if dry_run else self.key
        signature = signature_to_push(self.registry, version, key)
        if signature is None and there is not None:
            signature = there.remote_version.signature
        signed_anew = there is not None and signature != there.remote_version.signature
        tags = [] if there and not missing and not signed_anew else [number]
        tags += [alias for alias in item.aliases if not self._points_at(version, alias)]
        result = Transferred(
            reference=version.reference,
            digest=version.digest,
            action="already there",
            size=sum(file.record.size for file in files),
            aliases=item.aliases,
            signature="signed" if signature or self.key else "",
        )
        if not tags:
            return result
        result = replace(result, sent=sum(file.record.size for file in missing))
        if dry_run:
            return replace(result, action="would push")
        self._write(version, missing)
        if signed_anew:
            tags += self._aliases_there(version, tags)
        card = model_card(self.registry, version)
        self.remote.publish(name, RemoteVersion(body, signature), tags, card)
        self._check(version, tags)
        return result if there and not missing else replace(result, action="pushed")

    def _aliases_there(self, version: Version, known: Sequence[str]) -> list[str]:
        """The aliases of the version at the remote, which are to carry its new signature."""
        tags = [tag for tag in self.remote.tags(version.name) if is_tag(tag) and tag not in known]
        return [tag for tag in tags if not tag.isdigit() and self._points_at(version, tag)]

    def _find(self, version: Version) -> Found | None:
        found = find_version(self.remote, version.name, str(version.number), self.bounds)
        if found is not None and found.digest != version.digest:
            raise AdzError(
                f"{self.remote.url} has another {version.reference}: {found.digest[:19]}, not "
                f"{version.digest[:19]}",
                f"its numbers are given there: adz pull {version.reference} --as NAME shows what "
                "it is; push yours under another name",
                exit_code=EXIT_VERIFICATION,
            )
        return found

    def _points_at(self, version: Version, alias: str) -> bool:
        found = find_version(self.remote, version.name, alias, self.bounds)
        return found is not None and found.digest == version.digest

    def _missing(self, version: Version, files: Sequence[RemoteFile]) -> list[RemoteFile]:
        """What the remote lacks, once for equal bytes. A version that lost files there gets
        them back."""
        distinct = {file.record.sha256: file for file in files}.values()
        jobs = [partial(self.remote.contains, version.name, file) for file in distinct]
        there = run_parallel(jobs, workers=self.bounds.workers, stop=threading.Event())
        return [file for file, has in zip(distinct, there, strict=True) if not has]

    def _write(self, version: Version, missing: Sequence[RemoteFile]) -> None:
        size = sum(file.record.size for file in missing)
        stop = threading.Event()
        with (
            staging_folder(home_staging()) as folder,
            self.progress.task(f"pushing {version.reference} (MB)", size / 1e6) as bar,
        ):

            def write(number: int, file: RemoteFile) -> None:
                # A copy that was verified as it was made: what goes out is what was committed.
                source = folder / str(number)
                if not self.registry.copy_blob(file.record, source):
                    raise AdzError(
                        f"the stored file {file.name} of {version.reference} is missing or damaged",
                        "run 'adz fsck'",
                        exit_code=EXIT_VERIFICATION,
                    )

                def sent(count: int) -> None:
                    bar.advance(count / 1e6)
                    if stop.is_set():
                        raise StoppedError

                self.remote.write(version.name, file, source, sent)
                source.unlink()

            jobs = [partial(write, number, file) for number, file in enumerate(missing)]
            run_parallel(jobs, workers=self.bounds.workers, stop=stop)

    def _check(self, version: Version, tags: Sequence[str]) -> None:
        """Ask for what was published: two who push one number at once cannot both be right."""
        for tag in tags:
            found = find_version(self.remote, version.name, tag, self.bounds)
            if found is None or found.digest != version.digest:
                raise AdzError(
                    f"{self.remote.url}: {version.name}@{tag} is another version after the push",
                    "someone else pushed at the same time, or the remote lies",
                    exit_code=EXIT_VERIFICATION,
                )
