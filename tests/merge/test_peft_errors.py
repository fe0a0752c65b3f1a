"""Where PEFT's own merge is wrong, against the weighted sum in float64, and ours is right.

The truth is worked out here from the stored factors and the configurations. If a test of PEFT's
error fails, PEFT was mended: take the test away.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from adapterhub.errors import AdzError

from .conftest import read_deltas
from .peft_models import add_weighted, load_all, load_base, lora_modules, random_lora

WEIGHTS = [0.7, 0.3]
TARGETS = ["q_proj", "v_proj", "up_proj"]


def true_deltas(path: Path) -> dict[str, np.ndarray]:
    """s B A in float64, with the patterns of this file's adapters: a key is a module's end."""
    config = json.loads((path / "adapter_config.json").read_text())
    tensors = load_file(path / "adapter_model.safetensors")
    found = {}
    for key in tensors:
        if not key.endswith(".lora_A.weight"):
            continue
        module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        a, b = tensors[key].double(), tensors[key.replace("lora_A", "lora_B")].double()
        end = module.rpartition(".")[2]
        alpha = (config["alpha_pattern"] or {}).get(end, config["lora_alpha"])
        rank = len(a)
        scale = alpha / (math.sqrt(rank) if config["use_rslora"] else rank)
        found[module] = (scale * b @ a).numpy()
    return found


def true_sum(paths: list[Path], weights: list[float]) -> dict[str, np.ndarray]:
    every = [true_deltas(path) for path in paths]
    return {
        module: sum(w * one.get(module, 0) for w, one in zip(weights, every, strict=True))
        for module in sorted(set().union(*every))
    }


def error(found: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> float:
    """Relative, Frobenius, over all modules."""
    assert found.keys() == truth.keys()
    lost = sum(np.square(found[m] - truth[m]).sum() for m in truth)
    return float(np.sqrt(lost / sum(np.square(values).sum() for values in truth.values())))


def peft_deltas(model: Any, adapter: str = "merged") -> dict[str, np.ndarray]:
    return {
        name: module.get_delta_weight(adapter).detach().double().numpy()
        for name, module in lora_modules(model).items()
    }


def peft_error(base: Path, paths: list[Path], kind: str, truth: dict[str, np.ndarray]) -> float:
    model = load_all(base, paths)
    add_weighted(model, kind, WEIGHTS, svd_rank=8 if kind == "svd" else None)
    return error(peft_deltas(model), truth)


@pytest.fixture
def make(tiny_base_dir: Path, tmp_path: Path) -> Callable[..., list[Path]]:
    def two(**options: Any) -> list[Path]:
        return [
            random_lora(
                tiny_base_dir, tmp_path / name, seed, **{"target_modules": TARGETS, **options}
            )
            for seed, name in enumerate("ab", 1)
        ]

    return two


def test_factors_have_cross_terms(
    make: Callable[..., list[Path]], tiny_base_dir: Path, run_merge: Callable[..., Any]
) -> None:
    """https://github.com/huggingface/peft/issues/3004"""
    paths = make(r=4, lora_alpha=8)
    truth = true_sum(paths, WEIGHTS)
    assert peft_error(tiny_base_dir, paths, "linear", truth) > 0.5
    assert error(read_deltas(run_merge(*paths, weights=WEIGHTS).directory), truth) < 1e-6
    copied = run_merge(*paths, weights=WEIGHTS, rule="linear", compat="peft")
    assert error(read_deltas(copied.directory), truth) > 0.5


@pytest.mark.parametrize("kind", ["cat", "svd", "linear"])
def test_rslora(
    kind: str,
    make: Callable[..., list[Path]],
    tiny_base_dir: Path,
    run_merge: Callable[..., Any],
) -> None:
    """PEFT keeps use_rslora and sets alpha to r, so the result is sqrt(r) too large."""
    paths = make(r=4, lora_alpha=8, use_rslora=True)
    truth = true_sum(paths, WEIGHTS)
    assert peft_error(tiny_base_dir, paths, kind, truth) > 1
    for rule in ("linear", "cat"):
        result = run_merge(*paths, weights=WEIGHTS, rule=rule)
        assert error(read_deltas(result.directory), truth) < 1e-6


def test_a_result_of_rank_patterns_can_be_opened(
    make: Callable[..., list[Path]],
    tiny_base_dir: Path,
    tmp_path: Path,
    run_merge: Callable[..., Any],
) -> None:
    """https://github.com/huggingface/peft/issues/3737"""
    paths = make(
        r=4, lora_alpha=8, rank_pattern={"q_proj": 2, "v_proj": 3}, alpha_pattern={"q_proj": 5}
    )
    truth = true_sum(paths, WEIGHTS)
    model = load_all(tiny_base_dir, paths)
    add_weighted(model, "linear", WEIGHTS)
    model.save_pretrained(tmp_path / "theirs", selected_adapters=["merged"])
    with pytest.raises(RuntimeError, match="size mismatch"):
        PeftModel.from_pretrained(load_base(tiny_base_dir), tmp_path / "theirs" / "merged")
    for rule in ("linear", "cat"):
        result = run_merge(*paths, weights=WEIGHTS, rule=rule)
        opened = PeftModel.from_pretrained(load_base(tiny_base_dir), result.directory)
        assert error(peft_deltas(opened, "default"), truth) < 1e-6


def test_dora(make: Callable[..., list[Path]], tiny_base_dir: Path, run_merge: Any) -> None:
    """PEFT merges the factors and gives the result a magnitude of its own making."""
    paths = make(r=4, lora_alpha=8, use_dora=True)
    base = load_base(tiny_base_dir)
    truth: dict[str, np.ndarray] = {}
    for path, weight in zip(paths, WEIGHTS, strict=True):
        adapted = PeftModel.from_pretrained(load_base(tiny_base_dir), path)
        names = list(lora_modules(adapted))
        whole = adapted.merge_and_unload()
        for name in names:
            change = whole.get_submodule(name).weight - base.get_submodule(name).weight
            truth[name] = truth.get(name, 0) + weight * change.detach().double().numpy()
    model = load_all(tiny_base_dir, paths)
    add_weighted(model, "cat", WEIGHTS)
    model.set_adapter("merged")
    names = list(lora_modules(model))
    merged = model.merge_and_unload()
    theirs = {
        name: (merged.get_submodule(name).weight - base.get_submodule(name).weight)
        .detach()
        .double()
        .numpy()
        for name in names
    }
    assert error(theirs, truth) > 0.1
    with pytest.raises(AdzError, match=r"is DoRA, .*adz convert \S+ --to lora --rank 8 --base"):
        run_merge(*paths, weights=WEIGHTS)


def test_a_bias_is_lost(
    make: Callable[..., list[Path]], tiny_base_dir: Path, run_merge: Any
) -> None:
    """PEFT merges the factors, and the new adapter's bias is not that of the others."""
    paths = make(r=4, lora_alpha=8, lora_bias=True)
    model = load_all(tiny_base_dir, paths)
    add_weighted(model, "cat", WEIGHTS)
    for module in lora_modules(model).values():
        biases = [module.scaling[n] * module.lora_B[n].bias for n in "ab"]
        wanted = sum(w * bias for w, bias in zip(WEIGHTS, biases, strict=True))
        merged = module.scaling["merged"] * module.lora_B["merged"].bias
        assert wanted.abs().max() > 0.05
        assert not torch.allclose(merged, wanted, atol=0.05)
    with pytest.raises(AdzError, match="has trained biases"):
        run_merge(*paths, weights=WEIGHTS)
