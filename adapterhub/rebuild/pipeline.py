"""Making versions again, parents first, and comparing what was made with what is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from adapterhub.bases.digests import hash_file
from adapterhub.environment import THREADS, current
from adapterhub.errors import usage_error
from adapterhub.manifest import FileRecord, Version, payload_digest
from adapterhub.protocols import Progress, Registry
from adapterhub.rebuild.compare import compare_payloads
from adapterhub.rebuild.makers import MAKERS, parents_of
from adapterhub.rebuild.result import RebuildResult
from adapterhub.staging import home_staging, staging_folder


def rebuild(
    reference: str,
    registry: Registry,
    progress: Progress,
    *,
    data: Sequence[Path] = (),
    deep: bool = False,
) -> Iterator[RebuildResult]:
    """Make a version again in a temporary place and compare its payload; commit nothing.

    data: files that may be the recorded data sets, known by their sha256. deep: the versions
    that it was made from come first, each made again from its own stored parents; without it
    they are taken as they are stored. Raises AdzError for what cannot be made again.
    """
    version = registry.resolve(reference)
    if version.manifest.made_by not in MAKERS:
        raise usage_error(
            f"{version.reference} was imported: its files are all that is known of it",
            "rebuild a version that was trained, merged or converted here",
        )
    for found in _lineage(version, registry, progress) if deep else [version]:
        yield _rebuild_one(found, registry, data, progress)


def _lineage(version: Version, registry: Registry, progress: Progress) -> list[Version]:
    """The version and all that it was made from, parents before children, each once."""
    found: dict[str, Version] = {}

    def visit(one: Version) -> None:
        if one.digest in found:
            return
        if one.manifest.made_by not in MAKERS:
            progress.note(f"{one.reference} was imported and is taken as it is")
            return
        if one.manifest.parents:
            for parent in parents_of(one, registry):
                visit(parent)
        found[one.digest] = one

    visit(version)
    return list(found.values())


def _rebuild_one(
    version: Version, registry: Registry, data: Sequence[Path], progress: Progress
) -> RebuildResult:
    manifest = version.manifest
    progress.note(f"rebuilding {version.reference} ({manifest.made_by})")
    with staging_folder(home_staging()) as folder:
        out = folder / "payload"
        MAKERS[manifest.made_by](version, registry, data, out, progress)
        records = {
            path.name: FileRecord(sha256=hash_file(path), size=path.stat().st_size)
            for path in out.iterdir()
        }
        return RebuildResult(
            reference=version.reference,
            made_by=manifest.made_by,
            recorded=manifest.payload,
            rebuilt=payload_digest(records),
            differences=compare_payloads(registry.path(version), out),
            environment={
                name: (then, now)
                for name, then in manifest.environment.items()
                if name != THREADS and (now := current(name)) != then
            },
        )
