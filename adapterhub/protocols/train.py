"""What trains an adapter: methods, quantizers and objectives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel

Fold: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
"""A tensor of the base, in float32 or float64 -> the same tensor with the adapter in it."""


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
        for byte reproducible. No other file of an adapter is stored.

        Where the descriptor says `storage="base"`: what `save_pretrained` of the model writes.
        """

    def load(self, model: torch.nn.Module, directory: Path) -> torch.nn.Module:
        """Return the base `model` with the stored adapter in it, for inference; the stored base
        in float32 where the descriptor says `storage="base"`.

        Where the descriptor says `mergeable`, the result has `merge_and_unload()`, which
        returns the base with the adapter folded into its weights.
        """


@runtime_checkable
class FoldingMethod(Method, Protocol):
    """A mergeable method that says how it changes each weight, so that an adapter is folded
    into a base of any size tensor by tensor. Without it the whole model is loaded and merged."""

    def fold(
        self, directory: Path, shapes: Mapping[str, tuple[int, ...]]
    ) -> Mapping[str, Fold] | None:
        """For every tensor of the base that the stored adapter changes, how.

        shapes: the base's tensors, named as the parameters of the loaded model. None: this
        adapter cannot be folded tensor by tensor. Raise AdzError when it cannot be merged.
        """


@runtime_checkable
class CalibratedMethod(Method, Protocol):
    """A method whose first weights come from the data."""

    def calibrate(
        self, model: torch.nn.Module, batches: Iterable[Mapping[str, torch.Tensor]]
    ) -> None:
        """Called once after `attach`, with training batches as `rows.Collator` makes them."""


@runtime_checkable
class SteppingMethod(Method, Protocol):
    """A method that does something of its own at every optimizer step."""

    def begin(self, model: torch.nn.Module, steps: int) -> None:
        """Called before the first of `steps` steps; AdzError where they are too few."""

    def before_step(self, model: torch.nn.Module) -> None:
        """Called when the gradients of a step are whole, before the optimizer uses them."""

    def after_step(self, model: torch.nn.Module, step: int) -> None:
        """Called after step number `step`, the first is 1, while its gradients are still there."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """A layer that computes base(x) + scale * up(down(x)), and nothing else.

    base, down, up: linear layers, of which the first is frozen and the others have no bias.
    active: whether it does now; otherwise it is base(x) alone.
    """

    base: torch.nn.Linear
    down: torch.nn.Linear
    up: torch.nn.Linear
    scale: float
    active: Callable[[], bool]


@runtime_checkable
class LowRankMethod(Method, Protocol):
    """A method whose layers may be plain LoRA: the trainer computes those faster."""

    def low_rank(self, layer: torch.nn.Module) -> LowRank | None:
        """The parts of `layer`, a module of the adapted model; None where it is anything else."""


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


@runtime_checkable
class JointObjective(Objective, Protocol):
    """An objective that trains several adapters side by side."""

    def joint_trainer(self, runs: Sequence[Any]) -> Any:
        """Return one trainer for runs over one base and the same rows, whose log entries carry
        `losses`, one a run."""
