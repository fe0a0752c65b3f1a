"""How far apart two models answer: the difference of their logits on the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class LogitDifference:
    """Over all positions of all rows. kl: KL(reference || other) in nats a token. same: the
    share of positions whose likeliest token is the same. largest and mean are of the absolute
    differences of logits."""

    largest: float
    mean: float
    kl: float
    same: float
    tokens: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@torch.no_grad()
def compare_logits(
    reference: torch.nn.Module, other: torch.nn.Module, rows: Sequence[Ids]
) -> LogitDifference:
    """Compare two models on `rows` of token ids, one row at a time and without padding."""
    largest = total = kl = 0.0
    same = tokens = elements = 0
    for row in rows:
        left, right = (_logits(model, row) for model in (reference, other))
        difference = (left - right).abs()
        largest = max(largest, float(difference.max()))
        total += float(difference.sum(dtype=torch.float64))
        elements += difference.numel()
        left, right = left.log_softmax(-1), right.log_softmax(-1)
        kl += float((left.exp() * (left - right)).sum(dtype=torch.float64))
        same += int((left.argmax(-1) == right.argmax(-1)).sum())
        tokens += len(row)
    # Rounding can take a divergence of nothing below zero.
    return LogitDifference(largest, total / elements, max(kl, 0.0) / tokens, same / tokens, tokens)


def _logits(model: Any, row: Ids) -> torch.Tensor:
    device = next(model.parameters()).device
    output = model(input_ids=torch.tensor([list(row)], device=device))
    # Virtual tokens before the text have logits of their own.
    logits: torch.Tensor = output.logits[0, -len(row) :].float().cpu()
    return logits
