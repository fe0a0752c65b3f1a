"""Adding a base model: find it, hash it in full, record it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapterhub.bases.digests import (
    compute_digests,
    describe_tensors,
    identity_files,
    read_config,
    read_tensors,
    weight_files,
)
from adapterhub.bases.fit import shape_text
from adapterhub.bases.identity import derivation_from
from adapterhub.bases.modules import BaseModules
from adapterhub.bases.outline import forget_outline, outline_of
from adapterhub.bases.sources import Located, locate, normalise_source
from adapterhub.bases.verify import collect_stats, forget_stats, verify_base, write_stats
from adapterhub.errors import EXIT_VERIFICATION, AdzError, usage_error
from adapterhub.home import adz_home
from adapterhub.manifest import BaseDigests, BaseRecord, canonical_json, sha256_of
from adapterhub.protocols import Progress, Registry
from adapterhub.reference import check_new_name
from adapterhub.staging import home_staging, staging_folder


def add_base(
    registry: Registry,
    name: str,
    source: str,
    *,
    copy: bool,
    progress: Progress,
    quantised_from: str | None = None,
) -> BaseRecord:
    """Record the base that `source` names as `name`, and return the record.

    Adding the same source under the same name again verifies it and changes nothing.
    `copy` keeps a copy below ADZ_HOME instead of a reference. quantised_from: the base whose
    weights these are in another form, so that its adapters may be used on this one. Raises
    AdzError for an unknown source, a base without safetensors or tokenizer, a taken name, or
    modules that are not those of `quantised_from`.
    """
    _check_word(name)
    original = registry.base(quantised_from) if quantised_from else None
    source = normalise_source(source)
    known = _known(registry, name, source)
    if known is not None:
        verify_base(known)
        return known
    located = locate(source, progress)
    # Checked before anything is copied.
    _architecture(located.directory)
    if copy and located.derivation is None:
        located = _copy(located, progress)
    derivation = located.derivation
    if original is not None:
        _check_modules(located.directory, name, original)
        derivation = derivation_from(original, "quantised")
    return _record(registry, replace(located, derivation=derivation), name, progress)


def add_made_base(
    registry: Registry,
    name: str,
    made: Path,
    derivation: Mapping[str, Any],
    progress: Progress,
) -> BaseRecord:
    """Record the base in the directory `made`, which was written below ADZ_HOME just now and is
    moved to where bases are kept. derivation: how it was made, see `derivation_from`.

    Raises AdzError for a name that is taken, and then nothing is left.
    """
    directory = _keep(made, name.replace("/", "--"))
    try:
        located = Located(str(directory), directory, dict(derivation))
        return _record(registry, located, name, progress)
    except BaseException:
        if not any(base.path == str(directory) for base in registry.bases()):
            shutil.rmtree(directory, ignore_errors=True)
        raise


def _record(registry: Registry, located: Located, name: str, progress: Progress) -> BaseRecord:
    directory = located.directory
    stats = collect_stats(directory)
    parameters, dtype = describe_tensors(read_tensors(directory))
    record = BaseRecord(
        name=name,
        source=located.source,
        path=str(directory),
        digests=_hash(directory, name, progress),
        architecture=_architecture(directory),
        parameters=parameters,
        dtype=dtype,
        derivation=located.derivation,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    registry.add_base(record)
    write_stats(record, stats)
    with progress.task(f"reading the layers of {name}", 1), suppress(Exception):
        # Without, a dry run is slow, which says what is wrong with the base.
        outline_of(record)
    return record


def check_name(registry: Registry, name: str) -> None:
    """Refuse a name that no new base can have, or that is taken."""
    _check_word(name)
    if name in {base.name for base in registry.bases()}:
        raise usage_error(f"the name {name} is taken by a base", "choose another name")
    _known(registry, name, "")


def remove_base(registry: Registry, name: str) -> BaseRecord:
    """Forget a base, and delete its directory when adapterhub made it and no other base uses it.

    Refused while a live version needs it.
    """
    record = registry.base(name)
    registry.remove_base(name)
    forget_stats(name)
    forget_outline(name)
    used = {base.path for base in registry.bases()}
    if Path(record.path).parent == adz_home() / "bases" and record.path not in used:
        shutil.rmtree(record.path, ignore_errors=True)
    return record


def _check_modules(directory: Path, name: str, original: BaseRecord) -> None:
    """Refuse a base that cannot be another form of `original`: modules or shapes differ."""
    modules = BaseModules(read_tensors(directory), read_config(directory))
    for module, shape in BaseModules.read(original).weights().items():
        found = modules.weight_shape(module)
        if module not in modules or (found is not None and found != shape):
            what = f"is {shape_text(found)}" if found else "is missing"
            raise AdzError(
                f"{name} is not {original.name} in another form: {module} {what}",
                "leave --quantised-from away: it is a base of its own",
                exit_code=EXIT_VERIFICATION,
            )


def _check_word(name: str) -> None:
    if check_new_name(name) == "unknown":
        raise usage_error("no base can be called 'unknown'", "--base unknown leaves a base open")


def _known(registry: Registry, name: str, source: str) -> BaseRecord | None:
    known = {base.name: base for base in registry.bases()}.get(name)
    if known is not None and known.source != source:
        raise usage_error(
            f"the name {name} is taken by the base from {known.source}",
            f"choose another name, or adz base rm {name}",
        )
    if known is None and name in registry.names():
        raise usage_error(f"the name {name} is taken by an adapter", "choose another name")
    return known


def _architecture(directory: Path) -> str:
    """Raises AdzError, cheaply, where the directory holds no base."""
    weight_files(directory)
    architectures = read_config(directory).get("architectures")
    if not isinstance(architectures, list) or not architectures:
        raise AdzError(
            f"config.json in {directory} names no architecture",
            "save the model with save_pretrained",
        )
    return str(architectures[0])


def _hash(directory: Path, name: str, progress: Progress) -> BaseDigests:
    size = sum(file.stat().st_size for file in weight_files(directory))
    with progress.task(f"hashing {name} (MB)", size / 1e6) as task:
        return compute_digests(directory, lambda count: task.advance(count / 1e6))


def _copy(located: Located, progress: Progress) -> Located:
    """Copy what loading and identity need into a directory named by the digests."""
    files = identity_files(located.directory)
    generation = located.directory / "generation_config.json"
    files += [generation] if generation.is_file() else []
    with staging_folder(home_staging()) as folder:
        staging = folder / "base"
        with progress.task("copying", len(files)) as task:
            for file in files:
                target = staging / file.relative_to(located.directory)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
                task.advance(1, file.name)
        return replace(located, directory=_keep(staging, "copy"))


def _keep(made: Path, prefix: str) -> Path:
    """Move a directory to where bases are kept, named by its digests, unless it is there."""
    digests = compute_digests(made)
    identity = sha256_of(canonical_json(digests.model_dump(mode="json")))
    directory = adz_home() / "bases" / f"{prefix}-{identity.removeprefix('sha256:')[:12]}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    if not directory.is_dir() or compute_digests(directory) != digests:
        shutil.rmtree(directory, ignore_errors=True)
        made.rename(directory)
    return directory
