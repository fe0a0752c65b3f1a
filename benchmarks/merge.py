"""What a merge costs beside PEFT's `svd`, in one run: CPU-seconds, peak memory, relative error.

Two random adapters of rank 8 and 16 on all 210 linear layers of SmolLM2-135M's shapes are merged
with weights 0.7 and 0.3 into rank 16. Each side runs in a process of its own with one thread.
CPU-seconds are those of the merge, from opening the adapters to the written result; importing
the libraries, and for PEFT building its base, is not counted. Peak memory is the whole
process's. The errors are measured here, in float64, from what each side wrote.

    python benchmarks/merge.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RANKS = (8, 16)
WEIGHTS = (0.7, 0.3)
RANK = 16
# Each side and where it writes: PEFT puts an adapter into a folder by its name.
WRITTEN = {"adapterhub": Path("adapterhub"), "peft svd": Path("peft/merged")}


def measure() -> dict[str, Any]:
    """Both sides' figures, and PEFT's as multiples of ours:
    `{"sides": {side: {cpu_seconds, peak_mb, relative_error}}, "ratios": {...}}`."""
    with tempfile.TemporaryDirectory(prefix="adz-benchmark-") as folder:
        directory = Path(folder)
        _write_adapters(directory)
        sides = {side: _run_side(side, directory) for side in WRITTEN}
        for side, figures in sides.items():
            figures["relative_error"] = _relative_error(directory, directory / WRITTEN[side])
    ours, theirs = (sides[side] for side in WRITTEN)
    ratios = {
        "cpu": theirs["cpu_seconds"] / ours["cpu_seconds"],
        "memory": theirs["peak_mb"] / ours["peak_mb"],
        "error_difference": theirs["relative_error"] - ours["relative_error"],
    }
    return {"sides": sides, "ratios": ratios}


def main() -> None:
    """Measure and print a table and the ratios."""
    result = measure()
    print(f"{'merge of r=8 and r=16':24}  {'cpu s':>8}  {'peak MB':>8}  {'relative error':>14}")
    for side, figures in result["sides"].items():
        print(
            f"{side:24}  {figures['cpu_seconds']:8.2f}  {figures['peak_mb']:8.0f}"
            f"  {figures['relative_error']:14.6f}"
        )
    ratios = result["ratios"]
    print(
        f"peft / adapterhub: {ratios['cpu']:.0f}x the CPU time, {ratios['memory']:.1f}x the"
        f" memory, errors differ by {abs(ratios['error_difference']):.1e}"
    )


def _shapes() -> dict[str, tuple[int, int]]:
    """SmolLM2-135M's linear layers as (m, n)."""
    layer = {
        "self_attn.q_proj": (576, 576),
        "self_attn.k_proj": (192, 576),
        "self_attn.v_proj": (192, 576),
        "self_attn.o_proj": (576, 576),
        "mlp.gate_proj": (1536, 576),
        "mlp.up_proj": (1536, 576),
        "mlp.down_proj": (576, 1536),
    }
    return {f"model.layers.{i}.{name}": shape for i in range(30) for name, shape in layer.items()}


def _write_adapters(directory: Path) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    for rank in RANKS:
        tensors = {}
        for module, (m, n) in _shapes().items():
            prefix = f"base_model.model.{module}"
            # A decaying spectrum, as training leaves it.
            decay = 0.8 ** torch.arange(rank)
            a = torch.randn(rank, n, generator=generator) * decay[:, None]
            tensors[f"{prefix}.lora_A.weight"] = a
            tensors[f"{prefix}.lora_B.weight"] = torch.randn(m, rank, generator=generator)
        path = directory / f"r{rank}"
        path.mkdir()
        save_file(tensors, path / "adapter_model.safetensors", metadata={"format": "pt"})
        config = {
            "peft_type": "LORA",
            "r": rank,
            "lora_alpha": 16,
            "target_modules": sorted({module.rsplit(".", 1)[-1] for module in _shapes()}),
            "task_type": "CAUSAL_LM",
        }
        (path / "adapter_config.json").write_text(json.dumps(config))


def _run_side(side: str, directory: Path) -> dict[str, float]:
    environment = {
        **os.environ,
        "ADZ_HOME": str(directory / "home"),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, __file__, "--side", side, "--folder", str(directory)]
    done = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=600
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _merge_ours(directory: Path, out: Path) -> Callable[[], None]:
    from adapterhub.cli.output import TerminalProgress
    from adapterhub.merge.pipeline import merge
    from adapterhub.merge.recipe import MergeRecipe
    from adapterhub.plugins import open_registry

    adapters = tuple(str(directory / f"r{rank}") for rank in RANKS)
    recipe = MergeRecipe(adapters=adapters, weights=WEIGHTS, rank=RANK, out=out, workers=1)
    registry = open_registry()
    return lambda: merge(recipe, registry, TerminalProgress()) and None


def _merge_peft(directory: Path, out: Path) -> Callable[[], None]:
    from peft import PeftModel
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    base = LlamaForCausalLM(config)

    def run() -> None:
        names = [f"r{rank}" for rank in RANKS]
        model = PeftModel.from_pretrained(base, directory / names[0], adapter_name=names[0])
        model.load_adapter(directory / names[1], adapter_name=names[1])
        model.add_weighted_adapter(
            names, list(WEIGHTS), out.name, combination_type="svd", svd_rank=RANK
        )
        model.save_pretrained(out.parent, selected_adapters=[out.name])

    return run


def _report_side(side: str, directory: Path) -> None:
    prepare = {"adapterhub": _merge_ours, "peft svd": _merge_peft}[side]
    run = prepare(directory, directory / WRITTEN[side])
    began = time.process_time()
    run()
    seconds = time.process_time() - began
    status = Path("/proc/self/status").read_text()
    # ru_maxrss would count what this process's parent needed before it began.
    peak = int(status.split("VmHWM:")[1].split()[0])
    print(json.dumps({"cpu_seconds": seconds, "peak_mb": peak / 1024}))


def _relative_error(directory: Path, merged: Path) -> float:
    lost = norm = 0.0
    sources = [_read(directory / f"r{rank}") for rank in RANKS]
    result = _read(merged)
    for module in _shapes():
        exact = sum(w * source(module) for w, source in zip(WEIGHTS, sources, strict=True))
        lost += float((exact - result(module)).square().sum())
        norm += float(exact.square().sum())
    return float((lost / norm) ** 0.5)


def _read(path: Path) -> Callable[[str], Any]:
    from safetensors.torch import load_file

    config = json.loads((path / "adapter_config.json").read_text())
    tensors = load_file(path / "adapter_model.safetensors")
    scale = config["lora_alpha"] / config["r"]

    def delta(module: str) -> Any:
        a, b = (tensors[f"base_model.model.{module}.lora_{f}.weight"].double() for f in "AB")
        return scale * b @ a

    return delta


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=list(WRITTEN), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        _report_side(given.side, given.folder)
    else:
        main()
