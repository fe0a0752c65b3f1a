"""Making adapters, trying them and serving them: the part of `Hub` that loads models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub.hub.home import Home

if TYPE_CHECKING:
    from adapterhub.convert.result import ConvertResult
    from adapterhub.evaluate.run import Score
    from adapterhub.manifest import BaseRecord, Version
    from adapterhub.merge.result import MergeResult
    from adapterhub.protocols import Registry
    from adapterhub.rebuild.result import RebuildResult
    from adapterhub.train.plan import Plan


class Making(Home):
    """What makes and uses adapters."""

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
        from adapterhub.train.pipeline import train

        values = _recipe(data, method, base, name, quantizer, options)
        with self._registry() as registry:
            return train(_plan(values, registry), registry, self._progress, resume=resume)

    def train_base(
        self,
        data: Path | str,
        *,
        method: str = "full",
        base: str | None = None,
        name: str | None = None,
        options: Sequence[str] = (),
        resume: bool = False,
    ) -> BaseRecord:
        """Train a base itself and record the result as a new base; see `train`."""
        from adapterhub.train.new_base import train_base

        values = _recipe(data, method, base, name, None, options)
        with self._registry() as registry:
            return train_base(_plan(values, registry), registry, self._progress, resume=resume)

    def merge(self, *adapters: str, rule: str | None = None, **options: Any) -> MergeResult:
        """Merge references or directories, or one expression; `options` are those of `adz merge`:
        `weights`, `density`, `rank`, `seed`, `space`, `base`, `name`, `out`. Without a rule:
        regmean where every adapter has recorded its inputs, else linear."""
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
        tokenizer, in evaluation mode on the CPU. `sql*0.7+french*0.3` is merged first."""
        from adapterhub.bases.identity import template_warning
        from adapterhub.bases.together import resolve_together
        from adapterhub.bases.verify import verify_base
        from adapterhub.derived.local import with_merges_made
        from adapterhub.models import load_adapter, load_base, load_tokenizer

        with self._registry() as registry:
            (reference,) = with_merges_made(registry, [reference], self._progress)
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
        """Score versions, or merges as expressions, beside their base; `options` are the fields of
        `EvaluationSettings`: `metric`, `shots`, `shots_from`, `limit`, `url`, `api_key`, ..."""
        from adapterhub.derived.local import with_merges_made
        from adapterhub.evaluate.run import EvaluationSettings, evaluate

        files = [data] if isinstance(data, Path | str) else data
        with self._registry() as registry:
            settings = EvaluationSettings(
                references=with_merges_made(registry, references, self._progress),
                data=tuple(Path(file) for file in files),
                **options,
            )
            return evaluate(registry, settings, self._progress)

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


def _recipe(
    data: Path | str,
    method: str,
    base: str | None,
    name: str | None,
    quantizer: str | None,
    options: Sequence[str],
) -> dict[str, Any]:
    from adapterhub.config import merge_into, parse_overrides

    values: dict[str, Any] = {"method": {"name": method}, "data": {"train": data}}
    given = {"base": base, "name": name, "quantizer": quantizer and {"name": quantizer}}
    merge_into(values, {key: value for key, value in given.items() if value is not None})
    merge_into(values, parse_overrides(options))
    return values


def _plan(values: Mapping[str, Any], registry: Registry) -> Plan:
    from adapterhub.config import validate
    from adapterhub.train.plan import make_plan
    from adapterhub.train.recipe import TrainRecipe

    return make_plan(validate(TrainRecipe, values), registry)
