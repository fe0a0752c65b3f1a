"""The metric `rouge_l`."""

from __future__ import annotations

from itertools import combinations

import pytest
from adz_rouge_l.rouge_l import common, rouge_l

from adapterhub.testing import MetricConformance


class TestRougeL(MetricConformance):
    """What every metric promises."""

    name = "rouge_l"


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        # The example of the paper's section 3.1, with a beta of 1.
        ("police kill the gunman", 0.75),
        ("police killed the gunman", 1.0),
        ("the gunman police killed", 0.5),
        ("", 0.0),
    ],
)
def test_scores_of_the_paper(answer, score):
    assert rouge_l(answer, "police killed the gunman") == score


def test_subsequence_is_the_longest_of_all():
    first, second = list("abcbdab"), list("bdcaba")
    found = max(
        size
        for size in range(len(first) + 1)
        if {*combinations(first, size)} & {*combinations(second, size)}
    )
    assert common(first, second) == found == 4
