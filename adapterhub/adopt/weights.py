"""The values of an adapter's weights, read once and without torch: which tensors are zero, which
hold NaN or Inf, and a digest of all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapterhub.bases.headers import TensorInfo
from adapterhub.bases.scan import is_broken, read_pieces
from adapterhub.manifest import canonical_json, sha256_of


@dataclass(frozen=True, slots=True)
class Values:
    """What the values are.

    zeros: tensors of nothing but zeros. broken: tensors with NaN or Inf. file: the sha256 of the
    file. tensors: over every tensor's name, dtype, shape and bytes; two files of the same tensors
    in another order or with other metadata have the same.
    """

    zeros: frozenset[str]
    broken: frozenset[str]
    file: str
    tensors: str


def read_values(path: Path, tensors: Mapping[str, TensorInfo]) -> Values:
    """Read the file from its beginning to its end. Memory is bounded by a few MiB."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        whole.update(file.read(min((info.start for info in tensors.values()), default=0)))
    digests = {name: hashlib.sha256() for name in tensors}
    largest = dict.fromkeys(tensors, 0)
    for piece in read_pieces(path, tensors):
        whole.update(piece.data)
        digests[piece.name].update(piece.data)
        largest[piece.name] = max(largest[piece.name], piece.largest)
    contents = {
        name: [info.dtype, list(info.shape), digests[name].hexdigest()]
        for name, info in tensors.items()
    }
    return Values(
        frozenset(name for name, value in largest.items() if value == 0),
        frozenset(name for name, info in tensors.items() if is_broken(info.dtype, largest[name])),
        "sha256:" + whole.hexdigest(),
        sha256_of(canonical_json(contents)),
    )
