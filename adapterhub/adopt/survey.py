"""Looking at everything below some folders. Reads only, and loads nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from adapterhub.adopt.faults import check_engines, check_tensors, config_problem
from adapterhub.adopt.found import BaseGuess, Found, FoundBase, Survey
from adapterhub.adopt.guess import Candidate, Misfit, guess, resembles, says_nothing
from adapterhub.adopt.keys import take_apart, without_doubled_model
from adapterhub.adopt.names import Names
from adapterhub.adopt.relations import note_checkpoints, note_duplicates, note_known
from adapterhub.adopt.walk import PICKLES, find
from adapterhub.adopt.weights import Values, read_values
from adapterhub.bases.adapter_files import CONFIG, README, WEIGHTS, adapter_facts
from adapterhub.bases.digests import (
    arch_digest,
    hash_file,
    read_config,
    read_tensors,
    weight_files,
)
from adapterhub.bases.headers import TensorInfo, read_header
from adapterhub.bases.modules import BaseModules
from adapterhub.errors import AdzError
from adapterhub.imports.source import method_name, read_adapter_config
from adapterhub.manifest import BaseLink, BaseRecord, Manifest
from adapterhub.protocols import Progress, Registry


def survey(
    registry: Registry, roots: Sequence[Path], base: str | None, progress: Progress
) -> Survey:
    """Find every adapter below `roots`, infer its base and note its faults.

    base: the name of a known base that adapters which fit it belong to, whatever their
    configuration says. Raises a usage error for a root or a base that is not there.
    """
    started = time.monotonic()
    known = registry.bases()
    records = {record.name: record for record in known}
    if base is not None:
        registry.base(base)
    with progress.task("looking through the folders", None):
        places = find(roots)
    names = Names([*registry.names(), *(record.name for record in known)])
    paths = {Path(record.path).resolve() for record in known}
    candidates = _known_candidates(known, places.problems)
    bases: list[FoundBase] = []
    for directory in places.bases:
        if directory not in paths:
            _add_base(directory, names, bases, candidates, places.problems)
    found = [Found(directory) for directory in places.adapters]
    with progress.task("reading adapters", len(found)) as task:
        for one in found:
            _look(one, candidates, base)
            if one.level != "error":
                _rehearse(registry, one, records)
            task.advance(1, one.directory.name)
    _relate(registry, found, names)
    seconds = time.monotonic() - started
    return Survey(found, bases, places.problems, places.folders, seconds)


def _rehearse(registry: Registry, one: Found, known: Mapping[str, BaseRecord]) -> None:
    """Note what the registry would refuse beside the faults that were looked for."""
    record = known.get(one.base.name or "")
    link = BaseLink(status="unknown")
    if record is not None:
        link = BaseLink(status="asserted", name=record.name, digests=record.digests)
    manifest = Manifest(name="adopted", method=one.method or "", made_by="import", base=link)
    try:
        registry.rehearse(manifest, one.directory)
    except AdzError as error:
        one.add("refused", "error", error.message)


def _relate(registry: Registry, found: Sequence[Found], names: Names) -> None:
    note_checkpoints(found)
    note_duplicates(found)
    note_known(found, registry.versions())
    # Who is imported has the first choice of a name.
    for one in sorted(found, key=lambda one: (one.level != "clean", len(one.directory.parts))):
        one.name = names.give(one.directory)


def _known_candidates(known: Sequence[BaseRecord], problems: list[str]) -> list[Candidate]:
    candidates = []
    for record in known:
        try:
            modules = BaseModules.read(record)
        except (AdzError, OSError) as error:
            problems.append(f"the base {record.name} cannot be read: {error}")
            continue
        sources = (record.source, record.path)
        candidates.append(Candidate(record.name, sources, record.digests.arch, modules, added=True))
    return candidates


def _add_base(
    directory: Path,
    names: Names,
    bases: list[FoundBase],
    candidates: list[Candidate],
    problems: list[str],
) -> None:
    """Note a base that the registry does not know, as one that adapters may belong to."""
    try:
        files = weight_files(directory)
        architectures = read_config(directory).get("architectures") or ["?"]
        modules = BaseModules(read_tensors(directory), read_config(directory))
        arch = arch_digest(directory)
        size = sum(file.stat().st_size for file in files)
    except (AdzError, OSError) as error:
        problems.append(f"{directory}: no base that could be added: {error}")
        return
    name = names.give(directory)
    bases.append(FoundBase(directory, name, str(architectures[0]), size))
    candidates.append(Candidate(name, (str(directory),), arch, modules, added=False))


def _look(one: Found, candidates: Sequence[Candidate], base: str | None) -> None:
    """Everything that can be said of one adapter by itself."""
    try:
        if _check_files(one) and _read_config(one):
            _read_weights(one, candidates, base)
    except OSError as error:
        one.add("unreadable", "error", f"{error.filename or one.directory}: {error.strerror}")


def _check_files(one: Found) -> bool:
    directory = one.directory
    for name in (CONFIG, WEIGHTS, README):
        path = directory / name
        if path.is_symlink() and not path.exists():
            one.add("broken-link", "error", f"{name} is a link to nothing")
            return False
        if path.is_symlink() and path.resolve().parent.name != "blobs":
            one.add("link", "error", f"{name} is a link to {path.resolve()}: name its folder")
            return False
    weights = directory / WEIGHTS
    if not weights.exists():
        pickles = [name for name in PICKLES if (directory / name).exists()]
        if pickles:
            text = f"{pickles[0]} is a pickle, which can run code: adz import --convert reads it"
            one.size = (directory / pickles[0]).stat().st_size
            one.add("pickle", "error", text)
        else:
            one.add("no-weights", "error", f"there is no {WEIGHTS}")
        return False
    one.size = weights.stat().st_size
    if not (directory / CONFIG).exists():
        one.add("no-config", "error", f"there is no {CONFIG}")
        return False
    return True


def _read_config(one: Found) -> bool:
    try:
        one.config = read_adapter_config(one.directory)
    except AdzError as error:
        one.add("malformed-config", "error", error.message)
        return False
    one.method = method_name(one.config) or None
    problem = config_problem(one.config)
    if problem:
        one.add("malformed-config", "error", f"{CONFIG}: {problem}")
    return problem is None


def _read_weights(one: Found, candidates: Sequence[Candidate], base: str | None) -> None:
    path = one.directory / WEIGHTS
    try:
        tensors = read_header(path)
        values = read_values(path, tensors)
    except AdzError as error:
        one.add("damaged-weights", "error", error.message)
        return
    facts = adapter_facts(one.directory, one.config)
    one.rank, one.modules = facts.get("rank"), facts.get("modules")
    one.parameters, one.tensors = facts.get("parameters"), values.tensors
    one.digests = {WEIGHTS: values.file, CONFIG: hash_file(one.directory / CONFIG)}
    if "prompt_embeddings" in tensors:
        one.base, misfit = guess(one.config, tensors, {}, candidates)
        if values.broken:
            one.add("not-finite", "error", "its virtual tokens hold NaN or Inf")
    else:
        misfit = _judge_modules(one, tensors, values, candidates)
    if misfit:
        one.add("no-module", "error", misfit.text)
    if one.level != "error":
        _judge_base(one, candidates, base)
        check_engines(one, tensors)


def _judge_modules(
    one: Found,
    tensors: Mapping[str, TensorInfo],
    values: Values,
    candidates: Sequence[Candidate],
) -> Misfit | None:
    """Take the tensors' names apart, infer the base and note what is wrong with the tensors."""
    names = take_apart(tensors, one.config.get("peft_type"))
    keys, problem = names.keys, names.problem
    one.base, misfit = guess(one.config, tensors, keys, candidates)
    once = without_doubled_model(keys)
    if not one.base.fitting and once is not None:
        one.base, misfit = guess(one.config, tensors, once, candidates)
        keys, problem = once, problem or "its tensors are below model.model., not model."
    if problem:
        one.add("wrong-prefix", "error", f"{problem}: PEFT would leave them out")
    check_tensors(one, tensors, keys, values)
    return misfit


def _judge_base(one: Found, candidates: Sequence[Candidate], base: str | None) -> None:
    """Hold what may belong to another base than the one that fits."""
    found = one.base
    if base is not None and base in found.fitting:
        one.base = BaseGuess(base, "given", found.fitting, found.hint)
    elif found.certainty == "none":
        named = "" if says_nothing(found.hint) else f"; it names {found.hint}"
        one.add("no-base", "held", f"no base that is known here fits{named}")
    elif found.certainty == "open":
        fitting = ", ".join(found.fitting)
        one.add("several-bases", "held", f"{fitting} fit: say which with --base")
    elif found.certainty == "only" and not says_nothing(found.hint):
        (fits,) = (c for c in candidates if c.name == found.name)
        if found.hint and not resembles(found.hint, fits):
            text = f"only {fits.name} fits, but it names {found.hint}: confirm with --base"
            one.add("doubtful-base", "held", text)
