"""`adz pull`: versions from a remote, verified, and visible only when they are whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from adapterhub.errors import EXIT_VERIFICATION, AdzError, usage_error
from adapterhub.exchange.arrival import Arrival
from adapterhub.exchange.bounds import Bounds
from adapterhub.exchange.download import Download
from adapterhub.exchange.found import Found, find_version, remote_files
from adapterhub.exchange.parallel import run_parallel
from adapterhub.exchange.result import Transferred
from adapterhub.exchange.signatures import Demand, record
from adapterhub.exchange.wanted import Incoming, incoming, not_there
from adapterhub.manifest import BaseLink, Parent, Version
from adapterhub.protocols import Progress, Registry, Remote, RemoteFile
from adapterhub.reference import check_new_name
from adapterhub.staging import home_staging, staging_folder


def pull(
    registry: Registry,
    remote: Remote,
    references: Sequence[str],
    progress: Progress,
    *,
    every: bool = False,
    rename: str | None = None,
    keys: Sequence[Path] = (),
    dry_run: bool = False,
    bounds: Bounds | None = None,
) -> Iterator[Transferred]:
    """Store versions of `remote` here under their own names and numbers, one after the other.

    every: all versions and aliases of the names. rename: store the one version as the next of
    this name instead, with the one at the remote as its parent. keys: public keys, of which one
    must have signed; the policy may demand its own. Nothing of a version is visible
    before all of it was verified. Raises AdzError: exit code 2 for what is not there, 3 for
    what is not what it claims to be, or where the number is taken by another version.
    """
    if rename is not None and (every or len(references) != 1):
        raise usage_error("--as goes with one reference", "adz pull sql@7 --as other")
    pulling = _Pull(registry, remote, progress, bounds or Bounds(), rename, tuple(keys))
    for item in incoming(remote, references, every=every):
        yield pulling.one(item, dry_run=dry_run)


@dataclass(frozen=True, slots=True)
class _Pull:
    registry: Registry
    remote: Remote
    progress: Progress
    bounds: Bounds
    rename: str | None
    keys: tuple[Path, ...]

    def one(self, item: Incoming, *, dry_run: bool) -> Transferred:
        check_new_name(self.rename or item.name)
        found = find_version(self.remote, item.name, item.tag, self.bounds)
        if found is None:
            raise not_there(self.remote, item)
        size = sum(file.record.size for file in remote_files(found.manifest))
        aliases = (item.alias,) if item.alias and not self.rename else ()
        result = Transferred(
            reference=self.rename or found.reference,
            digest=found.digest,
            action="already there",
            size=size,
            aliases=aliases,
            source=found.reference if self.rename else "",
            base=_base_note(self.registry, found.manifest.base),
        )
        demand = Demand.of(item.name, self.keys, self.rename)
        here = None if self.rename else self._here(found)
        if here is None or demand.missing(self.registry, here):
            if found.remote_version.signature is None:
                # Where one is demanded, no file needs to be read for that.
                demand.verify(found, Path())
            if dry_run:
                return replace(result, action="would pull")
            result = self._transfer(found, demand, result)
        if not dry_run:
            for alias in aliases:
                self.registry.tag(found.reference, alias)
        return result

    def _here(self, found: Found) -> Version | None:
        if found.manifest.name not in self.registry.names():
            return None
        try:
            version = self.registry.resolve(found.reference)
        except AdzError:
            return None
        if version.digest != found.digest:
            raise AdzError(
                f"{found.reference} of {self.remote.url} is another version than the one here: "
                f"{found.digest[:19]}, not {version.digest[:19]}",
                f"pull it under another name: adz pull {found.reference} --as NAME",
                exit_code=EXIT_VERIFICATION,
            )
        return version

    def _transfer(self, found: Found, demand: Demand, result: Transferred) -> Transferred:
        with staging_folder(home_staging()) as folder, ExitStack() as held:
            arrival = Arrival(folder, held)
            arrival.prepare(self.registry, found.manifest, self._waiting)
            sent = self._read(found, arrival.missing)
            arrival.finish()
            payload = folder / "payload"
            artifacts = folder / "artifacts" if found.manifest.artifacts else None
            try:
                verified = demand.verify(found, payload)
                version = self._store(found, payload, artifacts)
            except AdzError as error:
                # What was refused once is refused again; all else is worth another try.
                if error.exit_code == EXIT_VERIFICATION:
                    arrival.forget()
                raise
            arrival.forget()
        if self.rename is None:
            record(self.registry, version, verified)
        return replace(
            result,
            action="pulled",
            reference=version.reference,
            digest=version.digest,
            sent=sent,
            signature=_signature_note(found, verified),
        )

    def _store(self, found: Found, payload: Path, artifacts: Path | None) -> Version:
        manifest = found.manifest
        if self.rename is None:
            body = found.remote_version.manifest
            return self.registry.receive(body, payload, artifacts, source=self.remote.url)
        parent = Parent(
            name=manifest.name, version=manifest.version, digest=found.digest, role="source"
        )
        changes = {
            "name": self.rename,
            "version": 0,
            "made_by": "import",
            "parents": (parent,),
            "created": "",
            "files": {},
            "artifacts": {},
            "payload": "",
        }
        return self.registry.commit(manifest.model_copy(update=changes), payload, artifacts)

    def _read(self, found: Found, missing: Sequence[tuple[RemoteFile, BinaryIO]]) -> int:
        """Fill the open files; return how many bytes came over the network."""
        size = sum(file.record.size for file, _ in missing)
        stop = threading.Event()
        with self.progress.task(f"pulling {found.reference} (MB)", size / 1e6) as bar:
            download = Download(
                self.remote, found, self.bounds, lambda count: bar.advance(count / 1e6), stop
            )
            jobs = [partial(download.fetch, *pair) for pair in missing]
            return sum(run_parallel(jobs, workers=self.bounds.workers, stop=stop))

    def _waiting(self) -> None:
        self.progress.note("waiting for another process that pulls the same file")


def _signature_note(found: Found, verified: Sequence[Mapping[str, Any]]) -> str:
    if verified:
        return f"signed by {verified[-1]['file']}"
    is_signed = found.remote_version.signature is not None
    return "signed, but no key was given to check it" if is_signed else ""


def _base_note(registry: Registry, link: BaseLink) -> str:
    if link.digests is None:
        return "its base is unknown, so it is neither served nor merged"
    for base in registry.bases():
        if base.digests.weights == link.digests.weights:
            return f"its base is {base.name}"
    made_for = f" {link.name}" if link.name else ""
    return (
        f"its base{made_for} (weights {link.digests.weights[7:19]}) is not known here: "
        f"adz base add {link.name or 'NAME'} SOURCE before it is used"
    )
