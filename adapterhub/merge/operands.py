"""What is merged: versions of the registry or directories, and whether their bases are equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapterhub.bases.choose import choose_base
from adapterhub.bases.headers import BASE, read_header
from adapterhub.errors import AdzError, usage_error
from adapterhub.manifest import BaseDigests, BaseLink, BaseRecord, Version
from adapterhub.merge.lora import LoraAdapter
from adapterhub.merge.recipe import MergeRecipe
from adapterhub.protocols import Registry
from adapterhub.reference import is_directory_reference


@dataclass(frozen=True, slots=True)
class Operand:
    """One adapter to merge. `version` is None for a directory."""

    label: str
    directory: Path
    version: Version | None

    @property
    def base(self) -> BaseLink | None:
        """What is known about its base; None for a directory."""
        return self.version.manifest.base if self.version else None


def find_operands(recipe: MergeRecipe, registry: Registry) -> list[Operand]:
    """Resolve the references; unknown ones and directories that are not there are errors."""
    return [_find(text, registry) for text in recipe.adapters]


def asserted_base(recipe: MergeRecipe, registry: Registry) -> BaseRecord | None:
    """The base that `--base` asserts for the directories."""
    return choose_base(registry, recipe.base) if recipe.base is not None else None


def result_base(
    operands: Sequence[Operand], record: BaseRecord | None, *, needed: bool
) -> BaseLink:
    """The one base of all operands; an error that names the two that differ.

    record: the base that is asserted for directories. Without one the result's base is unknown,
    which is an error where it is `needed`: the registry keeps no such merge.
    """
    asserted = record and BaseLink(status="asserted", name=record.name, digests=record.digests)
    links = [(operand.label, operand.base or asserted) for operand in operands]
    known = [(label, link) for label, link in links if link and link.digests]
    for label, link in known[1:]:
        _compare(known[0][0], known[0][1], label, link)
    if len(known) == len(links):
        recorded = all(link.status == "recorded" for _, link in known)
        first = known[0][1]
        return first.model_copy(update={"status": "recorded" if recorded else "asserted"})
    unknown = next(label for label, link in links if not (link and link.digests))
    if needed:
        raise usage_error(f"the base of {unknown} is not known", "give --base NAME, or --out DIR")
    return BaseLink(status="unknown")


def check_shapes(adapter: LoraAdapter, record: BaseRecord) -> None:
    """Raise AdzError where a module of `adapter` is not in the base, or has another shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(Path(record.path).glob("*.safetensors")):
        shapes.update({name: info.shape for name, info in read_header(file, BASE).items()})
    transposed = bool(adapter.config.get("fan_in_fan_out"))
    for module, (_, m, n) in adapter.modules.items():
        found = shapes.get(f"{module}.weight")
        if found != ((n, m) if transposed else (m, n)):
            what = " x ".join(map(str, found)) if found else "not there"
            raise AdzError(
                f"{adapter.label}: {module} is {m} x {n}, in the base {record.name} it is {what}",
                "is it an adapter of this base?",
            )


def _find(text: str, registry: Registry) -> Operand:
    if is_directory_reference(text):
        directory = Path(text).expanduser()
        if not directory.is_dir():
            raise AdzError(f"there is no directory {text}")
        return Operand(text, directory, None)
    version = registry.resolve(text)
    return Operand(version.reference, registry.path(version), version)


def _compare(label: str, link: BaseLink, other_label: str, other: BaseLink) -> None:
    differing = [
        field
        for field in BaseDigests.model_fields
        if getattr(link.digests, field) != getattr(other.digests, field)
    ]
    if differing:
        raise AdzError(
            f"{label} and {other_label} have different bases: {link.name or '?'} and "
            f"{other.name or '?'} differ in {', '.join(differing)}",
            "merge adapters of one base",
        )
