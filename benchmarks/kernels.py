#!/usr/bin/env python3
"""The LoRA layers of one decode step of SmolLM2-135M alone, and what this machine could give.

    python benchmarks/kernels.py             # half a minute; needs vLLM's environment (numba)

8 rows, rank 16, 120 layers, each after the plain product that it belongs to, so that the weights
come from memory as they do while serving. "PyTorch" is the same by its own products.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from machine import machine

from adapterhub_vllm import cpu_rows
from adapterhub_vllm.cpu_factors import Factors, pack

LAYERS, SLOTS, RANK, ROWS = 30, 8, 16, 8
SHAPES = ((576, (576, 192, 192)), (576, (576,)), (576, (1536, 1536)), (1536, (576,)))
MIXES = {1: [0] * 8, 2: [0, 1] * 4, 8: list(range(8))}
REPEATS = 21


def main() -> None:
    """Print the machine's figures, then the layers' by the number of adapters."""
    print(machine())
    print(f"products: {gemm():.0f} GFLOP/s")
    data = torch.ones(2**28)
    print(f"a sum reads {2**30 / median(data.sum) / 1e9:.1f} GB/s")
    layers = [make_layer(*shape) for _ in range(LAYERS) for shape in SHAPES]
    for adapters, slots in MIXES.items():
        ours = step(layers, slots, few_rows=cpu_rows.FEW_ROWS)
        plain = step(layers, slots, few_rows=0)
        size = adapters * LAYERS * sum(RANK * (len(w) * n + sum(w)) for n, w in SHAPES) * 4
        print(
            f"{adapters} adapters: {1e3 * ours:.2f} ms, {size / ours / 1e9:.1f} GB/s; "
            f"PyTorch {1e3 * plain:.2f} ms"
        )


def gemm() -> float:
    """GFLOP/s of a product as prompts have it."""
    x, weight = torch.randn(2048, 576), torch.randn(3072, 576)
    return 2 * 2048 * 576 * 3072 / median(lambda: x @ weight.T) / 1e9


def make_layer(inputs: int, widths: tuple[int, ...]) -> tuple[torch.Tensor, Factors]:
    """The layer's own weight, and LoRA weights in every slot as vLLM and `pack` lay them."""
    layer = SimpleNamespace(
        lora_a_stacked=tuple(torch.empty(SLOTS, 1, RANK, inputs) for _ in widths),
        lora_b_stacked=tuple(torch.empty(SLOTS, 1, width, RANK) for width in widths),
    )
    pack(layer)
    for part in (*layer.lora_a_stacked, *layer.lora_b_stacked):
        part.copy_(torch.randn(part.shape))
    return torch.randn(sum(widths), inputs), Factors(layer.lora_a_stacked, layer.lora_b_stacked)


def step(layers: list[tuple[torch.Tensor, Factors]], slots: list[int], *, few_rows: int) -> float:
    """Median seconds of the LoRA part of a step."""
    before, cpu_rows.FEW_ROWS = cpu_rows.FEW_ROWS, few_rows
    rows = cpu_rows.find_rows(torch.tensor(slots))
    cpu_rows.FEW_ROWS = before
    states = {width: torch.randn(ROWS, width) for width, _ in SHAPES}
    found = []
    for _ in range(REPEATS + 2):
        seconds = 0.0
        for weight, factors in layers:
            x = states[weight.shape[1]]
            y = torch.nn.functional.linear(x, weight)
            begun = time.perf_counter()
            factors.add(y, x, rows, 1.0)
            seconds += time.perf_counter() - begun
        found.append(seconds)
    return statistics.median(found[2:])


def median(call: Callable[[], Any]) -> float:
    """Seconds of a call, after two to warm up."""
    found = []
    for _ in range(9):
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return statistics.median(found[2:])


if __name__ == "__main__":
    main()
