"""Looking at one adapter: its files, its configuration, its tensors, its base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from adapterhub.adopt.faults import check_engines, check_tensors, config_problem
from adapterhub.adopt.found import BaseGuess, Found
from adapterhub.adopt.guess import Candidate, Misfit, guess, resembles, says_nothing
from adapterhub.adopt.keys import take_apart, without_doubled_model
from adapterhub.adopt.walk import PICKLES
from adapterhub.adopt.weights import Values, read_values
from adapterhub.bases.adapter_files import CONFIG, README, WEIGHTS, adapter_facts
from adapterhub.bases.digests import hash_file
from adapterhub.bases.headers import TensorInfo, read_header
from adapterhub.bases.strict_json import parse_object
from adapterhub.errors import AdzError
from adapterhub.imports.source import EXPORTED, MAX_JSON, method_name, read_adapter_config
from adapterhub.manifest import BaseLink, Manifest


def look(one: Found, candidates: Sequence[Candidate], base: str | None) -> None:
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
    one.exported = _exported(one.directory)
    if one.exported is not None and one.exported.storage == "own":
        # Of a method that is not PEFT's, whose configuration is its own business.
        one.method = one.exported.method
        return True
    one.method = method_name(one.config) or None
    problem = config_problem(one.config)
    if problem:
        one.add("malformed-config", "error", f"{CONFIG}: {problem}")
    return problem is None


def _exported(directory: Path) -> Manifest | None:
    """What 'adz export' wrote beside the adapter; None where it is not there or not ours."""
    path = directory / EXPORTED
    try:
        if path.stat().st_size > MAX_JSON:
            return None
        manifest = Manifest.model_validate(parse_object(path.read_bytes()))
    except (OSError, ValueError):
        return None
    return manifest if {CONFIG, WEIGHTS} <= manifest.files.keys() else None


def _is_unchanged(exported: Manifest, digests: Mapping[str, str]) -> bool:
    return all(exported.files[name].sha256 == digest for name, digest in digests.items())


def _read_weights(one: Found, candidates: Sequence[Candidate], base: str | None) -> None:
    path = one.directory / WEIGHTS
    try:
        tensors = read_header(path)
        values = read_values(path, tensors)
    except AdzError as error:
        one.add("damaged-weights", "error", error.message)
        return
    facts = adapter_facts(tensors, one.config)
    one.rank, one.modules = facts.get("rank"), facts.get("modules")
    one.parameters, one.tensors = facts.get("parameters"), values.tensors
    one.digests = {WEIGHTS: values.file, CONFIG: hash_file(one.directory / CONFIG)}
    if one.exported and not _is_unchanged(one.exported, one.digests):
        one.add("changed-export", "note", f"its files are no longer those that {EXPORTED} names")
        one.exported = None
        problem = config_problem(one.config)
        if problem:
            one.add("malformed-config", "error", f"{CONFIG}: {problem}")
            return
    misfit = None
    if one.exported is not None and one.exported.storage == "own":
        # Its tensors are its method's own business.
        if values.broken:
            one.add("not-finite", "error", "it holds NaN or Inf")
    elif "prompt_embeddings" in tensors:
        one.base, misfit = guess(one.config, tensors, {}, candidates)
        if values.broken:
            one.add("not-finite", "error", "its virtual tokens hold NaN or Inf")
    else:
        misfit = _judge_modules(one, tensors, values, candidates)
    if misfit:
        one.add("no-module", "error", misfit.text)
    if one.level == "error":
        return
    if one.exported is not None and one.exported.base.digests is not None:
        _take_recorded_base(one, one.exported.base, candidates)
    else:
        _judge_base(one, candidates, base)
    if one.config.get("peft_type"):
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


def _take_recorded_base(one: Found, link: BaseLink, candidates: Sequence[Candidate]) -> None:
    """The base that an export names by its digests, and no other."""
    weights = link.digests.weights if link.digests else None
    names = [c.name for c in candidates if c.weights is not None and c.weights == weights]
    if names:
        one.base = BaseGuess(names[0], "recorded", one.base.fitting, one.base.hint)
        return
    text = f"it was made for {link.name or 'a base'}, whose weights are not known here"
    one.base = BaseGuess(None, "none", one.base.fitting, one.base.hint)
    one.add("no-base", "held", f"{text}: adz base add it first")


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
