"""What cannot be merged is one clear line that names the adapter and the module."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from adapterhub.config import validate
from adapterhub.errors import EXIT_FAILED, EXIT_USAGE, AdzError
from adapterhub.merge.recipe import MergeRecipe

from .conftest import SHAPES, UP, K, Q


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"rule": "tie"}, r"unknown merge rule 'tie' \(did you mean ties "),
        ({"space": "cores"}, r"unknown merge space 'cores' \(did you mean core "),
        ({"rule": "ties", "space": "concat"}, r"'ties' does not run in the space 'concat'.*dense"),
        ({"weights": [1.0]}, r"1 weight for 2 adapters"),
        ({"weights": [1.0, 2.0, 3.0]}, r"3 weights for 2 adapters"),
        ({"rule": "ties", "weights": [1.0, -1.0]}, r"the weight -1 of .*b: 'ties' has no negative"),
        ({"density": 0.5}, r"the rule 'linear' has no density"),
        ({"options": {"x": 1}}, r"the rule 'linear' has no options of its own"),
        ({"rank": 13}, r"rank 13 is above the possible 8 \(of .*k_proj in .*a, .*b\)"),
        ({"rule": "ties", "space": "dense", "rank": 25}, r"rank 25 is above the possible 24 \(of"),
        ({"rule": "cat", "rank": 5}, r"'cat' has rank 8, the sum, not 5 \(--linear compresses"),
        ({"rule": "cat", "rank": "max"}, r"'cat' has rank 8"),
        ({"name": "x"}, r"both --name and --out"),
    ],
)
def test_usage_errors(
    options: dict[str, Any], reason: str, make_lora: Any, run_merge: Callable[..., Any]
) -> None:
    with pytest.raises(AdzError, match=reason) as caught:
        run_merge(make_lora("a", seed=1), make_lora("b", seed=2), **options)
    assert caught.value.exit_code == EXIT_USAGE
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"density": 0}, r"density: input should be greater than 0, got 0"),
        ({"density": 1.5}, r"density: input should be less than or equal to 1, got 1\.5"),
        ({"rank": 0}, r"rank: the rank is max, sum, energy=SHARE or a whole number above 0, got 0"),
        ({"rank": "big"}, r"rank: the rank is max, sum, energy=SHARE or a whole number"),
        ({"rank": True}, r"rank: the rank is max, sum, energy=SHARE or a whole number"),
        ({"weights": "a,b"}, r"weights: weights are numbers with commas between"),
        ({"weights": [1, float("nan")]}, r"weights: weights must be finite"),
        ({"seed": -1}, r"seed: "),
        ({"workers": 0}, r"workers: "),
        ({"densty": 0.5}, r"unknown option densty \(did you mean density\?\)"),
    ],
)
def test_wrong_options(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(AdzError, match=reason) as caught:
        validate(MergeRecipe, options)
    assert caught.value.exit_code == EXIT_USAGE


def test_weights_and_ranks_as_a_flag_gives_them() -> None:
    read = validate(MergeRecipe, {"weights": "0.7,-0.3", "rank": "16"})
    assert read.weights == (0.7, -0.3)
    assert read.rank == 16


def test_one_adapter_is_not_a_merge(make_lora: Any, run_merge: Callable[..., Any]) -> None:
    with pytest.raises(AdzError, match=r"1 adapter given \(name at least two\)"):
        run_merge(make_lora("a"))


def test_shape_mismatch(make_lora: Any, run_merge: Callable[..., Any]) -> None:
    loras = [make_lora("a"), make_lora("b", shapes={**SHAPES, K: (10, 24)})]
    with pytest.raises(AdzError, match=rf"{K} is 10 x 24 in .*/b and 12 x 24 in .*/a") as caught:
        run_merge(*loras)
    assert caught.value.exit_code == EXIT_FAILED


def test_no_common_module(make_lora: Any, run_merge: Callable[..., Any]) -> None:
    loras = [make_lora("a", shapes={Q: (24, 24)}), make_lora("b", shapes={UP: (40, 24)})]
    with pytest.raises(AdzError, match=rf"/a shares no module with the others .*{Q}"):
        run_merge(*loras)


def test_different_layouts(make_lora: Any, run_merge: Callable[..., Any]) -> None:
    with pytest.raises(AdzError, match=r"/a and .*/b differ in fan_in_fan_out"):
        run_merge(make_lora("a"), make_lora("b", fan_in_fan_out=True))


def test_one_rank_in_all_modules(make_lora: Any, run_merge: Callable[..., Any]) -> None:
    """The largest that a module needs; the others are filled up with zeros."""
    a = make_lora("a", rank=9, ranks={Q: 2}, rank_pattern={"q_proj": 2}, lora_alpha=18)
    b = make_lora("b", rank=6, seed=1)
    assert run_merge(a, b).rank == 15
    assert run_merge(a, b, rank="max").rank == 9
    # A rank above one module's smaller side is no use there, but may be elsewhere.
    result = run_merge(a, b, rule="ties", space="dense", rank=20)
    assert result.rank == 20
    assert result.possible == 24


def test_pairwise_rules_take_two(
    make_lora: Any, run_merge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from adapterhub import plugins, specs

    loaded = plugins.load_plugins()
    pairwise = replace(loaded.get(specs.MergeRule, "linear"), kind="pairwise")
    original = loaded.get
    monkeypatch.setattr(
        loaded, "get", lambda kind, name: pairwise if name == "linear" else original(kind, name)
    )
    loras = [make_lora(name, seed=i) for i, name in enumerate("abc")]
    with pytest.raises(AdzError, match=r"'linear' takes two adapters, 3 are given"):
        run_merge(*loras)
    assert run_merge(*loras[:2]).relative_error < 1e-6


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ({"target_modules": r".*\.(q_proj|k_proj|up_proj)"}, sorted(SHAPES)),
        ({"layers_to_transform": [0]}, sorted(SHAPES)),
        ({"exclude_modules": ["lm_head"]}, sorted(SHAPES)),
        ({}, ["k_proj", "q_proj", "up_proj"]),
    ],
)
def test_targets_of_the_result(
    targets: dict[str, Any], expected: list[str], make_lora: Any, run_merge: Callable[..., Any]
) -> None:
    import json

    result = run_merge(make_lora("a", **targets), make_lora("b"))
    config = json.loads((result.directory / "adapter_config.json").read_text())
    assert config["target_modules"] == expected


def test_a_warning_only_where_an_option_cures(
    make_lora: Any, run_merge: Callable[..., Any]
) -> None:
    loras = [make_lora("a", seed=1), make_lora("b", seed=2)]
    compressed = run_merge(*loras, rank=2)
    assert compressed.relative_error > 0.1
    (warning,) = compressed.warnings
    named = int(re.search(r"--rank (\d+) loses", warning)[1])  # type: ignore[index]
    assert run_merge(*loras, rank=named).relative_error < 0.1
    assert run_merge(*loras).warnings == ()
    assert run_merge(*loras, rule="ties", space="dense", rank=24).warnings == ()


def test_another_space_where_no_rank_cures(make_lora: Any, run_merge: Callable[..., Any]) -> None:
    shapes = {"model.layers.0.mlp.up_proj": (900, 880)}
    loras = [make_lora(n, seed=s, shapes=shapes, rank=16) for s, n in enumerate("ab")]
    merged = run_merge(*loras, rule="ties", space="dense", density=0.02)
    assert merged.relative_error > 0.1
    (warning,) = merged.warnings
    named = re.search(r"--space (\w+) loses", warning)[1]  # type: ignore[index]
    assert run_merge(*loras, rule="ties", space=named, density=0.02).relative_error < 0.1


def test_a_line_where_the_norms_differ_much(make_lora: Any, run_merge: Callable[..., Any]) -> None:
    loras = [make_lora("small", seed=1, scale=0.1), make_lora("large", seed=2, scale=3.0)]
    (warning,) = run_merge(*loras).warnings
    weights = [float(w) for w in re.search(r"--weights (\S+) ", warning)[1].split(",")]  # type: ignore[index]
    norms = [
        sum(float((delta**2).sum()) for delta in lora.deltas.values()) ** 0.5 for lora in loras
    ]
    assert sum(weights) == pytest.approx(1, abs=2e-3)
    assert weights[0] * norms[0] == pytest.approx(weights[1] * norms[1], rel=0.02)
    assert run_merge(*loras, weights="0.5,0.5").warnings == ()
