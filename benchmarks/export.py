"""Exports answered by llama.cpp itself, beside transformers: logits and greedy answers.

    python benchmarks/export.py REF --llama-python /path/to/python

REF is a LoRA in $ADZ_HOME. The second interpreter has llama-cpp-python, which is compiled when it
is installed and therefore has an environment of its own. Three files are written and asked the
same prompts: the merged model in f16 and in q8_0, and the base in f16 with the adapter over it
(`--lora-gguf`). Prints, for each, the largest difference of a logit from transformers with PEFT in
float32, as a share of the largest, and how many greedy answers are the same.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from adapterhub import Hub
from adapterhub.cli.output import TerminalProgress, format_table

PROMPTS = (
    "What is the capital of France?",
    "colour\n",
    "Question: what is a violin?\nAnswer:",
    "The weather in autumn is",
)
TOKENS = 12

# Runs in the other interpreter: arguments are the model, the adapter or "", input and output.
WORKER = """
import sys
import numpy as np
from llama_cpp import Llama
model, adapter, source, target = sys.argv[1:]
rows = np.load(source)
result = {}
for name in rows.files:
    llama = Llama(model, lora_path=adapter or None, logits_all=True, n_ctx=512, n_gpu_layers=0,
                  verbose=False)
    ids = rows[name].tolist()
    llama.eval(ids)
    result["logits " + name] = llama.scores[: len(ids)].copy()
    answer = []
    for _ in range(TOKENS):
        answer.append(int(llama.scores[llama.n_tokens - 1].argmax()))
        llama.eval(answer[-1:])
    result["answer " + name] = np.array(answer)
np.savez(target, **result)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("reference")
    parser.add_argument("--llama-python", required=True, help="an interpreter with llama_cpp")
    arguments = parser.parse_args()
    hub = Hub(progress=TerminalProgress())
    model, tokenizer = hub.load(arguments.reference)
    rows = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    expected = [_expected(model, row) for row in rows]
    del model
    base = hub.resolve(arguments.reference).manifest.base.name
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        np.savez(files / "rows.npz", **{str(i): np.array(row) for i, row in enumerate(rows)})
        written = _write(hub, arguments.reference, str(base), files)
        table = [
            (label, *_compare(arguments.llama_python, files, pair, expected))
            for label, pair in written.items()
        ]
    print(format_table(("export", "size MB", "logit difference", "same first", "answers"), table))


def _write(hub: Hub, reference: str, base: str, files: Path) -> dict[str, tuple[Path, Path | None]]:
    for kind in ("f16", "q8_0"):
        hub.export_gguf(reference, files / f"{kind}.gguf", kind=kind, compare=False)
    hub.export_gguf(base, files / "base.gguf", kind="f16", compare=False)
    hub.export_lora_gguf(reference, files / "lora.gguf", kind="f16")
    return {
        "--gguf f16": (files / "f16.gguf", None),
        "--gguf q8_0": (files / "q8_0.gguf", None),
        "base f16, --lora-gguf f16": (files / "base.gguf", files / "lora.gguf"),
    }


@torch.no_grad()
def _expected(model: torch.nn.Module, row: list[int]) -> tuple[np.ndarray, list[int]]:
    logits = model(input_ids=torch.tensor([row])).logits[0].float().numpy()
    ids = list(row)
    for _ in range(TOKENS):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return logits, ids[len(row) :]


def _compare(
    python: str,
    files: Path,
    pair: tuple[Path, Path | None],
    expected: list[tuple[np.ndarray, list[int]]],
) -> tuple[object, ...]:
    model, adapter = pair
    target = files / "answers.npz"
    code = WORKER.replace("TOKENS", str(TOKENS))
    command = [python, "-c", code, str(model), str(adapter or ""), str(files / "rows.npz")]
    subprocess.run([*command, str(target)], check=True)
    given = np.load(target)
    scale = max(np.abs(logits).max() for logits, _ in expected)
    difference, first, positions, answers = 0.0, 0, 0, 0
    for number, (logits, answer) in enumerate(expected):
        own = given[f"logits {number}"]
        difference = max(difference, float(np.abs(own - logits).max() / scale))
        first += int((own.argmax(-1) == logits.argmax(-1)).sum())
        positions += len(logits)
        answers += given[f"answer {number}"].tolist() == answer
    size = sum(file.stat().st_size for file in pair if file) / 1e6
    return (
        f"{size:.0f}",
        f"{difference:.1e}",
        f"{first} of {positions}",
        f"{answers} of {len(expected)}",
    )


if __name__ == "__main__":
    main()
