"""The merge as a whole: prepare, run, and commit or write a directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapterhub.errors import AdzError
from adapterhub.merge.diagnostics import diagnose, imbalance, level
from adapterhub.merge.engine import merge_modules, relative_error
from adapterhub.merge.output import adapter_writer, staged, write_config
from adapterhub.merge.prediction import TOLERABLE, cure, predict
from adapterhub.merge.prepare import PreparedMerge, prepare
from adapterhub.merge.recipe import MergeRecipe
from adapterhub.merge.record import manifest_of, write_errors
from adapterhub.merge.result import MergeResult
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Progress, Registry
from adapterhub.reference import DERIVED, check_new_name
from adapterhub.staging import home_staging, staging_folder

_NOTHING: Mapping[str, Any] = {}


def merge(
    recipe: MergeRecipe, registry: Registry, progress: Progress, *, dry_run: bool = False
) -> MergeResult:
    """Merge adapters into a new version of the registry, or into `recipe.out`.

    `dry_run` reads the adapters only and writes nothing. Every user's mistake is an AdzError,
    and leaves nothing behind.
    """
    prepared = prepare(recipe, registry)
    if not prepared.base.digests:
        progress.note("base not checked: a directory does not say it, --base NAME does")
    if dry_run:
        return look_ahead(prepared, progress)
    return store(prepared, registry, progress)


def look_ahead(prepared: PreparedMerge, progress: Progress) -> MergeResult:
    """What is known before anything is written: the adapters among each other, and the error."""
    diagnosis = diagnose(prepared, progress)
    prediction = predict(prepared, progress)
    lines = (level(diagnosis.norms, prepared), cure(prepared, prediction.error, prediction))
    return replace(
        prepared.result,
        diagnosis=diagnosis,
        prediction=prediction,
        warnings=tuple(line for line in lines if line),
    )


def store(
    prepared: PreparedMerge,
    registry: Registry,
    progress: Progress,
    *,
    metrics: Mapping[str, Any] = _NOTHING,
    artifacts: Mapping[str, str] = _NOTHING,
    most_error: float | None = None,
) -> MergeResult:
    """Run a prepared merge and keep its result: whole, or nothing.

    metrics: more for the manifest; artifacts: more texts beside a version, by file name.
    Raises AdzError where more than `most_error` was lost.
    """
    out = prepared.recipe.out
    if out is not None:
        with staged(out) as directory:
            result = _advised(prepared, run(prepared, directory, progress))
        return replace(result, directory=out)
    check_new_name(prepared.name, metrics.get(DERIVED))
    with staging_folder(home_staging()) as folder:
        payload, beside = folder / "payload", folder / "artifacts"
        payload.mkdir()
        beside.mkdir()
        result = run(prepared, payload, progress)
        _check_error(result, most_error)
        result = _advised(prepared, result)
        write_errors(result.errors, beside)
        for name, text in artifacts.items():
            (beside / name).write_text(text, encoding="utf-8")
        manifest = manifest_of(prepared, result)
        manifest = manifest.model_copy(update={"metrics": {**manifest.metrics, **metrics}})
        return replace(result, version=registry.commit(manifest, payload, beside))


def run(prepared: PreparedMerge, directory: Path, progress: Progress) -> MergeResult:
    """Write the merged adapter into `directory`, an existing folder, as PEFT opens it."""
    shapes, adapters = prepared.shapes, prepared.adapters
    embeddings = frozenset[str]().union(*(adapter.embeddings for adapter in adapters))
    with adapter_writer(directory, shapes.modules, shapes.rank, embeddings) as writer:
        errors = merge_modules(
            prepared.choice,
            shapes,
            adapters,
            writer,
            seed=prepared.recipe.seed,
            workers=prepared.recipe.workers,
            progress=progress,
        )
    write_config(directory, adapters, shapes.rank)
    return replace(
        prepared.result,
        relative_error=relative_error(errors),
        errors=tuple((e.module, e.relative) for e in errors),
    )


def _check_error(result: MergeResult, most: float | None) -> None:
    error = result.relative_error or 0.0
    if most is not None and error > most:
        raise AdzError(
            f"at rank {result.rank} {error:.1%} of the merge of {' and '.join(result.adapters)} "
            f"is lost, at most {most:.1%} may be",
            f"adz serve --max-rank {result.possible} has room for all of it, --merge-error allows "
            "more",
        )


def _advised(prepared: PreparedMerge, result: MergeResult) -> MergeResult:
    lines = [imbalance(prepared)]
    error = result.relative_error or 0.0
    if error > TOLERABLE:
        # A sample, so that advice costs a small part of what the merge did.
        prediction = predict(prepared, Silent(), sampled=True)
        lines.append(cure(prepared, error, prediction, sampled=True))
    return replace(result, warnings=tuple(line for line in lines if line))
