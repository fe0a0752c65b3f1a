"""`LocalRegistry`: adapters and bases in a directory on this machine."""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import (
    BaseRecord,
    FileRecord,
    Manifest,
    Version,
    sha256_of,
)
from adapterhub.protocols import (
    CollectReport,
    Finding,
    Lease,
    Listing,
    LogEntry,
    Problem,
    Progress,
    Repaired,
)
from adapterhub.reference import check_name, parse_reference
from adapterhub_registry import aliases, bases, history, leases, lookup, splits, storing, trash
from adapterhub_registry.admission import Admissions
from adapterhub_registry.blobs import is_intact
from adapterhub_registry.collect import collect
from adapterhub_registry.diagnosis import diagnose
from adapterhub_registry.fsck import Extent, check
from adapterhub_registry.gates import check_contents
from adapterhub_registry.listing import listing
from adapterhub_registry.mend import heal, mend
from adapterhub_registry.storage import Storage


class LocalRegistry(Storage):
    """A `protocols.Registry` below `home/registry`.

    busy_seconds: how long to wait while another process writes.
    """

    def __init__(self, home: Path, *, busy_seconds: float = 30.0) -> None:
        super().__init__(home, busy_seconds)
        self._admissions = Admissions(self)
        self._parse = functools.lru_cache(maxsize=4096)(Manifest.model_validate_json)

    # Bases

    def add_base(self, record: BaseRecord) -> None:
        """Record a base; see `protocols.Registry`."""
        with self.database.changing() as change:
            bases.add(change, record)

    def base(self, name: str) -> BaseRecord:
        """The base of that name; see `protocols.Registry`."""
        with self.database.reading() as connection:
            return bases.find(connection, name)

    def bases(self) -> list[BaseRecord]:
        """All bases by name."""
        with self.database.reading() as connection:
            return list(bases.read(connection).values())

    def remove_base(self, name: str) -> None:
        """Forget a base; see `protocols.Registry`."""
        with self.database.changing() as change:
            bases.remove(change, name)

    # Versions

    def commit(self, manifest: Manifest, payload: Path, artifacts: Path | None = None) -> Version:
        """Store files as the next version of a name; see `protocols.Registry`."""
        digest, stored, base = storing.commit(self, manifest, payload, artifacts)
        version = Version(stored.name, stored.version, digest, stored)
        if base is not None:
            self._admissions.passed(version, base)
        return version

    def rehearse(self, manifest: Manifest, payload: Path) -> None:
        """The gates, on files that stay where they are; see `protocols.Registry`."""
        with self.database.reading() as connection:
            base = bases.of_manifest(connection, manifest)
        check_contents(payload, manifest, base)

    def receive(
        self, manifest: bytes, payload: Path, artifacts: Path | None = None, *, source: str
    ) -> Version:
        """Store a version that was made elsewhere as it is; see `protocols.Registry`."""
        stored = storing.receive(self, manifest, payload, artifacts, source)
        return self.resolve(f"{stored.name}@{sha256_of(manifest)}")

    def resolve(self, reference: str, key: str | None = None) -> Version:
        """The version that a reference means now; see `protocols.Registry`."""
        parsed = parse_reference(reference)
        with self.database.reading() as connection:
            return self._version(lookup.find(connection, parsed, key))

    def names(self) -> list[str]:
        """Every adapter name with a live version."""
        with self.database.reading() as connection:
            return [row["name"] for row in connection.execute("SELECT name FROM adapters")]

    def versions(self, name: str | None = None) -> list[Version]:
        """Live versions of one name or of all, by name and number."""
        with self.database.reading() as connection:
            if name is not None:
                lookup.require_name(connection, name)
            return [self._version(row) for row in lookup.live_versions(connection, name)]

    def same_payload(self, payload: str) -> list[Version]:
        """Live versions with these files; see `protocols.Registry`."""
        with self.database.reading() as connection:
            return [self._version(row) for row in lookup.with_payload(connection, payload)]

    def listing(
        self,
        *,
        base: str | None = None,
        method: str | None = None,
        rule: str | None = None,
        alias: str | None = None,
        name: str | None = None,
        metric: str | None = None,
        scope: Literal["latest", "live", "removed"] = "latest",
        sort: str = "name",
        reverse: bool = False,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Listing]:
        """A page of versions; see `protocols.Registry`."""
        filters = {
            "base": base, "method": method, "rule": rule, "alias": alias, "name": name,
            "metric": metric,
        }  # fmt: skip
        with self.database.reading() as connection:
            return listing(
                connection,
                filters,
                scope=scope,
                sort=sort,
                reverse=reverse,
                limit=limit,
                offset=offset,
            )

    def path(self, version: Version) -> Path:
        """A plain directory that PEFT and vLLM open; see `protocols.Registry`."""
        return self.views.path(version)

    def admit(self, version: Version, base: BaseRecord) -> None:
        """The gates once more, with this base; see `protocols.Registry`."""
        self._admissions.check(version, base)

    def artifacts(self, version: Version, directory: Path) -> None:
        """Write the version's artifacts into `directory`."""
        self.blobs.copy_out(version.manifest.artifacts, directory)

    def copy_blob(self, record: FileRecord, target: Path) -> bool:
        """Write a stored file to `target`; see `protocols.Registry`."""
        return self.blobs.copy_to(record, target)

    def remove(self, reference: str) -> list[Version]:
        """Remove one version or all of a name; see `protocols.Registry`."""
        with self.reserve.spent(), self.database.changing() as change:
            return [self._version(row) for row in trash.remove(change, reference)]

    def restore(self, reference: str) -> list[Version]:
        """Bring back what was removed; see `protocols.Registry`."""
        with self.database.changing() as change:
            rows = trash.restore(change, self, reference)
            return [self._version(row) for row in rows]

    # Aliases and history

    def tag(self, reference: str, alias: str) -> Version:
        """Point `alias` at the version of `reference`."""
        with self.database.changing() as change:
            return self._version(aliases.tag(change, reference, alias))

    def split(self, name: str, alias: str, weights: Mapping[int, int]) -> Version:
        """Point `alias` at several versions by weight; see `protocols.Registry`."""
        with self.database.changing() as change:
            return self._version(aliases.split(change, name, alias, weights))

    def splits(self, name: str | None = None) -> Mapping[str, Mapping[int, int]]:
        """The aliases that are split; see `protocols.Registry`."""
        with self.database.reading() as connection:
            return splits.read(connection, name)

    def rollback(self, name: str, alias: str) -> Version:
        """Point `alias` at an earlier version; see `protocols.Registry`."""
        with self.database.changing() as change:
            return self._version(aliases.rollback(change, name, alias))

    def untag(self, name: str, alias: str) -> None:
        """Remove an alias; its history stays."""
        with self.reserve.spent(), self.database.changing() as change:
            aliases.untag(change, name, alias)

    def log(self, name: str) -> list[LogEntry]:
        """The whole history of a name, oldest first."""
        with self.database.reading() as connection:
            return history.log(connection, check_name(name))

    def revision(self) -> int:
        """How many changes there were; see `protocols.Registry`."""
        with self.database.reading() as connection:
            return history.revision(connection)

    def attest(self, version: Version, kind: str, body: Mapping[str, Any]) -> None:
        """Append a result (an evaluation, a check) to a version."""
        with self.database.changing() as change:
            lookup.find(change.connection, parse_reference(f"{version.name}@{version.digest}"))
            change.record(
                "attest",
                version.name,
                version=version.number,
                body={"kind": kind, "body": dict(body)},
            )

    def attestations(self, version: Version, kind: str | None = None) -> list[Mapping[str, Any]]:
        """What was attested, oldest first; each has `kind`, `time` and `body`."""
        with self.database.reading() as connection:
            rows = connection.execute(
                "SELECT time, body FROM events"
                " WHERE name = ? AND version = ? AND action = 'attest' ORDER BY seq",
                (version.name, version.number),
            ).fetchall()
        found = [{"time": row["time"], **json.loads(row["body"])} for row in rows]
        return [attestation for attestation in found if kind in (None, attestation["kind"])]

    # Upkeep

    def lease(self, versions: Sequence[Version], holder: str, seconds: float) -> None:
        """Keep versions from `collect` for so long; see `protocols.Registry`."""
        with self.database.changing() as change:
            leases.take(change.connection, versions, holder, seconds)

    def leases(self) -> list[Lease]:
        """The leases that have not run out, by holder and version."""
        with self.database.reading() as connection:
            return leases.read(connection)

    def collect(
        self,
        *,
        dry_run: bool = False,
        grace_seconds: float = 3600,
        retention_seconds: float = 604800,
        names: str = "*",
    ) -> CollectReport:
        """Delete what no version needs any more; see `protocols.Registry`."""
        with self.reserve.spent():
            return collect(
                self,
                dry_run=dry_run,
                grace_seconds=grace_seconds,
                retention_seconds=retention_seconds,
                names=names,
            )

    def diagnose(self) -> Iterator[Problem]:
        """What is wrong at a glance; see `protocols.Registry`."""
        return diagnose(self)

    def check(
        self,
        *,
        bases: bool = True,
        share: tuple[int, int] = (1, 1),
        resume: bool = False,
        only: Collection[str] | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Finding]:
        """Verify what is stored (fsck); see `protocols.Registry`."""
        return check(self, Extent(bases, share, resume, only), progress)

    def mend(self, findings: Sequence[Finding]) -> Iterator[Repaired]:
        """Repair from what is here; see `protocols.Registry`."""
        return mend(self, findings)

    def heal(self, record: FileRecord, path: Path) -> None:
        """Put a stored file back; see `protocols.Registry`."""
        heal(self, record, path)

    def _version(self, row: sqlite3.Row) -> Version:
        body = row["body"]
        if not is_intact(body, row["digest"]):
            raise AdzError(
                f"the manifest of {row['name']}@{row['number']} is damaged",
                "run 'adz fsck'",
                exit_code=EXIT_VERIFICATION,
            )
        names = tuple(sorted((row["aliases"] or "").split()))
        return Version(row["name"], row["number"], row["digest"], self._parse(body), names)
