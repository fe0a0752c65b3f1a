"""Whether the reference stands somewhere in the answer."""

from __future__ import annotations


def contains(answer: str, reference: str) -> float:
    """1.0 when `answer` holds the reference, without white space around it, else 0.0."""
    return float(reference.strip() in answer)
