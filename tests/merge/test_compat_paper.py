"""`--compat paper` element by element against the TIES authors' notebook.

What the notebook does is written here anew, from src/ties_minimal.ipynb at
https://github.com/prateeky2806/ties-merging (Copyright (c) 2022 Salesforce, Inc., BSD-3-Clause):
`topk_values_mask`, `resolve_sign`, `resolve_zero_signs` and `disjoint_merge` with `dis-mean`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from adapterhub.errors import AdzError
from adapterhub.protocols import Factors
from adapterhub_merge.compat.paper import global_ties
from adapterhub_merge.coordinates import FactorCoordinates, apply_rule

from .conftest import SHAPES, K, Lora, Q, read_deltas

FULL = 24  # the smaller side of the widest module: nothing is compressed


def notebook(vectors: torch.Tensor, density: float) -> torch.Tensor:
    """(n, d), an adapter a row -> (d,)."""
    dropped = vectors.shape[1] - int(vectors.shape[1] * density)
    floors = vectors.abs().kthvalue(dropped, dim=1, keepdim=True).values
    vectors = vectors * (vectors.abs() >= floors)
    signs = vectors.sum(dim=0).sign()
    signs[signs == 0] = signs.sum().sign()
    chosen = torch.where(signs > 0, vectors > 0, vectors < 0)
    return (vectors * chosen).sum(dim=0) / chosen.sum(dim=0).clamp(min=1)


def expected(loras: Sequence[Lora], density: float) -> dict[str, np.ndarray]:
    names = sorted(SHAPES)
    rows = [
        torch.cat([torch.tensor(lora.deltas.get(m, np.zeros(SHAPES[m]))).flatten() for m in names])
        for lora in loras
    ]
    merged = notebook(torch.stack(rows), density).split([int(np.prod(SHAPES[m])) for m in names])
    return {m: part.view(SHAPES[m]).numpy() for m, part in zip(names, merged, strict=True)}


@pytest.mark.parametrize("density", [0.05, 0.2, 0.9])
def test_every_element_is_the_notebooks(
    density: float, make_lora: Any, run_merge: Callable[..., Any]
) -> None:
    loras = [
        make_lora("a", seed=1, scale=1.0),
        # Large in one module: one trim over all modules keeps more of it, and it has no other.
        make_lora("b", seed=2, rank=2, scale=0.25, shapes={Q: SHAPES[Q], K: SHAPES[K]},
                  scales={K: 4.0}, alpha_pattern={"k_proj": 8.0}),
        make_lora("c", seed=3, rank=3, scale=0.7),
    ]  # fmt: skip
    result = run_merge(*loras, rule="ties", compat="paper", density=density, rank=FULL)
    merged = read_deltas(result.directory)
    want = expected(loras, density)
    assert merged.keys() == want.keys()
    for module, values in want.items():
        np.testing.assert_allclose(merged[module], values, atol=3e-5, err_msg=module)
    # A trim of each module by itself keeps other elements.
    local = read_deltas(
        run_merge(*loras, rule="ties", space="dense", density=density, rank=FULL).directory
    )
    assert max(abs(local[module] - want[module]).max() for module in want) > 0.1


def test_nothing_is_trimmed_at_density_1(make_lora: Any, run_merge: Callable[..., Any]) -> None:
    """The notebook fails there: it asks for the 0-th smallest."""
    loras = [make_lora("a", seed=1), make_lora("b", seed=2)]
    result = run_merge(*loras, rule="ties", compat="paper", density=1.0, rank=FULL)
    for module, merged in read_deltas(result.directory).items():
        a, b = (lora.deltas[module] for lora in loras)
        agree = np.where(a * b > 0, (a + b) / 2, np.where(abs(a) > abs(b), a, b))
        np.testing.assert_allclose(merged, agree, atol=3e-5)


def whole_numbers(seed: int, m: int, n: int, rank: int = 2) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randint(-2, 3, (m + n, rank), generator=generator).float()
    return Factors(a=draw[m:].T, b=draw[:m], scale=1.0)


@pytest.mark.parametrize("turn", [1.0, -1.0])
def test_equal_magnitudes_stay_and_a_zero_sum_gets_the_majoritys_sign(turn: float) -> None:
    shapes = [(9, 7), (30, 20), (5, 40)]
    modules = [
        [whole_numbers(10 * i + j, *shape) for j in range(2)] for i, shape in enumerate(shapes)
    ]
    # Every third sum is 0 here, and the signs do not balance.
    modules.append([
        Factors(a=torch.ones(1, 8), b=turn * torch.ones(50, 1), scale=2.0),
        Factors(a=torch.ones(1, 8), b=turn * torch.ones(50, 1), scale=1.0),
    ])  # fmt: skip
    found = global_ties.survey(
        lambda: [(f"m{i}", operands) for i, operands in enumerate(modules)],
        torch.ones(2),
        {"density": 0.4},
    )
    flat = [
        torch.cat([(ops[j].scale * ops[j].b @ ops[j].a).flatten() for ops in modules])
        for j in range(2)
    ]
    want = notebook(torch.stack(flat), 0.4).split(
        [ops[0].b.shape[0] * ops[0].a.shape[1] for ops in modules]
    )
    assert found["majority"] == turn
    for operands, values in zip(modules, want, strict=True):
        coordinates = FactorCoordinates(
            [o.b * o.scale for o in operands], [o.a for o in operands], 0, "m"
        )
        merged = apply_rule(global_ties, coordinates, torch.ones(2), found)
        torch.testing.assert_close(merged.flatten(), values)


def test_weights_are_refused(make_lora: Any, run_merge: Callable[..., Any]) -> None:
    loras = [make_lora("a", seed=1), make_lora("b", seed=2)]
    with pytest.raises(AdzError, match="'ties' has no weights here"):
        run_merge(*loras, rule="ties", compat="paper", weights=[0.5, 0.5])
