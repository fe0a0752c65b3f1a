"""What else serves adapters on a CPU: transformers with PEFT, and llama.cpp's server."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from serving import load
from serving.servers import free_port
from serving.zoo import ADZ, Zoo

# Loads the base and adapters, then prints tokens a second: one request at a time with the
# adapters in turn, and one static batch of 8 with one adapter.
PEFT = """
import sys, time, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, *folders = sys.argv[1:]
torch.set_num_threads(len(__import__("os").sched_getaffinity(0)))
model = PeftModel.from_pretrained(
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folders[0], "a0")
for i, folder in enumerate(folders[1:], 1):
    model.load_adapter(folder, f"a{i}")
model.eval()
def answer(rows):
    prompt = torch.randint(100, 49000, (rows, 16))
    with torch.inference_mode():
        model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt),
            max_new_tokens=32, min_new_tokens=32, do_sample=False)
answer(1)
for turn in range(3):
    begun = time.perf_counter()
    for i in range(8):
        model.set_adapter(f"a{i}")
        answer(1)
    one = 8 * 32 / (time.perf_counter() - begun)
    model.set_adapter("a0")
    begun = time.perf_counter()
    answer(8)
    print(one, 8 * 32 / (time.perf_counter() - begun), flush=True)
"""

# The server of llama.cpp as xllamacpp wraps it, with adapter 0, until it is ended.
LLAMA = """
import sys, time, xllamacpp
model, adapter, port = sys.argv[1:]
params = xllamacpp.CommonParams()
params.model.path = model
params.port, params.hostnames = int(port), ["127.0.0.1"]
params.n_ctx, params.n_parallel, params.warmup = 2048, 8, True
params.cpuparams.n_threads = len(__import__("os").sched_getaffinity(0))
if adapter:
    info = xllamacpp.CommonAdapterLoraInfo()
    info.path, info.scale = adapter, 1.0
    params.lora_adapters = [info]
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
time.sleep(3600)
"""


def measure(zoo: Zoo, given: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of each peer."""
    return transformers(zoo) | llama(zoo, given.folder, given.rounds)


def transformers(zoo: Zoo) -> dict[str, list[float]]:
    """One request at a time over 8 adapters, and a batch of 8 of one."""
    command = [sys.executable, "-c", PEFT, str(zoo.base), *map(str, zoo.folders)]
    done = subprocess.run(
        command, env=zoo.environment(), check=True, stdout=subprocess.PIPE, text=True
    )
    rows = [tuple(map(float, line.split())) for line in done.stdout.splitlines()]
    return {"peers peft": [one for one, _ in rows], "peers peft batch": [b for _, b in rows]}


def llama(zoo: Zoo, folder: Path, rounds: int) -> dict[str, list[float]]:
    """llama.cpp's server in fp32 with one LoRA, 8 requests at a time."""
    base, adapter = exported(zoo, folder)
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", LLAMA, str(base), str(adapter), str(port)])
    try:
        found = []
        deadline = time.monotonic() + 120
        while True:
            try:
                load.throughput(port, ["any"], load.Case(8, 16, 2), seed=0)
                break
            # Nobody listens yet, or it says that it loads.
            except (OSError, RuntimeError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        for turn in range(rounds):
            found.append(load.throughput(port, ["any"], load.DECODE, seed=turn + 1))
        return {"peers llama.cpp": found}
    finally:
        process.terminate()
        process.wait()


def exported(zoo: Zoo, folder: Path) -> tuple[Path, Path]:
    """Base and adapter 0 as GGUF, by our own command."""
    base, adapter = folder / "base.gguf", folder / "a0.gguf"
    commands = {
        base: ("smollm2", str(base), "--gguf", "f32", "--no-compare"),
        adapter: ("a0", str(adapter), "--lora-gguf", "--dtype", "f32"),
    }
    for path, arguments in commands.items():
        if not path.exists():
            command = [*ADZ, "export", *arguments]
            subprocess.run(command, env=zoo.environment(), check=True, stdout=subprocess.DEVNULL)
    return base, adapter
