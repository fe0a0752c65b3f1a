"""Proof of an export: the logits of what was written against those of the adapter over its base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.export.subject import Subject
from adapterhub.models import compute_device, load_adapter, load_base, load_tokenizer
from adapterhub.reference_rows import reference_rows

# The largest difference of two logits, as a share of the largest logit, that the rounding of the
# weights explains. A tensor that is wrong, left out or permuted makes a difference of the order 1.
BOUNDS = {
    "f64": 1e-3, "f32": 1e-3, "f16": 0.05, "bf16": 0.2, "q8_0": 0.3,
    "q6_k": 0.4, "q5_k_m": 0.5, "q5_k_s": 0.5, "q4_k_m": 0.7, "q4_k_s": 0.7,
    # So few bits can make as large a difference: it is told, and hardly refuses anything.
    "q3_k_l": 1.5, "q3_k_m": 1.5, "q3_k_s": 1.5, "q2_k": 2.0,
}  # fmt: skip
# LLM.int8() rounds the activations too, when it answers over the packed base.
_INT8_BOUND = 0.2


@dataclass(frozen=True, slots=True)
class Comparison:
    """largest: difference of two logits. relative: to the largest logit; at most `bound`.
    agreement: the share of positions where both put the same token first. source: of the rows."""

    rows: int
    positions: int
    largest: float
    relative: float
    bound: float
    agreement: float
    source: str


def compare_logits(
    subject: Subject, load_written: Callable[[], Any], data: Path | None, dtype: str
) -> Comparison:
    """Compare in float32, over the same rows. One of the models is in memory at a time.

    Raises AdzError (exit code 3) when the difference is above what `dtype` explains.
    """
    found = reference_rows(subject.version, data, load_tokenizer(subject.base))
    rows = found.rows
    expected = _logits(_unmerged(subject), rows)
    given = _logits(load_written(), rows)
    scale = max(float(one.abs().max()) for one in expected)
    # torch's maximum of NaN is NaN, Python's need not be.
    apart = [(a - b).abs().max() for a, b in zip(expected, given, strict=True)]
    largest = float(torch.stack(apart).max())
    same = sum(
        int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in zip(expected, given, strict=True)
    )
    positions = sum(len(row) for row in rows)
    comparison = Comparison(
        rows=len(rows),
        positions=positions,
        largest=largest,
        relative=largest / scale,
        bound=_bound(subject, dtype),
        agreement=same / positions,
        source=found.source,
    )
    # Written so that NaN is refused too.
    if not comparison.relative <= comparison.bound:
        raise AdzError(
            f"what was written differs from {subject.reference} over its base by "
            f"{largest:.3g} in a logit, {comparison.relative:.1%} of the largest; "
            f"{comparison.bound:.1%} is the most that {dtype} explains",
            "nothing is kept; write it in f32" if dtype != "f32" else "nothing is kept",
            exit_code=EXIT_VERIFICATION,
        )
    return comparison


def _bound(subject: Subject, dtype: str) -> float:
    from adapterhub.bases.digests import read_config

    settings = read_config(Path(subject.base.path)).get("quantization_config") or {}
    return max(BOUNDS[dtype], _INT8_BOUND if settings.get("load_in_8bit") else 0)


def _unmerged(subject: Subject) -> Any:
    model: Any = load_base(subject.base, dtype="float32")
    if subject.version and subject.directory:
        model = load_adapter(model, subject.version, subject.directory)
    return model


@torch.no_grad()
def _logits(model: Any, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """(length, vocabulary) of each row, float32 on the CPU."""
    device = compute_device()
    model = model.to(device).eval()
    return [
        model(input_ids=torch.tensor([list(row)], device=device)).logits[0].float().cpu()
        for row in rows
    ]
