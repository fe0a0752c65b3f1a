"""The metrics, reached as every metric is."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from sacrebleu import corpus_chrf

from adapterhub import specs
from adapterhub.plugins import load_plugins


def metric(name: str) -> Any:
    plugins = load_plugins()
    return plugins.load_implementation(plugins.get(specs.Metric, name))


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "contained"),
    [
        (" color\n", "color", 1.0, 1.0),
        ("the color", " color", 0.0, 1.0),
        ("Color", "color", 0.0, 0.0),
        ("", "color", 0.0, 0.0),
    ],
)
def test_scores(answer: str, reference: str, exact: float, contained: float) -> None:
    assert metric("exact_match")(answer, reference) == exact
    assert metric("contains")(answer, reference) == contained


def _brute_force_chrf(answer: str, reference: str) -> float:
    """chrF2 as the paper defines it, over the n-gram orders that both texts are long enough for."""
    texts = ["".join(text.split()) for text in (answer, reference)]
    precisions, recalls = [], []
    for order in range(1, 7):
        ours, theirs = (
            Counter(text[i : i + order] for i in range(len(text) - order + 1)) for text in texts
        )
        if ours and theirs:
            shared = sum((ours & theirs).values())
            precisions.append(shared / ours.total())
            recalls.append(shared / theirs.total())
    if not any(precisions):
        return 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 5 * precision * recall / (4 * precision + recall)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        (" the third of May nineteen forty\n", " the third of May nineteen forty"),
        ("the second of May nineteen forty", " the third of May nineteen forty"),
        ("forty-one dollars", "forty-one dollars and thirty cents"),
        ("1234", "twelve"),
        ("", "twelve"),
    ],
)
def test_chrf_is_the_paper_s(answer: str, reference: str) -> None:
    expected = _brute_force_chrf(answer, reference)
    assert metric("chrf")(answer, reference) == pytest.approx(expected, abs=1e-9)


def test_chrf_of_one_row_is_sacrebleu_s_corpus_score() -> None:
    answer, reference = "ten to six in the evening", "ten past six in the evening"
    corpus = corpus_chrf([answer], [[reference]]).score / 100
    assert 0.5 < corpus < 1
    assert metric("chrf")(answer, reference) == pytest.approx(corpus)
