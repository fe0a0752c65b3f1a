"""Published adapters rebuilt small: a base with the module names of its architecture, and what
PEFT writes for an adapter of it, under the configuration as its own version of PEFT wrote it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file
from torch import nn

from adapterhub.manifest import BaseDigests, BaseRecord

CORPUS = Path(__file__).parent / "corpus"
EMBEDDINGS = ("embed_tokens", "wte", "wpe", "embed_in", "word_embeddings", "shared",
              "position_embeddings", "embeddings")  # fmt: skip


def read(name: str) -> Any:
    """One file of the corpus."""
    return json.loads((CORPUS / f"{name}.json").read_text())


def configuration(entry: dict[str, Any], keysets: dict[str, Any]) -> dict[str, Any]:
    """adapter_config.json as it was published: the keys of its PEFT, and the values that differ.
    What no tiny base has room for is smaller."""
    values = {**keysets[entry["keys"]], **entry["values"], **entry.get("smaller", {})}
    return {key: value for key, value in values.items() if key not in entry.get("absent", ())}


def write_base(architecture: dict[str, Any], directory: Path) -> BaseRecord:
    """A base whose file has a header and no values: names and shapes are all that is read."""
    directory.mkdir()
    header, end = {}, 0
    for name, shape in _stored(architecture):
        start, end = end, end + 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
    config = {"model_type": architecture["model_type"], "hidden_size": 64,
              "num_hidden_layers": 2, "num_attention_heads": 4}  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    return BaseRecord(
        name="base",
        source="corpus",
        path=str(directory),
        digests=BaseDigests(weights="w", arch="a", tokenizer="t"),
        architecture="any",
        parameters=1,
        dtype="F32",
        created="",
    )


def _stored(architecture: dict[str, Any]) -> Iterator[tuple[str, list[int]]]:
    """The tensors of the base's file, under the names that a file has."""
    for module, shape in architecture["modules"].items():
        name = module.removeprefix(architecture.get("stored_without", ""))
        for loaded, stored in architecture.get("renamed", {}).items():
            if module.startswith(loaded):
                name = stored + module.removeprefix(loaded)
                break
        yield f"{name}.weight", shape


class Model(nn.Module):
    """Modules with the names and shapes of an architecture, and no way to compute."""

    def __init__(self, architecture: dict[str, Any]) -> None:
        super().__init__()
        turned = tuple(architecture.get("transposed", ()))
        modules = {**architecture["modules"], **architecture.get("added", {})}
        for name, shape in modules.items():
            _place(self, name.split("."), _module(name, shape, turned))
        kind = type("Config", (transformers.PretrainedConfig,), {})
        kind.model_type = architecture["model_type"]
        self.config = kind(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=320,
            tie_word_embeddings=False,
        )  # fmt: skip
        self.device, self.dtype = torch.device("cpu"), torch.float32
        embedding = next((m for m in self.modules() if isinstance(m, nn.Embedding)), None)
        if embedding is not None:
            self.get_input_embeddings = lambda: embedding

    def get_output_embeddings(self) -> nn.Module | None:
        return getattr(self, "lm_head", None)

    def prepare_inputs_for_generation(self) -> None:
        raise NotImplementedError

    def forward(self) -> None:
        raise NotImplementedError


def _module(name: str, shape: list[int], turned: tuple[str, ...]) -> nn.Module:
    if len(shape) == 1:
        return nn.LayerNorm(shape[0], bias=False)
    if len(shape) == 3:
        return nn.Conv1d(shape[1], shape[0], shape[2])
    if len(shape) == 4:
        return nn.Conv2d(shape[1], shape[0], shape[2])
    if name.endswith(EMBEDDINGS):
        return nn.Embedding(*shape)
    if name.endswith(turned) and turned:
        return transformers.pytorch_utils.Conv1D(shape[1], shape[0])
    return nn.Linear(shape[1], shape[0], bias=False)


def _place(root: nn.Module, parts: list[str], module: nn.Module) -> None:
    for part in parts[:-1]:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    root.add_module(parts[-1], module)


def write_adapter(
    method: str, config: dict[str, Any], architecture: dict[str, Any], directory: Path
) -> None:
    """What PEFT of today writes for an adapter of this configuration, filled with random values,
    beside the configuration as it was published. method: PEFT's name of it."""
    torch.manual_seed(0)
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[method]
    known = {field.name for field in fields(kind)} - {"peft_type", "auto_mapping"}
    options = {key: value for key, value in config.items() if key in known}
    # A head for a task is told by modules_to_save; PEFT's classes for tasks would call it.
    task = "CAUSAL_LM" if issubclass(kind, peft.PromptLearningConfig) else None
    options |= {"base_model_name_or_path": None, "task_type": task, "inference_mode": False}
    model = peft.get_peft_model(Model(architecture), kind(**options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.is_floating_point():
                parameter.normal_()
    model.save_pretrained(directory)
    weights = directory / "adapter_model.safetensors"
    save_file(load_file(weights), weights, metadata={"format": "pt"})
    (directory / "adapter_config.json").write_text(json.dumps(config))
