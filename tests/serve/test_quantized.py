"""What is said of adapters that were trained over a quantised base."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adapterhub.plugins import open_registry
from adapterhub.serve.quantized import quantizer_notes


@pytest.fixture
def registry(commit_adapter: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A registry in which `french` was trained over nf4 and `sql` over the base itself."""
    commit_adapter("sql")
    commit_adapter("french", seed=1)
    registry = open_registry()
    plain = registry.resolve

    def resolve(reference: str) -> Any:
        version = plain(reference)
        changes = {"quantizer": "nf4"} if version.name == "french" else {}
        return replace(version, manifest=version.manifest.model_copy(update=changes))

    monkeypatch.setattr(registry, "resolve", resolve)
    return registry


def test_only_quantised_training_is_mentioned_and_what_is_missing(
    registry: Any, tiny_base: Any
) -> None:
    assert list(quantizer_notes(registry, tiny_base)) == [
        "french@1 was trained over nf4 and is served over F32: "
        "not compared yet, see adz eval french --data FILE"
    ]


def test_a_score_over_the_serving_base_is_shown(registry: Any, tiny_base: Any) -> None:
    body = {"metric": "exact_match", "score": 0.875, "base": {"score": 0.25}}
    registry.attest(registry.resolve("french"), "evaluation", body)
    (line,) = quantizer_notes(registry, tiny_base)
    assert line.endswith("is served over F32: exact_match 0.875 there, the base 0.250")


def test_the_difference_that_training_measured_is_shown(
    registry: Any, tiny_base: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = registry.resolve
    metrics = {"holdout_loss": 0.4118, "holdout_loss_served": 0.43}

    def resolve(reference: str) -> Any:
        version = plain(reference)
        return replace(version, manifest=version.manifest.model_copy(update={"metrics": metrics}))

    monkeypatch.setattr(registry, "resolve", resolve)
    assert list(quantizer_notes(registry, tiny_base)) == [
        "french@1 was trained over nf4 (held-out loss 0.412) and is served over F32 "
        "(held-out loss 0.430, +0.018)"
    ]
