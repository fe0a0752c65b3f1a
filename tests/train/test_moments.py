"""Input moments against float64 sums over all tokens, taken row by row without padding."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from adapterhub.convert.pipeline import convert
from adapterhub.convert.recipe import ConvertRecipe
from adapterhub.errors import AdzError
from adapterhub.manifest import Version
from adapterhub.models import load_adapter
from adapterhub.moments import INPUT_MOMENTS, MomentsFile
from adapterhub.protocols import InputMoments, Registry
from adapterhub.train.moments import MomentSketch
from adapterhub.train.pipeline import train
from adapterhub.train.rows import rows_of

Trained = Callable[..., Version]


def dense(moments: InputMoments) -> Any:
    sketch = moments.sketch.double()
    return sketch.T @ sketch + torch.diag(moments.diagonal.double())


def decaying(tokens: int, width: int) -> Any:
    """Vectors whose spectrum falls as that of a model's inputs: one large direction, a tail."""
    torch.manual_seed(0)
    mix = torch.linalg.qr(torch.randn(width, width)).Q * torch.arange(1, width + 1) ** -1.0
    return torch.randn(tokens, width) @ mix.T + 3 * mix[:, 0]


def test_a_sketch_as_wide_as_the_inputs_is_the_moment_itself() -> None:
    x = decaying(500, 24)
    sketch = MomentSketch(24, 24)
    sketch.add(x[:123])
    sketch.add(x[123:])
    exact = x.double().T @ x.double() / 500
    found = dense(sketch.moments())
    # What is left is the rounding to bfloat16.
    assert torch.linalg.matrix_norm(found - exact) < 4e-3 * torch.linalg.matrix_norm(exact)


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_a_sketch_is_nearly_the_best_of_its_rank(rank: int) -> None:
    x = decaying(3000, 200)
    sketch = MomentSketch(200, rank)
    for block in (x[:900], x[900:]):
        sketch.add(block)
    exact = x.double().T @ x.double() / 3000
    moments = sketch.moments()
    assert moments.sketch.shape == (rank, 200)
    best = torch.linalg.eigvalsh(exact)[:-rank].norm()
    left = moments.sketch.double()
    error = torch.linalg.matrix_norm(exact - left.T @ left)
    rounding = 4e-3 * torch.linalg.matrix_norm(exact)
    assert error < 1.1 * best + rounding
    torch.testing.assert_close(dense(moments).diagonal(), exact.diagonal(), rtol=1e-2, atol=1e-6)
    assert torch.linalg.matrix_norm(dense(moments) - exact) <= error + rounding


def test_inputs_of_nothing_but_zeros_have_moments_of_zero() -> None:
    sketch = MomentSketch(8, 2)
    sketch.add(torch.zeros(5, 8))
    assert not dense(sketch.moments()).any()


def exact_moments(model: Any, rows: list[tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """E[x x^T] of every LoRA layer in float64, from one row at a time."""
    sums: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Any:
        def hook(module: Any, given: Any) -> None:
            x = given[0][0].double()
            sums[name] = sums.get(name, 0) + x.T @ x

        return hook

    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            module.register_forward_pre_hook(watch(name.removeprefix("base_model.model.")))
    with torch.no_grad():
        for ids in rows:
            model(input_ids=torch.tensor([ids[:-1]]))
    tokens = sum(len(ids) - 1 for ids in rows)
    return {name: total / tokens for name, total in sums.items()}


def test_a_run_keeps_the_moments_of_every_module(
    trained: Trained, plan_for: Any, registry: Registry, tmp_path: Path, tiny_base_dir: Path
) -> None:
    from transformers import AutoModelForCausalLM

    version = trained(training={"input_moments": 128, "batch_size": 7})
    registry.artifacts(version, tmp_path / "kept")
    path = tmp_path / "kept" / INPUT_MOMENTS
    file = MomentsFile("double", path)
    model = load_adapter(
        AutoModelForCausalLM.from_pretrained(tiny_base_dir), version, registry.path(version)
    )
    rows = [row.ids for row in rows_of(plan_for())[0]]
    exact = exact_moments(model.eval(), rows)
    assert len(exact) == 14
    for module, expected in exact.items():
        moments = file.of(module, expected.shape[0])
        assert moments is not None
        found = dense(moments)
        error = torch.linalg.matrix_norm(found - expected) / torch.linalg.matrix_norm(expected)
        assert error < 4e-3, module
        torch.testing.assert_close(
            found.diagonal(), expected.diagonal(), rtol=2e-2, atol=1e-5 * expected.max().item()
        )
    facts = version.manifest.metrics["input_moments"]
    assert (facts["rank"], facts["rows"], facts["modules"]) == (128, len(rows), 14)
    assert facts["tokens"] == sum(len(ids) - 1 for ids in rows)
    # Four inputs a layer, not seven: three projections read one, and two another.
    with safe_open(path, framework="pt") as stored:
        assert len(list(stored.keys())) == 2 * 2 * 4
    assert path.stat().st_size - 4096 < facts["bytes"] < path.stat().st_size


def test_the_adapter_is_the_same_with_and_without(trained: Trained, registry: Registry) -> None:
    plain = trained(training={"input_moments": 0})
    assert INPUT_MOMENTS not in plain.manifest.artifacts
    assert "input_moments" not in plain.manifest.metrics
    measured = trained(training={"input_moments": 4})
    assert INPUT_MOMENTS in measured.manifest.artifacts
    assert measured.manifest.recipe["training"]["input_moments"] == 4
    assert measured.manifest.payload == plain.manifest.payload


def test_a_resumed_run_measures_what_an_unbroken_one_does(
    plan_for: Any, registry: Registry, progress: Any
) -> None:
    from adapterhub.train.trainer import RunTrainer

    settings = {"training": {"max_steps": 6, "save_every": 2, "input_moments": 8}}
    unbroken = train(plan_for(**settings), registry, progress)
    kept = RunTrainer.training_step

    def die(self: Any, *given: Any) -> Any:
        if self.state.global_step == 5:
            raise ConnectionError("the power is gone")
        return kept(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunTrainer, "training_step", die)
        with pytest.raises(ConnectionError):
            train(plan_for(**settings), registry, progress)
    resumed = train(plan_for(**settings), registry, progress, resume=True)
    assert resumed.manifest.metrics["resumed"] is True
    digests = [v.manifest.artifacts[INPUT_MOMENTS].sha256 for v in (unbroken, resumed)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("method", "rank"), [("lora", 32), ("dora", 32), ("ia3", 32), ("prefix", 0), ("prompt", 0)]
)
def test_what_can_be_merged_keeps_moments_unless_told_otherwise(
    plan_for: Any, method: str, rank: int
) -> None:
    assert plan_for(method=method).resolved["training"]["input_moments"] == rank
    off = plan_for(method=method, training={"input_moments": 0})
    assert off.resolved["training"]["input_moments"] == 0


def test_a_converted_version_keeps_them(
    trained: Trained, registry: Registry, progress: Any
) -> None:
    source = trained(method="dora", training={"input_moments": 4})
    recipe = ConvertRecipe(adapter=source.reference, to="lora", rank=4)
    version = convert(recipe, registry, progress, measure=False).version
    assert version is not None
    assert version.manifest.artifacts == {INPUT_MOMENTS: source.manifest.artifacts[INPUT_MOMENTS]}


def test_a_method_that_cannot_be_merged_has_no_use_for_moments(plan_for: Any) -> None:
    with pytest.raises(AdzError, match="prefix adapters cannot be merged"):
        plan_for(method="prefix", training={"input_moments": 8})


def test_the_flag_sets_the_option(adz: Any, registry: Registry, data_file: Path) -> None:
    given = ("train", "--base", "tiny", "--data", data_file, "--dry-run", "--json")
    recipe = json.loads(adz(*given, "--input-moments", "8").out)["recipe"]
    assert recipe["training"]["input_moments"] == 8
    assert json.loads(adz(*given).out)["recipe"]["training"]["input_moments"] == 32
    refused = adz(*given, "-o", "training.input_moments=true")
    assert refused.code == 2
    assert "training.input_moments" in refused.err


def test_moments_of_another_width_or_with_nan_are_refused(
    trained: Trained, registry: Registry, tmp_path: Path
) -> None:
    registry.artifacts(trained(training={"input_moments": 4}), tmp_path)
    path = tmp_path / INPUT_MOMENTS
    module = "model.layers.0.mlp.down_proj"
    assert MomentsFile("double", path).of("model.layers.9.mlp.down_proj", 128) is None
    with pytest.raises(AdzError, match=r"double: the input moments of .*down_proj do not fit"):
        MomentsFile("double", path).of(module, 64)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(AdzError, match=r"double: input_moments\.safetensors cannot be read"):
        MomentsFile("double", path)
