"""ROUGE-L: the longest common subsequence of words (Lin, 2004, section 3.1)."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+")


def rouge_l(answer: str, reference: str) -> float:
    """0 to 1: harmonic mean of precision and recall of the subsequence, without stemming; two
    texts without words agree."""
    given, wanted = (_WORD.findall(text.lower()) for text in (answer, reference))
    if not given or not wanted:
        return float(given == wanted)
    return 2 * common(given, wanted) / (len(given) + len(wanted))


def common(first: list[str], second: list[str]) -> int:
    """The length of the longest common subsequence, in memory of one row."""
    row = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for column, other in enumerate(second, 1):
            here = row[column]
            row[column] = before + 1 if word == other else max(here, row[column - 1])
            before = here
    return row[-1]
