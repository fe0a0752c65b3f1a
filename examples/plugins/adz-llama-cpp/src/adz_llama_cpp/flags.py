"""The engine's own options, which stand behind `--` in `adz serve`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from adapterhub.errors import usage_error

KINDS = ("f16", "q8_0", "bf16", "f32")
_DTYPES = {"auto": "f16", "float16": "f16", "bfloat16": "bf16", "float32": "f32"}


@dataclass(frozen=True, slots=True)
class Flags:
    """kind: how the matrices of the base are stored. gguf: a file of the base to be used instead.
    slots: requests that are answered together. threads: 0 is llama.cpp's own number."""

    kind: str
    gguf: Path | None
    slots: int
    threads: int
    gpu_layers: int


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise usage_error(f"llama-cpp: {message}", self.format_usage().strip())


def read_flags(words: Sequence[str], dtype: str) -> Flags:
    """Raises a usage error; `dtype` is that of `adz serve`, the default of `--kind`."""
    parser = _Parser(prog="adz serve --engine llama-cpp --", add_help=False, allow_abbrev=False)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--gpu-layers", type=int, default=0)
    given = parser.parse_args(words)
    if given.kind is None and dtype not in _DTYPES:
        parser.error(f"--dtype {dtype} is none of {', '.join(_DTYPES)}")
    if given.slots < 1 or given.threads < 0:
        parser.error("--slots is at least 1, --threads at least 0")
    if given.gguf is not None and not given.gguf.is_file():
        parser.error(f"--gguf {given.gguf} is no file")
    return Flags(
        given.kind or _DTYPES[dtype], given.gguf, given.slots, given.threads, given.gpu_layers
    )
