"""Distances from the factors, against dense updates in float64."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapterhub.diff.distance import distances, total
from adapterhub.diff.factors import AdapterTensors
from adapterhub.errors import AdzError

PREFIX = "base_model.model."
SHAPES = {
    "model.layers.0.self_attn.q_proj": (48, 40),
    "model.layers.0.mlp.down_proj": (24, 96),
    "model.layers.1.self_attn.q_proj": (48, 40),
    "narrow": (5, 7),
}
Make = Callable[..., tuple[Path, dict[str, Any]]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A LoRA with random factors, and its configuration."""

    def write(
        folder: str,
        seed: int,
        ranks: dict[str, int],
        dtype: torch.dtype = torch.float32,
        extra: dict[str, torch.Tensor] | None = None,
        **options: Any,
    ) -> tuple[Path, dict[str, Any]]:
        random = torch.Generator().manual_seed(seed)
        tensors = dict(extra or {})
        for module, rank in ranks.items():
            m, n = SHAPES[module]
            a = torch.randn(rank, n, generator=random, dtype=torch.float64)
            b = torch.randn(m, rank, generator=random, dtype=torch.float64)
            tensors[f"{PREFIX}{module}.lora_A.weight"] = a.to(dtype)
            tensors[f"{PREFIX}{module}.lora_B.weight"] = b.to(dtype)
        directory = tmp_path / folder
        directory.mkdir()
        save_file(tensors, directory / "adapter_model.safetensors")
        config = {
            "peft_type": "LORA", "r": max(ranks.values(), default=4), "lora_alpha": 16,
            "target_modules": sorted(ranks), **options,
        }  # fmt: skip
        (directory / "adapter_config.json").write_text(json.dumps(config))
        return directory, config

    return write


def dense(directory: Path, scales: dict[str, float]) -> dict[str, torch.Tensor]:
    """The updates as whole matrices."""
    tensors = load_file(directory / "adapter_model.safetensors")
    return {
        module: scale
        * tensors[f"{PREFIX}{module}.lora_B.weight"].double()
        @ tensors[f"{PREFIX}{module}.lora_A.weight"].double()
        for module, scale in scales.items()
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_agrees_with_dense_matrices(make: Make, dtype: torch.dtype) -> None:
    ranks = dict.fromkeys(SHAPES, 4)
    one = make("one", 1, ranks, dtype)
    second = {**ranks, "model.layers.1.self_attn.q_proj": 6, "narrow": 9}
    two = make(
        "two", 2, second, torch.float32, use_rslora=True,
        alpha_pattern={"mlp.down_proj": 3}, rank_pattern={"q_proj": 6},
    )  # fmt: skip
    first = dense(one[0], dict.fromkeys(SHAPES, 16 / 4))
    scales = {m: 16 / math.sqrt(r) for m, r in second.items()}
    other = dense(two[0], scales | {"model.layers.0.mlp.down_proj": 3 / math.sqrt(4)})
    found = {d.name: d for d in distances(AdapterTensors(*one), AdapterTensors(*two))}
    assert found.keys() == SHAPES.keys()
    for module, distance in found.items():
        a, b = first[module], other[module]
        inner = float((a * b).sum())
        assert distance.norms == pytest.approx((float(a.norm()), float(b.norm())), rel=1e-12)
        assert distance.absolute == pytest.approx(float((a - b).norm()), rel=1e-12)
        assert distance.cosine == pytest.approx(inner / float(a.norm() * b.norm()), abs=1e-12)
        assert distance.relative == pytest.approx(
            float((a - b).norm()) / max(float(a.norm()), float(b.norm())), rel=1e-12
        )
        assert distance.ranks == (4, second[module])
    everything = total(found.values())
    flat = [torch.cat([side[m].flatten() for m in SHAPES]) for side in (first, other)]
    assert everything.absolute == pytest.approx(float((flat[0] - flat[1]).norm()), rel=1e-12)
    assert everything.cosine == pytest.approx(
        float(flat[0] @ flat[1] / (flat[0].norm() * flat[1].norm())), abs=1e-12
    )


def test_small_differences_are_not_lost(make: Make) -> None:
    """Of two updates that agree to 1e-10: a Gram matrix would lose all digits."""
    one = make("one", 1, {"narrow": 4}, torch.float64)
    tensors = load_file(one[0] / "adapter_model.safetensors")
    step = torch.zeros(5, 4, dtype=torch.float64)
    step[1, 2] = 1e-10
    tensors[f"{PREFIX}narrow.lora_B.weight"] += step
    two = make("two", 1, {}, extra=tensors)
    (found,) = distances(AdapterTensors(*one), AdapterTensors(*two))
    expected = 4 * float((step @ tensors[f"{PREFIX}narrow.lora_A.weight"]).norm())
    assert found.absolute == pytest.approx(expected, rel=1e-4)


def test_the_same_update_in_other_factors_is_no_difference(make: Make) -> None:
    one = make("one", 3, {"narrow": 4}, torch.float64)
    tensors = load_file(one[0] / "adapter_model.safetensors")
    turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    tensors[f"{PREFIX}narrow.lora_B.weight"] = tensors[f"{PREFIX}narrow.lora_B.weight"] @ turn
    tensors[f"{PREFIX}narrow.lora_A.weight"] = turn.T @ tensors[f"{PREFIX}narrow.lora_A.weight"]
    two = make("two", 0, {}, extra={k: v.contiguous() for k, v in tensors.items()})
    (found,) = distances(AdapterTensors(*one), AdapterTensors(*two))
    assert found.absolute < 1e-12 * found.norms[0]
    assert found.cosine == pytest.approx(1, abs=1e-12)


def test_a_module_of_one_side_counts_whole(make: Make) -> None:
    one = make("one", 1, {"narrow": 2})
    two = make("two", 2, {"model.layers.0.mlp.down_proj": 2})
    for part in distances(AdapterTensors(*one), AdapterTensors(*two)):
        assert part.absolute == max(part.norms) > 0
        assert min(part.norms) == 0
        assert part.cosine is None
        assert sorted(part.ranks or ()) == [0, 2]


def test_modules_of_different_shape_have_nothing_in_common(make: Make) -> None:
    one = make("one", 1, {"narrow": 2})
    wide = {
        f"{PREFIX}narrow.lora_A.weight": torch.ones(2, 9),
        f"{PREFIX}narrow.lora_B.weight": torch.ones(5, 2),
    }
    two = make("two", 0, {}, extra=wide)
    (part,) = distances(AdapterTensors(*one), AdapterTensors(*two))
    assert part.absolute == pytest.approx(math.hypot(*part.norms))
    assert part.inner == 0


def test_what_is_no_product_is_compared_as_it_is(make: Make) -> None:
    """DoRA's magnitudes, a trained head, another method's tensors."""
    magnitude = f"{PREFIX}narrow.lora_magnitude_vector.weight"
    one = make("one", 1, {"narrow": 2}, extra={magnitude: torch.full((5,), 3.0)}, use_dora=True)
    two = make("two", 1, {"narrow": 2}, extra={magnitude: torch.full((5,), 1.0)}, use_dora=True)
    parts = {d.name: d for d in distances(AdapterTensors(*one), AdapterTensors(*two))}
    assert parts["narrow"].absolute == 0
    assert parts[magnitude].absolute == pytest.approx(2 * math.sqrt(5))
    assert parts[magnitude].ranks is None
    scales = {f"{PREFIX}narrow.ia3_l": torch.ones(5, 1)}
    three = make("three", 0, {}, extra=scales, peft_type="IA3")
    four = make("four", 0, {}, extra={n: 2 * t for n, t in scales.items()}, peft_type="IA3")
    (part,) = distances(AdapterTensors(*three), AdapterTensors(*four))
    assert part.absolute == pytest.approx(math.sqrt(5))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8, torch.bool])
def test_indices_are_compared_too(make: Make, dtype: torch.dtype) -> None:
    """SHiRA keeps the places of its values beside them."""
    name = f"{PREFIX}narrow.shira_indices"
    values = [torch.tensor([1, 0, 1, 1]).to(dtype), torch.tensor([1, 1, 1, 0]).to(dtype)]
    sides = [make(str(i), 0, {}, extra={name: v}, peft_type="SHIRA") for i, v in enumerate(values)]
    (part,) = distances(*(AdapterTensors(*side) for side in sides))
    assert part.absolute == pytest.approx(math.sqrt(2))


def test_what_numpy_cannot_hold_is_said(make: Make) -> None:
    side = make("one", 0, {}, extra={"x": torch.zeros(3).to(torch.float8_e4m3fn)})
    with pytest.raises(AdzError, match="holds tensors of F8_E4M3"):
        list(distances(AdapterTensors(*side), AdapterTensors(*side)))


def test_convolutions_and_embeddings(make: Make) -> None:
    random = torch.Generator().manual_seed(0)

    def tensors() -> dict[str, torch.Tensor]:
        return {
            f"{PREFIX}conv.lora_A.weight": torch.randn(2, 3, 3, 3, generator=random),
            f"{PREFIX}conv.lora_B.weight": torch.randn(6, 2, 1, 1, generator=random),
            f"{PREFIX}wte.lora_embedding_A": torch.randn(2, 50, generator=random),
            f"{PREFIX}wte.lora_embedding_B": torch.randn(8, 2, generator=random),
        }

    sides = [tensors(), tensors()]
    one, two = (make(str(i), 0, {}, extra=t, r=2) for i, t in enumerate(sides))
    found = {d.name: d for d in distances(AdapterTensors(*one), AdapterTensors(*two))}
    conv = [
        8 * torch.einsum(
            "or,rikl->oikl",
            t[f"{PREFIX}conv.lora_B.weight"].double()[:, :, 0, 0],
            t[f"{PREFIX}conv.lora_A.weight"].double(),
        )
        for t in sides
    ]  # fmt: skip
    wte = [
        8 * t[f"{PREFIX}wte.lora_embedding_B"].double()
        @ t[f"{PREFIX}wte.lora_embedding_A"].double()
        for t in sides
    ]  # fmt: skip
    for name, (a, b) in {"conv": conv, "wte": wte}.items():
        assert found[name].absolute == pytest.approx(float((a - b).norm()), rel=1e-12)
