"""A metric: how many words of answer and reference agree: F1 as in SQuAD (arXiv:1606.05250), which
also drops case, punctuation and articles."""

from __future__ import annotations

from collections import Counter


def word_f1(answer: str, reference: str) -> float:
    """0 to 1; 1 when both have the same words, whatever their order."""
    given, wanted = Counter(answer.split()), Counter(reference.split())
    shared = (given & wanted).total()
    if shared == 0:
        return float(given == wanted)
    return 2 * shared / (given.total() + wanted.total())
