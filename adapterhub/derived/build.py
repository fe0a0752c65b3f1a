"""Making what is wanted: found, brought back, or built and committed; and what goes for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adapterhub.config import validate
from adapterhub.derived.wanted import Wanted, find, is_result
from adapterhub.errors import AdzError
from adapterhub.manifest import Version
from adapterhub.protocols import Derivations, Progress, Registry
from adapterhub.reference import DERIVED


def make(
    wanted: Wanted,
    registry: Registry,
    settings: Derivations,
    progress: Progress,
    *,
    used: Sequence[str] = (),
) -> Version:
    """The version that is wanted. used: names of such versions, the last used one first.

    Raises AdzError, and commits nothing, where it cannot be made or loses more than `settings`
    allow.
    """
    version = find(registry, wanted) or _restored(wanted, registry)
    if version is not None:
        return version
    make_one = _merge if wanted.kind == "merge" else _convert
    version = make_one(wanted, registry, settings, progress)
    if wanted.kind == "merge":
        _let_go(registry, settings.merges, [version.name, *used])
    return version


def _merge(
    wanted: Wanted, registry: Registry, settings: Derivations, progress: Progress
) -> Version:
    from adapterhub.merge.pipeline import store
    from adapterhub.merge.prepare import prepare
    from adapterhub.merge.recipe import MergeRecipe

    recipe = validate(MergeRecipe, {**wanted.recipe, "name": wanted.name, "workers": 1})
    prepared = prepare(recipe, registry)
    exact = prepared.shapes.rank
    if exact > wanted.most_rank:
        if recipe.rank is not None:
            raise AdzError(f"rank {exact} is above {wanted.most_rank}, the most here")
        recipe = recipe.model_copy(update={"rank": wanted.most_rank})
        prepared = prepare(recipe, registry)
    result = store(
        prepared,
        registry,
        progress,
        metrics={DERIVED: wanted.key},
        most_error=settings.merge_error,
    )
    return _committed(result.version)


def _convert(
    wanted: Wanted, registry: Registry, settings: Derivations, progress: Progress
) -> Version:
    from adapterhub.convert.pipeline import convert
    from adapterhub.convert.recipe import ConvertRecipe

    recipe = validate(ConvertRecipe, {**wanted.recipe, "name": wanted.name, "workers": 1})
    result = convert(
        recipe,
        registry,
        progress,
        measure=False,
        metrics={DERIVED: wanted.key},
        most_rank=wanted.most_rank,
        most_error=settings.convert_error,
    )
    return _committed(result.version)


def _committed(version: Version | None) -> Version:
    if version is None:
        raise AssertionError("a recipe without --out commits a version")
    return version


def _restored(wanted: Wanted, registry: Registry) -> Version | None:
    """What was let go and is not deleted yet."""
    try:
        found = registry.restore(wanted.name)
    except AdzError:
        return None
    return next((version for version in found if is_result(version, wanted)), None)


def _let_go(registry: Registry, most: int, used: Sequence[str]) -> None:
    """Remove the merges beyond `most` that were not used for longest, and delete their files."""
    place = {name: -index for index, name in enumerate(used)}
    listed = registry.listing(name=f"{DERIVED}/*", sort="created")
    merges = [line.name for line in listed if line.made_by == "merge"]
    merges.sort(key=lambda name: place.get(name, -len(place)))
    surplus: Any = merges[: max(0, len(merges) - most)]
    for name in surplus:
        registry.remove(name)
    if surplus:
        registry.collect(names=f"{DERIVED}/*", retention_seconds=0)
