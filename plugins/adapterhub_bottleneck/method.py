"""Bottleneck adapters: attached, saved and loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from adapterhub.bases.adapter_files import CONFIG, WEIGHTS
from adapterhub.config import validate
from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub_bottleneck.layers import BottleneckLayer, find_places
from adapterhub_bottleneck.options import BottleneckOptions

METHOD = "bottleneck"


class Bottleneck:
    """The method `bottleneck`."""

    def attach(self, model: Any, options: BottleneckOptions, *, prepared: bool) -> Any:
        """The model with fresh layers in it, of float32 and the only trainable ones; it is
        changed in place."""
        model.requires_grad_(False)
        _put_layers(model, options, None)
        return model

    def save(self, model: Any, directory: Path) -> None:
        """Write the layers' weights, named as in the model, and the options."""
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {name: t.detach().cpu().contiguous().clone() for name, t in _own(model).items()}
        save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
        options: BottleneckOptions = model.bottleneck_options
        settings = {
            "adapter_type": METHOD,
            "base_model_name_or_path": model.name_or_path,
            **options.model_dump(mode="json"),
            "scale": options.factor,
        }
        text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
        (directory / CONFIG).write_text(text, encoding="utf-8")

    def load(self, model: Any, directory: Path) -> Any:
        """The base with the stored layers in it. Raises AdzError (exit code 3) where they are not
        those of this base."""
        options = _read_options(directory / CONFIG)
        device = next(model.parameters()).device
        try:
            tensors = load_file(directory / WEIGHTS, device=str(device))
        except (OSError, SafetensorError) as error:
            raise _damaged(f"{WEIGHTS} cannot be read: {error}") from error
        # Sizes that the configuration claims cost no memory before they are compared.
        _put_layers(model, options, torch.device("meta"))
        expected = {name: tuple(t.shape) for name, t in _own(model).items()}
        found = {name: tuple(t.shape) for name, t in tensors.items()}
        if found != expected:
            odd = sorted(set(found.items()) ^ set(expected.items()))[0]
            raise _damaged(f"{odd[0]} {odd[1]} is not in both the adapter and {options.style}")
        model.load_state_dict(tensors, strict=False, assign=True)
        return model.requires_grad_(False).eval()


def _put_layers(model: Any, options: BottleneckOptions, device: torch.device | None) -> None:
    """device: where the layers' weights are; None: beside those that they change."""
    width = model.config.get_text_config().hidden_size
    for place in list(find_places(model, options.style)):
        beside = device or next(place.parameters()).device
        BottleneckLayer(width, options, beside).put_into(place)
    model.bottleneck_options = options


def _own(model: Any) -> dict[str, torch.Tensor]:
    """The layers' weights by name."""
    return {
        f"{place}.{name}": tensor
        for place, layer in model.named_modules()
        if isinstance(layer, BottleneckLayer)
        for name, tensor in layer.state_dict(keep_vars=True).items()
    }


def _read_options(path: Path) -> BottleneckOptions:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(f"{CONFIG} cannot be read: {error}") from error
    if not isinstance(settings, dict) or settings.get("adapter_type") != METHOD:
        raise _damaged(f"{CONFIG} is not that of a bottleneck adapter")
    known = {key: settings[key] for key in BottleneckOptions.model_fields if key in settings}
    return validate(BottleneckOptions, known, CONFIG)


def _damaged(reason: str) -> AdzError:
    return AdzError(f"this is no adapter that can be loaded: {reason}", exit_code=EXIT_VERIFICATION)
