"""`LocalRegistry`: adapters and bases in a directory on this machine."""

from __future__ import annotations

import functools
import json
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from adapterhub.errors import EXIT_VERIFICATION, AdzError, usage_error
from adapterhub.manifest import (
    BaseRecord,
    FileRecord,
    Manifest,
    Version,
    payload_digest,
    sha256_of,
)
from adapterhub.plugins import load_plugins
from adapterhub.protocols import CollectReport, Finding, Listing, LogEntry
from adapterhub.reference import check_alias, check_name, parse_reference
from adapterhub_registry import bases, disk, lookup
from adapterhub_registry.blobs import Blobs, stage
from adapterhub_registry.collect import collect
from adapterhub_registry.database import Database, utc_now
from adapterhub_registry.fsck import check
from adapterhub_registry.gates import check_payload
from adapterhub_registry.listing import listing
from adapterhub_registry.views import Views

_HISTORY = ("commit", "tag", "untag", "rollback", "remove", "restore")


class LocalRegistry:
    """A `protocols.Registry` below `home/registry`.

    busy_seconds: how long to wait while another process writes.
    """

    def __init__(self, home: Path, *, busy_seconds: float = 30.0) -> None:
        self.root = home / "registry"
        self.ingest = self.root / "ingest"
        self.trash = self.root / "trash"
        self.blobs = Blobs(self.root / "blobs" / "sha256")
        self.views = Views(self.root / "views", self.blobs, self._staging)
        for directory in (self.blobs.directory, self.views.directory, self.ingest, self.trash):
            if not directory.is_dir():
                disk.make_directory(directory)
                disk.sync(directory.parent)
        self.database = Database(self.root, self.blobs.read, busy_seconds)
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
        check_name(manifest.name)
        with self.database.reading() as connection:
            bases.refuse_name(connection, manifest.name)
            base = bases.of_manifest(connection, manifest)
        with self._staging() as staging:
            files = stage(payload, staging / "payload")
            extra = stage(artifacts, staging / "artifacts") if artifacts else {}
            draft = manifest.model_copy(
                update={
                    "version": 0,
                    "created": utc_now(),
                    "files": files,
                    "artifacts": extra,
                    "payload": payload_digest(files),
                }
            )
            check_payload(staging / "payload", draft, base)
            load_plugins().call_event("adapterhub_before_commit", manifest=draft)
            return self._add_version(draft, staging)

    def resolve(self, reference: str) -> Version:
        """The version that a reference means now; see `protocols.Registry`."""
        parsed = parse_reference(reference)
        with self.database.reading() as connection:
            return self._version(lookup.find(connection, parsed))

    def names(self) -> list[str]:
        """Every adapter name with a live version."""
        query = "SELECT DISTINCT name FROM versions WHERE state = 'live' ORDER BY name"
        with self.database.reading() as connection:
            return [row["name"] for row in connection.execute(query)]

    def versions(self, name: str | None = None) -> list[Version]:
        """Live versions of one name or of all, by name and number."""
        with self.database.reading() as connection:
            if name is not None:
                lookup.require_name(connection, name)
            return [self._version(row) for row in lookup.live_versions(connection, name)]

    def listing(
        self, *, base: str | None = None, method: str | None = None, alias: str | None = None
    ) -> list[Listing]:
        """One line for each name; see `protocols.Registry`."""
        with self.database.reading() as connection:
            return listing(connection, base=base, method=method, alias=alias)

    def path(self, version: Version) -> Path:
        """A plain directory that PEFT and vLLM open; see `protocols.Registry`."""
        return self.views.path(version)

    def artifacts(self, version: Version, directory: Path) -> None:
        """Write the version's artifacts into `directory`."""
        self.blobs.copy_out(version.manifest.artifacts, directory)

    def remove(self, reference: str) -> list[Version]:
        """Remove one version or all of a name; see `protocols.Registry`."""
        parsed = parse_reference(reference)
        whole_name = "@" not in reference
        with self.database.changing() as change:
            found = self._version(lookup.find(change.connection, parsed))
            if whole_name:
                rows = lookup.live_versions(change.connection, found.name)
                removed = [self._version(row) for row in rows]
                for alias, number in lookup.aliases_of(change.connection, found.name).items():
                    change.record("untag", found.name, alias=alias, previous=number)
            elif found.aliases:
                raise AdzError(
                    f"{found.reference} is {', '.join(found.aliases)}",
                    f"first move the alias: adz tag {found.name}@N {found.aliases[0]}, or remove "
                    f"it: adz tag --delete {found.name}@{found.aliases[0]}",
                )
            else:
                removed = [found]
            for version in removed:
                change.record("remove", version.name, version=version.number)
        return removed

    # Aliases and history

    def tag(self, reference: str, alias: str) -> Version:
        """Point `alias` at the version of `reference`."""
        parsed = parse_reference(reference)
        check_alias(alias)
        with self.database.changing() as change:
            found = lookup.find(change.connection, parsed)
            previous = lookup.alias_target(change.connection, parsed.name, alias)
            if previous != found["number"]:
                change.record(
                    "tag", parsed.name, version=found["number"], alias=alias, previous=previous
                )
            return self._version(lookup.find(change.connection, parsed))

    def rollback(self, name: str, alias: str) -> Version:
        """Point `alias` where it pointed before its last move that was not undone."""
        target = parse_reference(f"{name}@{check_alias(alias)}")
        with self.database.changing() as change:
            lookup.find(change.connection, target)
            moves = lookup.alias_moves(change.connection, name, alias)
            if len(moves) < 2:
                raise usage_error(f"{target} has no earlier version", f"see 'adz log {name}'")
            earlier = parse_reference(f"{name}@{moves[-2]}")
            lookup.find(change.connection, earlier)
            change.record("rollback", name, version=moves[-2], alias=alias, previous=moves[-1])
            return self._version(lookup.find(change.connection, earlier))

    def untag(self, name: str, alias: str) -> None:
        """Remove an alias; its history stays."""
        target = parse_reference(f"{name}@{check_alias(alias)}")
        with self.database.changing() as change:
            lookup.require_name(change.connection, name)
            previous = lookup.alias_target(change.connection, name, alias)
            if previous is None:
                lookup.find(change.connection, target)
            change.record("untag", name, alias=alias, previous=previous)

    def log(self, name: str) -> list[LogEntry]:
        """The whole history of a name, oldest first."""
        with self.database.reading() as connection:
            lookup.require_name(connection, check_name(name))
            rows = connection.execute("SELECT * FROM events WHERE name = ? ORDER BY seq", (name,))
            return [
                LogEntry(
                    row["time"], row["actor"], row["action"], name,
                    row["version"], row["alias"], row["previous"],
                )
                for row in rows
                if row["action"] in _HISTORY
            ]  # fmt: skip

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

    def collect(self, *, dry_run: bool = False, grace_seconds: float = 3600) -> CollectReport:
        """Delete what no live version needs; see `protocols.Registry`."""
        return collect(self, dry_run=dry_run, grace_seconds=grace_seconds)

    def check(self) -> Iterator[Finding]:
        """Verify every blob, manifest and pointer (fsck)."""
        return check(self)

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        directory = self.ingest / uuid.uuid4().hex
        disk.make_directory(directory)
        with disk.lease(directory) as held:
            if not held:
                raise AdzError(f"{directory} was deleted by 'adz gc'", "try again")
            try:
                yield directory
            finally:
                # What cannot be deleted now, `collect` deletes; a finished commit stays finished.
                with suppress(OSError):
                    disk.remove(directory)

    def _add_version(self, draft: Manifest, staging: Path) -> Version:
        # The blobs move in under the write lock, so `collect` cannot take one in between.
        with self.database.changing() as change:
            bases.refuse_name(change.connection, draft.name)
            number = change.connection.execute(
                "SELECT ifnull(max(number), 0) + 1 FROM versions WHERE name = ?", (draft.name,)
            ).fetchone()[0]
            manifest = draft.model_copy(update={"version": number})
            self.blobs.publish(_staged(staging, manifest))
            body = manifest.canonical()
            digest = self.blobs.put(body, staging)
            change.record(
                "commit", draft.name, version=number, body={"digest": digest}, manifest=body
            )
        return Version(draft.name, number, digest, manifest)

    def _version(self, row: sqlite3.Row) -> Version:
        body: bytes = row["body"]
        if sha256_of(body) != row["digest"]:
            raise AdzError(
                f"the manifest of {row['name']}@{row['number']} is damaged",
                "run 'adz fsck'",
                exit_code=EXIT_VERIFICATION,
            )
        aliases = tuple(sorted((row["aliases"] or "").split()))
        return Version(row["name"], row["number"], row["digest"], self._parse(body), aliases)


def _staged(staging: Path, manifest: Manifest) -> Iterator[tuple[Path, str]]:
    files: Mapping[str, Mapping[str, FileRecord]] = {
        "payload": manifest.files,
        "artifacts": manifest.artifacts,
    }
    for folder, records in files.items():
        for name, record in records.items():
            yield staging / folder / name, record.sha256
