"""The diagnosis of a dry run against float64 updates that are built whole."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapterhub.merge.diagnostics import diagnose
from adapterhub.merge.pipeline import merge
from adapterhub.merge.prediction import predict
from adapterhub.merge.prepare import prepare
from adapterhub.merge.recipe import MergeRecipe
from adapterhub.merge.silent import Silent
from adapterhub.plugins import open_registry

WEIGHTS = (0.5, -0.2, 0.9)


@pytest.fixture
def prepared(make_lora: Any, home: Path, tmp_path: Path) -> Any:
    def build(**options: Any) -> tuple[list[Any], Any]:
        loras = [
            make_lora("a", seed=1, rank=3),
            make_lora("b", seed=2, rank=4, use_rslora=False),
            make_lora("c", seed=3, rank=2, dtype=torch.bfloat16),
        ]
        values = {"adapters": [str(one.path) for one in loras], "weights": WEIGHTS, **options}
        recipe = MergeRecipe.model_validate({"out": tmp_path / "never", **values})
        return loras, prepare(recipe, open_registry())

    return build


def flat(lora: Any) -> np.ndarray:
    return np.concatenate([lora.deltas[name].ravel() for name in sorted(lora.deltas)])


def share(one: np.ndarray, other: np.ndarray) -> float:
    """How much of the smaller column space lies in the other, from full SVDs."""
    bases = []
    for matrix in (one, other):
        u, s, _ = np.linalg.svd(matrix)
        bases.append(u[:, : int((s > 1e-6 * s[0]).sum())])
    smaller = min(base.shape[1] for base in bases)
    return float((bases[0].T @ bases[1]).__pow__(2).sum() / smaller)


def test_norms_cosines_and_subspaces(prepared: Any) -> None:
    loras, plan = prepared()
    found = diagnose(plan, Silent())
    updates = [flat(lora) for lora in loras]
    assert found.norms == pytest.approx([np.linalg.norm(u) for u in updates], rel=1e-6)
    for i, j in combinations(range(3), 2):
        cosine = updates[i] @ updates[j] / np.linalg.norm(updates[i]) / np.linalg.norm(updates[j])
        assert found.cosine[i][j] == pytest.approx(cosine, abs=1e-6)
        pairs = [(loras[i].deltas[name], loras[j].deltas[name]) for name in loras[i].deltas]
        outputs = np.mean([share(one, other) for one, other in pairs])
        inputs = np.mean([share(one.T, other.T) for one, other in pairs])
        assert found.outputs[i][j] == pytest.approx(outputs, abs=1e-6)
        assert found.inputs[i][j] == pytest.approx(inputs, abs=1e-6)


def test_signs_are_a_sample_of_all_elements(prepared: Any) -> None:
    loras, plan = prepared()
    found = diagnose(plan, Silent())
    names = sorted(loras[0].deltas)
    for i, j in combinations(range(3), 2):
        exact = [(loras[i].deltas[n] * loras[j].deltas[n] < 0).mean() for n in names]
        # 4096 elements a module: four standard deviations.
        assert found.conflict[i][j] == pytest.approx(
            np.mean(exact), abs=4 * 0.5 / (3 * 4096) ** 0.5
        )
    weighted = np.stack([w * flat(lora) for w, lora in zip(WEIGHTS, loras, strict=True)])
    # Modules of different sizes are sampled alike, so the whole is only near.
    cancelled = 1 - np.abs(weighted.sum(axis=0)).sum() / np.abs(weighted).sum()
    assert found.cancelled == pytest.approx(cancelled, abs=0.03)
    assert found.sampled == 3 * 4096


def test_tail_is_that_of_the_weighted_sum(prepared: Any) -> None:
    loras, plan = prepared()
    found = diagnose(plan, Silent())
    sums = [
        sum(w * lora.deltas[name] for w, lora in zip(WEIGHTS, loras, strict=True))
        for name in loras[0].deltas
    ]
    values = [np.linalg.svd(one, compute_uv=False) for one in sums]
    total = sum((v**2).sum() for v in values)
    for rank, error in found.tail.items():
        lost = sum((v[rank:] ** 2).sum() for v in values)
        assert error == pytest.approx((lost / total) ** 0.5, abs=1e-6)
    assert found.tail[9] == pytest.approx(0, abs=1e-7)
    needed = max(int((np.cumsum(v**2) < 0.99 * (v**2).sum()).sum()) + 1 for v in values)
    assert found.ranks[0.99] == needed


@pytest.mark.parametrize(
    ("rule", "space"), [("linear", "core"), ("ties", "knots"), ("ties", "dense"), ("dare", "core")]
)
def test_prediction_is_what_the_merge_then_loses(
    prepared: Any, tmp_path: Path, rule: str, space: str
) -> None:
    weights = (0.5, 0.2, 0.9)
    _, plan = prepared(rule=rule, space=space, rank=3, weights=weights)
    predicted = predict(plan, Silent())
    done = merge(plan.recipe, open_registry(), Silent())
    assert predicted.error == pytest.approx(done.relative_error, rel=1e-6)
    assert predicted.largest[0] == pytest.approx(done.largest[0])
    assert predicted.by_rank[3] == pytest.approx(predicted.error, abs=0.01)
    assert predicted.source == "measured on all 3 modules"


def test_a_sample_is_called_one(make_lora: Any, home: Path, tmp_path: Path) -> None:
    shapes = {f"model.layers.{n}.mlp.up_proj": (20, 16) for n in range(12)}
    loras = [make_lora(name, seed=s, shapes=shapes) for s, name in enumerate("ab")]
    values = {"adapters": [str(one.path) for one in loras], "rule": "ties", "space": "dense"}
    plan = prepare(MergeRecipe.model_validate({**values, "out": tmp_path / "o"}), open_registry())
    assert predict(plan, Silent()).source == "measured on 8 of 12 modules"


def test_dry_run_writes_nothing(prepared: Any, home: Path, tmp_path: Path) -> None:
    _, plan = prepared(rank=2)
    before = sorted(path for path in tmp_path.rglob("*"))
    result = merge(plan.recipe, open_registry(), Silent(), dry_run=True)
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert result.relative_error is None
    assert result.as_dict()["prediction"]["relative_error"] > 0.1
    assert "--rank 8 loses" in result.warnings[-1]
