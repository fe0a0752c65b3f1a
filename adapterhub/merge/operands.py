"""What is merged: versions of the registry or directories, and whether their bases are equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from adapterhub.bases.choose import choose_base
from adapterhub.bases.digests import weight_files
from adapterhub.bases.headers import BASE, read_header
from adapterhub.bases.identity import describe_difference
from adapterhub.bases.modules import BaseModules
from adapterhub.bases.verify import verify_base
from adapterhub.errors import EXIT_VERIFICATION, AdzError, usage_error
from adapterhub.manifest import BaseLink, BaseRecord, Version
from adapterhub.merge.lora import LoraAdapter
from adapterhub.merge.recipe import MergeRecipe
from adapterhub.protocols import Registry
from adapterhub.reference import is_directory_reference

# A weight is compared this many rows at a time.
_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Operand:
    """One adapter to merge. `version` is None for a directory."""

    label: str
    directory: Path
    version: Version | None


def find_operands(recipe: MergeRecipe, registry: Registry) -> list[Operand]:
    """Resolve the references; unknown ones and directories that are not there are errors."""
    return [_find(text, registry) for text in recipe.adapters]


def asserted_base(recipe: MergeRecipe, registry: Registry) -> BaseRecord | None:
    """The base that `--base` asserts for the directories; one that changed is an error."""
    if recipe.base is None:
        return None
    record = choose_base(registry, recipe.base)
    verify_base(record)
    return record


def result_base(
    operands: Sequence[Operand], record: BaseRecord | None, *, needed: bool
) -> BaseLink:
    """The one base of all operands; an error that names the two that differ.

    record: the base that is asserted for directories. Without one their base is unknown, and
    then so is the result's, which is an error where it is `needed`: in the registry. A version
    of unknown base is never merged.
    """
    links = [(o.label, o.version.manifest.base) for o in operands if o.version]
    for label, link in links:
        if link.digests is None:
            raise AdzError(
                f"the base of {label} is not known",
                f"if you know it: adz import {label} --base NAME",
                exit_code=EXIT_VERIFICATION,
            )
    directories = [operand.label for operand in operands if operand.version is None]
    if record:
        asserted = BaseLink(status="asserted", name=record.name, digests=record.digests)
        links.append((f"--base {record.name}", asserted))
    elif directories and needed:
        raise usage_error(
            f"the base of {directories[0]} is not known", "give --base NAME, or --out DIR"
        )
    for label, link in links[1:]:
        _compare(*links[0], label, link)
    if directories and not record:
        return BaseLink(status="unknown")
    statuses = {link.status for _, link in links}
    return links[0][1].model_copy(
        update={"status": "recorded" if statuses == {"recorded"} else "asserted"}
    )


def check_shapes(adapter: LoraAdapter, record: BaseRecord) -> None:
    """Raise AdzError where a module of `adapter` is not in the base, or has another shape."""
    base = BaseModules.read(record)
    turned = bool(adapter.config.get("fan_in_fan_out"))
    for module, (_, m, n) in adapter.modules.items():
        found = base.weight_shape(module)
        # A packed weight of a quantised base does not say the module's shape.
        known = found is not None or module not in base
        transposed = turned or module in adapter.embeddings
        if known and found != ((n, m) if transposed else (m, n)):
            what = " x ".join(map(str, found)) if found else "not there"
            raise AdzError(
                f"{adapter.label}: {module} is {m} x {n}, in the base {record.name} it is {what}",
                "is it an adapter of this base?",
            )


def check_copies(adapter: LoraAdapter, record: BaseRecord | None) -> None:
    """Raise AdzError for a stored weight that is not its base's; one that is says nothing.

    Where the base is not known, one that PEFT stores beside the factors of an embedding or a
    head is taken for the base's, and any other is an error.
    """
    for module, copy in adapter.copies.items():
        if record is None and not copy.frozen:
            raise AdzError(
                f"{adapter.label} holds the weight of {module}, and its base is not known",
                "give --base NAME, to see whether it was trained",
            )
        if record is not None and not _is_the_bases(adapter, module, record):
            raise AdzError(
                f"{adapter.label}: its weight of {module} is not that of the base {record.name}",
                "a trained or grown vocabulary cannot be merged; train it on the base's own",
            )


def _is_the_bases(adapter: LoraAdapter, module: str, record: BaseRecord) -> bool:
    directory, shape = Path(record.path), adapter.copies[module].shape
    name = BaseModules.read(record).weight_name(module)
    for path in weight_files(directory):
        if name not in read_header(path, BASE):
            continue
        with safe_open(path, framework="pt") as file:
            theirs = file.get_slice(name)
            return tuple(theirs.get_shape()) == shape and all(
                _equal(adapter.copy_rows(module, rows), theirs[rows])
                for start in range(0, shape[0], _ROWS)
                if (rows := slice(start, start + _ROWS))
            )
    return False


def _equal(copy: torch.Tensor, weight: torch.Tensor) -> bool:
    # The copy may have been stored with more bits than the base, or with fewer.
    narrower = min(copy.dtype, weight.dtype, key=lambda dtype: dtype.itemsize)
    return torch.equal(copy.to(narrower), weight.to(narrower))


def _find(text: str, registry: Registry) -> Operand:
    if is_directory_reference(text):
        directory = Path(text).expanduser()
        if not directory.is_dir():
            raise AdzError(f"there is no directory {text}")
        return Operand(text, directory, None)
    version = registry.resolve(text)
    return Operand(version.reference, registry.path(version), version)


def _compare(label: str, link: BaseLink, other_label: str, other: BaseLink) -> None:
    if link.digests is None or other.digests is None or link.digests == other.digests:
        return
    raise AdzError(
        f"{label} and {other_label} have different bases: {link.name or '?'} and "
        f"{other.name or '?'} differ in {describe_difference(link.digests, other.digests)}",
        "merge adapters of one base",
        exit_code=EXIT_VERIFICATION,
    )
