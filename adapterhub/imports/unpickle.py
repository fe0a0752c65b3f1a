"""The process that reads a pickle: `python -I -m adapterhub.imports.unpickle SOURCE TARGET`.

It opens both files, gives up its rights, reads one and writes the other. The last line on stderr
says what is wrong, and the exit code is then 1.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from adapterhub.imports.confine import confine

_SPARE = 2**29


def main(source: str, target: str) -> int:
    """Convert `source` to the safetensors file `target`."""
    import torch
    from safetensors.torch import save

    torch.set_num_threads(1)
    # What it imports late would need rights that are gone then.
    save({"warm": torch.zeros(1)})
    size = Path(source).stat().st_size
    with Path(source).open("rb") as reader, Path(target).open("xb") as writer:
        confine(memory=4 * size + _SPARE, seconds=60 + size // 2**24, written=2 * size + 2**24)
        try:
            writer.write(
                save(plain_tensors(torch.load(reader, map_location="cpu", weights_only=True)))
            )
        # Whatever it is, it came of the file.
        except BaseException as error:
            text = " ".join(str(error).split()) or type(error).__name__
            print(_summary(text), file=sys.stderr)
            return 1
    return 0


def plain_tensors(value: Any) -> dict[str, Any]:
    """The tensors by name, each with a storage of its own; TypeError for anything else."""
    import torch

    if not isinstance(value, dict):
        raise TypeError(f"it holds {type(value).__name__}, not tensors by name")
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise TypeError(f"it holds {type(tensor).__name__} under {str(name)[:80]!r}")
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise TypeError(f"{name[:80]!r} is no plain tensor")
    # Two names may share one storage there; safetensors gives each its own.
    return {name: tensor.detach().contiguous().clone() for name, tensor in value.items()}


def _summary(text: str) -> str:
    if "Weights only load failed" in text:
        _, _, reason = text.partition("WeightsUnpickler error: ")
        reason = reason.split(" Please use")[0].split(" Check the documentation")[0]
        return f"it holds more than tensors: {reason or 'it would run code'}"
    return text[:300]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
