"""The error that a merge will make, and the option that lowers it: measured, never guessed.

The merge is run on modules and nothing is written. Where a module is cheap, on all of them;
where the update itself must be built, on a few, which are then named as a sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from adapterhub import specs
from adapterhub.errors import AdzError
from adapterhub.merge.engine import ModuleMerger, one_thread_each, over_modules
from adapterhub.merge.plan import shape
from adapterhub.merge.prepare import PreparedMerge
from adapterhub.merge.ranks import SERVED_RANKS
from adapterhub.merge.silent import Silent
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Progress

TOLERABLE = 0.1
"""More lost than this is worth a warning, where an option cures it."""
_SAMPLE = 8
# A rank between those that are served is rounded up there; larger ones are slow.
_RANKS = tuple(rank for rank in SERVED_RANKS if rank <= 256)
# How far the curve may be from the error at the merge's own rank.
_CURVE_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Prediction:
    """The relative Frobenius error of a merge at its rank, measured on `measured` of `modules`.

    largest: the modules that lose most, of those measured. by_rank: the error at other ranks.
    """

    error: float
    measured: int
    modules: int
    largest: tuple[tuple[str, float], ...]
    by_rank: dict[int, float]

    @property
    def source(self) -> str:
        """How it is known."""
        if self.measured == self.modules:
            return f"measured on all {self.modules} modules"
        return f"measured on {self.measured} of {self.modules} modules"

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "relative_error": self.error,
            "source": self.source,
            "measured_modules": self.measured,
            "largest": [{"module": m, "relative_error": e} for m, e in self.largest],
            "relative_error_at_rank": {str(rank): e for rank, e in self.by_rank.items()},
        }


def predict(prepared: PreparedMerge, progress: Progress, *, sampled: bool = False) -> Prediction:
    """Run the merge on modules without keeping it; at its rank, and at the ranks vLLM serves.

    sampled: on a few modules only, in every space.
    """
    names = _measured(prepared, sampled=sampled)
    found = _spectra(prepared, names, prepared.shapes.rank, progress)
    relative = [(name, one.relative) for name, one in zip(names, found, strict=True)]
    largest = sorted(relative, key=lambda pair: (-pair[1], pair[0]))[:5]
    error = _relative(found)
    by_rank = _by_rank(prepared, names)
    # Where a smaller rank is more than a shorter spectrum, the curve says nothing.
    if abs(by_rank.get(prepared.shapes.rank, error) - error) > _CURVE_TOLERANCE:
        by_rank = {}
    return Prediction(error, len(names), len(prepared.shapes.modules), tuple(largest), by_rank)


def cure(
    prepared: PreparedMerge, error: float, prediction: Prediction, *, sampled: bool = False
) -> str | None:
    """One line where `error` is too large and an option cures it, with the value that does.

    The value is tried before it is named: a higher rank, or another space of the rule. None
    where nothing is to be cured, or nothing cures it. sampled: as for `predict`.
    """
    if error <= TOLERABLE:
        return None
    for option, candidate in (*_higher_rank(prepared, prediction), *_other_spaces(prepared)):
        names = _measured(candidate, sampled=sampled)
        left = _relative(_spectra(candidate, names, candidate.shapes.rank, Silent()))
        if left <= TOLERABLE:
            sampled = len(names) < len(candidate.shapes.modules)
            basis = f" of {len(names)} sampled modules" if sampled else ""
            merge = f"rank {prepared.shapes.rank} in {prepared.choice.space.name}"
            return f"{merge} loses {error:.0%}: {option} loses {left:.1%}{basis}"
    return None


@dataclass(frozen=True, slots=True)
class _Spectrum:
    """Of one merged module: its singular values, and the norms of `protocols.MergedModule`."""

    values: torch.Tensor
    error: float
    norm: float

    @property
    def relative(self) -> float:
        return self.error / self.norm if self.norm else 0.0

    def at(self, rank: int) -> _Spectrum:
        """The same module cut to a smaller rank."""
        tail = self.values[rank:].square().sum().item()
        return _Spectrum(self.values[:rank], (self.error**2 + tail) ** 0.5, self.norm)


def _spectra(
    prepared: PreparedMerge, names: Sequence[str], rank: int, progress: Progress
) -> list[_Spectrum]:
    shapes, recipe = prepared.shapes, prepared.recipe
    merger = ModuleMerger(prepared.choice, shapes, prepared.adapters, recipe.seed)

    def measure(module: str) -> _Spectrum:
        merged = merger.merge(module, rank)
        left = torch.linalg.qr(merged.b.double(), mode="r").R
        right = torch.linalg.qr(merged.a.double().T, mode="r").R
        return _Spectrum(torch.linalg.svdvals(left @ right.T), merged.error, merged.norm)

    modules = {name: shapes.modules[name] for name in names}
    title = f"measuring rank {rank} in {prepared.choice.space.name} on {len(names)} modules"
    with one_thread_each():
        merger.survey()
        return over_modules(measure, modules, recipe.workers, progress, title)


def _by_rank(prepared: PreparedMerge, names: Sequence[str]) -> dict[int, float]:
    """The error at every rank that is served, from one run at the highest of them."""
    if not prepared.choice.space.ranks.startswith("up-to"):
        return {}
    shapes = prepared.shapes
    highest = max(shapes.rank, min(shapes.possible, _RANKS[-1]))
    found = _spectra(prepared, names, highest, Silent())
    ranks = {rank for rank in (*_RANKS, shapes.rank, highest) if rank <= highest}
    return {rank: _relative([one.at(rank) for one in found]) for rank in sorted(ranks)}


def _higher_rank(
    prepared: PreparedMerge, prediction: Prediction
) -> Iterator[tuple[str, PreparedMerge]]:
    enough = [
        rank
        for rank, error in prediction.by_rank.items()
        if rank > prepared.shapes.rank and error <= TOLERABLE
    ]
    if enough:
        rank = min(enough)
        yield f"--rank {rank}", replace(prepared, shapes=replace(prepared.shapes, rank=rank))


def _other_spaces(prepared: PreparedMerge) -> Iterator[tuple[str, PreparedMerge]]:
    for name in prepared.choice.rule.spaces:
        space = load_plugins().get(specs.MergeSpace, name)
        if space == prepared.choice.space or space.moments:
            continue
        choice = replace(prepared.choice, space=space)
        try:
            # An energy was given for the rule in its own space: what it came to is kept.
            rank = prepared.recipe.rank if prepared.recipe.energy is None else prepared.shapes.rank
            shapes = shape(choice, prepared.adapters, rank)
        except AdzError:
            continue
        yield f"--space {name}", replace(prepared, choice=choice, shapes=shapes)


def _measured(prepared: PreparedMerge, *, sampled: bool) -> list[str]:
    names = sorted(prepared.shapes.modules)
    sampled = sampled or prepared.choice.space.ranks == "up-to-full"
    if not sampled or len(names) <= _SAMPLE:
        return names
    # Evenly over the names, which run over layers and kinds of modules.
    places = range(_SAMPLE)
    return [names[(2 * place + 1) * len(names) // (2 * _SAMPLE)] for place in places]


def _relative(found: Sequence[_Spectrum]) -> float:
    norm = sum(one.norm**2 for one in found) ** 0.5
    lost = sum(one.error**2 for one in found) ** 0.5
    return float(lost / norm) if norm else 0.0
