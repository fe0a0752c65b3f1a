"""A method: a trainable bias for each linear layer, in a format of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from adapterhub import AdzError
from adz_plugin_template.bitfit_options import BitfitOptions

# The registry stores these two files of a method, whatever it keeps in them.
_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"


class Bitfit:
    """A `protocols.Method`."""

    def attach(self, model: Any, options: BitfitOptions, *, prepared: bool) -> Any:
        """Give each target a bias, beginning at what it had or at 0; nothing else is trained."""
        layers = _linear_layers(model)
        ends = {name.rpartition(".")[2] for name in layers}
        for target in options.targets or ():
            if target not in ends:
                raise AdzError(
                    f"method.targets: {target!r} matches no linear layer",
                    "there are " + ", ".join(sorted(ends)),
                )
        model.requires_grad_(False)
        for name, layer in layers.items():
            if options.targets is None or name.rpartition(".")[2] in options.targets:
                weight = layer.weight
                start = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.data
                layer.bias = nn.Parameter(start.clone())
        return model

    def save(self, model: Any, directory: Path) -> None:
        """Write the biases under the names that they have in the model."""
        directory.mkdir(parents=True, exist_ok=True)
        trained = {
            name: parameter.detach().cpu().contiguous()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        save_file(trained, directory / _WEIGHTS)
        settings = {"method": "bitfit", "layers": len(trained)}
        (directory / _CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def load(self, model: Any, directory: Path) -> Any:
        """Put the stored biases into the base."""
        layers = _linear_layers(model)
        for name, bias in load_file(directory / _WEIGHTS).items():
            layer = layers[name.removesuffix(".bias")]
            layer.bias = nn.Parameter(bias.to(layer.weight), requires_grad=False)
        return model


def _linear_layers(model: Any) -> dict[str, nn.Linear]:
    output = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not output
    }
