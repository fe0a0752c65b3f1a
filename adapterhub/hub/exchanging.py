"""What comes from elsewhere and goes elsewhere: the part of `Hub` that imports, exports and
exchanges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub.hub.home import Home

if TYPE_CHECKING:
    from adapterhub.adopt.found import Found, Survey
    from adapterhub.adopt.pipeline import Adopted
    from adapterhub.exchange.result import Transferred
    from adapterhub.export.result import Exported
    from adapterhub.manifest import Version
    from adapterhub.protocols import Listing


class Exchanging(Home):
    """What comes and goes."""

    def import_adapter(
        self, directory: Path | str, name: str, *, base: str | None = None, convert: bool = False
    ) -> Version:
        """Store a copy of a PEFT adapter that was made elsewhere, in a directory or as
        `hub:organisation/name`. base: `unknown` leaves it open; convert: pickled weights are
        read in a locked-down process."""
        from adapterhub.imports.hub import SCHEME, import_from_hub
        from adapterhub.imports.pipeline import import_adapter

        source = str(directory)
        with self._registry() as registry:
            if source.startswith(SCHEME):
                return import_from_hub(
                    registry, source, name, base, self._progress, convert=convert
                )
            return import_adapter(
                registry, Path(directory), name, base, self._progress, convert=convert
            )

    def claim_base(
        self, reference: str, *, base: str | None = None, name: str | None = None
    ) -> Version:
        """Say which base a stored version belongs to: a new version with the same files."""
        from adapterhub.imports.claim import claim_base

        with self._registry() as registry:
            return claim_base(registry, reference, base, self._progress, name=name)

    def survey(self, *folders: Path | str, base: str | None = None) -> Survey:
        """Every adapter below folders, the base that it fits and what is wrong with it. base: a
        known one that what fits it belongs to. Imports nothing."""
        from adapterhub.adopt.survey import survey

        with self._registry() as registry:
            return survey(registry, [Path(folder) for folder in folders], base, self._progress)

    def adopt(
        self,
        *folders: Path | str,
        base: str | None = None,
        accept: Callable[[Found], bool] | None = None,
    ) -> list[Adopted]:
        """Import what `survey` finds and `accept` takes, and the bases that it needs. Without
        `accept` that is what has no fault; what cannot be imported is never asked about."""
        from adapterhub.adopt.pipeline import adopt, clean

        found = self.survey(*folders, base=base)
        chosen = clean(found)
        if accept is not None:
            chosen = [one for one in found.adapters if one.level != "error" and accept(one)]
        with self._registry() as registry:
            return adopt(registry, found, chosen, self._progress)

    def export(
        self, reference: str, directory: Path | str, *, with_artifacts: bool = False
    ) -> Version:
        """Write a version as a plain directory of its own."""
        from adapterhub.export.directory import export_version

        with self._registry() as registry:
            return export_version(
                registry, reference, Path(directory), with_artifacts=with_artifacts
            )

    def export_merged(self, reference: str, directory: Path | str, **options: Any) -> Exported:
        """Write the base with the version folded in. `options`: `dtype`, `data`, `compare`."""
        from adapterhub.export.merged import export_merged

        with self._registry() as registry:
            return export_merged(
                registry, reference, Path(directory), progress=self._progress, **options
            )

    def export_gguf(
        self, reference: str, file: Path | str, *, kind: str, **options: Any
    ) -> Exported:
        """The same as one file for llama.cpp. `options`: `ollama`, `data`, `compare`."""
        from adapterhub.export.gguf import export_gguf

        with self._registry() as registry:
            return export_gguf(
                registry, reference, Path(file), kind=kind, progress=self._progress, **options
            )

    def export_lora_gguf(self, reference: str, file: Path | str, **options: Any) -> Exported:
        """The version alone for llama.cpp. `options`: `kind`, `ollama_base`."""
        from adapterhub.export.lora_gguf import export_lora_gguf

        with self._registry() as registry:
            return export_lora_gguf(
                registry, reference, Path(file), progress=self._progress, **options
            )

    def push(self, *references: str, to: str, **options: Any) -> list[Transferred]:
        """Copy versions to a remote. `options`: `every`, `key`, `dry_run`, `bounds`."""
        from adapterhub.exchange.push import push
        from adapterhub.exchange.remotes import open_remote

        with self._registry() as registry:
            return list(push(registry, open_remote(to), references, self._progress, **options))

    def pull(self, *references: str, source: str, **options: Any) -> list[Transferred]:
        """Store versions of a remote. `options`: `every`, `rename`, `keys`, `dry_run`, `bounds`."""
        from adapterhub.exchange.pull import pull
        from adapterhub.exchange.remotes import open_remote

        with self._registry() as registry:
            return list(pull(registry, open_remote(source), references, self._progress, **options))

    def list_remote(self, url: str, **options: Any) -> list[Listing]:
        """What is at a remote, without fetching it. `options`: `name`, `every`, `base`,
        `method`, `rule`, `alias`, `sort`, `reverse`, `limit`, `offset`."""
        from adapterhub.exchange.listing import list_remote
        from adapterhub.exchange.remotes import open_remote

        return list_remote(open_remote(url), self._progress, **options)
