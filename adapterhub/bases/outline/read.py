"""Making an outline: transformers builds the base without weights, from its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterhub.bases.outline.layout import BaseModule, Layout
from adapterhub.bases.outline.store import Outline, read_outline, write_outline
from adapterhub.bases.outline.tokenizer import KeptTokenizer, keep_tokenizer
from adapterhub.manifest import BaseRecord
from adapterhub.models import empty_base, load_tokenizer

if TYPE_CHECKING:
    import torch


def outline_of(base: BaseRecord) -> Outline:
    """What is kept of the base, or what is read of it now and kept.

    Raises AdzError for a base that transformers cannot describe.
    """
    return read_outline(base) or _read(base)


def _read(base: BaseRecord) -> Outline:
    import torch

    layout, threads = read_layout(empty_base(base)), torch.get_num_threads()
    kept = keep_tokenizer(load_tokenizer(base))
    write_outline(base, layout, threads, kept)
    return Outline(layout, threads, KeptTokenizer(kept) if kept else None)


def read_layout(model: Any) -> Layout:
    """The layout of a base, whose parameters are all frozen; shapes are enough (`meta`)."""
    output = model.get_output_embeddings()
    named = [(name, module) for name, module in model.named_modules() if name]
    return Layout(
        tuple(_base_module(name, module) for name, module in named),
        next((name for name, module in named if module is output), None),
        any(p.dim() > 2 for p in model.parameters()),
    )


def matrices(name: str, module: torch.nn.Module) -> list[str]:
    """What of a module, whose whole name is given, is named where it is not adapted; nothing where
    it has a trainable parameter."""
    end = name.rsplit(".", 1)[-1]
    own = {n: p for n, p in module.named_parameters(recurse=False) if p.dim() > 1}
    if any(p.requires_grad for p in own.values()):
        return []
    if hasattr(module, "in_features"):
        # A quantised layer holds its weight under other names, or in buffers.
        return [end]
    return [end if n == "weight" else f"{end}.{n}" for n in own]


def _base_module(name: str, module: Any) -> BaseModule:
    import torch
    from transformers.pytorch_utils import Conv1D

    size = None
    if type(module) is torch.nn.Linear:
        size = (module.in_features, module.out_features)
    elif type(module) is Conv1D:
        size = (module.nx, module.nf)
    linear = hasattr(module, "in_features") or isinstance(module, Conv1D)
    return BaseModule(name, linear, size, tuple(matrices(name, module)))
