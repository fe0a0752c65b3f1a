"""mergekit configurations as recipes, against mergekit's own parser and its own arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge_methods import registry
from mergekit.merge_methods.base import BasePolicy, TensorGroup
from mergekit.parameter_resolver import resolve_parameters

from adapterhub.errors import AdzError
from adapterhub.merge.mergekit_recipe import from_mergekit

from .conftest import read_deltas

# {a}, {b}, {c} are directories; the base is `llama`.
TWO = """
merge_method: METHOD
base_model: llama
models:
  - model: llama+{a}
    parameters: {{weight: 0.7EXTRA}}
  - model: llama+{b}
    parameters: {{weight: 0.4EXTRA}}
"""
CONFIGURATIONS = [
    TWO.replace("METHOD", "task_arithmetic").replace("EXTRA", ""),
    TWO.replace("METHOD", "task_arithmetic").replace("EXTRA", "")
    + "parameters: {{normalize: true, lambda: 1.7}}",
    TWO.replace("METHOD", "ties").replace("EXTRA", ", density: 0.4"),
    TWO.replace("METHOD", "ties").replace("EXTRA", "")
    + "parameters: {{density: 0.3, normalize: false, int8_mask: true, lambda: 0.5}}",
    TWO.replace("METHOD", "ties").replace("EXTRA", ""),
    TWO.replace("METHOD", "breadcrumbs").replace("EXTRA", ", density: 0.5")
    + "parameters: {{gamma: 0.1}}",
    TWO.replace("METHOD", "breadcrumbs_ties").replace("EXTRA", ", density: 0.5, gamma: 0.2"),
    TWO.replace("METHOD", "dare_ties").replace("EXTRA", ", density: 1.0"),
    TWO.replace("METHOD", "della").replace("EXTRA", ""),
    TWO.replace("METHOD", "della_linear").replace("EXTRA", "") + "parameters: {{normalize: true}}",
    TWO.replace("METHOD", "linear").replace("EXTRA", ""),
    TWO.replace("METHOD", "linear").replace("EXTRA", "")
    + "  - model: llama\n    parameters: {{weight: 0.9}}",
]


def by_mergekit(text: str, updates: dict[str, np.ndarray], base: np.ndarray) -> np.ndarray:
    """The merged tensor less its base: parsed, resolved and computed by mergekit."""
    config = MergeConfiguration.model_validate(yaml.safe_load(text))
    method = registry.get(config.merge_method)
    settings = {model.model: model.parameters for model in config.models}
    tensors = {
        model: base + updates.get(str(model).partition("+")[2], np.zeros_like(base))
        for model in settings
    }
    if method.spec.contract.base == BasePolicy.REQUIRED:
        tensors[config.base_model] = base
    shared, own = resolve_parameters(
        method.spec,
        tensor_name="weight",
        inputs=dict.fromkeys(tensors, "weight"),
        sources=lambda model: (settings.get(model), config.parameters),
        base_model=config.base_model,
    )
    names = {name for values in own.values() for name in values}
    per_input = {name: {m: v[name] for m, v in own.items() if name in v} for name in names}
    group = TensorGroup.from_tensors(
        [torch.from_numpy(tensor) for tensor in tensors.values()],
        ids=list(tensors),
        base_index=list(tensors).index(config.base_model) if config.base_model in tensors else None,
    )
    (merged,) = method([group], parameters={**shared, **per_input})
    return merged.numpy() - base


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_the_result_is_mergekits(text: str, make_lora: Any, run_merge: Any) -> None:
    loras = [make_lora("a", seed=1), make_lora("b", seed=2)]
    paths = [str(lora.path) for lora in loras]
    text = text.format(a=paths[0], b=paths[1])
    values, notes = from_mergekit(yaml.safe_load(text), {"llama": "somewhere"})
    assert not notes
    assert values.pop("base") == "llama"
    adapters = values.pop("adapters")
    # Of full rank, so that nothing is lost; what core merges is exact as it is.
    full = {"rank": 24} if "compat" in values else {}
    found = read_deltas(run_merge(*map(Path, adapters), **values, **full).directory)
    for module in loras[0].deltas:
        updates = {path: lora.deltas[module] for path, lora in zip(paths, loras, strict=True)}
        base = np.random.default_rng(0).normal(size=updates[paths[0]].shape)
        expected = by_mergekit(text, updates, base)
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found[module], expected, rtol=1e-4, atol=2e-4)


def test_slerp_goes_from_base_model_to_the_other() -> None:
    text = """
    merge_method: slerp
    base_model: llama+two
    models: [{model: llama+one}, {model: llama+two}]
    parameters: {t: 0.3}
    dtype: bfloat16
    """
    config = yaml.safe_load(text)
    values, notes = from_mergekit(config, {})
    assert values["adapters"] == ["two", "one"]
    assert values["weights"] == pytest.approx([0.7, 0.3])
    assert ["bfloat16" in note for note in notes] == [True, False, False]
    assert "whole weights" in notes[1]
    assert "llama is not a known base" in notes[2]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"merge_method": "model_stock"}, "merge_method model_stock"),
        ({"slices": []}, "slices"),
        ({"tokenizer_source": "union"}, "tokenizer_source"),
        ({"chat_template": "auto"}, "chat_template"),
        ({"parameters": {"density": [0, 0.5, 1]}}, "the density of parameters by layer"),
        ({"parameters": {"density": [{"filter": "mlp", "value": 1}, {"value": 0.5}]}}, "by tensor"),
        ({"parameters": {"rescale": True}}, "the parameter rescale of ties"),
        ({"parameters": {"lamda": 1}}, "the parameter lamda of ties"),
        ({"models": [{"model": "llama+a"}]}, "llama\\+a has no weight"),
        ({"models": []}, "no models"),
        (
            {"models": [{"model": f"{base}+a", "parameters": {"weight": 1}} for base in "xy"]},
            "two bases \\(x, y\\)",
        ),
        (
            {
                "models": [
                    {"model": name, "parameters": {"weight": 1, "density": density}}
                    for name, density in (("a", 0.3), ("b", 0.5))
                ]
            },
            "a density for each model",
        ),
        (
            {"merge_method": "linear", "parameters": {"normalize": False}},
            "weights that sum to 1.1",
        ),
        ({"base_model": "llama+a"}, "an adapter as base_model"),
        ({"merge_method": "slerp", "parameters": {"t": 0.5}}, "slerp|weight"),
        ({"base_model": 7}, "base_model is a name"),
        ({"parameters": {"lambda": "much"}}, "the lambda of parameters is a number"),
    ],
)
def test_what_cannot_be_mapped_is_refused(change: dict[str, Any], reason: str) -> None:
    config = {
        "merge_method": "ties",
        "base_model": "llama",
        "models": [
            {"model": "llama+a", "parameters": {"weight": 0.7}},
            {"model": "llama+b", "parameters": {"weight": 0.4}},
        ],
    }
    from_mergekit(config, {})
    with pytest.raises(AdzError, match=reason) as caught:
        from_mergekit({**config, **change}, {})
    assert caught.value.exit_code == 2


def test_at_the_shell(adz: Any, make_lora: Any, tmp_path: Path) -> None:
    paths = [str(make_lora(name, seed=seed).path) for seed, name in enumerate("ab")]
    text = CONFIGURATIONS[2].format(a=paths[0], b=paths[1])
    recipe = tmp_path / "mergekit.yaml"
    recipe.write_text(text)
    done = adz("merge", "-c", recipe, "--out", tmp_path / "merged", "--rank", "20", "--json")
    assert done.code == 0, done.err
    assert "llama is not a known base" in done.err
    assert '"rank": 20' in done.out
    assert '"density": 0.4' in done.out
    recipe.write_text(text.replace("ties", "passthrough"))
    refused = adz("merge", "-c", recipe, "--out", tmp_path / "other")
    assert (refused.code, refused.out) == (2, "")
    assert str(recipe) in refused.err
    assert "passthrough" in refused.err
    assert not (tmp_path / "other").exists()
