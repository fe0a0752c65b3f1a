"""Gates on the tensors themselves: a strict header, floats, finite values, whole pairs."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapterhub.errors import AdzError
from adapterhub.manifest import Manifest
from adapterhub_registry.gates import check_payload

Q = "base_model.model.model.layers.0.self_attn.q_proj"
WEIGHTS = "adapter_model.safetensors"


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


def test_a_header_is_read_strictly(payload: Path, refused: Callable[..., None]) -> None:
    entry = '"t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    raw = f"{{{entry}, {entry}}}".encode()
    (payload / WEIGHTS).write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * 4)
    refused("adapter_model.safetensors is not a valid safetensors file: its header: the key 't'")


def test_a_truncated_file_is_refused(payload: Path, refused: Callable[..., None]) -> None:
    whole = (payload / WEIGHTS).read_bytes()
    (payload / WEIGHTS).write_bytes(whole[:-1])
    refused("adapter_model.safetensors is not a valid safetensors file: it is truncated")


def test_an_empty_adapter_is_refused(payload: Path, refused: Callable[..., None]) -> None:
    save_file({}, payload / WEIGHTS)
    refused("it holds no tensor")


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_])
def test_only_floats_are_stored(
    payload: Path, refused: Callable[..., None], dtype: Any, edit_tensors: Callable[..., None]
) -> None:
    edit_tensors(payload, {f"{Q}.lora_A.weight": np.ones((2, 8), dtype)})
    refused(f"tensor {Q}.lora_A.weight is ")


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("place", [0, -1])
def test_nan_and_inf_are_refused(
    payload: Path,
    refused: Callable[..., None],
    value: float,
    dtype: Any,
    place: int,
    edit_tensors: Callable[..., None],
) -> None:
    bad = floats(2, 8).astype(dtype)
    bad.reshape(-1)[place] = value
    edit_tensors(payload, {f"{Q}.lora_A.weight": bad})
    refused(f"tensor {Q}.lora_A.weight holds NaN or Inf")


@pytest.mark.parametrize(("bits", "good"), [(0x7F80, False), (0xFFC0, False), (0x7F7F, True)])
def test_nan_and_inf_in_bf16(
    payload: Path, check: Callable[..., None], refused: Callable[..., None], bits: int, good: bool
) -> None:
    names = (f"{Q}.lora_A.weight", f"{Q}.lora_B.weight")
    header = {
        names[0]: {"dtype": "BF16", "shape": [2, 8], "data_offsets": [0, 32]},
        names[1]: {"dtype": "BF16", "shape": [8, 2], "data_offsets": [32, 64]},
    }
    raw = json.dumps(header).encode()
    data = struct.pack("<32H", *[0x3F80] * 31, bits)
    (payload / WEIGHTS).write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    if good:
        check()
    else:
        refused(f"tensor {names[1]} holds NaN or Inf")


def test_values_are_scanned_beyond_the_first_piece(
    payload: Path, make_manifest: Callable[..., Manifest], edit_tensors: Callable[..., None]
) -> None:
    wide = floats(2, 2**20 + 3)
    edit_tensors(payload, {f"{Q}.lora_A.weight": wide})
    check_payload(payload, make_manifest(), None)
    wide[1, -1] = np.nan
    edit_tensors(payload, {f"{Q}.lora_A.weight": wide})
    with pytest.raises(AdzError, match="holds NaN or Inf"):
        check_payload(payload, make_manifest(), None)


def test_the_largest_and_smallest_numbers_pass(
    payload: Path, check: Callable[..., None], edit_tensors: Callable[..., None]
) -> None:
    edge = np.full((2, 8), np.finfo(np.float32).max, np.float32)
    edge[0, :4] = [np.finfo(np.float32).smallest_subnormal, -0.0, 0.0, np.finfo(np.float32).min]
    edit_tensors(payload, {f"{Q}.lora_A.weight": edge})
    check()


def test_ranks_of_a_pair_agree(
    payload: Path, refused: Callable[..., None], edit_tensors: Callable[..., None]
) -> None:
    edit_tensors(payload, {f"{Q}.lora_A.weight": floats(4, 8)})
    refused(f"the ranks of {Q}.lora_A.weight (4, 8) and its partner (8, 2) differ")


def test_a_rank_is_the_one_of_the_configuration(
    payload: Path,
    check: Callable[..., None],
    refused: Callable[..., None],
    edit_config: Callable[..., None],
    edit_tensors: Callable[..., None],
) -> None:
    edit_tensors(payload, {f"{Q}.lora_A.weight": floats(4, 8), f"{Q}.lora_B.weight": floats(8, 4)})
    refused(f"{Q}.lora_A.weight has rank 4, adapter_config.json says 2")
    edit_config(payload, rank_pattern={"q_proj": 4})
    check()


def test_a_rank_is_bounded_whatever_the_configuration_says(
    payload: Path,
    refused: Callable[..., None],
    edit_config: Callable[..., None],
    edit_tensors: Callable[..., None],
) -> None:
    edit_config(payload, peft_type="ADALORA")
    edit_tensors(
        payload, {f"{Q}.lora_A.weight": floats(513, 8), f"{Q}.lora_B.weight": floats(8, 513)}
    )
    refused(f"{Q}.lora_A.weight has rank 513, at most 512")


@pytest.mark.parametrize("half", ["lora_A.weight", "lora_B.weight"])
def test_half_a_pair_is_refused(
    payload: Path, refused: Callable[..., None], half: str, edit_tensors: Callable[..., None]
) -> None:
    edit_tensors(payload, {f"{Q}.{half}": None})
    refused("beside it")
