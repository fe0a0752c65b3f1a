"""Which base an adapter was made for: names and shapes decide, what its configuration says about
the base is a hint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub.adopt.found import BaseGuess
from adapterhub.bases.fit import first_misfit, misfit
from adapterhub.bases.headers import TensorInfo
from adapterhub.bases.modules import AdapterKey, BaseModules

# From here on an adapter was probably made for a base, and spoilt since.
_MOSTLY = 0.5
_CACHE = re.compile(r"models--(?P<name>[^/]+)/snapshots/[0-9a-f]{7,64}/?$")
# Words that make another model of a name.
_VARIANTS = ("instruct", "chat", "base", "coder", "code", "math", "dpo", "sft", "rlhf", "it")
# Folder names that say nothing about what lies in them.
_GENERIC = frozenset(
    {"model", "base", "merged", "output", "outputs", "checkpoint", "final", "ckpt"}
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A base that an adapter may belong to. sources: what else it is called: the id or path
    that it came from. arch: equal for bases of equal tensors. weights: the digest of a base that
    the registry knows."""

    name: str
    sources: tuple[str, ...]
    arch: str
    modules: BaseModules
    weights: str | None = None


@dataclass(frozen=True, slots=True)
class Misfit:
    """How much of an adapter fits the base that it fits best, and the first tensor that does
    not. share: 0 to 1."""

    base: str
    share: float
    text: str


def guess(
    config: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    keys: Mapping[str, AdapterKey],
    candidates: Sequence[Candidate],
) -> tuple[BaseGuess, Misfit | None]:
    """The base, and where none fits but one nearly does, what does not fit there."""
    hint = config.get("base_model_name_or_path")
    hint = hint if isinstance(hint, str) and hint else None
    answers: dict[str, bool] = {}
    fitting = []
    for candidate in candidates:
        if candidate.arch not in answers:
            problem = first_misfit(config, tensors, keys, candidate.modules)
            answers[candidate.arch] = problem is None
        if answers[candidate.arch]:
            fitting.append(candidate)
    names = tuple(candidate.name for candidate in fitting)
    if not fitting:
        return BaseGuess(None, "none", (), hint), _nearest(config, tensors, keys, candidates)
    if len(fitting) == 1:
        return BaseGuess(names[0], "only", names, hint), None
    meant = [c for c in fitting if hint and resembles(hint, c) == "exactly"]
    meant = meant or [c for c in fitting if hint and resembles(hint, c)]
    if len(meant) == 1:
        return BaseGuess(meant[0].name, "hint", names, hint), None
    return BaseGuess(None, "open", names, hint), None


def resembles(hint: str, candidate: Candidate) -> str | None:
    """Whether what a configuration says can mean this base: `exactly`, `nearly`, or None."""
    wanted = _label(hint)
    sources = [_label(source) for source in candidate.sources]
    if hint in candidate.sources or wanted in (_letters(candidate.name), *sources):
        return "exactly"
    # A name that the user gave may be short; other words in an id are another model.
    if len(candidate.name) > 3 and _letters(candidate.name) in wanted:
        return "nearly"
    for source in sources:
        longer, shorter = sorted((wanted, source), key=len, reverse=True)
        rest = longer.replace(shorter, "", 1)
        if len(shorter) > 3 and shorter in longer and not rest.startswith(_VARIANTS):
            return "nearly"
    return None


def says_nothing(hint: str | None) -> bool:
    """Whether a hint names no model: none, or a folder called like any other."""
    if hint is None:
        return True
    last = Path(hint).name.lower()
    return hint.startswith((".", "/")) and (
        last in _GENERIC or re.fullmatch(r"(checkpoint|epoch|step)?[-_]?\d*|[0-9a-f]{40}", last)
        is not None
    )  # fmt: skip


def _label(source: str) -> str:
    """The model's own name in an id, a path or a folder of the hub's cache."""
    cached = _CACHE.search(source)
    name = cached["name"].rpartition("--")[2] if cached else source.rstrip("/").rpartition("/")[2]
    return _letters(name.removeprefix("pkg:"))


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.lower())


def _nearest(
    config: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    keys: Mapping[str, AdapterKey],
    candidates: Sequence[Candidate],
) -> Misfit | None:
    """What does not fit the base of which more than half fits."""
    best: Misfit | None = None
    for candidate in candidates:
        problems = [
            problem
            for name, key in keys.items()
            if (problem := misfit(name, key, tensors[name].shape, config, candidate.modules))
        ]
        share = 1 - len(problems) / len(keys) if keys else 0.0
        if problems and share >= _MOSTLY and (best is None or share > best.share):
            text = f"{len(problems)} of {len(keys)} tensors fit no module of {candidate.name}"
            best = Misfit(candidate.name, share, f"{text}: {problems[0]}")
    return best
