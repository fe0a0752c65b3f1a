"""The metric `word_f1`."""

from __future__ import annotations

import pytest
from adz_plugin_template.word_f1 import word_f1

from adapterhub.testing import MetricConformance


class TestWordF1(MetricConformance):
    """What every metric promises."""

    name = "word_f1"


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [("a b", "b a", 1.0), ("a", "b", 0.0), ("", "", 1.0), ("a b c", "a", 0.5), ("", "a", 0.0)],
)
def test_scores_by_hand(answer, reference, score):
    assert word_f1(answer, reference) == score
