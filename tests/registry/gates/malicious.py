"""Malicious payloads, one or more for each gate: what is done to a sound one, and the refusal."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from .spoil import (
    CONFIG,
    WEIGHTS,
    A,
    B,
    Q,
    Spoil,
    alpha_text,
    archive,
    both,
    config,
    config_text,
    entry,
    fifo,
    filled,
    floats,
    header,
    link,
    only_pickle,
    tensors,
)  # fmt: skip


@dataclass(frozen=True)
class Example:
    """gate: its number in the list of gates. refusal: what the one line holds."""

    gate: int
    spoil: Spoil
    refusal: tuple[str, ...]


PAIR = {A: entry([2, 8], 0, 64), B: entry([8, 2], 64, 128)}
TWICE = (
    f'{{"{A}": {json.dumps(PAIR[A])}, "{A}": {json.dumps(PAIR[A])}, "{B}": {json.dumps(PAIR[B])}}}'
).encode()
NOT_SAFE = f"{WEIGHTS} is not a valid safetensors file: "
REFUSED = f"{WEIGHTS} is refused: "
BAD_CONFIG = f"{CONFIG} "
OVERLAP = {A: entry([2, 8], 0, 64), B: entry([8, 2], 32, 96)}
HOLE = {A: entry([2, 8], 0, 64), B: entry([8, 2], 72, 136)}
BEYOND = {A: entry([2, 8], 0, 64), B: entry([8, 2], 64, 128)}

EXAMPLES: dict[str, Example] = {
    # 1: which files
    "pickle": Example(1, only_pickle, ("adapter_model.bin is a pickle", "--convert")),
    "archive": Example(1, archive, (f"there is no {WEIGHTS}",)),
    "linked weights": Example(1, link(WEIGHTS, "/etc/passwd"), (WEIGHTS, "symbolic link")),
    "linked card": Example(1, link("README.md", "/etc/passwd"), ("README.md", "symbolic link")),
    "configuration that never ends": Example(1, fifo, (CONFIG, "not a plain file")),
    # 2: the header and the values
    "header of 8 MiB": Example(
        2, header(b"{" + b" " * 2**23), (NOT_SAFE, "at most 8388608 are read")
    ),
    "header longer than the file": Example(
        2, header(PAIR, length=2**20), (NOT_SAFE, "it is truncated")
    ),
    "header length of 2**64 - 1": Example(
        2, header(PAIR, length=2**64 - 1), (NOT_SAFE, "at most 8388608 are read")
    ),
    "65,537 tensors": Example(
        2,
        header({f"t{i}": entry([0], 0, 0) for i in range(65_537)}),
        (NOT_SAFE, "it has 65537 tensors, at most 65536"),
    ),
    "a tensor twice": Example(2, header(TWICE, 128), (NOT_SAFE, "is there twice")),
    "a tensor called ../../x": Example(
        2, header({"../../x": entry([1], 0, 4)}, 4), (NOT_SAFE, "'../../x' has characters beside")
    ),
    "a tensor with a NUL": Example(
        2, header({"a\0b": entry([1], 0, 4)}, 4), (NOT_SAFE, "has characters beside")
    ),
    "a tensor in other letters": Example(
        2, header({"lora_\uff21": entry([1], 0, 4)}, 4), (NOT_SAFE, "has characters beside")
    ),
    "5 dimensions": Example(
        2, header({A: entry([1, 1, 1, 1, 1], 0, 4)}, 4), (NOT_SAFE, "5 dimensions, at most 4")
    ),
    "whole numbers": Example(
        2, tensors(A=np.ones((2, 8), np.int64)), (REFUSED, "is I64", "F32, F16 or BF16")
    ),
    "NaN": Example(2, tensors(B=filled((8, 2), np.nan)), (REFUSED, B, "holds NaN or Inf")),
    "Inf": Example(2, tensors(A=filled((2, 8), -np.inf)), (REFUSED, A, "holds NaN or Inf")),
    "overlapping tensors": Example(2, header(OVERLAP, 96), (NOT_SAFE, "begins at byte")),
    "a hole between tensors": Example(2, header(HOLE, 136), (NOT_SAFE, "begins at byte")),
    "beyond the end": Example(2, header(BEYOND, 100), (NOT_SAFE, "its tensors need")),
    "bytes behind the last": Example(2, header(PAIR, 200), (NOT_SAFE, "72 bytes behind")),
    "a shape that overflows": Example(
        2, header({A: entry([2**62, 4], 0, 0)}), (NOT_SAFE, "overflows")
    ),
    "metadata that is no text": Example(
        2, header({"__metadata__": {"a": 1}}), (NOT_SAFE, "metadata is not a mapping")
    ),
    # 3: ranks and alpha
    "rank 100,000": Example(3, config(r=100_000), (BAD_CONFIG, "not a rank from 1 to 512")),
    "rank 0": Example(3, config(r=0), (BAD_CONFIG, "not a rank from 1 to 512")),
    "rank of a pattern": Example(
        3, config(rank_pattern={"q_proj": 2**40}), (BAD_CONFIG, "rank_pattern.q_proj")
    ),
    "rank 513 in the weights": Example(
        3,
        both(config(peft_type="ADALORA"), tensors(A=floats(513, 8), B=floats(8, 513))),
        (REFUSED, "has rank 513, at most 512"),
    ),
    "ranks that disagree": Example(3, tensors(A=floats(4, 8)), (REFUSED, "ranks of", "differ")),
    "half a pair": Example(3, tensors(more={B: None}), (REFUSED, "has no B.weight beside it")),
    "another rank than it says": Example(
        3, tensors(A=floats(4, 8), B=floats(8, 4)), (REFUSED, "has rank 4", "says 2")
    ),
    "infinite alpha": Example(3, alpha_text("1e999"), (BAD_CONFIG, "not a finite number")),
    "alpha that is no number": Example(
        3, config(lora_alpha="4"), (BAD_CONFIG, "not a finite number")
    ),
    "alpha that overflows": Example(
        3, config(lora_alpha=1e38, use_rslora=True), (BAD_CONFIG, "lora_alpha is", "at most")
    ),
    "alpha of a pattern": Example(
        3, config(alpha_pattern={"q_proj": -(10**300)}), (BAD_CONFIG, "alpha_pattern.q_proj")
    ),
    # 4: that it fits its base
    "another base": Example(
        4,
        both(
            config(target_modules=["k_proj"]),
            tensors(more={A: None, B: None, A.replace("q_", "k_"): floats(2, 8),
                          B.replace("q_", "k_"): floats(8, 2)}),
        ),
        (REFUSED, "none of its 2 tensors match a module of", "--base"),
    ),
    "partly another base": Example(
        4,
        both(
            config(target_modules=["q_proj", "k_proj"]),
            tensors(more={A.replace("q_", "k_"): floats(2, 8),
                          B.replace("q_", "k_"): floats(8, 2)}),
        ),
        (REFUSED, "2 of its 4 tensors match a module of"),
    ),
    "other dimensions": Example(4, tensors(A=floats(2, 9)), (REFUSED, "(r, 8) expected")),
    "another prefix": Example(
        4,
        tensors(more={A: None, B: None, "model.q_proj.lora_A.weight": floats(2, 8),
                      "model.q_proj.lora_B.weight": floats(8, 2)}),
        (REFUSED, "is not below base_model.model."),
    ),
    "the adapter's name in the names": Example(
        4,
        tensors(more={A: None, B: None, f"{Q}.lora_A.default.weight": floats(2, 8),
                      f"{Q}.lora_B.default.weight": floats(8, 2)}),
        (REFUSED, "has the name of an adapter in it", "PEFT ignores it"),
    ),
    "weights that PEFT would drop": Example(
        4, config(target_modules=["v_proj"]), (REFUSED, "target_modules", "silently drop")
    ),
    "an update of zero": Example(
        4, tensors(B=np.zeros((8, 2), np.float32)), (REFUSED, "the adapter changes nothing")
    ),
    "indices outside of the weight": Example(
        4,
        both(
            config(peft_type="SHIRA"),
            tensors(more={A: None, B: None, f"{Q}.shira_weight": floats(1),
                          f"{Q}.shira_indices": np.array([[2**30], [0]], np.int32)}),
        ),
        (REFUSED, "points outside of its weight"),
    ),
    "negative indices": Example(
        4,
        both(
            config(peft_type="SUPERTUNING"),
            tensors(more={A: None, B: None, f"{Q}.supertuning_values": floats(1),
                          f"{Q}.supertuning_indices": np.array([-9], np.int32)}),
        ),
        (REFUSED, "points outside of its weight: -9"),
    ),
    "virtual tokens of another width": Example(
        4,
        both(
            config(peft_type="PROMPT_TUNING", num_virtual_tokens=4),
            tensors(more={A: None, B: None, "prompt_embeddings": floats(4, 9)}),
        ),
        (REFUSED, "has width 9, not 8"),
    ),
    # 5: the configuration
    "a module to import": Example(
        5,
        config(auto_mapping={"base_model_class": "X", "parent_library": "evil"}),
        (BAD_CONFIG, "auto_mapping may not be", "it can import code"),
    ),
    "remote code of transformers": Example(
        5,
        config(auto_mapping={"base_model_class": "X", "parent_library": "transformers_modules.x"}),
        (BAD_CONFIG, "auto_mapping may not be"),
    ),
    "a package for megatron": Example(
        5, config(megatron_config={}, megatron_core="evil"), (BAD_CONFIG, "megatron_c")
    ),
    "remote code of a tokenizer": Example(
        5,
        config(tokenizer_kwargs={"trust_remote_code": True}),
        (BAD_CONFIG, "tokenizer_kwargs may not be"),
    ),
    "remote code": Example(5, config(trust_remote_code=True), (BAD_CONFIG, "trust_remote_code")),
    "a pickle to start from": Example(
        5,
        config(prompt_tuning_init_state_dict_path="/tmp/x.bin"),
        (BAD_CONFIG, "prompt_tuning_init_state_dict_path may not be"),
    ),
    "a slow pattern": Example(
        5, config(target_modules="(a|a)*b"), (BAD_CONFIG, "could take forever to match")
    ),
    "a slow pattern for ranks": Example(
        5, config(rank_pattern={"(.*)*x": 2}), (BAD_CONFIG, "could take forever to match")
    ),
    "a pattern that nests": Example(
        5, config(target_modules="(" * 9999 + ")" * 9999), (BAD_CONFIG, "target_modules")
    ),
    "a key twice": Example(5, config_text('{"r": 2, "r": 900}'), (BAD_CONFIG, "is there twice")),
    "NaN in JSON": Example(5, config_text('{"lora_alpha": NaN}'), (BAD_CONFIG, "is not JSON")),
    "deep JSON": Example(5, config_text('{"a":' * 9999), (BAD_CONFIG, "nested too deeply")),
    # 8: sizes
    "a configuration of 1 MiB": Example(
        8, config(description="x" * 2**20), (BAD_CONFIG, "at most 1048576 are read")
    ),
    "a card of 1 MiB": Example(
        8,
        lambda d: (d / "README.md").write_bytes(b" " * (2**20 + 1)),
        ("README.md has 1048577 bytes, at most 1048576",),
    ),
}  # fmt: skip
