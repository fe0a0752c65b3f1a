"""TSV-Merge: the adapters' singular vectors, made orthogonal to each other (arXiv:2412.00081).

sum_i U_i S_i V_i^T becomes U S V^T, where U is the orthogonal matrix nearest to [U_1, ..., U_n],
and V likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from adapterhub_merge.spectral import nearest_isometry, significant_svd

if TYPE_CHECKING:
    from adapterhub.protocols import Coordinates


def tsv(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Options: density, the share of each adapter's singular values kept, the largest. The paper
    keeps 1/n of a full-rank update, so that all fit: here that is done where the ranks do not fit
    as they are. The weights, of any sign, multiply the S_i: the same for all is the paper's
    alpha."""
    triples = [significant_svd(delta) for delta in deltas]
    kept = [min(len(s), max(1, int(options["density"] * len(s)))) for _, s, _ in triples]
    if sum(kept) > min(deltas[0].shape):
        fitting = max(1, min(deltas[0].shape) // sum(count > 0 for count in kept))
        kept = [min(count, fitting) for count in kept]
    pairs = list(zip(triples, kept, strict=True))
    u = nearest_isometry(torch.cat([u[:, :count] for (u, _, _), count in pairs], dim=1))
    v = nearest_isometry(torch.cat([vh[:count].T for (_, _, vh), count in pairs], dim=1))
    s = torch.cat([s[:count] * w for ((_, s, _), count), w in zip(pairs, weights, strict=True)])
    return (u * s @ v.T).float()
