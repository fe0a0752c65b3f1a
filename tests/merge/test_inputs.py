"""The space `inputs` and the rule `regmean` against dense float64 algebra on small shapes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from adapterhub.errors import AdzError
from adapterhub.moments import INPUT_MOMENTS, MeasuredMoments
from adapterhub.protocols import Factors, InputMoments, MergedModule
from adapterhub_merge.inputs import inputs
from adapterhub_merge.linear import linear

from .conftest import read_deltas

M, N = 14, 18


def adapter(seed: int, rank: int = 3, scale: float = 1.5, k: int = 5) -> Factors:
    """Random factors and moments, with an input that is far larger than the others."""
    g = torch.Generator().manual_seed(seed)
    sketch = torch.randn(k, N, generator=g)
    sketch[:, seed % N] *= 10
    return Factors(
        a=torch.randn(rank, N, generator=g),
        b=torch.randn(M, rank, generator=g),
        scale=scale,
        moments=InputMoments(sketch, torch.rand(N, generator=g) + 0.05),
    )


def run(
    operands: Sequence[Factors], weights: Sequence[float], rank: int = N,
    shrinkage: float = 0.9, ridge: float = 1e-6,
) -> MergedModule:  # fmt: skip
    options = {"shrinkage": shrinkage, "ridge": ridge}
    return inputs(operands, torch.tensor(weights), linear, options, rank=rank, seed=0, module="m")


def update(factors: Factors) -> Any:
    return factors.scale * factors.b.double() @ factors.a.double()


def moment(factors: Factors, shrinkage: float) -> Any:
    assert factors.moments is not None
    sketch = factors.moments.sketch.double()
    full = sketch.T @ sketch + torch.diag(factors.moments.diagonal.double())
    return shrinkage * full + (1 - shrinkage) * torch.diag(full.diagonal())


def reference(
    operands: Sequence[Factors], weights: Sequence[float], shrinkage: float, ridge: float
) -> tuple[Any, Any]:
    """W and H with n x n matrices and an inverse."""
    pairs = list(zip(operands, weights, strict=True))
    mean = sum(w * moment(o, shrinkage).diagonal().mean() for o, w in pairs) / sum(weights)
    more = ridge * mean * torch.eye(N, dtype=torch.float64)
    total = sum(w * (moment(o, shrinkage) + more) for o, w in pairs) / sum(weights)
    numerator = sum(w * update(o) @ (moment(o, shrinkage) + more) for o, w in pairs) / sum(weights)
    return numerator @ torch.linalg.inv(total), total


def product(merged: MergedModule) -> Any:
    return merged.b.double() @ merged.a.double()


@pytest.mark.parametrize("shrinkage", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("ridge", [1e-6, 0.3])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.2, 3.0, 0.7), (1.0, 0.0, 1.0)])
def test_it_equals_the_dense_formula(
    shrinkage: float, weights: tuple[float, ...], ridge: float
) -> None:
    operands = [adapter(1), adapter(2, rank=1, scale=0.3), adapter(3, rank=5, k=1)]
    merged = run(operands, weights, shrinkage=shrinkage, ridge=ridge)
    expected, total = reference(operands, weights, shrinkage, ridge)
    torch.testing.assert_close(product(merged), expected, rtol=1e-4, atol=1e-4)
    assert merged.error == pytest.approx(0, abs=1e-5 * merged.norm)
    assert merged.norm == pytest.approx((expected @ total @ expected.T).trace().sqrt().item())


def test_no_other_update_has_less_error_in_the_outputs() -> None:
    operands, weights = [adapter(1), adapter(2)], (1.0, 2.0)
    best = product(run(operands, weights, shrinkage=1.0, ridge=0.0))

    def error(w: Any) -> float:
        lost = [w - update(o) for o in operands]
        parts = zip(lost, operands, weights, strict=True)
        return sum((v * (d @ moment(o, 1.0) @ d.T).trace()).item() for d, o, v in parts)

    torch.manual_seed(0)
    for _ in range(50):
        assert error(best + 1e-2 * torch.randn(M, N, dtype=torch.float64)) > error(best)
    assert error(best) < error((update(operands[0]) + 2 * update(operands[1])) / 3)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_a_smaller_rank_keeps_most_of_the_outputs(rank: int) -> None:
    operands, weights = [adapter(1), adapter(2)], (1.0, 1.0)
    merged = run(operands, weights, rank=rank)
    assert merged.a.shape == (rank, N)
    exact, total = reference(operands, weights, 0.9, 1e-6)
    # Eckart-Young in the coordinates where the inputs are white.
    values, vectors = torch.linalg.eigh(total)
    root = vectors * values.sqrt() @ vectors.T
    u, s, vh = torch.linalg.svd(exact @ root)
    best = (u[:, :rank] * s[:rank]) @ vh[:rank] @ torch.linalg.inv(root)
    torch.testing.assert_close(product(merged), best, rtol=1e-4, atol=1e-4)
    assert merged.error == pytest.approx(s[rank:].norm().item(), rel=1e-5)
    difference = product(merged) - exact
    measured = (difference @ total @ difference.T).trace().sqrt().item()
    assert merged.error == pytest.approx(measured, rel=1e-4)


def test_one_adapter_stays_itself() -> None:
    one = adapter(4)
    torch.testing.assert_close(
        product(run([one], [0.3], shrinkage=1.0)), update(one), rtol=1e-4, atol=1e-4
    )


def test_a_large_ridge_averages() -> None:
    operands = [adapter(1), adapter(2)]
    merged = product(run(operands, (1.0, 3.0), ridge=1e6))
    mean = (update(operands[0]) + 3 * update(operands[1])) / 4
    torch.testing.assert_close(merged, mean, rtol=1e-3, atol=1e-3)


def test_twice_the_same_adapter_is_that_adapter() -> None:
    one = adapter(4)
    torch.testing.assert_close(
        product(run([one, one], [1.0, 5.0])), update(one), rtol=1e-4, atol=1e-4
    )


def test_adapters_of_separate_inputs_are_each_kept_whole() -> None:
    """The point of it: neither is halved, and neither disturbs the other."""
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(N, N)).Q
    operands = [
        Factors(
            a=one.a, b=one.b, scale=one.scale,
            moments=InputMoments(torch.randn(9, 9) @ part, torch.zeros(N)),
        )
        for one, part in ((adapter(1), basis[:9]), (adapter(2), basis[9:]))
    ]  # fmt: skip
    merged = product(run(operands, [1.0, 1.0], shrinkage=1.0, ridge=1e-9))
    for operand, part in zip(operands, (basis[:9], basis[9:]), strict=True):
        x = torch.randn(20, 9, dtype=torch.float64) @ part.double()
        torch.testing.assert_close(x @ merged.T, x @ update(operand).T, rtol=1e-3, atol=1e-3)


def test_the_order_and_the_size_of_the_weights_do_not_matter() -> None:
    operands, weights = [adapter(1), adapter(2), adapter(3)], (1.0, 0.5, 2.0)
    expected = product(run(operands, weights))
    for order in itertools.permutations(range(3)):
        permuted = run([operands[i] for i in order], [7 * weights[i] for i in order])
        torch.testing.assert_close(product(permuted), expected, rtol=1e-4, atol=1e-4)


def test_inputs_that_are_always_zero_make_no_nan() -> None:
    one = adapter(1)
    dead = InputMoments(torch.zeros(2, N), torch.zeros(N))
    merged = run([Factors(one.a, one.b, one.scale, dead), adapter(2)], (1.0, 1.0))
    torch.testing.assert_close(product(merged), update(adapter(2)), rtol=1e-4, atol=1e-4)
    nothing = run([Factors(one.a, one.b, one.scale, dead)], (1.0,), ridge=0.0)
    torch.testing.assert_close(product(nothing), update(one), rtol=1e-4, atol=1e-4)
    assert not product(run([one, adapter(2)], (0.0, 0.0))).any()


def test_an_adapter_without_the_module_has_no_say() -> None:
    absent = Factors(torch.zeros(0, N), torch.zeros(M, 0), 1.0)
    torch.testing.assert_close(
        product(run([adapter(1), absent], (1.0, 1.0))), update(adapter(1)), rtol=1e-4, atol=1e-4
    )


def keep_moments(lora: Any, folder: Path, seed: int) -> dict[str, Any]:
    """Write random moments for every module of a directory; returns them."""
    g = torch.Generator().manual_seed(seed)
    moments = {
        module: InputMoments(
            torch.randn(4, delta.shape[1], generator=g).bfloat16().float(),
            torch.rand(delta.shape[1], generator=g),
        )
        for module, delta in lora.deltas.items()
    }
    folder.mkdir(exist_ok=True)
    measured = MeasuredMoments(moments, {module: module for module in moments})
    measured.save(folder / INPUT_MOMENTS)
    return moments


def test_a_merge_of_directories_reads_the_moments_beside_them(
    make_lora: Any, run_merge: Callable[..., Any]
) -> None:
    one, other = make_lora("a", seed=1), make_lora("b", seed=2, rank=2)
    moments = [
        keep_moments(one, one.path, 1),
        keep_moments(other, other.path / "artifacts", 2),
    ]
    result = run_merge(one, other, rule="regmean", options={"shrinkage": 1.0})
    assert result.space == "inputs"
    found = read_deltas(result.directory)
    for module in one.deltas:
        grams = [
            m[module].sketch.double().T @ m[module].sketch.double()
            + torch.diag(m[module].diagonal.double())
            for m in moments
        ]
        total = sum(grams)
        pairs = zip((one, other), grams, strict=True)
        numerator = sum(torch.from_numpy(lora.deltas[module]) @ gram for lora, gram in pairs)
        expected = numerator @ torch.linalg.inv(total)
        torch.testing.assert_close(torch.from_numpy(found[module]), expected, rtol=1e-3, atol=1e-3)


def test_an_adapter_without_moments_is_named_with_the_cure(
    make_lora: Any, run_merge: Callable[..., Any], tmp_path: Path
) -> None:
    one, other = make_lora("a", seed=1), make_lora("b", seed=2)
    keep_moments(one, one.path, 1)
    with pytest.raises(AdzError, match="b has no input moments") as caught:
        run_merge(one, other, rule="regmean")
    assert caught.value.hint == "train it with --input-moments 32"
    assert not list(tmp_path.glob("merged-*"))
    with pytest.raises(AdzError, match="has no negative weights"):
        run_merge(one, other, rule="regmean", weights=(1, -1))
    inputs_of = keep_moments(other, other.path, 2)
    path = other.path / INPUT_MOMENTS
    kept = dict(list(inputs_of.items())[1:])
    MeasuredMoments(kept, {module: module for module in kept}).save(path)
    missing = json.dumps(next(iter(inputs_of)))[1:-1]
    with pytest.raises(AdzError, match=f"b has no input moments of {missing}"):
        run_merge(one, other, rule="regmean")


def test_without_a_rule_the_moments_choose_it(
    make_lora: Any, run_merge: Callable[..., Any]
) -> None:
    one, other = make_lora("a", seed=1), make_lora("b", seed=2)
    keep_moments(one, one.path, 1)
    assert run_merge(one, other, rule=None).rule == "linear"
    keep_moments(other, other.path, 2)
    assert run_merge(one, other, rule=None).rule == "regmean"
    # What is said of the sum of the updates means the sum.
    for said in ({"weights": (0.5, 0.5)}, {"space": "core"}):
        assert run_merge(one, other, rule=None, **said).rule == "linear"
    # A file that is there and broken is no reason to merge in another way.
    path = other.path / INPUT_MOMENTS
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(AdzError, match=r"b: .*cannot be read"):
        run_merge(one, other, rule=None)
