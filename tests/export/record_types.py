"""Which types llama.cpp's own quantizer gives the tensors of small models: `llama_types.json`.

    python tests/export/record_types.py --llama-python /path/to/python

The second interpreter has llama-cpp-python, which is compiled when it is installed. Each model is
a file of zeros in f32, given to `llama_model_quantize`, which is what `llama-quantize` calls.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from itertools import chain, groupby
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFWriter, LlamaFileType

FILE = Path(__file__).with_name("llama_types.json")
KINDS = ("q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k")
HEADS = 4
# Name -> layers, heads of keys and values, width, width of the feed-forward part, tied.
MODELS = {
    "llama, 32 layers": (32, 4, 256, 256, False),
    "llama, 30 layers, four heads a key, tied": (30, 1, 256, 256, True),
    "llama, 80 layers, one head a key": (80, 4, 256, 256, False),
    "llama, 80 layers, two heads a key": (80, 2, 256, 256, False),
    "qwen2, 80 layers, one head a key": (80, 4, 256, 256, False),
    "qwen3, 80 layers, two heads a key, tied": (80, 2, 256, 256, True),
    "llama, rows of 96 and 288, tied": (8, 2, 96, 288, True),
    "llama, rows of 96 and 512": (8, 2, 96, 512, False),
}

# Runs in the other interpreter: arguments are the input, then for each mixture its number and the
# output.
WORKER = """
import ctypes, sys
import llama_cpp
silent = llama_cpp.llama_log_callback(lambda *_: None)
llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
source, *wanted = sys.argv[1:]
for kind, target in zip(wanted[::2], wanted[1::2]):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = int(kind)
    given = ctypes.byref(parameters)
    assert not llama_cpp.llama_model_quantize(source.encode(), target.encode(), given)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--llama-python", required=True, help="an interpreter with llama_cpp")
    python = parser.parse_args().llama_python
    with tempfile.TemporaryDirectory() as folder:
        found = {name: record(name, Path(folder), python) for name in MODELS}
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def record(name: str, folder: Path, python: str) -> dict[str, dict[str, str]]:
    """The mixture -> the part of a layer -> the types of its tensors, in runs over the layers."""
    source = folder / "f32.gguf"
    write_zeros(name, source)
    made = {kind: folder / f"{kind}.gguf" for kind in KINDS}
    numbers = {kind: str(int(LlamaFileType[f"MOSTLY_{kind.upper()}"])) for kind in KINDS}
    wanted = chain.from_iterable((numbers[kind], str(made[kind])) for kind in KINDS)
    subprocess.run([python, "-c", WORKER, str(source), *wanted], check=True)
    return {
        kind: in_runs({t.name: t.tensor_type.name for t in GGUFReader(file).tensors})
        for kind, file in made.items()
    }


def shapes(name: str) -> dict[str, tuple[int, int]]:
    """(rows, width) of each matrix, by llama.cpp's names."""
    layers, kv_heads, width, inner, tied = MODELS[name]
    keys = width // HEADS * kv_heads
    parts = {
        "attn_q": (width, width), "attn_k": (keys, width), "attn_v": (keys, width),
        "attn_output": (width, width), "ffn_gate": (inner, width), "ffn_up": (inner, width),
        "ffn_down": (width, inner),
    }  # fmt: skip
    found = {f"blk.{n}.{part}.weight": parts[part] for n in range(layers) for part in parts}
    found["token_embd.weight"] = (64, width)
    return found if tied else found | {"output.weight": (64, width)}


def write_zeros(name: str, file: Path) -> None:
    layers, kv_heads, width, inner, _ = MODELS[name]
    writer = GGUFWriter(file, name.partition(",")[0])
    writer.add_block_count(layers)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(64)
    for tensor, shape in shapes(name).items():
        writer.add_tensor(tensor, np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def in_runs(types: dict[str, str]) -> dict[str, str]:
    """`Q6_K*4 Q4_K*28` for each part of a layer, in the order of the layers."""
    parts: dict[str, dict[int, str]] = {}
    for name, kind in types.items():
        *before, part, _ = name.split(".")
        parts.setdefault(part, {})[int(before[1]) if before else 0] = kind
    return {
        part: " ".join(
            f"{kind}*{len(list(run))}" for kind, run in groupby(found[n] for n in sorted(found))
        )
        for part, found in sorted(parts.items())
    }


if __name__ == "__main__":
    main()
