"""A lived-in machine: hundreds of adapters of many kinds, some with one known fault each.

`expected` says for every directory which faults a survey must note, worked out from what was
seeded and not from what is looked for.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .adapter_folders import (
    TINY,
    WIDE,
    Machine,
    P,
    cached,
    config,
    lora,
    put_wide_base,
    snapshot,
    write,
)
from .faults import FAULTS


def build(root: Path, count: int, base: Path) -> Machine:
    """At least `count` adapters below `root`. base: the directory of the tiny base."""
    machine = Machine(root / "outputs", root / "cache" / "huggingface" / "hub")
    put_wide_base(machine, base)
    for fault in FAULTS:
        fault(machine)
    kinds: list[Callable[[Machine, int], None]] = [
        plain,
        plain,
        plain,
        wide,
        other_methods,
        trained,
    ]
    chooser = random.Random(0)
    number = 0
    while len(machine.expected) < count:
        chooser.choice(kinds)(machine, number)
        number += 1
    return machine


def plain(machine: Machine, number: int) -> None:
    """LoRA on the tiny base in several dtypes and ranks."""
    rank = (8, 16, 32)[number % 3]
    dtype = (np.float32, np.float16, np.float64)[number % 5 % 3]
    tensors = {n: t.astype(dtype) for n, t in lora(TINY, machine.next_seed(), rank).items()}
    folder = machine.root / f"team{number % 7}" / f"task-{number}"
    machine.add(write(folder, tensors, config(rank=rank, use_rslora=number % 4 == 0)))


def wide(machine: Machine, number: int) -> None:
    """Some MB each, on the base in the cache, half of them in the cache themselves."""
    tensors = lora(WIDE, machine.next_seed(), 16)
    settings = config("acme/wide-llama", 16)
    if number % 2:
        folder = machine.root / "wide" / f"run_{number}"
        machine.add(write(folder, tensors, settings), base="wide-llama")
    else:
        folder = snapshot(machine.cache, f"acme/wide-lora-{number}", "ab" * 20)
        machine.add(cached(write(folder, tensors, settings)), base="wide-llama")


def other_methods(machine: Machine, number: int) -> None:
    """What vLLM does not serve, but other engines do."""
    folder = machine.root / "methods" / f"method-{number}"
    seed = machine.next_seed()
    kind = number % 5
    if kind == 0:
        tensors = lora(TINY, seed)
        for module, (outputs, _) in TINY.modules().items():
            tensors[f"{P}{module}.lora_magnitude_vector"] = np.ones(outputs, np.float32) + seed
        machine.add(write(folder, tensors, config(use_dora=True)), notes=("vllm", "vllm"))
    elif kind == 1:
        values = np.random.default_rng(seed)
        tensors = {
            f"{P}{module}.ia3_l": values.random((outputs, 1), np.float32)
            for module, (outputs, _) in TINY.modules().items()
            if module.endswith(("k_proj", "v_proj"))
        }
        settings = config(peft_type="IA3", target_modules=["k_proj", "v_proj"])
        settings["feedforward_modules"] = []
        for key in ("r", "lora_alpha", "lora_dropout", "bias"):
            del settings[key]
        machine.add(write(folder, tensors, settings), notes=("vllm",))
    elif kind == 2:
        prompt = np.random.default_rng(seed).standard_normal((8, TINY.hidden), np.float32)
        settings = {
            "base_model_name_or_path": "org/tiny-llama", "num_virtual_tokens": 8,
            "peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "token_dim": TINY.hidden,
            "num_layers": 2, "num_attention_heads": 4, "prompt_tuning_init": "RANDOM",
        }  # fmt: skip
        machine.add(write(folder, {"prompt_embeddings": prompt}, settings))
    elif kind == 3:
        tensors = lora(TINY, seed)
        head = np.random.default_rng(seed).standard_normal((320, TINY.hidden), np.float32)
        tensors[f"{P}lm_head.weight"] = head
        settings = config(modules_to_save=["lm_head"])
        machine.add(write(folder, tensors, settings), notes=("vllm", "vllm"))
    else:
        tensors = lora(TINY, seed, 24)
        machine.add(write(folder, tensors, config(rank=24)), notes=("vllm",))


def trained(machine: Machine, number: int) -> None:
    """A Trainer's output: the result, and checkpoints with optimizer states."""
    folder = machine.root / f"trainer-{number}"
    seed = machine.next_seed()
    machine.add(write(folder, lora(TINY, seed), config()))
    for step in (100, 200):
        tensors = lora(TINY, seed if step == 200 else machine.next_seed())
        checkpoint = write(folder / f"checkpoint-{step}", tensors, config())
        (checkpoint / "optimizer.pt").write_bytes(b"\x80\x04" + bytes(64))
        (checkpoint / "trainer_state.json").write_text('{"best_model_checkpoint": null}')
        machine.add(checkpoint, "checkpoint")
