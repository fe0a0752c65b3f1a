"""The names, versions and bases of a home: the part of `Hub` that only reads and points."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adapterhub.hub.home import Home

if TYPE_CHECKING:
    from adapterhub.diff.pipeline import Comparison
    from adapterhub.lineage.graph import Graph
    from adapterhub.manifest import BaseRecord, Version


class Keeping(Home):
    """What is kept under which name."""

    def add_base(self, name: str, source: str, *, copy: bool = False) -> BaseRecord:
        """Make a base known: a directory, a Hugging Face id, a GGUF file or `pkg:NAME`."""
        from adapterhub.bases.add import add_base

        with self._registry() as registry:
            return add_base(registry, name, source, copy=copy, progress=self._progress)

    def bases(self) -> list[BaseRecord]:
        """All bases by name."""
        with self._registry() as registry:
            return registry.bases()

    def versions(self, name: str | None = None) -> list[Version]:
        """Live versions of one name or of all, by name and number."""
        with self._registry() as registry:
            return registry.versions(name)

    def resolve(self, reference: str) -> Version:
        """The version that a reference means now."""
        with self._registry() as registry:
            return registry.resolve(reference)

    def path(self, reference: str) -> Path:
        """A plain directory of the version, read-only, that PEFT and vLLM open."""
        with self._registry() as registry:
            return registry.path(registry.resolve(reference))

    def diff(self, first: str, second: str) -> Comparison:
        """Two references or directories beside each other: configuration, lineage, the distance
        of each module's updates, scores."""
        from adapterhub.diff.pipeline import compare

        with self._registry() as registry:
            return compare(registry, first, second)

    def lineage(self, reference: str, *, children: bool = False) -> Graph:
        """What a version was made from, and with `children` what was made from it."""
        from adapterhub.lineage.graph import lineage

        with self._registry() as registry:
            return lineage(registry, reference, children=children)

    def tag(self, reference: str, alias: str) -> Version:
        """Point `alias` at the version of `reference`."""
        with self._registry() as registry:
            return registry.tag(reference, alias)

    def split(self, name: str, alias: str, weights: Mapping[int, int]) -> Version:
        """Point `alias` at several versions, version -> weight; return the heaviest."""
        with self._registry() as registry:
            return registry.split(name, alias, weights)

    def rollback(self, name: str, alias: str) -> Version:
        """Point `alias` at the version before its last move, or before it was split."""
        with self._registry() as registry:
            return registry.rollback(name, alias)

    def remove(self, reference: str) -> list[Version]:
        """Remove one version (`name@3`) or all of a name; numbers are never reused."""
        with self._registry() as registry:
            return registry.remove(reference)
