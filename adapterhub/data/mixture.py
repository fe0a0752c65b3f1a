"""Several data sets as one: the hold-out is taken first, then shares of what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

from adapterhub.data.dataset import DataSet
from adapterhub.data.split import content_key, place_of, split_indices
from adapterhub.data.store import keep, select
from adapterhub.errors import AdzError, usage_error
from adapterhub.protocols import Example


@dataclass(frozen=True, slots=True)
class Mixture:
    """What is trained on and what is held out, in the order of the files.

    used: of each data set the number of its rows in `train`.
    """

    train: Sequence[Example]
    holdout: Sequence[Example]
    used: tuple[int, ...]


def mix(
    parts: Sequence[DataSet], weights: Sequence[float | None], holdout: float, seed: int = 0
) -> Mixture:
    """Split all parts together, then take of each its share of the training rows.

    weights: relative; with none given every row is taken. With weights the mixture is as large
    as it can be without a row that repeats, and the rows of a part are those with the lowest
    hash of their content, so that a row that is added to a file replaces at most one. Raises
    AdzError where the parts hold different kinds of rows or a part is left with none.
    """
    _check(parts, weights)
    every = (
        parts[0].examples
        if len(parts) == 1
        else keep(chain.from_iterable(part.examples for part in parts))
    )
    train, held = split_indices(every, holdout, seed)
    ends = list(accumulate(len(part.examples) for part in parts))
    begins = [0, *ends[:-1]]
    left = [
        [index for index in train if begin <= index < end]
        for begin, end in zip(begins, ends, strict=True)
    ]
    for part, indices in zip(parts, left, strict=True):
        if not indices:
            raise AdzError(f"{part.file} leaves no row to train on", "lower data.holdout")
    sizes = _sizes([len(indices) for indices in left], weights)
    chosen = [
        _lowest(every, indices, size, seed) for indices, size in zip(left, sizes, strict=True)
    ]
    return Mixture(
        select(every, list(chain.from_iterable(chosen))), select(every, held), tuple(sizes)
    )


def _check(parts: Sequence[DataSet], weights: Sequence[float | None]) -> None:
    kinds = {part.kind for part in parts}
    if len(kinds) > 1:
        listed = ", ".join(f"{part.file} ({part.kind})" for part in parts)
        raise usage_error(f"the data sets hold different kinds of rows: {listed}")
    if len({weight is None for weight in weights}) > 1:
        raise usage_error("some data sets have a weight and some have none", "give all one")


def _sizes(counts: Sequence[int], weights: Sequence[float | None]) -> list[int]:
    given = [weight for weight in weights if weight is not None]
    if not given:
        return list(counts)
    total = sum(given)
    shares = [weight / total for weight in given]
    rows = min(count / share for count, share in zip(counts, shares, strict=True))
    return [
        max(1, min(count, round(rows * share))) for count, share in zip(counts, shares, strict=True)
    ]


def _lowest(every: Sequence[Example], indices: list[int], size: int, seed: int) -> list[int]:
    if size == len(indices):
        return indices
    places = {index: place_of(content_key(every[index]), seed) for index in indices}
    return sorted(sorted(indices, key=places.__getitem__)[:size])
