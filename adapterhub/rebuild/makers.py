"""Making a version again from what its manifest records, into a directory."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from adapterhub.bases.digests import hash_file
from adapterhub.bases.identity import describe_difference
from adapterhub.config import validate
from adapterhub.environment import THREADS
from adapterhub.errors import AdzError, usage_error
from adapterhub.manifest import Manifest, Version
from adapterhub.protocols import Progress, Registry
from adapterhub.reference import check_name

Maker = Callable[[Version, Registry, Sequence[Path], Path, Progress], None]


def parents_of(version: Version, registry: Registry) -> list[Version]:
    """The versions that this one was made from, found by their digests.

    Raises AdzError where one is gone, or was a directory, of which no more than its name is
    recorded.
    """
    manifest = version.manifest
    recipe = manifest.recipe
    named = list(recipe.get("adapters") or ())
    named += [recipe[key] for key in ("adapter", "initial") if key in recipe]
    if len(named) != len(manifest.parents):
        known = {f"{parent.name}@{parent.version}" for parent in manifest.parents}
        lost = next((name for name in named if name not in known), "an operand")
        raise AdzError(
            f"{version.reference} was made from the directory {lost}, of which only the name is "
            "recorded",
            "import it and make the version again from the import",
        )
    return [registry.resolve(f"{parent.name}@{parent.digest}") for parent in manifest.parents]


def make_merge(
    version: Version, registry: Registry, _: Sequence[Path], out: Path, progress: Progress
) -> None:
    """Merge the parents again by the recorded recipe."""
    from adapterhub.merge.pipeline import merge
    from adapterhub.merge.recipe import MergeRecipe

    parents = [parent.reference for parent in parents_of(version, registry)]
    values = {**version.manifest.recipe, "adapters": parents, "out": out}
    merge(_validated(MergeRecipe, values, version), registry, progress)


def make_conversion(
    version: Version, registry: Registry, _: Sequence[Path], out: Path, progress: Progress
) -> None:
    """Convert the source again by the recorded recipe."""
    from adapterhub.convert.pipeline import convert
    from adapterhub.convert.recipe import ConvertRecipe

    found = parents_of(version, registry)
    by_role = {p.role: v.reference for p, v in zip(version.manifest.parents, found, strict=True)}
    values = {**version.manifest.recipe, "adapter": by_role["source"], "out": out}
    if "initial" in by_role:
        values["initial"] = by_role["initial"]
    convert(_validated(ConvertRecipe, values, version), registry, progress, measure=False)


def make_training(
    version: Version, registry: Registry, data: Sequence[Path], out: Path, progress: Progress
) -> None:
    """Train again by the recorded recipe, on the files with the recorded sha256."""
    from adapterhub.train.pipeline import train
    from adapterhub.train.plan import make_plan
    from adapterhub.train.recipe import TrainRecipe

    manifest = version.manifest
    _check_base(version, registry)
    values = copy.deepcopy(manifest.recipe)
    # A run of the same recipe may be waiting for --resume under its own name.
    values["name"] = check_name(f"{version.name[:56]}-rebuild")
    files = [_find_data(entry, values["data"], data, version) for entry in manifest.data]
    sources = values["data"]["train"]
    if isinstance(sources, list):
        for source, file in zip(sources, files, strict=False):
            source["path"] = file
    else:
        values["data"]["train"] = files[0]
    trained_on = len(sources) if isinstance(sources, list) else 1
    if len(files) > trained_on:
        values["data"]["holdout"] = files[trained_on]
    plan = make_plan(_validated(TrainRecipe, values, version), registry)
    with _threads(manifest.environment.get(THREADS)):
        train(plan, cast("Registry", _Catch(out)), progress)


MAKERS: Mapping[str, Maker] = {
    "merge": make_merge,
    "convert": make_conversion,
    "train": make_training,
}
"""By `made_by`; an import has no maker."""


@contextmanager
def _threads(recorded: str | None) -> Iterator[None]:
    """As many threads as then, where that is known."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(int(recorded) if recorded else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Catch:
    """Takes what a run commits into a directory of its own, and keeps no version."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def commit(self, manifest: Manifest, payload: Path, artifacts: Path | None = None) -> Version:
        """Copy the payload; the version is one of no registry."""
        shutil.copytree(payload, self._out)
        return Version(manifest.name, 0, manifest.digest(), manifest)


def _check_base(version: Version, registry: Registry) -> None:
    link = version.manifest.base
    record = registry.base(link.name or "")
    if link.digests is None or record.digests != link.digests:
        differing = describe_difference(link.digests, record.digests) if link.digests else ""
        raise AdzError(
            f"the base {record.name} is another one than {version.reference} was trained on: "
            f"{differing or 'which one is not known'}",
            "add the recorded base under its name in another ADZ_HOME",
        )


def _find_data(
    entry: Mapping[str, Any], recipe: Mapping[str, Any], given: Sequence[Path], version: Version
) -> Path:
    sources = recipe["train"] if isinstance(recipe["train"], list) else [recipe["train"]]
    named = [source["path"] if isinstance(source, dict) else source for source in sources]
    recorded = [Path(str(source)) for source in (*named, recipe["holdout"])]
    nearby = [Path(entry["file"]), *recorded]
    for path in (*given, *nearby):
        if path.is_file() and hash_file(path) == entry["sha256"]:
            return path
    raise usage_error(
        f"{version.reference} was trained on {entry['file']} ({entry['sha256'][:19]}...), which "
        "is not here",
        "give it with --data FILE",
    )


def _validated(model: Any, values: Mapping[str, Any], version: Version) -> Any:
    try:
        return validate(model, values)
    except AdzError as error:
        raise AdzError(
            f"the recipe of {version.reference} is not understood: {error.message}",
            "it was recorded by another version of adapterhub",
        ) from error
