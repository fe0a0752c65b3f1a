"""Which versions passed the gates as adapters of which bases.

A version may come in while its base is not known, and the base later. `views/<hex>.admitted`
lists what was checked; it is a note that saves time, and losing it costs another check.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from adapterhub.manifest import BaseRecord, Version, canonical_json, sha256_of
from adapterhub_registry import disk
from adapterhub_registry.gates import RULES, check_payload
from adapterhub_registry.storage import Storage


class Admissions:
    """What passed, on the disk and for this process."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._passed: set[tuple[str, str]] = set()

    def check(self, version: Version, base: BaseRecord) -> None:
        """Run the gates over a stored version as an adapter of `base`, once."""
        key = (version.digest, _key(base))
        if key in self._passed:
            return
        if key[1] not in self._noted(version):
            check_payload(self._storage.views.path(version), version.manifest, base)
            self.passed(version, base)
        self._passed.add(key)

    def passed(self, version: Version, base: BaseRecord) -> None:
        """Remember that a version passed the gates with `base`, where the disk lets us."""
        keys = {*self._noted(version), _key(base)}
        with suppress(OSError), self._storage.staging() as staging:
            note = staging / "note"
            disk.write(note, canonical_json(sorted(keys)))
            disk.rename(note, self._path(version))

    def _noted(self, version: Version) -> list[str]:
        try:
            noted = json.loads(self._path(version).read_bytes())
        except (OSError, ValueError):
            return []
        return noted if isinstance(noted, list) else []

    def _path(self, version: Version) -> Path:
        name = version.digest.removeprefix("sha256:")
        return self._storage.views.directory / f"{name}.admitted"


def _key(base: BaseRecord) -> str:
    """A base's identity, and which gates were passed: stricter ones look again."""
    return sha256_of(canonical_json([RULES, base.digests.model_dump(mode="json")]))
