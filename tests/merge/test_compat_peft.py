"""`--compat peft` element by element against PEFT's `add_weighted_adapter`, every type of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from adapterhub.errors import AdzError
from adapterhub.plugins import open_registry
from adapterhub_merge.coordinates import FactorCoordinates

from .peft_models import NAMES, add_weighted, factors_of, load_all, lora_modules, random_lora

SEED = 5
# PEFT's combination type to our rule and space.
TYPES = {
    "svd": ("linear", "svd"),
    "linear": ("linear", "factors"),
    "cat": ("cat", "concat"),
    "ties": ("ties", "factors"),
    "ties_svd": ("ties", "svd"),
    "dare_linear": ("dare", "factors"),
    "dare_linear_svd": ("dare", "svd"),
    "dare_ties": ("dare_ties", "factors"),
    "dare_ties_svd": ("dare_ties", "svd"),
    "magnitude_prune": ("magnitude_prune", "factors"),
    "magnitude_prune_svd": ("magnitude_prune", "svd"),
}
FACTOR_WISE = [name for name, (_, space) in TYPES.items() if space == "factors"]
RANDOM = [name for name in TYPES if name.startswith("dare")]


@pytest.fixture(scope="module")
def equal(tiny_base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Equal ranks, other alphas, and partly overlapping targets."""
    tmp_path = tmp_path_factory.mktemp("equal")
    return [
        random_lora(tiny_base_dir, tmp_path / "a", 1, r=4, lora_alpha=8,
                    target_modules=["q_proj", "v_proj", "up_proj"]),
        random_lora(tiny_base_dir, tmp_path / "b", 2, r=4, lora_alpha=3,
                    target_modules=["q_proj", "up_proj"]),
        random_lora(tiny_base_dir, tmp_path / "c", 3, r=4, lora_alpha=5,
                    target_modules=["q_proj", "v_proj"]),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def unequal(tiny_base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    tmp_path = tmp_path_factory.mktemp("unequal")
    targets = ["q_proj", "v_proj"]
    return [
        random_lora(tiny_base_dir, tmp_path / str(r), r, r=r, lora_alpha=8, target_modules=targets)
        for r in (2, 6, 4)
    ]


@pytest.fixture
def same_masks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """torch.bernoulli, which PEFT draws from, answers with our numbers, in PEFT's order."""

    def bind(model: Any, space: str) -> None:
        def numbers() -> Iterator[torch.Tensor]:
            for name, module in lora_modules(model).items():
                present = [n for n in NAMES if n in module.lora_A]
                a = [module.lora_A[n].weight for n in present]
                b = [module.lora_B[n].weight for n in present]
                if space == "svd":
                    parts = [("", torch.zeros(len(b[0]), a[0].shape[1]))]
                else:
                    parts = [(".lora_A", a[0]), (".lora_B", b[0])]
                for suffix, like in parts:
                    shape = like.shape
                    coordinates = FactorCoordinates(
                        [torch.zeros(shape[0], 1)] * len(present),
                        [torch.zeros(1, shape[1])] * len(present), SEED, name + suffix,
                    )  # fmt: skip
                    for adapter in range(len(present)):
                        yield coordinates.uniform(adapter, slice(0, shape[0]))

        drawn = numbers()
        monkeypatch.setattr(
            torch, "bernoulli", lambda chances: (next(drawn) < chances).to(chances.dtype)
        )

    return bind


def our_factors(directory: Path, module: str) -> tuple[torch.Tensor, torch.Tensor]:
    tensors = load_file(directory / "adapter_model.safetensors")
    return tuple(tensors[f"base_model.model.{module}.lora_{f}.weight"] for f in "AB")  # type: ignore[return-value]


def compare(model: Any, directory: Path, *, factors: bool) -> None:
    modules = lora_modules(model)
    assert modules
    for name, module in modules.items():
        a, b = our_factors(directory, name)
        theirs = factors_of(module, "merged")
        assert theirs[0].abs().sum() > 0
        if factors:
            torch.testing.assert_close(a, theirs[0], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(b, theirs[1], rtol=1e-5, atol=1e-6)
        delta = theirs[1] @ theirs[0]
        # A full SVD in float32, cut off, has this much rounding.
        rounding = 1e-5 * delta.abs().max().item()
        torch.testing.assert_close(b @ a, delta, rtol=1e-4, atol=rounding)


@pytest.mark.parametrize("weights", [[0.7, 0.3, 0.5], [1.0, -0.4, 0.2]], ids=str)
@pytest.mark.parametrize("kind", TYPES)
def test_every_element_is_pefts(
    kind: str,
    weights: list[float],
    equal: list[Path],
    tiny_base_dir: Path,
    run_merge: Callable[..., Any],
    same_masks: Any,
) -> None:
    rule, space = TYPES[kind]
    density = {} if rule in ("linear", "cat") else {"density": 0.4}
    result = run_merge(
        *equal, rule=rule, space=space, compat="peft", weights=weights, seed=SEED, **density
    )
    model = load_all(tiny_base_dir, equal)
    same_masks(model, space)
    add_weighted(model, kind, weights, **density)
    assert result.rank == model.peft_config["merged"].r
    compare(model, result.directory, factors=space == "factors")


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("kind", [k for k in TYPES if TYPES[k][1] == "svd"])
def test_any_ranks_in_the_space_svd(
    kind: str,
    rank: int | None,
    unequal: list[Path],
    tiny_base_dir: Path,
    run_merge: Callable[..., Any],
    same_masks: Any,
) -> None:
    rule, space = TYPES[kind]
    weights = [0.7, 0.3, -0.5]
    density = {} if rule == "linear" else {"density": 0.3}
    result = run_merge(
        *unequal, rule=rule, space=space, compat="peft", weights=weights, seed=SEED, rank=rank,
        **density,
    )  # fmt: skip
    model = load_all(tiny_base_dir, unequal)
    same_masks(model, space)
    add_weighted(model, kind, weights, svd_rank=rank, **density)
    assert result.rank == model.peft_config["merged"].r == (rank or 6)
    compare(model, result.directory, factors=False)


@pytest.mark.parametrize("kind", ["ties", "dare_ties"])
def test_the_sign_by_number(
    kind: str,
    equal: list[Path],
    tiny_base_dir: Path,
    run_merge: Callable[..., Any],
    same_masks: Any,
) -> None:
    rule, space = TYPES[kind]
    given = {"majority_sign_method": "frequency"}
    common = {"rule": rule, "compat": "peft", "weights": [0.7, 0.3, 0.5], "density": 0.8}
    result = run_merge(*equal, **common, seed=SEED, options=given)
    other = run_merge(*equal, **common, seed=SEED)
    model = load_all(tiny_base_dir, equal)
    same_masks(model, space)
    add_weighted(model, kind, common["weights"], density=0.8, **given)
    compare(model, result.directory, factors=True)
    module = next(iter(lora_modules(model)))
    assert not torch.allclose(
        our_factors(result.directory, module)[0], our_factors(other.directory, module)[0]
    )


@pytest.mark.parametrize("kind", ["ties", "magnitude_prune"])
def test_equal_magnitudes_of_bf16_are_told_apart_as_peft_does(
    kind: str, tiny_base_dir: Path, tmp_path: Path, run_merge: Callable[..., Any]
) -> None:
    loras = [
        random_lora(
            tiny_base_dir, tmp_path / f"half-{seed}", seed, torch.bfloat16, r=8,
            target_modules="all-linear",
        )
        for seed in (1, 2)
    ]  # fmt: skip
    result = run_merge(*loras, rule=kind, compat="peft", weights=[0.7, 0.6], density=0.5)
    model = load_all(tiny_base_dir, loras)
    add_weighted(model, kind, [0.7, 0.6], density=0.5)
    compare(model, result.directory, factors=True)


@pytest.mark.parametrize("kind", FACTOR_WISE)
def test_ranks_must_be_equal_for_the_factors(
    kind: str, unequal: list[Path], run_merge: Callable[..., Any]
) -> None:
    with pytest.raises(AdzError, match=r"'factors' needs equal ranks, .*q_proj are 2, 6, 4") as e:
        run_merge(*unequal, rule=TYPES[kind][0], compat="peft")
    assert e.value.exit_code == 2


def test_the_factors_keep_their_rank(equal: list[Path], run_merge: Callable[..., Any]) -> None:
    with pytest.raises(AdzError, match=r"'factors' keeps the adapters' rank 4, not 2"):
        run_merge(*equal, rule="linear", compat="peft", rank=2)


def test_a_rule_without_a_variant(equal: list[Path], run_merge: Callable[..., Any]) -> None:
    with pytest.raises(AdzError, match=r"'ties' has no --compat foo") as error:
        run_merge(*equal, rule="ties", compat="foo")
    assert "peft, mergekit, paper" in error.value.hint
    with pytest.raises(AdzError, match=r"'cat' has no --compat mergekit"):
        run_merge(*equal, rule="cat", compat="mergekit")


def test_a_space_of_peers_only(equal: list[Path], run_merge: Callable[..., Any]) -> None:
    with pytest.raises(
        AdzError, match=r"not run in the space 'factors' .*with --compat peft there"
    ):
        run_merge(*equal, rule="ties", space="factors")
    with pytest.raises(AdzError, match=r"not run in the space 'core' \(it runs in factors, svd\)"):
        run_merge(*equal, rule="ties", space="core", compat="peft")


@pytest.mark.parametrize("peer", ["peft", "mergekit", "paper"])
def test_the_manifest_says_which_peer_and_the_same_comes_out_again(
    peer: str, commit_adapter: Any, adz: Any
) -> None:
    for number, name in enumerate("ab"):
        commit_adapter(name, seed=number)
    done = adz("merge", "--ties", "--compat", peer, "a", "b", "--json")
    assert done.code == 0, done.err
    version = open_registry().resolve("a-b-ties")
    assert version.manifest.recipe["compat"] == peer
    assert "adapterhub" in version.manifest.environment
    again = adz("rebuild", "a-b-ties", "--json")
    assert again.code == 0, again.err
