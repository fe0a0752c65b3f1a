"""What a rank costs in memory, and which rank is the default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import AdzError
from adapterhub.plugins import open_registry
from adapterhub_vllm.engine import choose_rank, largest_rank
from adapterhub_vllm.padding import padding_note, slot_bytes


def test_a_slot_holds_both_factors_of_every_matrix(tiny_base: Any, tiny_base_dir: Path) -> None:
    """Counted over the modules of transformers' own model."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_base_dir)
    matrices = [
        module.weight
        for module in model.modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding)
    ]
    expected = sum(8 * sum(weight.shape) * 4 for weight in matrices)
    assert slot_bytes(tiny_base, 8, "float32") == expected
    assert slot_bytes(tiny_base, 8, "auto") == expected
    assert slot_bytes(tiny_base, 16, "bfloat16") == expected


def test_the_note_says_what_more_would_cost(tiny_base: Any) -> None:
    size = slot_bytes(tiny_base, 512, "float32") / 1e6
    assert padding_note(tiny_base, 512, 300, 8, "float32") == (
        f"8 adapters fit in a batch, each padded to rank 512: {size:.0f} MB each, "
        f"{8 * size:.0f} MB in all (the largest here has rank 300)"
    )
    assert "has rank 16, a merge of two fits)" in padding_note(tiny_base, 32, 16, 8, "float32")
    note = padding_note(tiny_base, 256, 256, 8, "float32")
    assert note.endswith(f"; --max-rank 320 would take {8 * size * 320 / 512:.0f} MB")
    assert "largest here" not in note


def test_the_default_is_the_largest_rank_that_is_served(
    tiny_base: Any, commit_adapter: Any
) -> None:
    registry = open_registry()
    assert largest_rank(registry, tiny_base) == 0
    assert choose_rank(0, None, merges=True) == 16
    commit_adapter("dora", "dora")
    assert largest_rank(registry, tiny_base) == 0
    for largest, legal in ((1, 1), (9, 16), (32, 32), (257, 320)):
        assert choose_rank(largest, None, merges=False) == legal
    # Room for two of them together, up to what vLLM has.
    for largest, legal in ((1, 8), (8, 16), (16, 32), (24, 64), (256, 512), (320, 320)):
        assert choose_rank(largest, None, merges=True) == legal
    assert choose_rank(8, 20, merges=True) == 32
    for asked in (0, 513):
        with pytest.raises(AdzError, match="vLLM takes 1 to 512"):
            choose_rank(8, asked, merges=True)
