"""Whether the answer is the reference."""

from __future__ import annotations


def exact_match(answer: str, reference: str) -> float:
    """1.0 when both are the same text but for white space around them, else 0.0."""
    return float(answer.strip() == reference.strip())
