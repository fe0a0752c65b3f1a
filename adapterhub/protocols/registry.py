"""What keeps bases and versions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from adapterhub.manifest import BaseRecord, FileRecord, Manifest, Version
    from adapterhub.protocols.progress import Progress


@dataclass(frozen=True, slots=True)
class Listing:
    """One version in a list.

    versions: how many of its name are live. aliases: those of its name, alias -> version.
    base: the recorded name, a hint. rule: that of a merge. size: of the payload in bytes.
    created, removed: UTC, ISO 8601. score: by the metric that was asked for.
    """

    name: str
    version: int
    versions: int
    aliases: Mapping[str, int]
    method: str
    made_by: str
    rule: str | None
    rank: int | None
    base: str | None
    size: int
    created: str
    removed: str | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of a name's history. `time` is UTC, ISO 8601. source: where a pulled version came
    from. collect: the files of a removed version were deleted. weights, ended: version -> weight
    of a split that begins, or ends; `version` and `previous` are then its heaviest version."""

    time: str
    actor: str
    action: Literal[
        "commit", "pull", "tag", "split", "untag", "rollback", "remove", "restore", "collect"
    ]
    name: str
    version: int | None
    alias: str | None = None
    previous: int | None = None
    source: str | None = None
    weights: Mapping[int, int] = field(default_factory=dict)
    ended: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that `fsck` found wrong: which object, which versions suffer, and how.

    kind: a stored file, a name (the database, the journal), a view or a base. digest: of the
    file, or of the version whose view it is.
    """

    subject: str
    problem: str
    versions: tuple[str, ...] = ()
    kind: Literal["file", "names", "view", "base"] = "names"
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Repaired:
    """Something that was put right, and how."""

    subject: str
    how: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that `adz doctor` found wrong, and what to do about it."""

    subject: str
    problem: str
    advice: str


@dataclass(frozen=True, slots=True)
class Lease:
    """Who needs a version until when (UTC, ISO 8601), so that `gc` leaves it."""

    holder: str
    version: str
    until: str


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What `gc` removed: removed versions that can no longer be restored, files, views, and bytes
    in all. kept: what it left, by reason: versions that are `leased` or still `restorable`, files
    too `young`, and folders that a running process fills (`in flight`)."""

    versions: int
    blobs: int
    views: int
    size: int
    kept: Mapping[str, int] = field(default_factory=dict)


class Registry(Protocol):
    """Keeps bases and adapter versions. Every method raises AdzError for a user's mistake.

    Versions are immutable; `commit` is atomic: after a crash a version is there whole or not
    at all.
    """

    def add_base(self, record: BaseRecord) -> None:
        """Record a base; a name that is taken by other digests or by an adapter is refused."""

    def base(self, name: str) -> BaseRecord:
        """The base of that name."""

    def bases(self) -> list[BaseRecord]:
        """All bases by name."""

    def remove_base(self, name: str) -> None:
        """Forget a base; refused while a live version needs it."""

    def commit(self, manifest: Manifest, payload: Path, artifacts: Path | None = None) -> Version:
        """Store the files below `payload` (and `artifacts`) as the next version of
        `manifest.name`. The gates run first, on every file."""

    def rehearse(self, manifest: Manifest, payload: Path) -> None:
        """Raise what the gates would raise if the configuration and the weights in `payload`
        were committed. Other files there are left aside, and nothing is stored."""

    def receive(
        self, manifest: bytes, payload: Path, artifacts: Path | None = None, *, source: str
    ) -> Version:
        """Store a version that was made elsewhere under its own name, number and digest.

        Its files are compared with the manifest, then the gates run. What is here already is
        returned as it is; another version of the same number is refused. source: where it came
        from, for the history.
        """

    def resolve(self, reference: str, key: str | None = None) -> Version:
        """The version that a reference means now; unknown names offer the nearest.

        key: who asks, for an alias that is split: the same key gets the same version, and keeps
        it when that version's weight rises. Without one it is the heaviest version.
        """

    def names(self) -> list[str]:
        """Every adapter name with a live version."""

    def versions(self, name: str | None = None) -> list[Version]:
        """Live versions of one name or of all, by name and number."""

    def same_payload(self, payload: str) -> list[Version]:
        """Live versions whose files have this payload digest, by name and number."""

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
        """The latest version of each name, every live version, or every removed one that can
        still be restored. Reads no manifest.

        base: by the weights of a known base, else by the recorded name. rule: of merges. alias:
        what has it; the latest version of a name that has it. name: a pattern such as `team/*`.
        What servers made for requests is left out, but where its names are asked for
        (`derived/*`). metric: `exact_match`, or `exact_match>=0.8`, by the last evaluation or the
        manifest. sort: name, created, size, rank or metric. Unknown ones offer the nearest.
        """

    def path(self, version: Version) -> Path:
        """A plain directory that PEFT and vLLM open, verified against the manifest. It is
        named by the digest and never changes."""

    def admit(self, version: Version, base: BaseRecord) -> None:
        """Run the gates again over a stored version as an adapter of `base`, before it is used
        with it. What passed once with this base is not read again."""

    def artifacts(self, version: Version, directory: Path) -> None:
        """Write the version's artifacts (metrics, curve, recipe) into `directory`."""

    def copy_blob(self, record: FileRecord, target: Path) -> bool:
        """Write a stored file with these bytes to `target`, verified; False where there is none."""

    def tag(self, reference: str, alias: str) -> Version:
        """Point `alias` at the version of `reference`."""

    def split(self, name: str, alias: str, weights: Mapping[int, int]) -> Version:
        """Point `alias` at several live versions of one base, version -> weight, until it is
        tagged or rolled back; return the heaviest."""

    def splits(self, name: str | None = None) -> Mapping[str, Mapping[int, int]]:
        """The aliases that are split, of one name or of all: `name@alias` -> version -> weight."""

    def rollback(self, name: str, alias: str) -> Version:
        """Point `alias` at the version before the last move, or before it was split."""

    def untag(self, name: str, alias: str) -> None:
        """Remove an alias; its history stays."""

    def log(self, name: str) -> list[LogEntry]:
        """The whole history of a name, oldest first."""

    def revision(self) -> int:
        """A number that grows with every change, so that who remembers something can see whether
        it may still hold. Leases are no change."""

    def attest(self, version: Version, kind: str, body: Mapping[str, Any]) -> None:
        """Append a result (an evaluation, a check) to a version."""

    def attestations(self, version: Version, kind: str | None = None) -> list[Mapping[str, Any]]:
        """What was attested, oldest first; each has `kind`, `time` and `body`."""

    def remove(self, reference: str) -> list[Version]:
        """Move one version (`name@3`) or all of a name to the trash; numbers are never reused."""

    def restore(self, reference: str) -> list[Version]:
        """Bring back one version, or all of a name, that was removed and not yet collected."""

    def lease(self, versions: Sequence[Version], holder: str, seconds: float) -> None:
        """Keep these versions from `collect` for so long from now, in place of what `holder`
        held before; with no version, let go."""

    def leases(self) -> list[Lease]:
        """The leases that have not run out, by holder and version."""

    def collect(
        self,
        *,
        dry_run: bool = False,
        grace_seconds: float = 3600,
        retention_seconds: float = 604800,
        names: str = "*",
    ) -> CollectReport:
        """Delete the files of versions that were removed longer ago than the retention period
        and are not leased, and whatever else no version needs and is older than the grace
        period. names: a pattern; removed versions of other names are left as they are."""

    def diagnose(self) -> Iterator[Problem]:
        """What is wrong at a glance, whatever its size: permissions, journal, clock, leftovers.
        Reads no stored file; that is `check`."""

    def check(
        self,
        *,
        bases: bool = True,
        share: tuple[int, int] = (1, 1),
        resume: bool = False,
        only: Collection[str] | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Finding]:
        """Verify names, stored files, views and bases, every byte of them (fsck).

        bases: hash these too. share: (n, m), the n-th of m shares of the files, by digest.
        resume: go on where the last check of this share broke off. only: of the stored files
        those with these digests. Names are always verified in full.
        """

    def mend(self, findings: Sequence[Finding]) -> Iterator[Repaired]:
        """Put right what `check` found, as far as what is on this machine allows: a file that
        has another copy, the journal from the database, the database from the journal or, where
        both are lost, from the manifests (aliases are then lost), a view by deleting it."""

    def heal(self, record: FileRecord, path: Path) -> None:
        """Put a stored file back, from `path`. Raises AdzError (exit code 3) when its bytes are
        not those of `record`."""
