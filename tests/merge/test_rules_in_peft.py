"""Every rule from PEFT to PEFT: the merged adapter's logits are those of the float64 reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from adapterhub.moments import INPUT_MOMENTS, MeasuredMoments
from adapterhub.protocols import Factors, InputMoments

from .references import exact, reference
from .small import options_of, own_rules

TOKENS = torch.arange(4, 36).reshape(2, 16)
WEIGHTS = [0.7, 0.4]
Modules = dict[str, Factors]


def load_base(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def random_lora(base: Path, folder: Path, seed: int, **options: Any) -> Modules:
    """Saved by PEFT, with input moments beside it; its factors by PEFT's own scaling."""
    torch.manual_seed(seed)
    model = get_peft_model(load_base(base), LoraConfig(task_type="CAUSAL_LM", **options))
    modules = {}
    for name, module in model.base_model.model.named_modules():
        if not hasattr(module, "lora_A"):
            continue
        a, b = (factor["default"].weight.data for factor in (module.lora_A, module.lora_B))
        a.normal_(0, 0.2)
        b.normal_(0, 0.2)
        moments = InputMoments(torch.randn(4, a.shape[1]).bfloat16().float(), torch.ones(len(a.T)))
        modules[name] = Factors(a.clone(), b.clone(), module.scaling["default"], moments)
    model.save_pretrained(folder)
    measured = MeasuredMoments(
        {name: factors.moments for name, factors in modules.items() if factors.moments},
        {name: name for name in modules},
    )
    measured.save(folder / INPUT_MOMENTS)
    return modules


def lacking(other: Factors) -> Factors:
    return Factors(torch.zeros(0, other.a.shape[1]), torch.zeros(len(other.b), 0), 1.0)


@pytest.mark.parametrize("name", sorted(own_rules()))
def test_logits_are_those_of_the_reference(
    name: str, tiny_base_dir: Path, tmp_path: Path, run_merge: Callable[..., Any]
) -> None:
    rule = own_rules()[name]
    paths = [tmp_path / "a", tmp_path / "b"]
    loras = [
        random_lora(tiny_base_dir, paths[0], 1, r=3, lora_alpha=9, use_rslora=True,
                    target_modules=["q_proj", "v_proj", "down_proj"]),
        random_lora(tiny_base_dir, paths[1], 2, r=5, target_modules=["q_proj", "v_proj"]),
    ]  # fmt: skip
    rank = 64 if rule.spaces[0] == "dense" else None
    given = {"density": 0.3} if "density" in rule.parameters else {}
    result = run_merge(*paths, rule=name, weights=WEIGHTS, rank=rank, seed=7, **given)
    assert result.relative_error < 1e-5

    model, changed = load_base(tiny_base_dir).double(), 0
    plain = model(TOKENS).logits.detach()
    for module in loras[0]:
        factors = [lora.get(module, lacking(loras[0][module])) for lora in loras]
        options = options_of(rule, rank=result.rank, module=module)
        delta = reference(name, rule.spaces[0], factors, WEIGHTS, options)
        model.get_submodule(module).weight.data += torch.from_numpy(delta)
        changed += bool(delta.any())
        assert exact(factors[0]).any()
    assert changed == len(loras[0])
    expected = model(TOKENS).logits.detach()

    merged = PeftModel.from_pretrained(load_base(tiny_base_dir), result.directory)
    with torch.no_grad():
        logits = merged(TOKENS).logits.double()
    effect = (expected - plain).abs().max()
    assert effect > 0.1
    assert (logits - expected).abs().max() < 1e-4 * effect
