"""Verifying every stored byte and name (`adz fsck`). Finds; `mend` repairs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from adapterhub.bases.digests import compute_digests, hash_file
from adapterhub.bases.identity import explain_difference
from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import Manifest, Version
from adapterhub.protocols import Finding, Progress, Task
from adapterhub_registry import bases
from adapterhub_registry.blobs import is_intact
from adapterhub_registry.names import check_names
from adapterhub_registry.resume import Mark
from adapterhub_registry.storage import Storage


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is verified; names are always verified in full.

    bases: whether the bases are hashed. share: (n, m), the n-th of m equal shares of the files,
    by digest. resume: go on after the file at which the last check of this share broke off.
    only: of the files that are there, only these.
    """

    bases: bool = True
    share: tuple[int, int] = (1, 1)
    resume: bool = False
    only: Collection[str] | None = None

    def covers(self, digest: str) -> bool:
        """Whether the file `sha256:hex` is in the share."""
        number, count = self.share
        return int(digest.removeprefix("sha256:")[:8], 16) % count == number - 1


@dataclass(frozen=True, slots=True)
class _Need:
    """size: what the manifests say, in bytes. versions: live ones that need the file. kept:
    whether it has to be there."""

    size: int
    versions: tuple[str, ...]
    kept: bool


def check(
    storage: Storage, extent: Extent | None = None, progress: Progress | None = None
) -> Iterator[Finding]:
    """Yield what is wrong, with the names of the versions that suffer from it."""
    extent = extent or Extent()
    with _task(progress, "verifying the names", None):
        findings = check_names(storage)
    yield from findings
    yield from _check_blobs(storage, extent, progress)
    yield from _check_views(storage, extent, progress)
    if extent.bases:
        yield from _check_bases(storage, progress)


def _check_blobs(storage: Storage, extent: Extent, progress: Progress | None) -> Iterator[Finding]:
    needs = _needs(storage)
    present = {
        f"sha256:{path.name}": path
        for path in storage.blobs.directory.iterdir()
        if storage.blobs.is_named(path.name)
    }
    for digest in sorted(needs.keys() - present.keys()):
        if needs[digest].kept:
            yield Finding(f"blob {digest}", "missing", needs[digest].versions, "file", digest)
    if extent.only is not None:
        present = {digest: present[digest] for digest in extent.only if digest in present}
    with Mark(storage, extent.share, keep=extent.only is None) as mark:
        chosen = [digest for digest in sorted(present) if extent.covers(digest)]
        if extent.resume:
            chosen = mark.left(chosen)
        total = sum(_size(present[digest]) for digest in chosen)
        with _task(progress, "hashing the stored files (MB)", total / 1e6) as bar:
            for digest in chosen:
                problem = _blob_problem(present[digest], digest, needs.get(digest), bar)
                mark.passed(digest, problem is not None)
                if problem:
                    versions = needs[digest].versions if digest in needs else ()
                    yield Finding(f"blob {digest}", problem, versions, "file", digest)


def _blob_problem(path: Path, digest: str, need: _Need | None, bar: Task) -> str | None:
    try:
        size = path.stat().st_size
        if need and size != need.size:
            return f"{size} bytes instead of {need.size}"
        actual = hash_file(path, lambda count: bar.advance(count / 1e6))
    except FileNotFoundError:
        # Collected meanwhile.
        return None
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None if actual == digest else "its bytes do not match its digest"


def _needs(storage: Storage) -> dict[str, _Need]:
    """What each blob is needed for; nothing where the database does not say it."""
    query = """
        SELECT n.blob, n.size, n.digest, v.name, v.number, v.state FROM needs n
        JOIN versions v ON v.digest = n.digest ORDER BY v.name, v.number
    """
    found: dict[str, _Need] = {}
    try:
        with storage.database.reading() as connection:
            for row in connection.execute(query):
                live = row["state"] == "live"
                before = found.get(row["blob"], _Need(row["size"], (), False))
                found[row["blob"]] = _Need(
                    row["size"],
                    before.versions + ((f"{row['name']}@{row['number']}",) if live else ()),
                    # History outlives the files: a manifest is never deleted.
                    before.kept or live or row["blob"] == row["digest"],
                )
    except AdzError as error:
        _pass_damage(error)
    return found


def _check_views(storage: Storage, extent: Extent, progress: Progress | None) -> Iterator[Finding]:
    versions = [v for v in _viewed(storage) if extent.covers(v.digest)]
    with _task(progress, "hashing the views", len(versions)) as bar:
        for version in versions:
            problem = storage.views.problem(version, trust_times=False)
            bar.advance()
            if problem:
                subject, names = f"view of {version.reference}", (version.reference,)
                yield Finding(subject, problem, names, "view", version.digest)


def _viewed(storage: Storage) -> Iterator[Version]:
    """The versions that have a view, with those that can be restored."""
    query = """
        SELECT v.name, v.number, v.digest, m.body FROM versions v
        JOIN manifests m ON m.digest = v.digest
        WHERE v.state IN ('live', 'removed') ORDER BY v.name, v.number
    """
    try:
        with storage.database.reading() as connection:
            rows = connection.execute(query).fetchall()
    except AdzError as error:
        _pass_damage(error)
        return
    for row in rows:
        name = str(row["digest"]).removeprefix("sha256:")
        if not storage.views.directory.joinpath(name).is_dir():
            continue
        if not is_intact(row["body"], row["digest"]):
            continue
        manifest = Manifest.model_validate_json(row["body"])
        yield Version(row["name"], row["number"], row["digest"], manifest)


def _check_bases(storage: Storage, progress: Progress | None) -> Iterator[Finding]:
    try:
        with storage.database.reading() as connection:
            records = bases.read(connection).values()
            rows = connection.execute(
                "SELECT weights, name, number FROM versions WHERE state = 'live'"
            ).fetchall()
    except (AdzError, ValidationError) as error:
        _pass_damage(error)
        return
    for record in records:
        weights = record.digests.weights
        versions = tuple(f"{r['name']}@{r['number']}" for r in rows if r["weights"] == weights)
        with _task(progress, f"hashing the base {record.name} (MB)", None) as bar:

            def hashed(count: int, bar: Task = bar) -> None:
                bar.advance(count / 1e6)

            try:
                given = compute_digests(Path(record.path), hashed)
            except (AdzError, OSError) as error:
                yield Finding(f"base {record.name}", str(error), versions, "base")
                continue
        differing = explain_difference(record.digests, given)
        if differing:
            problem = f"it changed on the disk: {', '.join(differing)}"
            yield Finding(f"base {record.name}", problem, versions, "base")


def _pass_damage(error: Exception) -> None:
    """Go on after what `check_names` has reported already."""
    if isinstance(error, AdzError) and error.exit_code != EXIT_VERIFICATION:
        raise error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class _NoTask:
    def advance(self, amount: float = 1, note: str = "") -> None:
        """Not shown."""


def _task(
    progress: Progress | None, description: str, total: float | None
) -> AbstractContextManager[Task]:
    return progress.task(description, total) if progress else nullcontext(_NoTask())
