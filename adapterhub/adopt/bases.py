"""The bases that adapters may belong to: those that the registry knows, and those that lie below
the folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adapterhub.adopt.found import FoundBase
from adapterhub.adopt.guess import Candidate
from adapterhub.adopt.names import Names
from adapterhub.bases.digests import arch_digest, read_config, read_tensors, weight_files
from adapterhub.bases.headers import BASE, read_header
from adapterhub.bases.modules import BaseModules
from adapterhub.errors import AdzError
from adapterhub.manifest import BaseRecord

_SAMPLE = 256


def gather(
    known: Sequence[BaseRecord], directories: Sequence[Path], names: Names, problems: list[str]
) -> tuple[list[Candidate], list[FoundBase]]:
    """All candidates, and of them those in `directories` that the registry does not know. What
    cannot be read is noted in `problems`."""
    candidates, bases = [], []
    for record in known:
        try:
            modules = BaseModules.read(record)
        except (AdzError, OSError) as error:
            problems.append(f"the base {record.name} cannot be read: {error}")
            continue
        sources = (record.source, record.path)
        weights, arch = record.digests.weights, record.digests.arch
        candidates.append(Candidate(record.name, sources, arch, modules, weights))
    for directory in directories:
        try:
            arch = arch_digest(directory)
            twins = [record for record in known if record.digests.arch == arch]
            if any(_are_the_same(directory, Path(record.path)) for record in twins):
                continue
            found = _found(directory, names)
            modules = BaseModules(read_tensors(directory), read_config(directory))
        except (AdzError, OSError) as error:
            problems.append(f"{directory}: no base that could be added: {error}")
            continue
        bases.append(found)
        candidates.append(Candidate(found.name, (str(directory),), arch, modules))
    return candidates, bases


def _found(directory: Path, names: Names) -> FoundBase:
    architectures = read_config(directory).get("architectures") or ["?"]
    size = sum(file.stat().st_size for file in weight_files(directory))
    return FoundBase(directory, names.give(directory), str(architectures[0]), size)


def _are_the_same(one: Path, other: Path) -> bool:
    """Whether two bases of the same tensors have the same values, as far as the beginning of
    each tensor tells. Another training changes at least one of them; a full comparison would
    read gigabytes only to leave out an offer."""
    return one == other.resolve() or _beginnings(one) == _beginnings(other)


def _beginnings(directory: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path in weight_files(directory):
        with path.open("rb") as file:
            for name, info in read_header(path, BASE).items():
                file.seek(info.start)
                found[name] = file.read(min(_SAMPLE, info.end - info.start))
    return found
