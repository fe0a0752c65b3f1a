"""Looking at everything below some folders. Reads only, and loads nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from adapterhub.adopt.bases import gather
from adapterhub.adopt.found import Found, Survey
from adapterhub.adopt.look import look
from adapterhub.adopt.names import Names
from adapterhub.adopt.relations import (
    is_held_checkpoint,
    note_checkpoints,
    note_duplicates,
    note_known,
)
from adapterhub.adopt.walk import find
from adapterhub.errors import AdzError
from adapterhub.manifest import BaseLink, BaseRecord, Manifest
from adapterhub.protocols import Progress, Registry


def survey(
    registry: Registry, roots: Sequence[Path], base: str | None, progress: Progress
) -> Survey:
    """Find every adapter below `roots`, infer its base and note its faults.

    base: the name of a known base that adapters which fit it belong to, whatever their
    configuration says. Raises a usage error for a root or a base that is not there.
    """
    started = time.monotonic()
    known = registry.bases()
    records = {record.name: record for record in known}
    if base is not None:
        registry.base(base)
    with progress.task("looking through the folders", None):
        places = find(roots)
    names = Names([*registry.names(), *(record.name for record in known)])
    candidates, bases = gather(known, places.bases, names, places.problems)
    found = [Found(directory) for directory in places.adapters]
    with progress.task("reading adapters", len(found)) as task:
        for one in found:
            look(one, candidates, base)
            if one.level != "error":
                _rehearse(registry, one, records)
            task.advance(1, one.directory.name)
    _relate(registry, found, names)
    seconds = time.monotonic() - started
    return Survey(found, bases, places.problems, places.folders, seconds)


def _rehearse(registry: Registry, one: Found, known: Mapping[str, BaseRecord]) -> None:
    """Note what the registry would refuse beside the faults that were looked for."""
    record = known.get(one.base.name or "")
    link = BaseLink(status="unknown")
    if record is not None:
        link = BaseLink(status="asserted", name=record.name, digests=record.digests)
    storage = one.exported.storage if one.exported else "peft"
    manifest = Manifest(
        name="adopted", method=one.method or "", storage=storage, made_by="import", base=link
    )
    try:
        registry.rehearse(manifest, one.directory)
    except AdzError as error:
        one.add("refused", "error", error.message)


def _relate(registry: Registry, found: Sequence[Found], names: Names) -> None:
    note_checkpoints(found)
    note_duplicates(found)
    note_known(found, registry.versions())

    # Who is imported has the first choice of a name.
    def rank(one: Found) -> tuple[bool, bool, int]:
        return one.level != "clean", is_held_checkpoint(one), len(one.directory.parts)

    for one in sorted(found, key=rank):
        one.name = names.give(one.directory)
