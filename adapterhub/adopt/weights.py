"""The values of an adapter's weights, read once and without torch: which tensors are zero, which
hold NaN or Inf, and a digest of all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapterhub.bases.headers import TensorInfo
from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import canonical_json, sha256_of

# The unsigned type of the same size, and the bits of the exponent: all set in NaN and Inf.
_FLOATS = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
_CHUNK = 2**20


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
    zeros, broken, digests = set(), set(), {}
    whole = hashlib.sha256()
    buffer = bytearray(_CHUNK)
    with path.open("rb") as file:
        first = min((info.start for info in tensors.values()), default=0)
        whole.update(file.read(first))
        for name, info in sorted(tensors.items(), key=lambda item: item[1].start):
            digest = hashlib.sha256()
            largest, limit = 0, _FLOATS.get(info.dtype, ("<u1", 2**8))[1]
            for start in range(info.start, info.end, _CHUNK):
                piece = memoryview(buffer)[: min(_CHUNK, info.end - start)]
                if file.readinto(piece) != len(piece):
                    raise AdzError(f"{path} ends early", exit_code=EXIT_VERIFICATION)
                whole.update(piece)
                digest.update(piece)
                largest = max(largest, _largest(piece, info.dtype))
            if largest >= limit:
                broken.add(name)
            if largest == 0:
                zeros.add(name)
            digests[name] = [info.dtype, list(info.shape), digest.hexdigest()]
    return Values(
        frozenset(zeros),
        frozenset(broken),
        "sha256:" + whole.hexdigest(),
        sha256_of(canonical_json(digests)),
    )


def _largest(piece: memoryview, dtype: str) -> int:
    """The largest element's bits without the sign."""
    if dtype not in _FLOATS:
        return int(any(piece))
    kind = np.dtype(_FLOATS[dtype][0])
    magnitude = np.array((1 << (8 * kind.itemsize - 1)) - 1, dtype=kind)
    return int((np.frombuffer(piece, dtype=kind) & magnitude).max())
