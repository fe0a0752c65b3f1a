"""The peers: PEFT's add_weighted_adapter, and a randomised SVD of the dense update.

    python peers.py '{"side": "peft svd", ...}'

Each runs in a process of its own with one thread; building PEFT's base is not counted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from speed.adapters import LLAMA
from speed.process import memory_mb


def smollm_base() -> Any:
    """A model of SmolLM2-135M's shapes with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
            num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
        )
    )  # fmt: skip


def k_proj_base() -> Any:
    """One k_proj of Llama-3.1-8B, under the name that it has there."""
    import torch

    m, n = LLAMA["self_attn.k_proj"]
    attention = torch.nn.ModuleDict({"k_proj": torch.nn.Linear(n, m, bias=False)})
    layer = torch.nn.ModuleDict({"self_attn": attention})
    inner = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([layer])})
    return torch.nn.ModuleDict({"model": inner})


def peft_merge(given: dict[str, Any]) -> dict[str, float]:
    """add_weighted_adapter from opening the adapters to the written result."""
    from peft import PeftModel

    base = {"smollm": smollm_base, "k_proj": k_proj_base}[given["base"]]()
    out = Path(given["out"])
    baseline, cpu = memory_mb("VmRSS"), time.process_time()
    first, *others = given["adapters"]
    names = [f"adapter{index}" for index in range(len(given["adapters"]))]
    model = PeftModel.from_pretrained(base, first, adapter_name=names[0])
    for name, directory in zip(names[1:], others, strict=True):
        model.load_adapter(directory, adapter_name=name)
    options = {"svd_rank": given["rank"]} if given["type"] == "svd" else {}
    model.add_weighted_adapter(
        names, given["weights"], out.name, combination_type=given["type"], **options
    )
    model.save_pretrained(out.parent, selected_adapters=[out.name])
    return {
        "cpu_seconds": time.process_time() - cpu,
        "baseline_mb": baseline,
        "peak_mb": memory_mb("VmHWM"),
    }


def svd_lowrank(given: dict[str, Any]) -> dict[str, float]:
    """torch.svd_lowrank (q = 2 rank, two iterations) of one dense sum of each shape: seconds."""
    import torch

    seconds = {}
    for m, n in sorted(set(LLAMA.values())):
        factors = [
            (torch.randn(m, given["rank"]), torch.randn(given["rank"], n))
            for _ in range(given["count"])
        ]
        cpu = time.process_time()
        delta = torch.zeros(m, n)
        for b, a in factors:
            delta.addmm_(b, a, alpha=1 / given["count"])
        torch.svd_lowrank(delta, q=2 * given["rank"], niter=2)
        seconds[f"{m} x {n}"] = time.process_time() - cpu
    return {**seconds, "peak_mb": memory_mb("VmHWM")}


def main() -> None:
    """Print the figures as a line of JSON."""
    import torch

    torch.set_num_threads(1)
    given = json.loads(sys.argv[1])
    print(json.dumps({"peft": peft_merge, "svd_lowrank": svd_lowrank}[given["side"]](given)))


if __name__ == "__main__":
    main()
