"""How many character n-grams an answer and its reference share (chrF, Popović 2015)."""

from __future__ import annotations

from sacrebleu.metrics.chrf import CHRF

# sacrebleu's defaults: n-grams of 1 to 6 characters, white space left out, beta 2.
_CHRF = CHRF()


def chrf(answer: str, reference: str) -> float:
    """sacrebleu's sentence chrF over 100: 1.0 for equal texts, 0.0 where none is shared.

    For answers longer than a word, where being nearly right is worth something. White space
    does not count, so the score of an answer that only lacks a space is 1.0 too.
    """
    return float(_CHRF.sentence_score(answer, [reference]).score) / 100
