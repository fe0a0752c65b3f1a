"""The adapter layer, and where it stands in a transformer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from adapterhub.errors import AdzError, usage_error
from adapterhub_bottleneck.options import BottleneckOptions

NAME = "bottleneck"
"""What the layer is called in the module that it changes."""

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
_ATTENTION = ("attention",)
_FEED_FORWARD = ("mlp", "feedforward", "moe")


class BottleneckLayer(nn.Module):
    """Adds scale * up(f(down(x))) to the output of the module that it is put into.

    x: what comes out of that module, or with `parallel` what goes in, (..., width) in any float
    type; it computes in the type of its own weights. It begins as no change: up is zero.
    """

    def __init__(self, width: int, options: BottleneckOptions, device: torch.device) -> None:
        super().__init__()
        self.parallel = options.style == "parallel"
        self.scale = options.factor
        self.down = nn.Linear(width, options.size, device=device, dtype=torch.float32)
        self.up = nn.Linear(options.size, width, device=device, dtype=torch.float32)
        self.activation = _ACTIVATIONS[options.activation]()
        # He et al. 2022 (their code) begin as LoRA does.
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What is added."""
        inner = self.activation(self.down(x.to(self.down.weight.dtype)))
        added: torch.Tensor = self.up(inner) * self.scale
        return added.to(x.dtype)

    def put_into(self, module: nn.Module) -> None:
        """Stand in `module` from now on."""
        module.add_module(NAME, self)
        module.register_forward_hook(self._change)

    # A bound method: a copy of the model then has hooks that lead to the copies of the layers.
    def _change(self, module: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        changed = first + self(given[0] if self.parallel else first)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed


def find_places(model: Any, style: str) -> Iterator[nn.Module]:
    """The modules of `model` whose output an adapter layer changes, from the first block to the
    last; AdzError where a block has none that is known."""
    for number, block in enumerate(_blocks(model)):
        if style == "pfeiffer":
            yield block
            continue
        kinds = (_ATTENTION, _FEED_FORWARD) if style == "houlsby" else (_FEED_FORWARD,)
        for kind in kinds:
            found = [m for m in block.children() if _is_called(m, kind)]
            if len(found) != 1:
                raise usage_error(
                    f"block {number} of {type(model).__name__} has {len(found)} modules that are "
                    f"called {' or '.join(kind)}",
                    "method.style=pfeiffer asks for none",
                )
            yield found[0]


def _blocks(model: Any) -> list[nn.Module]:
    layers = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers:
            return list(module)
    raise AdzError(f"{type(model).__name__} has no list of {layers} blocks", "use another method")


def _is_called(module: nn.Module, words: tuple[str, ...]) -> bool:
    name = type(module).__name__.lower()
    return any(word in name for word in words)
