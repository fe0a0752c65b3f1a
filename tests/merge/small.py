"""One small module through a rule and a space, as the engine does it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from adapterhub import specs
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Factors, InputMoments, MergedModule

M, N = 30, 20


def operands(*ranks: int, seed: int = 0) -> list[Factors]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Factors(
            a=torch.randn(r, N, generator=generator),
            b=torch.randn(M, r, generator=generator),
            scale=0.5 + i,
            moments=moments(seed + i) if r else None,
        )
        for i, r in enumerate(ranks)
    ]


def moments(seed: int) -> InputMoments:
    """Inputs of which one is far larger than the others."""
    generator = torch.Generator().manual_seed(seed)
    sketch = torch.randn(4, N, generator=generator)
    sketch[:, seed % N] *= 5
    return InputMoments(sketch, torch.rand(N, generator=generator) + 0.05)


def own_rules() -> dict[str, specs.MergeRule]:
    return {
        p.component.name: p.component
        for p in load_plugins().provided(specs.MergeRule)
        if p.plugin.distribution == "adapterhub" and isinstance(p.component, specs.MergeRule)
    }


def declared_pairs() -> list[tuple[str, str]]:
    """Without the spaces that measure by input moments: `test_inputs.py` has references of its
    own for those."""
    plugins = load_plugins()
    return [
        (rule.name, space)
        for rule in own_rules().values()
        for space in rule.spaces
        if not plugins.get(specs.MergeSpace, space).moments
    ]


def options_of(rule: specs.MergeRule, **given: Any) -> dict[str, Any]:
    """As the command resolves them, with a density that is no rule's default."""
    model = load_plugins().load_options(rule)
    defaults = model().model_dump() if model else {}
    return {"density": 0.3, "seed": 7, "rank": N, "module": "module", **defaults, **given}


def run(
    rule_name: str,
    space_name: str,
    factors: list[Factors],
    weights: list[float],
    rank: int = N,
    **given: Any,
) -> MergedModule:
    plugins = load_plugins()
    rule = own_rules()[rule_name]
    space = plugins.load_implementation(plugins.get(specs.MergeSpace, space_name))
    merged: MergedModule = space(
        factors,
        torch.tensor(weights),
        plugins.load_implementation(rule),
        options_of(rule, **given),
        rank=rank,
        seed=7,
        module="module",
        whole=rule.kind != "elementwise",
    )
    return merged


def product(merged: MergedModule) -> np.ndarray:
    return merged.b.double().numpy() @ merged.a.double().numpy()
