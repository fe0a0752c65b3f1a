"""The verbs of `adz` in Python: `from adapterhub import Hub`.

Every method calls the pipeline that the command of the same name calls. References are the
same strings; mistakes raise `AdzError`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub.home import adz_home
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Progress, Registry

if TYPE_CHECKING:
    from adapterhub.convert.result import ConvertResult
    from adapterhub.evaluate.run import Score
    from adapterhub.exchange.result import Transferred
    from adapterhub.export.result import Exported
    from adapterhub.manifest import BaseRecord, Version
    from adapterhub.merge.result import MergeResult
    from adapterhub.rebuild.result import RebuildResult


class Hub:
    """One home with its bases and adapters. `home` is `$ADZ_HOME` where it is not given."""

    def __init__(self, home: Path | str | None = None, *, progress: Progress | None = None) -> None:
        self.home = adz_home() if home is None else Path(home).expanduser().absolute()
        self._progress: Progress = progress or _Quiet()

    def add_base(self, name: str, source: str, *, copy: bool = False) -> BaseRecord:
        """Make a base known: a directory, a Hugging Face id, a GGUF file or `pkg:NAME`."""
        from adapterhub.bases.add import add_base

        with self._registry() as registry:
            return add_base(registry, name, source, copy=copy, progress=self._progress)

    def bases(self) -> list[BaseRecord]:
        """All bases by name."""
        with self._registry() as registry:
            return registry.bases()

    def train(
        self,
        data: Path | str,
        *,
        method: str = "lora",
        base: str | None = None,
        name: str | None = None,
        quantizer: str | None = None,
        options: Sequence[str] = (),
        resume: bool = False,
    ) -> Version:
        """Train an adapter and commit it. `options` are those of `adz train -o`: `method.r=8`."""
        from adapterhub.config import merge_into, parse_overrides, validate
        from adapterhub.train.pipeline import train
        from adapterhub.train.plan import make_plan
        from adapterhub.train.recipe import TrainRecipe

        values: dict[str, Any] = {"method": {"name": method}, "data": {"train": data}}
        given = {"base": base, "name": name, "quantizer": quantizer and {"name": quantizer}}
        merge_into(values, {key: value for key, value in given.items() if value is not None})
        merge_into(values, parse_overrides(options))
        with self._registry() as registry:
            plan = make_plan(validate(TrainRecipe, values), registry)
            return train(plan, registry, self._progress, resume=resume)

    def merge(self, *adapters: str, rule: str | None = None, **options: Any) -> MergeResult:
        """Merge references or directories; `options` are those of `adz merge`: `weights`,
        `density`, `rank`, `seed`, `space`, `base`, `name`, `out`. Without a rule: regmean where
        every adapter has recorded its inputs, else linear."""
        from adapterhub.config import validate
        from adapterhub.merge.recipe import MergeRecipe

        recipe = validate(MergeRecipe, {"adapters": adapters, "rule": rule, **options})
        from adapterhub.merge.pipeline import merge

        with self._registry() as registry:
            return merge(recipe, registry, self._progress)

    def convert(self, adapter: str, **options: Any) -> ConvertResult:
        """Make a plain LoRA of a version or directory; `options` are those of `adz convert`:
        `rank`, `name`, `base`, `initial`, `data`, `out`."""
        from adapterhub.config import validate
        from adapterhub.convert.recipe import ConvertRecipe

        recipe = validate(ConvertRecipe, {"adapter": adapter, **options})
        from adapterhub.convert.pipeline import convert

        with self._registry() as registry:
            return convert(recipe, registry, self._progress)

    def rebuild(
        self, reference: str, *, data: Sequence[Path | str] = (), deep: bool = False
    ) -> list[RebuildResult]:
        """Make a version again by its recipe and compare the bytes; commits nothing. The last
        result is the version's own."""
        from adapterhub.rebuild.pipeline import rebuild

        files = [Path(file) for file in data]
        with self._registry() as registry:
            return list(rebuild(reference, registry, self._progress, data=files, deep=deep))

    def load(self, reference: str) -> tuple[Any, Any]:
        """The model (a `PeftModel` for PEFT's methods, the plain model for a base) and its
        tokenizer, in evaluation mode on the CPU."""
        from adapterhub.bases.identity import template_warning
        from adapterhub.bases.together import resolve_together
        from adapterhub.bases.verify import verify_base
        from adapterhub.models import load_adapter, load_base, load_tokenizer

        with self._registry() as registry:
            base, versions = resolve_together(registry, [reference])
            verify_base(base)
            model, version = load_base(base), versions.get(reference)
            if version is not None:
                warning = template_warning(version, base)
                if warning:
                    self._progress.warn(warning)
                model = load_adapter(model, version, registry.path(version))
            return model, load_tokenizer(base)

    def evaluate(
        self,
        *references: str,
        data: Path | str | Sequence[Path | str],
        **options: Any,
    ) -> list[Score]:
        """Score versions beside their base; `options` are the fields of `EvaluationSettings`:
        `metric`, `shots`, `shots_from`, `limit`, `url`, `api_key`, `max_tokens`, ..."""
        from adapterhub.evaluate.run import EvaluationSettings, evaluate

        files = [data] if isinstance(data, Path | str) else data
        settings = EvaluationSettings(
            references=references, data=tuple(Path(file) for file in files), **options
        )
        with self._registry() as registry:
            return evaluate(registry, settings, self._progress)

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

    def tag(self, reference: str, alias: str) -> Version:
        """Point `alias` at the version of `reference`."""
        with self._registry() as registry:
            return registry.tag(reference, alias)

    def rollback(self, name: str, alias: str) -> Version:
        """Point `alias` at the version before its last move."""
        with self._registry() as registry:
            return registry.rollback(name, alias)

    def remove(self, reference: str) -> list[Version]:
        """Remove one version (`name@3`) or all of a name; numbers are never reused."""
        with self._registry() as registry:
            return registry.remove(reference)

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

    def serve(
        self,
        base: str | None = None,
        *,
        engine: str | None = None,
        api_key: str | None = None,
        options: Mapping[str, str | int] | None = None,
        start_seconds: float = 600,
    ) -> AbstractContextManager[str]:
        """A server in the background: `with hub.serve() as url:`. `options` are those of
        `adz serve`: `{"max-rank": 32}`."""
        from adapterhub.serve.background import serving

        arguments = [] if base is None else [base]
        chosen = {**({"engine": engine} if engine else {}), **(options or {})}
        for name, value in chosen.items():
            arguments += [f"--{name}", str(value)]
        return serving(arguments, home=self.home, api_key=api_key, start_seconds=start_seconds)

    @contextmanager
    def _registry(self) -> Iterator[Registry]:
        """The registry, with this hub's home as ADZ_HOME for what the pipelines write beside."""
        from adapterhub.plugins import open_registry

        before = os.environ.get("ADZ_HOME")
        os.environ["ADZ_HOME"] = str(self.home)
        try:
            yield open_registry()
        finally:
            if before is None:
                del os.environ["ADZ_HOME"]
            else:
                os.environ["ADZ_HOME"] = before


class _Quiet(Silent):
    """No bars and no notes; warnings as Python's own."""

    def warn(self, message: str) -> None:
        warnings.warn(message, stacklevel=2)
