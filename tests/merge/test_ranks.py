"""--rank energy=SHARE, --round-rank, and the highest rank that is served."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapterhub.errors import AdzError

from .conftest import read_deltas


def config_of(result: Any) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((result.directory / "adapter_config.json").read_text())
    return config


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize(("rule", "space"), [("linear", "core"), ("ties", "knots")])
def test_energy_is_the_least_rank_that_keeps_the_share_in_every_module(
    share: float, rule: str, space: str, make_lora: Any, run_merge: Callable[..., Any]
) -> None:
    loras = [make_lora("a", seed=1), make_lora("b", seed=2, rank=3)]
    options = {"rule": rule, "space": space}
    full = read_deltas(run_merge(*loras, **options, rank="sum").directory)
    needed = 0
    for delta in full.values():
        squares = np.linalg.svd(delta, compute_uv=False) ** 2
        reached = np.cumsum(squares) >= share * (1 - 1e-6) * squares.sum()
        needed = max(needed, int(np.argmax(reached)) + 1)
    result = run_merge(*loras, **options, rank=f"energy={share}")
    assert result.rank == config_of(result)["r"] == needed
    assert max(error for _, error in result.errors) ** 2 <= 1 - share + 2e-6


def test_energy_that_a_space_cannot_keep(make_lora: Any, run_merge: Callable[..., Any]) -> None:
    loras = [make_lora("a", seed=1), make_lora("b", seed=2)]
    with pytest.raises(AdzError, match=r"rank of space 'concat' is 8, not energy=0.9"):
        run_merge(*loras, rule="cat", rank="energy=0.9")


def test_a_rank_is_rounded_up_to_one_that_is_served(
    make_lora: Any, run_merge: Callable[..., Any]
) -> None:
    loras = [make_lora("a", seed=1), make_lora("b", seed=2, rank=5)]
    exact = run_merge(*loras, rank="sum")
    rounded = run_merge(*loras, rank="sum", round_rank=True)
    assert config_of(exact)["r"] == exact.rank == 9
    assert config_of(rounded)["r"] == config_of(rounded)["lora_alpha"] == rounded.rank == 16
    expected = read_deltas(exact.directory)
    for module, delta in read_deltas(rounded.directory).items():
        np.testing.assert_allclose(delta, expected[module], atol=1e-12)


@pytest.mark.parametrize("options", [{"rule": "cat"}, {"rule": "linear", "rank": 513}])
def test_a_rank_that_is_not_served_is_refused_before_the_merge(
    options: dict[str, Any], make_lora: Any, run_merge: Callable[..., Any], tmp_path: Path
) -> None:
    shapes = {"up_proj": (600, 600)}
    loras = [make_lora(name, seed=s, rank=300, shapes=shapes) for s, name in enumerate("ab")]
    with pytest.raises(AdzError, match=r"rank (600|513) is above 512, the highest"):
        run_merge(*loras, **options)
    assert not list(tmp_path.glob("*merged*"))
