"""The metrics, reached as every metric is."""

from __future__ import annotations

from typing import Any

import pytest

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
