"""What turns an adapter of any method into a plain LoRA."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class WeightUpdate:
    """How an adapter changes the weight of one module.

    kind: transposed is a linear layer whose weight is stored as (inputs, outputs). shape:
    (outputs, inputs) of a linear layer, (rows, width) of an embedding. compute: the update in
    float64, of that shape; it is called once, from any thread, and raises AdzError where the
    module does more than add to its weight.
    """

    kind: Literal["linear", "transposed", "embedding"]
    shape: tuple[int, int]
    compute: Callable[[], torch.Tensor]


class ConvertibleMethod(Protocol):
    """A method whose adapters are updates of weights; its descriptor says `convertible`."""

    def updates(
        self, base: torch.nn.Module, adapted: torch.nn.Module
    ) -> Mapping[str, WeightUpdate]:
        """Every weight that differs, by the module's name in `base`.

        adapted: what `load` returned for this base, which itself is unchanged. Raise AdzError
        where the adapter changes something that no LoRA can.
        """
