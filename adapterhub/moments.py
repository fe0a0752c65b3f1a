"""The file of input moments: for each module of an adapter E[x x^T] of what went into it.

Training writes it, merging to the least output error reads it. safetensors: `<input>.sketch`
(k, n) bfloat16 and `<input>.diagonal` (n,) float32. Modules that read the same tensor, such as
the query, key and value projections, share one input; the metadata says which (`inputs`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from adapterhub.errors import AdzError
from adapterhub.protocols import InputMoments

INPUT_MOMENTS = "input_moments.safetensors"


@dataclass(frozen=True, slots=True)
class MeasuredMoments:
    """What a run measured. moments: by the module that was the first to read an input;
    inputs: every module, and the one under which its moments are."""

    moments: Mapping[str, InputMoments]
    inputs: Mapping[str, str]

    @property
    def bytes(self) -> int:
        """The size of all tensors as they are stored."""
        return sum(tensor.nbytes for tensor in self._tensors().values())

    def save(self, path: Path) -> None:
        """Write the file."""
        inputs = json.dumps(self.inputs, sort_keys=True, separators=(",", ":"))
        save_file(self._tensors(), path, metadata={"inputs": inputs})

    def _tensors(self) -> dict[str, torch.Tensor]:
        tensors = {}
        for name, moments in sorted(self.moments.items()):
            tensors[f"{name}.sketch"] = moments.sketch.bfloat16().contiguous()
            tensors[f"{name}.diagonal"] = moments.diagonal.float().contiguous()
        return tensors


class MomentsFile:
    """An open file of input moments. `label` is the adapter's name and stands in every error.

    Safe to read from several threads.
    """

    def __init__(self, label: str, path: Path) -> None:
        self._label = label
        try:
            self._file: Any = safe_open(path, framework="pt")
            self._inputs = _read_inputs(self._file)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise AdzError(f"{label}: {path.name} cannot be read: {error}") from error

    def __contains__(self, module: str) -> bool:
        return module in self._inputs

    def of(self, module: str, width: int) -> InputMoments | None:
        """The moments of a module with `width` inputs; None where it has none."""
        if module not in self:
            return None
        stored = self._inputs[module]
        try:
            sketch, diagonal = (
                self._file.get_tensor(f"{stored}.{part}").float() for part in ("sketch", "diagonal")
            )
        except SafetensorError as error:
            raise AdzError(f"{self._label}: moments of {module}: {error}") from error
        fits = sketch.ndim == 2 and sketch.shape[1:] == diagonal.shape == (width,)
        finite = bool(torch.isfinite(sketch).all() and torch.isfinite(diagonal).all())
        if not (fits and finite and bool((diagonal >= 0).all())):
            raise AdzError(
                f"{self._label}: the input moments of {module} do not fit the adapter",
                "train it again",
            )
        return InputMoments(sketch, diagonal)


def _read_inputs(file: Any) -> dict[str, str]:
    return dict(json.loads((file.metadata() or {})["inputs"]))
