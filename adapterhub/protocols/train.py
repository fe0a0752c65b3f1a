"""What trains an adapter: methods, quantizers and objectives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel


class Method(Protocol):
    """Attaches trainable parameters to a frozen base."""

    def attach(
        self, model: torch.nn.Module, options: BaseModel, *, prepared: bool
    ) -> torch.nn.Module:
        """Return the model with the adapter in it and only its parameters trainable.

        `prepared` says that a quantizer has made the base ready for training. Raise
        AdzError when a target matches no module.
        """

    def save(self, model: torch.nn.Module, directory: Path) -> None:
        """Write `adapter_model.safetensors` and `adapter_config.json` into `directory`, byte
        for byte reproducible. No other file of an adapter is stored."""

    def load(self, model: torch.nn.Module, directory: Path) -> torch.nn.Module:
        """Return the base `model` with the stored adapter in it, for inference.

        Where the descriptor says `mergeable`, the result has `merge_and_unload()`, which
        returns the base with the adapter folded into its weights.
        """


class Quantizer(Protocol):
    """Holds the frozen base in fewer bits while an adapter is trained."""

    def load_arguments(self, options: BaseModel) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained`, such as `quantization_config`."""

    def prepare(self, model: torch.nn.Module) -> torch.nn.Module:
        """Make the loaded model ready for training."""


class Objective(Protocol):
    """Builds the trainer of a run."""

    def trainer(self, run: Any) -> Any:
        """Return a `transformers.Trainer` for `adapterhub.train.run.Run`."""
